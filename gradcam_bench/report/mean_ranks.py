"""Mean ranks of methods over images, with the critical difference: what ranks alone tell apart."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradcam_bench.analysis.ranks import friedman
from gradcam_bench.report.curves import scored
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.panels import Dots, Plot

CAPTION = (
    "Each image ranks the methods (1: best; equal ones share their ranks); marks are means over images, p is "
    "Friedman's. Bars are half a critical difference to either side: methods whose bars do not overlap differ at the "
    "5 % level (Nemenyi's test; Demšar 2006). This asks who is ahead on more images, not by how much; the letters of "
    "the leaderboard compare the numbers themselves."
)
KEYS = ["dataset", "model", "stage", "metric", "protocol"]


def mean_ranks(inputs: Inputs) -> Iterator[Plot]:
    """One plot, a panel for each metric and protocol that ranks and gives each case a value of its own."""
    rows = scored(inputs.rows.frame)
    rows = rows[rows["value"].notna() & ~rows["stage"].astype(str).str.contains("/")]
    parts = [(tuple(map(str, key)), part) for key, part in rows.groupby(KEYS, sort=False, observed=True)]
    settings = {key[:3] for key, _ in parts}
    panels = [_panel(key, part, inputs, len(settings) > 1) for key, part in parts]
    kept = tuple(panel for panel in panels if panel is not None)
    if kept:
        yield Plot("ranks", "ranks", "all metrics with a value a case", CAPTION, kept)


def _panel(key: tuple[str, ...], part: pd.DataFrame, inputs: Inputs, several: bool) -> Dots | None:
    metric, protocol = key[3:]
    card = inputs.run.get("protocols", {}).get(metric, {}).get(protocol, {})
    if card.get("higher_is_better") is None or card.get("reduce") not in ("mean", "class_mean"):
        return None
    table = part.assign(method=part["method"].astype(str)).groupby(["image_id", "method"], observed=True)["value"]
    values = table.mean().unstack().dropna()  # noqa: PD010
    if values.shape[1] < 3 or len(values) < 2:
        return None
    found = friedman(values.to_numpy(dtype=float), bool(card["higher_is_better"]))
    order = found.ranks.argsort(kind="stable")
    ranks = tuple(float(found.ranks[n]) for n in order)
    half = found.critical / 2
    apart = f" · {' · '.join(key[:3])}" if several else ""
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return Dots(
        f"{metric}\n{protocol}{apart} · {p}",
        f"mean rank ({found.n:,} images)",
        tuple(str(values.columns[n]) for n in order),
        ranks,
        tuple((rank - half, rank + half) for rank in ranks),
    )
