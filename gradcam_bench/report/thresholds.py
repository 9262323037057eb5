"""What chosen thresholds are worth, as tables: methods down, policies across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradcam_bench.report.table import DIRECTIONS, MISSING

NAMES = {
    "fixed": "fixed",
    "validation": "validation",
    "cross_fitted": "cross-fitted",
    "oracle": "oracle (leak)",
    "image_oracle": "image oracle (leak)",
}
GAP = "gap"


@dataclass(frozen=True)
class Thresholds:
    """One metric under one protocol in one setting. numbers: methods x policies and the leakage gap, in percent, which
    is how much better the oracle looks than the cross-fitted threshold. at: the thresholds of the policies that have
    one, methods x policies; empty where several IoUs are demanded, each with its own."""

    title: str
    direction: str
    numbers: pd.DataFrame
    at: pd.DataFrame

    @property
    def heads(self) -> list[str]:
        return [NAMES.get(str(name), str(name)) for name in self.numbers.columns]

    def cells(self, method: str) -> list[str]:
        """Each number as printed, the threshold in brackets behind it."""
        numbers, at = self.numbers.loc[method].to_dict(), self.at.loc[method].to_dict()
        printed = [MISSING if np.isnan(number) else f"{number:.1f}" for number in numbers.values()]
        chosen = [at.get(policy, np.nan) for policy in numbers]
        return [text if np.isnan(t) else f"{text} ({t:.2f})" for text, t in zip(printed, chosen, strict=True)]


def boards(table: pd.DataFrame, directions: dict[str, bool | None], order: Sequence[str] = ()) -> list[Thresholds]:
    """A table for each setting, metric and protocol of `analysis.policies.policies`; of several IoUs demanded the mean
    over them. directions: of the metrics. order: of the methods, others behind them."""
    place = {method: number for number, method in enumerate(order)}
    table = table.sort_values("method", key=lambda names: names.astype(str).map(place), kind="stable")
    names = ["dataset", "model", "stage", "metric", "protocol"]
    return [
        _board(tuple(map(str, key)), part, directions.get(str(key[3])))
        for key, part in table.groupby(names, sort=False, observed=True)
    ]


def _board(key: tuple[str, ...], part: pd.DataFrame, rising: bool | None) -> Thresholds:
    several = len(part["iou"].dropna().unique()) > 1
    shown = part[part["iou"].isna()] if several else part
    policies = [name for name in NAMES if name in set(shown["policy"])]
    numbers, at = (
        shown.set_index(["method", "policy"])[name].unstack()[policies].reindex(shown["method"].unique())  # noqa: PD010
        for name in ("value", "threshold")
    )
    numbers = 100 * numbers
    if "cross_fitted" in policies:
        worse, better = ("oracle", "cross_fitted") if rising is False else ("cross_fitted", "oracle")
        numbers[GAP] = numbers[better] - numbers[worse]
    dataset, model, stage, metric, protocol = key
    where = f"{dataset} · {model}" + ("" if stage == "trained" else f" · {stage}")
    return Thresholds(f"{metric}, {protocol} ({where})", DIRECTIONS[rising], numbers, at.dropna(axis=1, how="all"))


def as_text(board: Thresholds) -> str:
    """The table in plain monospaced text."""
    rows = [["method", *board.heads], *([str(m), *board.cells(str(m))] for m in board.numbers.index)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    rule = "  ".join("─" * width for width in widths)
    return "\n".join(
        [f"{board.title}, in %, {board.direction}, by how its threshold is chosen", lines[0], rule, *lines[1:]]
    )
