"""Whether the network under the heatmaps still answers as it did: the probability of each case's class.

Some faults change what a network says and hardly where it looks, such as a batch norm in train mode or another
normalisation of its input, and no score of heatmaps falls by them. With the same weights on the same case, that
probability is the same but for rounding, so a gate compares it beside the scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.choices import View
from gradcam_bench.finished import Finished, Protocol
from gradcam_bench.plan import view_id

SHIFT = "probability_shift"
MARGIN = 0.01  # a point on average; bf16 moves answers on scenes by a tenth of that
ABOUT = "Mean absolute change of the class's probability since the baseline, the weights being the same"


def answers(run: Finished) -> Iterator[tuple[Protocol, dict[str, Any], dict[str, Cell]]]:
    """The protocol, its card and the probabilities in [0, 1] of its cases, under the network's name, of each view of a
    run; none of a run without a network."""
    cards = [card for ids in run.facts["protocols"].values() for card in ids.values()]
    views = {view_id(View(**card["view"])): card["view"] for card in cards}
    asked = run.cases[run.cases["probability"].notna()].drop_duplicates(["view", "case_id"])
    for view, cases in asked.astype({"view": str}).groupby("view", sort=False):
        card = {"view": views[str(view)], "axes": {}, "reduce": "mean", "higher_is_better": False, "about": ABOUT}
        classes = cases["case_id"].astype(str).str.rpartition("#")[2].to_numpy()
        values = cases["probability"].to_numpy(np.float64)
        cell = Cell(values, None, classes, cases["image_id"].astype(str).to_numpy(), {})
        yield (SHIFT, run.facts["views"][view]), card, {run.facts["model"]: cell}


def moved(now: Cell, then: Cell) -> tuple[Cell, Cell]:
    """Of two cells of probabilities those of a loss: how far each case's is from what it was, and zeros."""
    known = {(image, label): value for image, label, value in zip(then.images, then.classes, then.values, strict=True)}
    keys = zip(now.images, now.classes, strict=True)
    apart = [abs(value - known.get(key, value)) for key, value in zip(keys, now.values, strict=True)]
    return replace(now, values=np.array(apart)), replace(then, values=np.zeros(len(then.values)))
