"""A paper's experiment as its file conf/experiment/paper/<name>.yaml says it.

    needs: what it takes, in words
    table: results/published/<table>.csv, if not the experiment's own name
    runs:                                # each one `gradcam-bench run`
      vgg16:
        set: [dataset=imagenet, "dataset.root={imagenet}", model=vgg16, ...]
        images: 50000                    # in the paper's data, all of which count
      alexnet: {like: vgg16, set: [model=alexnet]}
    quantities:                          # which published number stands beside which cell of which run
      - {published: table_1/vgg_16/grad_cam/loc_error_top_1, run: vgg16, method: grad_cam, metric: ..., preset: ...}

`run`, `method` and `metric` of a quantity may be mappings from words to names: `published` then holds {run}, {method},
{metric} where the words go, and stands for every combination that the table has. A quantity with `claim` instead of
`published` is a sentence that the paper gives no number for: the cell lies above or below a number (`above: 0.25`) or
another cell (`below: {method: grad_cam}`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from gradcam_bench import catalogue, published
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.published import Published

KEYS = ("run", "method", "metric")


@dataclass(frozen=True)
class PaperRun:
    """One run. set: its overrides, {place} standing for a folder that the user gives. images: as many as the paper's
    number is over. available: as many as there are to take them from, where that is more.

    differs: what makes it another thing than the paper's, whatever the user gives: its numbers are never judged.
    weights: the paper's weights where those of the run are others: judged only if the user vouches for a file.
    smoke: overrides of the smoke test. cost: how long it takes, on what.
    """

    set: tuple[str, ...]
    images: int | None = None
    differs: str = ""
    weights: str = ""
    available: int | None = None
    smoke: tuple[str, ...] = ()
    cost: str = ""


@dataclass(frozen=True)
class Cell:
    """Where a number of ours is: of a run's summary. stage: `trained`, or of the first order of randomisation the stage
    of that number (from 1), or the `last`, the most random."""

    run: str
    method: str
    metric: str
    preset: str
    stage: str = "trained"

    def __str__(self) -> str:
        stage = "" if self.stage == "trained" else f"/{self.stage}"
        return f"{self.run}/{self.method}/{self.metric}/{self.preset}{stage}"


@dataclass(frozen=True)
class Quantity:
    """A published number, or a claim, and the cell that stands beside it.

    claim: (sentence, source). bound: what the claim compares the cell with, a number or another cell; above: the cell
    is said to lie above it. tolerance: the difference that still agrees, in the number's unit; None: what rounding
    leaves, or our own interval. differs: what makes ours another thing than the paper's. complement: the paper prints
    1 - ours (an accuracy for an error). cases: how many units the whole of the data has, where that is known.
    """

    cell: Cell
    published: Published | None = None
    claim: tuple[str, str] = ("", "")
    bound: float | Cell | None = None
    above: bool = True
    tolerance: float | None = None
    differs: str = ""
    complement: bool = False
    cases: int | None = None

    @property
    def name(self) -> str:
        """In words, with run and preset, as a number may stand beside several of ours."""
        return f"{self.published.name} ({self.cell.run}, {self.cell.preset})" if self.published else self.claim[0]

    @property
    def identity(self) -> str:
        """What tells it from the others of its experiment."""
        return f"{self.published.id if self.published else self.claim[0]} {self.cell}"


@dataclass(frozen=True)
class Experiment:
    name: str
    about: str
    needs: str
    runs: Mapping[str, PaperRun]
    quantities: tuple[Quantity, ...] = field(default_factory=tuple)


def names() -> list[str]:
    """The papers' experiments."""
    return [name.removeprefix("paper/") for name in catalogue.names("experiment") if name.startswith("paper/")]


def experiment(name: str) -> Experiment:
    """The experiment of that name, as its file says."""
    name = name.removeprefix("paper/")
    if name not in names():
        raise unknown("experiment", name, names())
    label = f"paper/{name}"
    spec = catalogue.spec("experiment", label)
    if "of" in spec:
        return _part(experiment(str(spec["of"])), label, spec)
    try:
        runs: dict[str, PaperRun] = {}
        for key, entry in spec["runs"].items():
            runs[key] = _run(entry, runs)
        made = [one for entry in spec.get("quantities", ()) for one in _quantities(entry, spec.get("table", name))]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"experiment {name}: its YAML file is not as it should be ({error!r})") from None
    for one in made:
        for cell in (one.cell, *([one.bound] if isinstance(one.bound, Cell) else [])):
            if cell.run not in runs:
                raise unknown(f"run of '{one.name}' in experiment {name}", cell.run, runs)
    return Experiment(name, catalogue.about("experiment", label), str(spec.get("needs", "")).strip(), runs, tuple(made))


def _part(whole: Experiment, label: str, spec: Mapping[str, Any]) -> Experiment:
    """Some runs of another experiment, under a name of their own."""
    runs = {key: whole.runs[key] for key in spec["runs"]}
    kept = tuple(one for one in whole.quantities if one.cell.run in runs)
    name = label.removeprefix("paper/")
    return Experiment(name, catalogue.about("experiment", label), str(spec.get("needs", whole.needs)), runs, kept)


def _run(entry: Mapping[str, Any], before: Mapping[str, PaperRun]) -> PaperRun:
    """A run; `like` another one, it has what that has save what it sets itself."""
    given: dict[str, Any] = {key: tuple(part) if isinstance(part, list) else part for key, part in entry.items()}
    if "like" not in entry:
        return PaperRun(**given)
    like, own = before[given.pop("like")], given.pop("set", ())
    names = {word.partition("=")[0] for word in own}
    kept = [word for word in like.set if not ("dataset" in names and word.startswith("dataset."))]
    merged = {word.partition("=")[0]: word for word in (*kept, *own)}
    return replace(like, set=tuple(merged.values()), **given)


def _quantities(entry: Mapping[str, Any], paper: str) -> Iterator[Quantity]:
    """The quantities that an entry of a file stands for."""
    rest = {key: entry[key] for key in ("tolerance", "differs", "complement", "cases") if key in entry}
    choices = [entry[key].items() if isinstance(entry[key], Mapping) else [("", entry[key])] for key in KEYS]
    for picked in product(*choices):
        words = dict(zip(KEYS, (word for word, _ in picked), strict=True))
        where = dict(zip(KEYS, (name for _, name in picked), strict=True))
        cell = Cell(**where, preset=entry["preset"], stage=str(entry.get("stage", "trained")))
        if "claim" in entry:
            above, bound = "above" in entry, entry["above"] if "above" in entry else entry["below"]
            other = Cell(**{**vars(cell), **bound}) if isinstance(bound, Mapping) else float(bound)
            yield Quantity(cell, claim=(entry["claim"], entry["source"]), bound=other, above=above, **rest)
            continue
        identity = entry["published"].format(**words)
        several = any(words.values())
        if not several or identity in published.table(entry.get("table", paper)):
            yield Quantity(cell, published.find(entry.get("table", paper), identity), **rest)


def placed(chosen: Experiment, key: str, given: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """One run's overrides: the experiment's, its places filled in, then the user's.

    places: folder by name; `root`, from dataset.root=DIR, serves for all. A group that the user chooses anew
    (model=NAME, dataset=NAME, method=[...]) takes what the experiment sets of the old one with it.
    """
    own = [word for word in given if not word.startswith("dataset.root=")]
    anew = {word.partition("=")[0] for word in own if "." not in word.partition("=")[0]}
    kept = [word for word in chosen.runs[key].set if not _replaced(word, anew)]
    if "dataset" in anew:
        own = list(given)  # the new data's own root
    return [_filled(word, chosen, places) for word in kept] + own


def _replaced(word: str, anew: set[str]) -> bool:
    name = word.partition("=")[0]
    return name.partition(".")[0] in anew


def _filled(word: str, chosen: Experiment, places: Mapping[str, str]) -> str:
    """An override with its {place} filled in."""
    start, _, rest = word.partition("{")
    place, closed, end = rest.partition("}")
    if not closed:
        return word
    file = place.endswith("weights")
    if place not in places and (file or "root" not in places):
        flag = f"--data {place}={'FILE' if file else 'DIR'}" if place != "root" else "dataset.root=DIR"
        raise UserError(
            f"reproduce {chosen.name}: {flag} is missing ('{word}'); dataset.root=DIR serves for all, "
            f"--check says what is needed. {chosen.needs}"
        )
    return f"{start}{places.get(place, places.get('root'))}{end}"
