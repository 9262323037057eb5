"""What of a run can be set beside a baseline: under which of its protocols, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.baseline import Baseline
from gradcam_bench.finished import Finished, Protocol, apart, differing
from gradcam_bench.terms import ALLOWED, Terms

LABELS = ["metric", "protocol", "method"]


def partners(now: Baseline, baseline: Baseline, allow: Sequence[str]) -> dict[Protocol, Protocol]:
    """The baseline's protocols, each with the run's that it is judged by: the one of its name, or else one that differs
    from it in nothing but what is allowed. Those that have none are left out."""
    found = {}
    for wanted in baseline.cells:
        named = [one for one in now.cells if one == wanted]
        alike = [one for one in now.cells if allow and one[0] == wanted[0]]
        alike = [one for one in alike if not set(apart(baseline.card(wanted), now.card(one))) - _names(allow)]
        if named or alike:
            found[wanted] = (named or alike)[0]
    return found


def incomparable(
    run: Finished,
    problems: pd.DataFrame,
    now: Baseline,
    baseline: Baseline,
    key: tuple[str, str, str],
    own: Protocol | None,
    terms: Terms,
) -> str:
    """Why a check (metric, protocol, method) cannot be made, empty where it can. problems: `problems_of` the run. own:
    the run's protocol that answers to the baseline's."""
    metric, protocol, method = key
    if own is None:
        rivals = [one for one in now.cells if one[0] == metric]
        if not rivals:
            return f"the run has no score of {metric}"
        cards = baseline.card(key[:2]), now.card(rivals[0])
        return f"the run has {metric} under {rivals[0][1]}: they differ in {differing(*cards)}{_advice(apart(*cards))}"
    left = {*apart(baseline.card(key[:2]), now.card(own))} - _names(terms.allow)
    if left:
        return f"{protocol} is not what it was: they differ in {', '.join(sorted(left))}"
    if method not in now.cells[own]:
        return f"the run has no score of {method}"
    cell, known = now.cells[own][method], baseline.cells[key[:2]][method]
    if not terms.unpaired and not set(_ids(cell)) & set(_ids(known)):
        return "no case in common (two independent samples of one data set: --unpaired)"
    gone = set(_ids(known)) - set(_ids(cell))
    lost = _lost(run, problems, [*own, method], gone)
    if not (terms.unpaired or terms.partial) and len(gone) > lost.total():
        lost["not in the run; of fewer images on purpose: --partial"] = len(gone) - lost.total()
    if lost:
        return f"{lost.total()} of {len(known.images)} cases of the baseline have no score ({', '.join(lost)})"
    return ""


def problems_of(run: Finished) -> pd.DataFrame:
    """The rows of the network as trained that have no score, and why."""
    frame = run.rows.frame
    mine = frame[frame["problem"].notna()]
    return mine.loc[mine["stage"].astype(str) == "trained", [*LABELS, "case_id", "problem"]].astype(str)


def _names(allow: Sequence[str]) -> set[str]:
    return {f"view.{name}" for name in allow}


def _advice(choices: Iterable[str]) -> str:
    """How to have a check made after all that only choices of the view stand against."""
    names = [name.removeprefix("view.") for name in choices]
    return f" (--allow {','.join(names)} judges it all the same)" if names and set(names) <= set(ALLOWED) else ""


def _lost(run: Finished, problems: pd.DataFrame, key: Sequence[str], gone: set[str]) -> Counter[str]:
    """Of the cases that were scored once and are not now, those that the run tried, by what came between."""
    mine = problems[(problems[LABELS] == list(key)).all(axis=1) & problems["case_id"].isin(list(gone))]
    skipped = {entry["image_id"] for entry in run.facts["skipped"]}
    unread = [case for case in gone - set(mine["case_id"]) if case.rpartition("#")[0] in skipped]
    return Counter([*mine.drop_duplicates("case_id")["problem"], *["picture skipped"] * len(unread)])


def _ids(cell: Cell) -> Iterator[str]:
    return (f"{image}#{label}" for image, label in zip(cell.images, cell.classes, strict=True))
