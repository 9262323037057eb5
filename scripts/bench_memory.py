"""Peak memory of a run against the size of its data set, each run in a process of its own.

    python scripts/bench_memory.py [--images 100 1000 5000] [overrides ...]

Draws tiny pictures with a box each, explains them with every method on the small scenes network at 64x64 pixels, and
prints the peak of the process (getrusage) up to each stage's end, and the sizes of what the run has written.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gradcam_bench import catalogue

RUN = """
import resource, sys
from gradcam_bench import commands
from gradcam_bench.cli import main
from gradcam_bench.store import Store

peaks = []

def noting(function):
    def noted(*arguments):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return function(*arguments)
    return noted

Store.merge, commands.write_report = noting(Store.merge), noting(commands.write_report)
code = main(sys.argv[1:])
noting(print)()
print("peaks", *peaks)
sys.exit(code)
"""
STAGES = ("explained", "merged", "reported")


def pictures(root: Path, count: int) -> None:
    """Pictures of 64x48 noisy pixels, a bright rectangle in each, which is its box; ten classes in turn."""
    (root / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = ["image_id,class_index,x0,y0,x1,y1"]
    for number in range(count):
        pixels = generator.integers(0, 96, (48, 64, 3), dtype=np.uint8)
        x, y = int(generator.integers(0, 40)), int(generator.integers(0, 24))
        pixels[y : y + 20, x : x + 20] += 128
        Image.fromarray(pixels).save(root / "images" / f"{number:06d}.png", compress_level=1)
        lines.append(f"{number:06d},{number % 10},{x},{y},{x + 19},{y + 19}")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")


def measure(root: Path, results: Path, overrides: list[str]) -> list[float]:
    """Peak resident memory of one run in MiB, so far after each of its stages."""
    methods = ",".join(name for name in catalogue.names("method"))
    words = ["run", "dataset=folder", f"dataset.root={root}", f"results={results}", "name=one", f"method=[{methods}]"]
    words += [
        "model=scenes_gap",
        "model.weights=none",
        "view.resize=warp",
        "view.size=64",
        "batch_size=32",
        "workers=0",
    ]
    done = subprocess.run([sys.executable, "-c", RUN, *words, *overrides], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [float(peak) for peak in done.stdout.rpartition("peaks")[2].split()]


def size(path: Path) -> float:
    """MiB of a file or of all below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def main(counts: list[int], overrides: list[str]) -> None:
    print("peaks and sizes in MiB\nimages " + "".join(f"{name:>10}" for name in (*STAGES, "rows", "maps", "report")))
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            pictures(Path(place) / "data", count)
            peaks = measure(Path(place) / "data", Path(place), overrides)
            folder = Path(place) / "run" / "one"
            sizes = (size(folder / name) for name in ("rows.parquet", "maps", "report.html"))
            print(f"{count:6d} " + "".join(f"{value:10.1f}" for value in (*peaks, *sizes)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 5000])
    known, rest = parser.parse_known_args()
    main(known.images, rest)
