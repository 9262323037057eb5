"""Sanity checks as curves: how alike a map is to the trained network's, stage by stage, one line a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from gradcam_bench.analysis.summary import over_draws
from gradcam_bench.report.curves import scored
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.panels import Plot, Step, Steps, slug

QUARTILES = (0.25, 0.75)
KEYS = ["dataset", "model", "order", "metric", "protocol"]
XLABELS = {
    "cascade_down": "weights random from the output down to",
    "cascade_up": "weights random from the input up to",
    "independent": "weights random in",
}
CAPTION = (
    "Similarity with the trained network's map as weights are randomised ({order}): means over cases, bands from the "
    "lower to the upper quartile. 1 on the left is the trained network itself. Controls are grey and dashed: edges see "
    "no weights and never change, noise is like nothing. That a map changes is necessary, not a merit: a curve that "
    "falls faster is no better method."
)


def over_stages(inputs: Inputs) -> Iterator[Plot]:
    """A plot for each (dataset, model, order) of a run's stages, a panel for each similarity."""
    rows = scored(inputs.rows.frame)
    rows = rows[rows["stage"].astype(str).str.contains("/")]
    if not len(rows):
        return
    rows = rows.assign(order=rows["stage"].astype(str).str.partition("/")[0], curve=None)
    parts = {tuple(map(str, key)): part for key, part in rows.groupby(KEYS, sort=False, observed=True)}
    places = list(dict.fromkeys(key[:3] for key in parts))
    for place in places:
        mine = {key[3:]: part for key, part in parts.items() if key[:3] == place}
        panels = tuple(
            _panel(metric, protocol, part, inputs.methods, place[2]) for (metric, protocol), part in mine.items()
        )
        several = len({key[:2] for key in places}) > 1
        named = place if several else place[2:]
        heading = " · ".join(named).replace("_", " ")
        yield Plot("stages", slug("stages", *named), heading, CAPTION.format(order=place[2].replace("_", " ")), panels)


def _panel(metric: str, protocol: str, part: pd.DataFrame, methods: Sequence[str], order: str) -> Steps:
    stages = sorted(part["stage"].astype(str).unique())
    place = {stage: number for number, stage in enumerate(stages, 1)}
    lines = []
    for method in methods:
        mine = part[part["method"].astype(str) == method]
        if len(mine):
            lines.append(_line(method, mine, place))
    names = ("trained", *(stage.partition(":")[2] for stage in stages))
    return Steps(f"{metric}\n{protocol}", f"{metric} (1: the same map)", names, tuple(lines), XLABELS.get(order, ""))


def _line(method: str, mine: pd.DataFrame, place: dict[str, int]) -> Step:
    """A method's mean and quartiles over cases at each stage; the trained network's map is like itself."""
    x, y, low, high = [0], [1.0], [1.0], [1.0]
    for stage, group in mine.groupby(mine["stage"].astype(str), sort=True):
        values = over_draws(group)["value"].to_numpy(dtype=float)
        x.append(place[str(stage)])
        y.append(float(values.mean()))
        quartiles = np.quantile(values, QUARTILES)
        low.append(float(quartiles[0]))
        high.append(float(quartiles[1]))
    return Step(method, np.array(x), np.array(y), np.array(low), np.array(high))
