"""What a whole `gradcam-bench run` costs, as a ratio to decoding the same images and passing them through the network.

    python scripts/bench_pipeline.py [--models resnet50 mobilenet_v2] [--images 200] [--rounds 3] [--workers 2]

Draws JPEG pictures (500x375, one annotated object each) into a temporary folder. `bare` reads, decodes, resizes and
normalises them in as many worker processes and passes them through the network in `torch.inference_mode`, float32,
batches of 8, and keeps nothing. `loop` is explain and score: eight CAMs, MaxBoxAcc (v1), MaxBoxAccV2 and the pointing
game, maps and rows stored. `run` is the verb: the loop, then merging, summary, plots and page. Interleaved, the order
turning; medians of the rounds' ratios. Random weights.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from gradcam_bench import cli, commands, pipeline
from gradcam_bench.drawing import draw
from gradcam_bench.loading import load
from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.runs import as_run
from gradcam_bench.samples import Samples
from gradcam_bench.setup import setup
from gradcam_bench.store import Store

METHODS = "cam,grad_cam,grad_cam_pp,x_grad_cam,hires_cam,layer_cam,elementwise_grad_cam,eigen_cam"


def pictures(root: Path, count: int) -> None:
    """Scenes, enlarged to 500x375 and saved as JPEG, each with the box of its largest object."""
    (root / "images").mkdir(parents=True)
    lines = ["image_id,class_index,x0,y0,x1,y1"]
    for number in range(count):
        scene = draw(number, 7)
        height, width = scene.instances.shape
        Image.fromarray(scene.image).resize((500, 375), Image.Resampling.BICUBIC).save(
            root / "images" / f"{number:06d}.jpg", quality=90
        )
        largest = scene.areas.index(max(scene.areas))
        x0, y0, x1, y1 = (float(v) for v in scene.boxes[largest])
        sx, sy = 500 / width, 375 / height
        lines.append(
            f"{number:06d},{scene.labels[largest]},{x0 * sx:.0f},{y0 * sy:.0f},{x1 * sx - 1:.0f},{y1 * sy - 1:.0f}"
        )
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")


def configuration(root: Path, results: Path, model: str, workers: int) -> dict[str, object]:
    overrides = ["dataset=folder", f"dataset.root={root}", f"model={model}", "model.weights=none", f"workers={workers}"]
    overrides += [f"method=[{METHODS}]", "metric=[max_box_acc,pointing_game]", "preset=[wsol_2020_v1,wsol_2020_v2]"]
    return cli.configuration([*overrides, "view.resize=warp", "view.size=224", f"results={results}", "device=cpu"])


def arms(root: Path, model: str, workers: int) -> dict[str, Callable[[], float]]:
    network = torchvision_network(model, None)

    def bare() -> float:
        made = setup(configuration(root, root, model, workers))
        samples = Samples(made.dataset, network.preprocessing, next(iter(made.plan.views)), made.indices)
        start = time.perf_counter()
        for batches, _ in load(samples, 8, workers):
            for batch in batches:
                with torch.inference_mode():
                    network.module(batch.images)
        return time.perf_counter() - start

    def loop() -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = configuration(root, Path(folder), model, workers)
            made = setup(config)
            start = time.perf_counter()
            pipeline.run(as_run(config, made, Store(Path(folder)), made.indices))
            return time.perf_counter() - start

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = configuration(root, Path(folder), model, workers)
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                commands.run(config)
            return time.perf_counter() - start

    return {"bare": bare, "loop": loop, "run": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2"])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    known = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {known.images} images, {known.workers} workers\n")
    print("| model | decode and forward, ms/image | explain and score | whole run |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pictures"
        pictures(root, known.images)
        for model in known.models:
            works = arms(root, model, known.workers)
            seconds: dict[str, list[float]] = {name: [] for name in works}
            names = list(works)
            for number in range(known.rounds):
                for name in names[number % 3 :] + names[: number % 3]:
                    seconds[name].append(works[name]())
            bare = seconds["bare"]
            ratios = [statistics.median(a / b for a, b in zip(seconds[n], bare, strict=True)) for n in ("loop", "run")]
            milliseconds = 1000 * statistics.median(bare) / known.images
            print(f"| {model} | {milliseconds:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
