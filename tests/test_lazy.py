"""What can be answered at once is: torch, seconds of it, is imported when it is needed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import gradcam_bench
from gradcam_bench import api

LIGHT = [
    "import gradcam_bench",
    "import gradcam_bench.pytest_gate",
    "from gradcam_bench import cli; cli.main(['list', 'methods'])",
    "from gradcam_bench import cli; cli.main(['--help'])",
    "from gradcam_bench import cli; cli.main(['completion', 'bash'])",
    "from gradcam_bench import cli; cli.main(['_complete', 'words', '', 'run', 'method=[grad_c'])",
    "from gradcam_bench import cli; cli.main(['rn'])",
]


@pytest.mark.parametrize("code", LIGHT)
def test_torch_is_not_imported(code: str) -> None:
    heavy = "sorted({'torch', 'pandas', 'hydra', 'numba'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_has_its_functions() -> None:
    importlib.import_module("gradcam_bench.explain")  # it does not take the function's place

    for name in ("annotate", "boxes", "explain", "normalize", "rectify", "resize", "score"):
        assert getattr(gradcam_bench, name) is getattr(api, name)
        assert name in dir(gradcam_bench)
    assert gradcam_bench.__version__
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        _ = gradcam_bench.explian
    from gradcam_bench import explain

    assert explain is api.explain


def test_modules_can_be_imported_in_any_order() -> None:
    code = "import gradcam_bench.explain, gradcam_bench as gb; assert callable(gb.explain), gb.explain"
    subprocess.run([sys.executable, "-c", code], check=True)
