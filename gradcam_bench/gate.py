"""gate: whether a run's numbers are as good as a baseline's, for continuous integration.

A check is one metric, protocol and method of the baseline. What the run cannot be compared in (another protocol, a
method or cases that it lacks) is a check that cannot be judged, so that nothing passes by not being there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from gradcam_bench.analysis.noninferiority import UNDECIDED, Check, Judged, Judgement, Loss, judge, losses
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.baseline import Baseline, baseline_of, maps_hashes, read, write
from gradcam_bench.compare import choices, differing
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import write_text
from gradcam_bench.finished import Finished, Protocol, open_runs
from gradcam_bench.record import flatten
from gradcam_bench.report import verdicts
from gradcam_bench.terms import Terms

Key = tuple[str, str, str]
LABELS = ["metric", "protocol", "method"]  # of a key
CHANGES = ("versions", "platform", "device", "model", "weights", "layer", "preprocessing", "seed")


def gate(
    folder: str,
    file: str,
    terms: Terms,
    update: bool = False,
    junit: str | None = None,
    markdown: str | None = None,
    github: bool = False,
) -> int:
    """Judges the run in a folder by a baseline file: 0 it is as good, 1 it is worse, 2 that cannot be judged. update:
    writes the baseline from the run instead. junit, markdown: files to write; github: annotations on the terminal."""
    (run,) = open_runs([folder])
    path = Path(file)
    if update:
        made = baseline_of(run, hashed=True)
        write(path, made)
        print(f"{path}: {sum(map(len, made.cells.values()))} checks, {path.stat().st_size / 1e3:.0f} kB")
        return 0
    found = judgement(run, read(path), terms)
    print(verdicts.as_text(found))
    if junit:
        write_text(Path(junit), verdicts.as_junit(found))
    if markdown:
        write_text(Path(markdown), verdicts.as_markdown(found))
    if github or os.environ.get("GITHUB_ACTIONS") == "true":
        print(verdicts.as_annotations(found))
    return found.code


def judgement(run: Finished, baseline: Baseline, terms: Terms) -> Judgement:
    """Every check of the baseline that the terms ask for, judged. Raises UserError where the two have nothing in
    common that could be judged, or the terms name what the baseline lacks."""
    keys = _wanted(baseline, terms)
    _same_data(run, baseline, terms)
    now = baseline_of(run)
    problems = _problems(run)
    reasons = {key: _incomparable(run, problems, now, baseline, key, terms) for key in keys}
    found: dict[Key, Loss] = {}
    for protocol in dict.fromkeys(key[:2] for key in keys):
        methods = [key[2] for key in keys if key[:2] == protocol and not reasons[key]]
        found |= _losses(now, baseline, protocol, methods, terms.unpaired)
    margins = {key: terms.margin_of(key[0]) for key in keys}
    judged = judge(found, margins, terms.alpha)
    for key, loss in found.items():
        if not np.isfinite(loss.error):
            reasons[key] = f"{loss.images} image is too few"
    nothing = Judged(UNDECIDED, np.nan, np.nan)
    checks = [
        Check(*key, margins[key], None if reasons[key] else found[key], judged.get(key, nothing), reasons[key])
        for key in keys
    ]
    return Judgement(tuple(checks), tuple(_notes(run, now, baseline, checks)))


def _wanted(baseline: Baseline, terms: Terms) -> list[Key]:
    keys = [(*protocol, method) for protocol, cells in baseline.cells.items() for method in cells]
    metrics, methods = {key[0] for key in keys}, {key[2] for key in keys}
    for what, names, valid in (
        ("metric", (*terms.metrics, *terms.margins), metrics),
        ("method", terms.methods, methods),
    ):
        for name in names:
            if name not in valid:
                raise unknown(f"{what} of the baseline", name, valid)
    return [
        key
        for key in keys
        if (not terms.metrics or key[0] in terms.metrics) and (not terms.methods or key[2] in terms.methods)
    ]


def _same_data(run: Finished, baseline: Baseline, terms: Terms) -> None:
    mine, theirs = run.facts["dataset"], baseline.facts["dataset"]
    if mine != theirs:
        raise UserError(f"{run.name} is of another data set than the baseline ({mine} / {theirs})")
    mine, theirs = run.facts.get("dataset_fingerprint"), baseline.facts["dataset_fingerprint"]
    if mine != theirs and not terms.unpaired:
        raise UserError(
            f"{run.facts['dataset']} is not what it was when the baseline was made (fingerprint {mine} / {theirs}): "
            "--update the baseline, or judge the two as independent samples with --unpaired"
        )


def _incomparable(
    run: Finished, problems: pd.DataFrame, now: Baseline, baseline: Baseline, key: Key, terms: Terms
) -> str:
    """Why a check cannot be made, empty where it can."""
    metric, protocol, method = key
    if key[:2] not in now.cells:
        rivals = [one for one in now.cells if one[0] == metric]
        if not rivals:
            return f"the run has no score of {metric}"
        apart = differing(baseline.card(key[:2]), now.card(rivals[0]))
        return f"the run has {metric} under {rivals[0][1]}: they differ in {apart}"
    mine, theirs = (choices(one.card(key[:2])) for one in (now, baseline))
    if mine != theirs:
        names = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
        return f"{protocol} is not what it was: they differ in {', '.join(names)}"
    if method not in now.cells[key[:2]]:
        return f"the run has no score of {method}"
    cell, known = now.cells[key[:2]][method], baseline.cells[key[:2]][method]
    if not terms.unpaired and not set(_ids(cell)) & set(_ids(known)):
        return "no case in common (two independent samples of one data set: --unpaired)"
    gone = set(_ids(known)) - set(_ids(cell))
    lost = _lost(run, problems, key, gone)
    if not (terms.unpaired or terms.partial) and len(gone) > lost.total():
        lost["not in the run; of fewer images on purpose: --partial"] = len(gone) - lost.total()
    if lost:
        return f"{lost.total()} of {len(known.images)} cases of the baseline have no score ({', '.join(lost)})"
    return ""


def _problems(run: Finished) -> pd.DataFrame:
    """The rows of the network as trained that have no score, and why."""
    frame = run.rows.frame
    mine = frame[frame["problem"].notna()]
    return mine.loc[mine["stage"].astype(str) == "trained", [*LABELS, "case_id", "problem"]].astype(str)


def _lost(run: Finished, problems: pd.DataFrame, key: Key, gone: set[str]) -> Counter[str]:
    """Of the cases that were scored once and are not now, those that the run tried, by what came between."""
    mine = problems[(problems[LABELS] == list(key)).all(axis=1) & problems["case_id"].isin(list(gone))]
    skipped = {entry["image_id"] for entry in run.facts["skipped"]}
    unread = [case for case in gone - set(mine["case_id"]) if case.rpartition("#")[0] in skipped]
    return Counter([*mine.drop_duplicates("case_id")["problem"], *["picture skipped"] * len(unread)])


def _ids(cell: Cell) -> Iterator[str]:
    return (f"{image}#{label}" for image, label in zip(cell.images, cell.classes, strict=True))


def _losses(
    now: Baseline, baseline: Baseline, protocol: Protocol, methods: list[str], unpaired: bool
) -> dict[Key, Loss]:
    card = baseline.card(protocol)
    mine, theirs = ({method: one.cells[protocol][method] for method in methods} for one in (now, baseline))
    try:
        found = losses(mine, theirs, card["reduce"], card["higher_is_better"], not unpaired)
    except ValueError as error:
        raise UserError(f"{protocol[0]} under {protocol[1]} cannot be paired: {error}") from None
    return {(*protocol, method): loss for method, loss in found.items()}


def _notes(run: Finished, now: Baseline, baseline: Baseline, checks: list[Check]) -> Iterator[str]:
    """What changed beside the numbers."""
    then, here = (flatten({name: one.facts.get(name) for name in CHANGES}) for one in (baseline, now))
    changed = [f"{name} {then.get(name)} -> {here.get(name)}" for name in here if then.get(name) != here.get(name)]
    if changed:
        yield f"changed since the baseline: {', '.join(changed)}"
    judged = [check for check in checks if check.loss is not None]
    fewer = {check.method for check in judged if check.loss and check.loss.apart}  # the hashes are over all cases
    moved = [m for m in dict.fromkeys(c.method for c in judged if c.loss and not c.loss.identical) if m not in fewer]
    before = baseline.facts["maps"]
    if moved and before:
        after = maps_hashes(run.folder)
        known = [method for method in moved if method in before and method in after]
        same = [method for method in known if before[method] == after[method]]
        if same:
            yield f"same heatmaps, other scores: {', '.join(same)}"
        if len(known) > len(same):
            yield f"other heatmaps: {', '.join(method for method in known if method not in same)}"
    apart = max((check.loss.apart for check in checks if check.loss is not None), default=0)
    if apart:
        yield f"cases without a partner: up to {apart} a check, left out"
    new = [f"{one[0]} ({one[1]})" for one in now.cells if one not in baseline.cells]
    if new:
        yield f"not in the baseline: {', '.join(new)}"
