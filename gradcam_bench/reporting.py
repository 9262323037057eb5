"""From a run's rows to its tables, plots and page, and what the terminal shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import yaml

from gradcam_bench import failures
from gradcam_bench.analysis.confusion import confusion
from gradcam_bench.analysis.policies import policies
from gradcam_bench.analysis.strata import BY, strata
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.analysis.ties import ties
from gradcam_bench.cells import Rows, lost
from gradcam_bench.files import atomically
from gradcam_bench.finished import Finished
from gradcam_bench.illustrate import gallery, overlay
from gradcam_bench.plan import Run
from gradcam_bench.report import failures as failures_report
from gradcam_bench.report import kinds, page, table, thresholds
from gradcam_bench.report.facts import costs
from gradcam_bench.report.inputs import Inputs


def write_report(
    job: Run,
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    rows: Rows,
    cases: pd.DataFrame,
    chooser: Finished | None = None,
) -> None:
    """summary.csv and the tables beside it, plots/ and report.html into the run's folder; prints the leaderboard.
    chooser: a run of a validation split."""
    folder = job.store.folder
    summary = summarize(rows, facts["protocols"], stratified=bool((config.get("statistics") or {}).get("stratified")))
    cards, given = facts["protocols"], (chooser.rows, chooser.facts["protocols"]) if chooser else None
    chosen, tied, mixed = policies(rows, cards, given), ties(rows, cards), confusion(rows, cards, cases)
    tables = {"summary.csv": summary, "costs.csv": pd.DataFrame(costs(facts)), "thresholds.csv": chosen}
    parts = strata(rows, cards, cases)
    tables |= {"ties.csv": tied, "confusion.csv": mixed}
    tables |= {BY[column]: made for column, made in parts.items()}
    for name, made in tables.items():
        atomically(folder / name, partial(made.to_csv, index=False))
    inputs = Inputs(
        f"{facts['dataset']} / {facts['model']}",
        folder,
        summary,
        rows,
        cases,
        facts,
        yaml.safe_dump(dict(config), sort_keys=True),
        _abouts(job, config, facts),
        gallery(job, rows, cases),
        [method.label for method in job.plan.methods if method.control],
        thresholds=chosen,
        ties=tied,
        confusion=mixed,
        failures=failures.study(job, rows, cases, facts.get("activation") == "sigmoid", overlay),
        kinds=parts.get("kind"),
    )
    if inputs.failures is not None:
        atomically(folder / "failures.csv", partial(inputs.failures.table.to_csv, index=False))
    written = page.write(inputs)
    for board in table.boards(inputs.boarded, inputs.controls):
        print(table.as_text(board))
    if inputs.failures is not None:
        print(failures_report.as_text(inputs.failures))
    directions = {metric: next(iter(ids.values()))["higher_is_better"] for metric, ids in cards.items()}
    for one in thresholds.boards(chosen, directions)[:1]:
        print(f"{thresholds.as_text(one)}\n")
    for of_kinds in kinds.boards(parts["kind"]) if "kind" in parts else ():
        print(f"{kinds.as_text(of_kinds)}\n")
    if not len(summary):
        for metric, mine in rows.frame.groupby("metric", observed=True):
            print(f"nothing was scored by {metric}: {lost(mine)}")
        if not len(rows.frame):
            left_out = f"{len(facts['skipped'])} images were left out" if facts["skipped"] else "no image has a case"
            print(f"nothing was scored: {left_out}")
    for label, reasons in facts["degenerate"].items():
        print(f"degenerate heatmaps of {label}: {', '.join(f'{n} {reason}' for reason, n in reasons.items())}")
    broken = [f"left out: {entry['reason']}" for entry in facts["skipped"]]
    broken += [f"note: {sentence}" for sentence in facts["problems"]]
    for sentence in broken[:3]:
        print(sentence)
    if len(broken) > 3:
        print(f"... and {len(broken) - 3} more, under Exclusions of the page")
    for found in facts["accuracy"]:
        seen, top1, top5 = facts["views"][found["view"]], 100 * found["top1"], 100 * found["top5"]
        print(f"classifier ({seen}): top-1 {top1:.2f} %, top-5 {top5:.2f} % of {found['images']} images")
    print(f"page: {written}")


def _abouts(job: Run, config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    described: dict[str, dict[str, Any]] = {}
    described["method"] = {method.label: method.about for method in job.plan.methods}
    described["metric"] = {label: next(iter(ids.values()))["about"] for label, ids in facts["protocols"].items()}
    described["preset"] = {
        n: {"about": s.get("about", ""), "source": s.get("source", "")} for n, s in config["preset"].items()
    }
    return described
