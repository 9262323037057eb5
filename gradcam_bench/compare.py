"""compare: what truly differs between methods of a run, or between runs, on the cases that both have.

Two numbers are set side by side only under one protocol. Where two runs scored a metric under different ones, that is
said, with the choices that differ, and the metric is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradcam_bench.analysis.contest import ALPHA, Contest
from gradcam_bench.analysis.paired import all_pairs, difference, holm
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.choices import digest
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import atomically, write_text
from gradcam_bench.finished import Finished, Protocol, apart, differing, open_runs
from gradcam_bench.report import forest, outcome, pairs

STRATA = ("size", "class_name")


def compare(
    folders: list[str],
    methods: Sequence[str] = (),
    metrics: Sequence[str] = (),
    by: str | None = None,
    out: str | None = None,
) -> int:
    """Writes compare.csv, .md, .tex, a plot and a page into `out` and prints what differs. One run: its methods are
    compared with one another; several: each method with itself in the other runs. by: also within sizes or classes."""
    if by is not None and by not in STRATA:
        raise unknown("--by", by, STRATA)
    runs = open_runs(folders)
    shared = _shared(runs, metrics)
    known = sorted({m for run in runs for m in run.rows.frame["method"].astype(str).unique()})
    for method in methods:
        if method not in known:
            raise unknown("method", method, known)
    contests = [contest for one in shared for contest in _contests(runs, one, tuple(methods), by)]
    if not any(contest.pairs for contest in contests):
        raise UserError("nothing to compare: one method of one run, or no method that the runs share")
    if not any(found.n for contest in contests for found, _ in contest.pairs.values()):
        raise UserError(f"the runs have no case in common: {' and '.join(_seen(run) for run in runs)}")
    folder = Path(out) if out else Path("results/compare") / digest([str(run.folder.resolve()) for run in runs])
    table = pairs.as_table(contests)
    atomically(folder / "compare.csv", lambda path: table.to_csv(path, index=False))
    write_text(folder / "compare.md", pairs.as_markdown(contests))
    write_text(folder / "compare.tex", pairs.as_latex(contests))
    plots = forest.write(folder, [_panel(contest) for contest in contests if contest.stratum == "all"])
    page = outcome.write(
        folder / "compare.html",
        f"Compared: {', '.join(dict.fromkeys(run.name for run in runs))}",
        "Paired by case: a permutation test for whatever is reduced, Holm's correction over the pairs of a table",
        [section for contest in contests for section in pairs.as_sections(contest)],
        folder / "compare.svg",
        "Differences with their intervals; the tables below say the same",
        ["compare.csv", "compare.md", "compare.tex", *plots],
    )
    print("\n\n".join(pairs.as_text(contest) for contest in contests))
    print(f"\ntables and plots: {folder} (compare.csv, compare.md, compare.tex, {', '.join(plots)})")
    print(f"page: {folder / page}")
    return 0


def _shared(runs: Sequence[Finished], metrics: Sequence[str]) -> list[Protocol]:
    """The protocols that all runs were scored by; says which are left out, and why."""
    _same_data(runs)
    every = {metric for run in runs for metric, _ in run.protocols}
    for metric in metrics:
        if metric not in every:
            raise unknown("metric", metric, every)
    wanted = [one for one in runs[0].protocols if not metrics or one[0] in metrics]
    shared = [one for one in wanted if all(one in run.protocols and _alike(runs[0], run, one) for run in runs[1:])]
    for sentence in _refusals(runs, shared, metrics):
        print(f"left out: {sentence}")
    if not shared:
        raise UserError("the runs share no protocol: two numbers of different protocols are not compared")
    return shared


def _same_data(runs: Sequence[Finished]) -> None:
    """Refuses runs whose cases of one name may be other pictures: of another data set, split or list of images."""
    datasets = {str(run.facts["dataset"]) for run in runs}
    if len(datasets) > 1:
        raise UserError(f"the runs are of different data sets ({', '.join(sorted(datasets))}): no case is in both")
    for other in runs[1:]:
        mine, theirs = runs[0].data, other.data
        unlike = [name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
        if "fingerprint" in unlike:
            there = ", ".join(f"{name} {mine.get(name)} / {theirs.get(name)}" for name in unlike)
            raise UserError(f"{runs[0].name} and {other.name} are of other data, so no case is in both: {there}")


def _refusals(runs: Sequence[Finished], shared: Sequence[Protocol], metrics: Sequence[str]) -> Iterator[str]:
    """A sentence for each protocol of the first run that another one lacks, and the other way round."""
    first = runs[0]
    for other in runs[1:]:
        for mine, theirs in ((first, other), (other, first)):
            for metric, protocol in mine.protocols:
                if metrics and metric not in metrics:
                    continue
                if (metric, protocol) in theirs.protocols:
                    if mine is first and not _alike(mine, theirs, (metric, protocol)):
                        what = differing(mine.card(metric, protocol), theirs.card(metric, protocol))
                        yield f"{metric} under {protocol} is another protocol in {theirs.name}: they differ in {what}"
                    continue
                rivals = [name for label, name in theirs.protocols if label == metric and (metric, name) not in shared]
                if not rivals:
                    yield f"{metric} under {protocol} is in {mine.name} alone"
                elif mine is first:
                    what = differing(mine.card(metric, protocol), theirs.card(metric, rivals[0]))
                    yield (
                        f"{metric} is under {protocol} in {mine.name}, under {rivals[0]} in {theirs.name}: they differ "
                        f"in {what}"
                    )


def _alike(one: Finished, other: Finished, protocol: Protocol) -> bool:
    """Whether a protocol's name stands for the same choices in both: a preset of one's own may have any name."""
    return not apart(one.card(*protocol), other.card(*protocol))


def _contests(
    runs: Sequence[Finished], protocol: Protocol, methods: tuple[str, ...], by: str | None
) -> Iterator[Contest]:
    card = runs[0].card(*protocol)
    cells = [run.cells(*protocol, methods) for run in runs]
    yield _contest(protocol, "all", card, runs, cells)
    if by is not None:
        of = {
            str(case): str(value) for run in runs for case, value in run.cases[["case_id", by]].itertuples(index=False)
        }
        for stratum in sorted(set(of.values()) - {"None", "nan"}):
            parts = [{m: _where(cell, of, stratum) for m, cell in mine.items()} for mine in cells]
            kept = [{m: cell for m, cell in mine.items() if len(cell.images)} for mine in parts]
            yield _contest(protocol, f"{by}={stratum}", card, runs, kept)


def _contest(
    protocol: Protocol,
    stratum: str,
    card: Mapping[str, Any],
    runs: Sequence[Finished],
    cells: Sequence[Mapping[str, Cell]],
) -> Contest:
    how, several = card["reduce"], len(runs) > 1
    named: dict[str, Cell] = {
        f"{method} [{run.name}]" if several else method: cell
        for run, mine in zip(runs, cells, strict=True)
        for method, cell in mine.items()
    }
    values = {name: number(cell, how) for name, cell in named.items()}
    if not several:
        sign = -1.0 if card["higher_is_better"] is not False else 1.0
        ranked = sorted(named, key=lambda name: sign * values[name])  # the better one of a pair first
        found = all_pairs({name: named[name] for name in ranked}, how)
        return Contest(*protocol, stratum, card["higher_is_better"], values, found)
    rivals = [
        (f"{method} [{runs[i].name}]", f"{method} [{runs[j].name}]")
        for method in cells[0]
        for i in range(len(runs))
        for j in range(i + 1, len(runs))
        if method in cells[i] and method in cells[j]
    ]
    gaps = [difference(named[a], named[b], how) for a, b in rivals]
    corrected = holm([one.p for one in gaps])
    both = dict(zip(rivals, zip(gaps, corrected, strict=True), strict=True))
    return Contest(*protocol, stratum, card["higher_is_better"], values, both)


def _where(cell: Cell, of: Mapping[str, str], stratum: str) -> Cell:
    """The units of a cell whose case lies in a stratum."""
    keys = (f"{image}#{label}" for image, label in zip(cell.images, cell.classes, strict=True))
    rows = [n for n, key in enumerate(keys) if of.get(key) == stratum]
    curves = None if cell.curves is None else cell.curves[rows]
    return Cell(cell.values[rows], curves, cell.classes[rows], cell.images[rows], cell.axes)


def _panel(contest: Contest) -> forest.Panel:
    """The differences of one protocol, for the plot."""
    lines = tuple(
        forest.Line(f"{a} - {b}", found.difference, found.low, found.high, corrected <= ALPHA)
        for (a, b), (found, corrected) in contest.pairs.items()
    )
    return forest.Panel(f"{contest.metric}\n{contest.protocol}", lines)


def _seen(run: Finished) -> str:
    return f"{run.name} has {run.cases['case_id'].nunique()} of {run.facts['dataset']}"
