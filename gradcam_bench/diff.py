"""diff: why two numbers differ. The choices in which they differ, and how many points each of them explains.

Both numbers are taken on the cases that both runs have; what the others make of the gap comes first. The stored
heatmaps are then scored under mixtures of the two protocols, and the gap is shared out among the choices by their
Shapley values, which add up to it. What came before the heatmaps (data, view, model, weights, code) cannot be mixed:
two sets of heatmaps are one choice, named by what lies behind it. Where the data are other (another split), no case is
in both, and each side's number is taken on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gradcam_bench import catalogue
from gradcam_bench.analysis.shapley import Coalition, coalitions, shapley
from gradcam_bench.axes import AXES
from gradcam_bench.catalogue import Metric
from gradcam_bench.choices import Protocol, View, digest
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import atomically, write_text
from gradcam_bench.finished import Finished, open_runs
from gradcam_bench.plan import Run, make, refuse_mixture, view_id
from gradcam_bench.record import flatten, load_config
from gradcam_bench.report import gaps as tables
from gradcam_bench.report import outcome, waterfall
from gradcam_bench.report.gaps import Gap
from gradcam_bench.rescore import Scored, Scorer, numbers, rescore
from gradcam_bench.runs import finished
from gradcam_bench.terminal import progress

METRIC, HEATMAPS, CASES = "metric", "heatmaps", "cases"
MADE_WITH = ("model", "weights", "layer", "device", "platform")  # heatmaps are, beside view, data and code
TOGETHER = ("normalize", "order", "quantize", "threshold", "rule", "connectivity")  # what may not go with one another


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two numbers: a run's heatmaps under a view, a metric, a protocol (all that the metric reads)."""

    run: Finished
    metric: Metric
    preset: str
    protocol: Protocol
    view: View

    @property
    def name(self) -> str:
        return f"{self.metric.label}@{self.preset}"

    @cached_property
    def job(self) -> Run:
        return finished(self.run.folder, load_config(self.run.folder), self.run.facts)

    @property
    def heatmaps(self) -> dict[str, Any]:
        """What lies behind the heatmaps: what may differ without a name of its own."""
        facts = self.run.facts
        seen = flatten({"view": asdict(self.view), "preprocessing": facts["preprocessing"]})
        code = {"code": facts.get("git_commit"), **{f"{k} version": v for k, v in facts.get("versions", {}).items()}}
        methods = {f"method {label}": key[1:] for label, key in self.run.inputs.get("methods", {}).items()}
        return {**{k: facts.get(k) for k in MADE_WITH}, **seen, **code, **methods}


def diff(
    folders: list[str],
    source: str | None = None,
    target: str | None = None,
    methods: Sequence[str] = (),
    out: str | None = None,
) -> int:
    """Prints and writes (diff.csv, .md, .html, .png, .svg, .pdf) why the number of `target` in the last run is not that
    of `source` in the first: `METRIC@PROTOCOL` each, needed where a run has several."""
    if len(folders) > 2:
        raise UserError(f"diff takes one run or two, not {len(folders)}")
    runs = open_runs(folders)
    first, last = side(runs[0], source, "--from"), side(runs[-1], target or source, "--to")
    gaps = explain(first, last, tuple(methods))
    folder = Path(out) if out else Path("results/diff") / digest([*folders, first.name, last.name])
    heads = [f"{one.name} [{one.run.name}]" if len(runs) > 1 else one.name for one in (first, last)]
    table = tables.as_table(gaps)
    atomically(folder / "diff.csv", lambda path: table.to_csv(path, index=False))
    write_text(folder / "diff.md", tables.as_markdown(gaps, heads))
    panels = [
        waterfall.Panel(gap.method, heads, (gap.before, gap.after), {k: v[2] for k, v in gap.steps.items()})
        for gap in gaps
    ]
    names = waterfall.write(folder, panels)
    page = outcome.write(
        folder / "diff.html",
        f"{heads[0]} to {heads[1]}",
        "What each choice in which they differ explains, by Shapley values, which add up to the gap",
        [tables.as_section(gap, heads) for gap in gaps],
        folder / "diff.svg",
        f"Waterfalls from {heads[0]} to {heads[1]}, one a method; the tables below say the same",
        ["diff.csv", "diff.md", *names],
    )
    print("\n\n".join(tables.as_text(gap, heads) for gap in gaps))
    print(f"\ntable and plot: {folder} (diff.csv, diff.md, {', '.join(names)})\npage: {folder / page}")
    return 0


def side(run: Finished, named: str | None, flag: str) -> Side:
    """The number that `METRIC@PROTOCOL` names: a protocol that the run was scored by, or a preset under whose view it
    holds heatmaps."""
    known = [f"{metric}@{protocol}" for metric, protocol in run.protocols]
    if named is None:
        if len(known) != 1:
            raise UserError(
                f"{run.name} has several numbers: say which, as {flag} {known[0] if known else 'METRIC@ID'}"
            )
        named = known[0]
    label, _, protocol = named.partition("@")
    if named in known:
        card = run.card(label, protocol)
        metric = catalogue.metric(label, catalogue.spec("metric", label))
        return Side(run, metric, protocol, Protocol(card["axes"]).only(metric.reads), View(**card["view"]))
    if label not in catalogue.names("metric") or protocol not in catalogue.names("preset"):
        raise unknown(flag, named, known)
    metric = catalogue.metric(label, catalogue.spec("metric", label))
    preset = catalogue.preset(protocol, catalogue.spec("preset", protocol))
    if label not in preset.metrics:
        raise UserError(f"{flag} {named}: preset {protocol} defines {', '.join(preset.metrics)}, not {label}")
    job = finished(run.folder, load_config(run.folder), run.facts)
    ((view, (one,)),) = make(job.plan.methods, [metric], [preset], job.preprocessing).views.items()
    if view_id(view) not in set(run.cases["view"].astype(str)):
        raise UserError(f"{run.name} holds no heatmaps under the view of {protocol}: run it with preset=[{protocol}]")
    return Side(run, metric, protocol, one.protocol, view)


def explain(first: Side, last: Side, methods: tuple[str, ...] = ()) -> list[Gap]:
    """The gap of each method that both sides have heatmaps of."""
    for one in (first, last):
        if one.metric.needs != "maps":
            raise UserError(f"diff scores stored heatmaps again: {one.metric.label} needs the model")
    if first.run.facts["dataset"] != last.run.facts["dataset"]:
        raise UserError(f"{first.run.facts['dataset']} and {last.run.facts['dataset']}: no case is in both data sets")
    players, changes = _players(first, last)
    asked = coalitions(players)
    scorers = {who: _mixed(first, last, who) for who in asked}
    same_maps = HEATMAPS not in players
    wanted = [[scorers[w] for w in asked if same_maps or (HEATMAPS in w) == late] for late in (False, True)]
    for method in methods:
        known = sorted({m.label for one in (first, last) for m in one.job.plan.methods})
        if method not in known:
            raise unknown("method", method, known)
    scored = [_scored(first, [*wanted[0], _own(first), _own(last)], methods)]
    scored.append(scored[0] if same_maps else _scored(last, [*wanted[1], _own(last)], methods))
    known = [label for label in scored[0][_own(first).key] if label in scored[1][_own(last).key]]
    if not known:
        raise UserError("the two have no method in common whose heatmaps were stored (store=all keeps large ones)")
    gaps = []
    for method in known:
        here = scored[0][_own(first).key][method], scored[1][_own(last).key][method]
        both = set(here[0].cases) & set(here[1].cases) if _same_data(first, last) else None
        if both is not None and not both:
            raise UserError(
                f"{first.run.name} and {last.run.name} have no case in common on which to explain their gap "
                f"({len(here[0].cases)} and {len(here[1].cases)} cases of {first.run.facts['dataset']})"
            )

        def worth(who: Coalition, method: str = method, both: set[str] | None = both) -> float:
            found = scored[int(HEATMAPS in who)][scorers[who].key][method]
            return _value(found, scorers[who], both, last)

        ends = [_value(units, _own(one), None, last) for units, one in zip(here, (first, last), strict=True)]
        common = worth(frozenset()), worth(frozenset(players))
        steps = {player: (*changes[player], share) for player, share in shapley(players, worth).items()}
        alone = common[0] - ends[0] + ends[1] - common[1]
        if not np.isfinite([*ends, *common]).all():
            raise UserError(f"{method} has no score of {first.name} or of {last.name} on the cases that both runs have")
        if both is not None and len(both) < max(len(one.cases) for one in here):
            steps = {CASES: (str(len(here[0].cases)), str(len(here[1].cases)), alone)} | steps
        gaps.append(Gap(method, ends[0], ends[1], steps))
    return gaps


def _players(first: Side, last: Side) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The choices in which the two differ, each with its two values in words."""
    changes: dict[str, tuple[str, str]] = {}
    if first.metric.label != last.metric.label:
        changes[METRIC] = (first.metric.label, last.metric.label)
    for axis in AXES:
        if axis in first.protocol and axis in last.protocol and first.protocol[axis] != last.protocol[axis]:
            changes[axis] = (_word(first.protocol[axis]), _word(last.protocol[axis]))
    if first.run is not last.run or first.view != last.view:
        changes[HEATMAPS] = _behind(first, last)
    joint = [axis for axis in TOGETHER if axis in changes]
    if joint and any(_refused(first, last, who) for who in coalitions(list(changes))):
        name = "+".join(joint)
        changes[name] = tuple(", ".join(changes[axis][n] for axis in joint) for n in range(2))  # type: ignore[assignment]
        for axis in joint:
            if axis != name:
                del changes[axis]
    return list(changes), changes


def _behind(first: Side, last: Side) -> tuple[str, str]:
    """In what two sets of heatmaps differ, as far as it is recorded."""
    before, after = first.heatmaps, last.heatmaps
    if not _same_data(first, last):
        before, after = first.run.data | before, last.run.data | after
    names = [n for n in dict.fromkeys([*before, *after]) if not n.startswith("method ") or (n in before and n in after)]
    apart = [name for name in names if before.get(name) != after.get(name)]
    if not apart:
        return f"of {first.run.name}", f"of {last.run.name} (nothing recorded differs)"
    words = [", ".join(f"{name} {_word(one.get(name))}" for name in apart) for one in (before, after)]
    return words[0], words[1]


def _same_data(first: Side, last: Side) -> bool:
    return bool(first.run.data["fingerprint"] == last.run.data["fingerprint"])


def _mixed(first: Side, last: Side, who: Coalition) -> Scorer:
    """The scorer of a mixture: the last side's choices where they are in `who`, else the first's."""
    changed = {axis for player in who for axis in player.split("+")}
    metric = last.metric if METRIC in who else first.metric
    axes: dict[str, Any] = {}
    for axis in metric.reads:
        sides = [one for one in (first, last) if axis in one.protocol]
        chosen = last if axis in changed and last in sides else sides[0]
        axes[axis] = chosen.protocol[axis]
    return Scorer(metric, Protocol(axes).only(metric.reads))


def _refused(first: Side, last: Side, who: Coalition) -> bool:
    mixed = _mixed(first, last, who)
    try:
        refuse_mixture(mixed.protocol, mixed.metric)
    except UserError:
        return True
    return False


def _own(one: Side) -> Scorer:
    return Scorer(one.metric, one.protocol)


def _scored(one: Side, scorers: Sequence[Scorer], methods: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Scored]]:
    cases, plan = one.run.cases, one.job.plan
    kept = tuple(method for method in plan.methods if not methods or method.label in methods)
    job = replace(one.job, plan=replace(plan, methods=kept))
    images = cases.loc[cases["view"] == view_id(one.view), "image_id"].nunique()
    with progress() as bar:
        task = bar.add_task("score again", total=images)
        return rescore(job, one.view, cases, scorers, advance=lambda: bar.advance(task))


def _value(units: Scored, scorer: Scorer, among: set[str] | None, last: Side) -> float:
    """A method's number in the direction of the last side's metric: an error of .3 is an accuracy of .7."""
    value = numbers({"": units}, scorer, among)[""]
    return value if scorer.metric.higher_is_better == last.metric.higher_is_better else 1 - value


def _word(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
