"""How often the gate is wrong, and what it sees: false alarms, power, regressions planted in the code.

    python scripts/simulate_gate.py [--scenes 4000] [--pairs 400] [--results DIR]

One large run of scenes in float32 and one in bf16 are the population; a pair of runs is drawn from them. A paired one
takes the same n scenes from both (without replacement); an unpaired one takes 2n scenes of the float32 run and deals
them into two halves, which differ as two independent draws of n scenes do. A loss of 3 points is planted in one metric
at a time: cases chosen at random, as many as it takes on average, get the worst score that there is. Regressions in
code are wrapped round the suite's functions here, run on the first scenes, and judged on draws of n of those.
Margins are 2 points, alpha is 5 %; every gate judges the four metrics together and, where the cases are the same, what
the network answers (margin: a point of probability). Prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench import commands, heatmaps, setup, shift, trial
from gradcam_bench.analysis.noninferiority import Check, Judgement, Loss, judge, losses
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.baseline import baseline_of
from gradcam_bench.finished import open_runs
from gradcam_bench.methods import gradient
from gradcam_bench.overrides import configuration
from gradcam_bench.shift import SHIFT, moved

MARGIN, ALPHA, LOSS = 0.02, 0.05, 0.03
RESAMPLES = 1000  # half of the gate's, for speed
FIRST = 500  # scenes that are run with a regression planted
CHOICES = [
    "stages=[explain,score]",
    "workers=0",
    "store=none",
    "dataset.split=val",
    "method=[grad_cam]",
    "metric=[pointing_game,energy_pointing_game,localization_error_gt_known,max_box_acc]",
    "preset=[default,grad_cam_2017,wsol_2020_v2]",
]
Cells = Mapping[str, tuple[Cell, str, bool]]  # metric -> cell, reduce, higher_is_better


def cells(results: Path, name: str, scenes: int, *more: str) -> Cells:
    """Grad-CAM's scored cases and the network's answers in a run of so many scenes, made or gone on with."""
    chosen = [f"results={results}", f"name={name}", f"dataset.root.count={scenes}", *more]
    folder = commands.run(configuration([*CHOICES, *chosen]))
    (run,) = open_runs([str(folder)])
    kept, found = baseline_of(run), {}
    for protocol, methods in kept.cells.items():
        card, (cell,) = kept.card(protocol), methods.values()
        cell = replace(cell, images=cell.images.astype(str))  # fixed-width: found again quickly
        found[protocol[0]] = cell, card["reduce"], card["higher_is_better"]
    return found


def of(population: Cells, images: np.ndarray) -> Cells:
    """The cases of some images."""
    found: dict[str, tuple[Cell, str, bool]] = {}
    for metric, (cell, reduce, direction) in population.items():
        mine = np.isin(cell.images, images)
        curves = None if cell.curves is None else cell.curves[mine]
        taken = Cell(cell.values[mine], curves, cell.classes[mine], cell.images[mine], cell.axes)
        found[metric] = taken, reduce, direction
    return found


def code(run: Cells, baseline: Cells, paired: bool) -> int:
    """The gate's exit code."""
    found: dict[str, Loss] = {}
    for metric, (cell, reduce, direction) in run.items():
        then = baseline[metric][0]
        if metric == SHIFT:
            cell, then = moved(cell, then)
        if metric != SHIFT or paired:
            found |= losses({metric: cell}, {metric: then}, reduce, direction, paired, RESAMPLES)
    margins = dict.fromkeys(found, MARGIN) | {SHIFT: shift.MARGIN}
    judged = judge(found, margins, ALPHA)
    return Judgement(tuple(Check(m, "", "grad_cam", margins[m], found[m], judged[m]) for m in found)).code


def spoilt(run: Cells, metric: str, rng: np.random.Generator) -> Cells:
    """A run that has lost LOSS points of one metric, on average."""
    cell, reduce, direction = run[metric]
    at = number(cell, reduce)
    worst = rng.random(len(cell.images)) < LOSS / (at if direction else 1 - at)
    values = np.where(worst, 0.0 if direction else 1.0, cell.values)
    curves = None if cell.curves is None else np.where(worst[:, None], np.float32(-1), cell.curves)
    return {**run, metric: (replace(cell, values=values, curves=curves), reduce, direction)}


def dealt(population: Cells, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two times n images that have none in common."""
    images = np.unique(next(iter(population.values()))[0].images)
    chosen = rng.permutation(images)[: 2 * n]
    return chosen[:n], chosen[n:]


def shares(codes: Counter[int]) -> str:
    return " | ".join(f"{100 * codes[verdict] / codes.total():.1f} %" for verdict in (0, 1, 2))


def layer_too_low(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda config: replace(make(config), layer="layer3")


def swapped(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(method)
    def transposed(evidence: Any) -> Tensor:
        return method(evidence).mT

    return transposed


def shifted(place: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *given, **named: torch.roll(place(*given, **named), (16, 16), (-2, -1))  # one cell of the 14x14 grid


def batch_statistics(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, norm.weight, norm.bias, True)


def faults() -> Iterator[tuple[str, Any]]:
    """Name, and what plants it while it is open."""
    yield "layer3 instead of layer4", mock.patch.object(setup, "make_network", layer_too_low(setup.make_network))
    yield "final ReLU dropped", mock.patch.dict(heatmaps.RECTIFY, relu=lambda maps: maps)
    yield "x and y swapped", mock.patch.object(gradient, "grad_cam", swapped(gradient.grad_cam))
    yield "resize shifted by 16 pixels", mock.patch.object(trial.Trial, "_place", shifted(trial.Trial._place))
    yield "batch norm in train mode", mock.patch.object(nn.BatchNorm2d, "forward", batch_statistics)


def outcome(draw: Callable[[np.random.Generator], tuple[Cells, Cells]], paired: bool, pairs: int, seed: int) -> str:
    """The exit codes of the gate on so many drawn pairs (run, baseline)."""
    rng = np.random.default_rng(seed)
    codes = Counter(code(*draw(rng), paired) for _ in range(pairs))
    return f"{pairs} | {shares(codes)} |"


def drawn(single: Cells, half: Cells, n: int, paired: bool, metric: str | None = None) -> Any:
    """What draws a pair of n scenes each, with a loss planted in a metric if one is given."""

    def draw(rng: np.random.Generator) -> tuple[Cells, Cells]:
        one, other = dealt(single, n, rng)
        run = of(half, one) if paired else of(single, other)
        return (spoilt(run, metric, rng) if metric else run), of(single, one)

    return draw


def some(broken: Cells, single: Cells, n: int) -> Any:
    """What draws n scenes of a broken run, beside the same ones of the whole one."""
    known = np.unique(next(iter(broken.values()))[0].images)

    def draw(rng: np.random.Generator) -> tuple[Cells, Cells]:
        images = rng.permutation(known)[:n]
        return of(broken, images), of(single, images)

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    single = cells(options.results, "float32", options.scenes)
    half = cells(options.results, "bf16", options.scenes, "precision=bf16")
    print("| what | n | pairs | 0 pass | 1 regression | 2 cannot be judged |\n|---|---|---|---|---|---|")
    for n in (200, 1000):
        for name, paired in (("no change, independent draws", False), ("no change, float32 and bf16, paired", True)):
            found = outcome(drawn(single, half, n, paired), paired, options.pairs, n)
            print(f"| {name} | {n} | {found}", flush=True)
    few = options.pairs // 4
    for metric in [one for one in single if one != SHIFT]:
        for how, paired in (("paired", True), ("independent draws", False)):
            found = outcome(drawn(single, half, 1000, paired, metric), paired, few, 1)
            print(f"| 3 points lost in {metric}, {how} | 1000 | {found}", flush=True)
    for index, (name, fault) in enumerate(faults()):
        with fault:
            broken = cells(options.results, f"fault{index}", options.scenes, f"limit={FIRST}")
        print(f"| {name}, paired | 100 | {outcome(some(broken, single, 100), True, few, 2)}", flush=True)


if __name__ == "__main__":
    main()
