"""A finished run as a table of cells: what its numbers are made of, for whoever compares them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench import record
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.analysis.summary import cell_of
from gradcam_bench.axes import AXES
from gradcam_bench.cells import Rows
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.files import read_table
from gradcam_bench.record import flatten

Protocol = tuple[str, str]  # metric, protocol id
Card = Mapping[str, Any]  # what is behind a protocol


@dataclass(frozen=True, eq=False)
class Finished:
    """name: what tells it from the other runs that are looked at. facts: its run.json."""

    name: str
    folder: Path
    facts: Mapping[str, Any]
    rows: Rows

    @property
    def protocols(self) -> list[Protocol]:
        """What it was scored by, in the order of its rows."""
        scored = self._scored[["metric", "protocol"]].astype(str).drop_duplicates()
        return list(scored.itertuples(index=False, name=None))

    @property
    def data(self) -> dict[str, Any]:
        """What the pictures and annotations are: the fingerprint of all there are (limit= takes the first of them) and
        the choices that led there."""
        chosen = record.flatten({"dataset": record.load_config(self.folder)["dataset"]})
        return {"fingerprint": self.facts.get("dataset_fingerprint"), **chosen}

    @property
    def inputs(self) -> dict[str, Any]:
        """Data, weights, methods and their versions as the run began; empty for a run that kept no such record."""
        path = self.folder / "inputs.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def card(self, metric: str, protocol: str) -> Mapping[str, Any]:
        """What is behind a protocol: view, axes, reduce, higher_is_better."""
        found: Mapping[str, Any] = self.facts["protocols"][metric][protocol]
        return found

    def cells(self, metric: str, protocol: str, methods: tuple[str, ...] = ()) -> dict[str, Cell]:
        """The scored units of each method under one protocol, of the network as trained; methods: only these."""
        card, frame = self.card(metric, protocol), self._scored
        mine = frame[(frame["metric"].astype(str) == metric) & (frame["protocol"].astype(str) == protocol)]
        return {
            str(method): cell_of(self.rows.with_curves(group), card["axes"])
            for method, group in mine.groupby("method", sort=False, observed=True)
            if not methods or str(method) in methods
        }

    @cached_property
    def cases(self) -> pd.DataFrame:
        return read_table(self.folder / "cases.parquet")

    @cached_property
    def _scored(self) -> pd.DataFrame:
        frame = self.rows.frame
        return frame[frame["problem"].isna() & (frame["stage"].astype(str) == "trained")]


def open_runs(folders: list[str]) -> list[Finished]:
    """The runs in some folders, each under the shortest name that no other has. Raises UserError for what is none."""
    paths = [Path(folder) for folder in folders]
    for path in paths:
        record.load_config(path)  # it is a run
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        raise UserError(f"{next(folders[n] for n, path in enumerate(whole) if path in whole[:n])} is given twice")
    names = [path.name for path in whole]
    if len(set(names)) < len(names):
        names = ["/".join(path.parts[-2:]) for path in whole]
    if len(set(names)) < len(names):
        names = [str(path) for path in whole]
    return [
        Finished(name, path, record.load_run(path), Rows.open(path / "rows.parquet"))
        for name, path in zip(names, paths, strict=True)
    ]


def apart(one: Card, other: Card) -> dict[str, tuple[Any, Any]]:
    """Where two protocols' cards differ: choices of the view, but for the seed, axes, and what statistics become. A
    choice that there was not yet when a card was written is what it is where nobody chooses."""
    left, right = (
        flatten({"view": card["view"], **card["axes"], **{k: card.get(k) for k in ("reduce", "higher_is_better")}})
        for card in (one, other)
    )
    names = sorted({*left, *right} - {"view.seed"})
    unchosen = flatten({"view": asdict(View()), **{name: axis.default for name, axis in AXES.items()}})
    pairs = {name: (left.get(name, unchosen.get(name)), right.get(name, unchosen.get(name))) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def differing(one: Card, other: Card) -> str:
    """`apart` in words: `axis (here / there)`."""
    return ", ".join(f"{name} ({here} / {there})" for name, (here, there) in apart(one, other).items()) or (
        "their presets' names alone"
    )
