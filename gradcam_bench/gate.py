"""gate: whether a run's numbers are as good as a baseline's, for continuous integration.

A check is one metric, protocol and method of the baseline. What the run cannot be compared in (another protocol, a
method or cases that it lacks) is a check that cannot be judged, so that nothing passes by not being there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from gradcam_bench.analysis.noninferiority import UNDECIDED, Check, Judged, Judgement, Loss, judge, losses
from gradcam_bench.baseline import Baseline, baseline_of, maps_hashes, read, write
from gradcam_bench.comparable import incomparable, partners, problems_of
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import write_text
from gradcam_bench.finished import Finished, Protocol, apart, differing, open_runs
from gradcam_bench.record import flatten
from gradcam_bench.report import verdicts
from gradcam_bench.shift import MARGIN, SHIFT, moved
from gradcam_bench.terms import Terms

Key = tuple[str, str, str]
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
    keys, unasked = _wanted(run, baseline, terms)
    _same_data(run, baseline, terms)
    now, problems = baseline_of(run), problems_of(run)
    own = partners(now, baseline, terms.allow)
    reasons = {key: incomparable(run, problems, now, baseline, key, own.get(key[:2]), terms) for key in keys}
    found: dict[Key, Loss] = {}
    for protocol in dict.fromkeys(key[:2] for key in keys):
        methods = [key[2] for key in keys if key[:2] == protocol and not reasons[key]]
        if methods:
            found |= _losses(now, own[protocol], baseline, protocol, methods, terms.unpaired)
    margins = {key: terms.margin_of(key[0], MARGIN if key[0] == SHIFT else None) for key in keys}
    found = {key: replace(loss, least=margins[key] if key[0] == SHIFT else 0.0) for key, loss in found.items()}
    judged = judge(found, margins, terms.alpha)
    for key, loss in found.items():
        if not np.isfinite(loss.error):
            reasons[key] = f"{loss.images} image is too few"
    nothing = Judged(UNDECIDED, np.nan, np.nan)
    checks = [
        Check(*key, margins[key], None if reasons[key] else found[key], judged.get(key, nothing), reasons[key])
        for key in keys
    ]
    return Judgement(tuple(checks), (*unasked, *_notes(run, now, baseline, own, checks)))


def _wanted(run: Finished, baseline: Baseline, terms: Terms) -> tuple[list[Key], list[str]]:
    """The checks that the terms ask for, and why the network's answers are none of them, if they are not."""
    keys = [(*protocol, method) for protocol, cells in baseline.cells.items() for method in cells]
    metrics, methods = {key[0] for key in keys}, {key[2] for key in keys if key[0] != SHIFT}
    for what, names, valid in (
        ("metric", (*terms.metrics, *terms.margins), metrics),
        ("method", terms.methods, methods),
    ):
        for name in names:
            if name not in valid:
                raise unknown(f"{what} of the baseline", name, valid)
    wanted = [key for key in keys if not terms.metrics or key[0] in terms.metrics]
    wanted = [key for key in wanted if not terms.methods or key[2] in terms.methods or key[0] == SHIFT]
    why = _unanswered(run, baseline, terms)
    if not why:
        return wanted, []
    notes = [f"answers of the network not compared: {why}"] if run.facts["weights"] is not None else []
    return [key for key in wanted if key[0] != SHIFT], notes


def _unanswered(run: Finished, baseline: Baseline, terms: Terms) -> str:
    if not any(protocol[0] == SHIFT for protocol in baseline.cells):
        return "the baseline has none (--update)"
    if run.facts["weights"] != baseline.facts["weights"]:
        return "its weights are not the baseline's"
    return "two samples have no case in common" if terms.unpaired else ""


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


def _losses(
    now: Baseline, own: Protocol, baseline: Baseline, protocol: Protocol, methods: list[str], unpaired: bool
) -> dict[Key, Loss]:
    """own: the run's protocol that answers to the baseline's."""
    card = baseline.card(protocol)
    mine = {method: now.cells[own][method] for method in methods}
    theirs = {method: baseline.cells[protocol][method] for method in methods}
    if protocol[0] == SHIFT:
        both = {method: moved(mine[method], theirs[method]) for method in methods}
        mine, theirs = ({method: pair[side] for method, pair in both.items()} for side in (0, 1))
    try:
        found = losses(mine, theirs, card["reduce"], card["higher_is_better"], not unpaired)
    except ValueError as error:
        raise UserError(f"{protocol[0]} under {protocol[1]} cannot be paired: {error}") from None
    return {(*protocol, method): loss for method, loss in found.items()}


def _notes(
    run: Finished, now: Baseline, baseline: Baseline, own: Mapping[Protocol, Protocol], checks: list[Check]
) -> Iterator[str]:
    """What changed beside the numbers."""
    judged = [check for check in checks if check.loss is not None]
    protocols = dict.fromkeys((check.metric, check.protocol) for check in judged)
    cards = [(baseline.card(one), now.card(own[one])) for one in protocols]
    for choices in dict.fromkeys(differing(*pair) for pair in cards if apart(*pair)):
        yield f"allowed to differ (baseline / run): {choices}"
    then, here = (flatten({name: one.facts.get(name) for name in CHANGES}) for one in (baseline, now))
    changed = [f"{name} {then.get(name)} -> {here.get(name)}" for name in here if then.get(name) != here.get(name)]
    if changed:
        yield f"changed since the baseline: {', '.join(changed)}"
    fewer = {check.method for check in judged if check.loss and check.loss.apart}  # the hashes are over all cases
    other = [m for m in dict.fromkeys(c.method for c in judged if c.loss and not c.loss.identical) if m not in fewer]
    before = baseline.facts["maps"]
    if other and before:
        after = maps_hashes(run.folder)
        known = [method for method in other if method in before and method in after]
        same = [method for method in known if before[method] == after[method]]
        if same:
            yield f"same heatmaps, other scores: {', '.join(same)}"
        if len(known) > len(same):
            yield f"other heatmaps: {', '.join(method for method in known if method not in same)}"
    alone = max((check.loss.apart for check in checks if check.loss is not None), default=0)
    if alone:
        yield f"cases without a partner: up to {alone} a check, left out"
    new = [f"{one[0]} ({one[1]})" for one in now.cells if one not in own.values()]
    if new:
        yield f"not in the baseline: {', '.join(new)}"
