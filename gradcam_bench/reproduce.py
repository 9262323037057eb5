"""A paper's experiment: its runs with the exact protocol, and the published numbers beside ours.

`reproduce NAME` writes <results>/<name>/reproduction.csv and reproduction.html; `--smoke` runs the same on drawn
pictures in the same layouts, into <results>/<name>-smoke/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from gradcam_bench import needs
from gradcam_bench.commands import run
from gradcam_bench.comparison import COLUMNS, FURTHER, Done, compare
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.experiments import Experiment, PaperRun, experiment, names, placed
from gradcam_bench.fidelity import departures
from gradcam_bench.files import atomically
from gradcam_bench.report import reproduction
from gradcam_bench.terminal import say
from gradcam_bench.twins import everything

__all__ = ["COLUMNS", "FURTHER", "Asked", "experiment", "names", "reproduce"]

SMOKE = ("limit=4", "batch_size=4", "workers=0")
SHAPES = "+dataset.classes=[disc,square,triangle,cross,star,ring,crescent,heart,arrow,hourglass]"
TWIN = {"voc": (SHAPES,), "openimages": ("dataset.classes={root}/openimages_classes.txt",)}  # beyond dataset.root
NUMBERS = ("ours", "ci_low", "ci_high", "difference", "tolerance", "n")  # columns of the table; the others are text
SMOKED = "a smoke test on drawn pictures"
Configure = Callable[[Sequence[str]], dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """What the user wants. overrides: for every run. places: folders by name (`root` serves for all). only: runs, or
    what their names begin with. vouched: the weights that the user gives are said to be the paper's."""

    overrides: Sequence[str] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    smoke: bool = False
    vouched: bool = False
    force: bool = False


def reproduce(name: str, asked: Asked, configure: Configure) -> int:
    """Runs an experiment, or those of its runs that are asked for, and writes reproduction.csv (COLUMNS, then FURTHER)
    and reproduction.html. Returns 0."""
    chosen, asked = _opened(name, asked)
    done: dict[str, Done] = {}
    wrong: list[UserError] = []
    for number, key in enumerate(asked.only, 1):
        say(f"{chosen.name}, {key} ({number} of {len(asked.only)})")
        try:
            config = configure(_words(chosen, key, asked))
            folder = run(config | {"experiment": chosen.name}, asked.force, f"-{key}")
        except UserError as error:
            say(f"left out: {error}")
            wrong.append(error)
            done[key] = Done(Path(), chosen.runs[key], missing=str(error))
            continue
        if folder is None:  # a rank of torchrun that does not report
            return 0
        done[key] = _done(chosen, key, asked, configure, config, folder)
    if len(wrong) == len(done):
        raise wrong[0]
    home = next(one.folder.parent for one in done.values() if not one.missing)
    path = home / "reproduction.csv"
    table = compare([one for one in chosen.quantities if one.cell.run in done], done)
    table = _with_others(table, path, chosen)
    atomically(path, lambda file: table.to_csv(file, index=False))
    page = reproduction.write(home / "reproduction.html", chosen.name, chosen.about, chosen.needs, table)
    print(_text(table))
    print(f"table: {path}\npage: {page}")
    return 0


def check(name: str, asked: Asked, configure: Configure) -> int:
    """Says what each run takes and what of it is here. Returns 0 if all is, 1 if something is missing."""
    chosen, asked = _opened(name, asked)
    configured = {
        key: partial(lambda key: configure(_words(chosen, key, asked)), key) for key in chosen.runs if key in asked.only
    }
    given = [word.partition("=")[2] for word in asked.overrides if word.startswith("results=")]
    found = needs.check(chosen, configured, given[-1] if given else "results")
    print(needs.as_text(chosen, found))
    return 0 if all(need.there for need in found) else 1


def _opened(name: str, asked: Asked) -> tuple[Experiment, Asked]:
    """The experiment (the smoke test's, where that is asked for), and which of its runs are wanted."""
    chosen = experiment(name)
    for start in asked.only:
        if not any(key.startswith(start) for key in chosen.runs):
            raise unknown(f"run of {chosen.name}", start, chosen.runs)
    wanted = tuple(key for key in chosen.runs if not asked.only or key.startswith(tuple(asked.only)))
    if asked.smoke:
        runs = {key: _smoked(one) for key, one in chosen.runs.items()}
        chosen = replace(chosen, name=f"{chosen.name}-smoke", runs=runs)
        asked = replace(asked, places={"root": str(everything.root())})
    root = [word.partition("=")[2] for word in asked.overrides if word.startswith("dataset.root=")]
    places = {"root": root[-1]} if root and not asked.smoke else {}
    given = {key: str(Path(place).expanduser()) for key, place in {**places, **asked.places}.items()}
    return chosen, replace(asked, places=given, only=wanted)


def _smoked(one: PaperRun) -> PaperRun:
    """A run on the twin: the same data sets by the same readers, a small network, few images, fewer steps."""
    kept = [word for word in one.set if not word.startswith(("model.", "limit=", "batch_size="))]
    models = [word for word in kept if word.startswith("model=") and word != "model=none"]
    network = ["model=scenes_gap"] if models else []
    if any(word.startswith("model=") for word in one.smoke):
        network = []
    extra = [word for name, words in TWIN.items() if f"dataset={name}" in kept for word in words]
    extra = [] if not models and "dataset=voc" not in kept else extra
    kept = [word for word in kept if word not in models]
    return replace(one, set=(*kept, *network, *extra, *SMOKE, *one.smoke), differs=SMOKED)


def _words(chosen: Experiment, key: str, asked: Asked) -> list[str]:
    return placed(chosen, key, asked.overrides, asked.places)


def _done(
    chosen: Experiment, key: str, asked: Asked, configure: Configure, config: Mapping[str, Any], folder: Path
) -> Done:
    """The finished run, with what the user changed of the paper's."""
    mine = [one for one in chosen.quantities if one.cell.run == key]
    beyond = [word for word in asked.overrides if not word.startswith("dataset.root=")]
    changed: dict[str, dict[str, Any]] = {}
    if beyond and not asked.smoke:
        places = dict.fromkeys([*asked.places, "root"], "unknown") | dict(asked.places)
        own = configure(placed(chosen, key, [], places))
        changed = {one.identity: departures(own, config, one) for one in mine}
    return Done(folder, chosen.runs[key], changed, asked.vouched)


def _with_others(table: pd.DataFrame, path: Path, chosen: Experiment) -> pd.DataFrame:
    """The table with the lines of earlier calls that ran other runs of the experiment; in the experiment's order."""
    order = {one.identity: number for number, one in enumerate(chosen.quantities)}
    if path.is_file():
        text = [name for name in table if name not in NUMBERS]
        before = pd.read_csv(path, dtype=dict.fromkeys(text, str)).fillna(dict.fromkeys(text, ""))
        if list(before.columns) == list(table.columns):
            before = before[~_keys(before).isin(_keys(table)) & _keys(before).isin(order)]
            table = pd.concat([table, before.astype(table.dtypes)], ignore_index=True) if len(before) else table
    return table.iloc[_keys(table).map(order).argsort(kind="stable")].reset_index(drop=True)


def _keys(table: pd.DataFrame) -> pd.Series[str]:
    """Each line's `Quantity.identity`."""
    named = table["id"].where(table["id"] != "", table["quantity"])
    return named + " " + table["cell"]


def _text(table: pd.DataFrame) -> str:
    shown = table[["quantity", "published", "ours", "ci_low", "ci_high", "difference", "verdict"]]
    return shown.to_string(index=False, float_format=lambda value: f"{value:.2f}")
