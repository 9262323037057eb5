"""The kernels as plain Python, in a process of its own, give what the compiled ones give."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import region_maps as maps

from gradcam_bench.regions.boxes import best_iou, regions

RULES = (
    ("components", 4),
    ("components", 8),
    ("largest_component", 4),
    ("wsol_v1", 8),
    ("wsol_v2", 8),
    ("layer_cam_2021", 8),
)
TRUTH = np.array([[1.0, 2.0, 9.0, 7.0], [0.5, 0.0, 4.0, 12.25]])


def some_maps():
    rng = np.random.default_rng(0)
    small = {f"small_{i}": maps.small(rng) for i in range(40)}
    return {**maps.special(), **small, "upsampled": maps.upsampled(rng, 7, (40, 56))}


def answers():
    found = {}
    for name, levels in some_maps().items():
        for rule, connectivity in RULES:
            there = regions(levels, rule, connectivity)
            key = f"{name}/{rule}/{connectivity}"
            found[f"{key}/iou"] = best_iou(levels, TRUTH, rule, connectivity)
            found[f"{key}/regions"] = np.column_stack([there.boxes, there.area, there.first, there.last])
    return found


@pytest.mark.parametrize("how", ["os.environ['NUMBA_DISABLE_JIT'] = '1'", "sys.modules['numba'] = None"])
def test_plain_python_equals_numba(how, tmp_path):
    script = f"""
import os, sys
{how}
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import test_regions_uncompiled
from gradcam_bench.regions.tree import component_records
assert type(component_records).__name__ == "function"
np.savez({str(tmp_path / "answers.npz")!r}, **test_regions_uncompiled.answers())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, compiled = np.load(tmp_path / "answers.npz"), answers()
    assert set(plain) == set(compiled)
    for key, value in compiled.items():
        np.testing.assert_array_equal(plain[key], value, err_msg=key)
