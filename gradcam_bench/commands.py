"""The verbs, on resolved configurations (plain mappings): run, score, report, seeds, show."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gradcam_bench import catalogue, export_seeds, failures, pipeline, provenance, record
from gradcam_bench.analysis.confusion import confusion
from gradcam_bench.analysis.policies import policies
from gradcam_bench.analysis.strata import BY, strata
from gradcam_bench.analysis.summary import summarize
from gradcam_bench.analysis.ties import ties
from gradcam_bench.cells import Rows, lost
from gradcam_bench.choices import View, digest
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_batch
from gradcam_bench.files import atomically, read_table
from gradcam_bench.finished import Finished, open_runs
from gradcam_bench.illustrate import gallery, overlay, overlays_of
from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.probe import Probe
from gradcam_bench.replay import Played, replay
from gradcam_bench.report import failures as failures_report
from gradcam_bench.report import kinds, page, table, thresholds
from gradcam_bench.report.facts import costs
from gradcam_bench.report.inputs import Inputs
from gradcam_bench.report.show import side_by_side
from gradcam_bench.samples import Batch, Sample, annotation, decode
from gradcam_bench.scoring import in_order, score_image, threads
from gradcam_bench.setup import Setup, check_settings, make, make_network, make_plan, refusals, setup
from gradcam_bench.store import Part, Store
from gradcam_bench.terminal import progress, say

RESCORED = ("metric", "preset", "protocol")
Configure = Callable[[Sequence[str]], dict[str, Any]]


def run(config: Mapping[str, Any], force: bool = False, suffix: str = "") -> Path | None:
    """Explain, score, report: what the folder has already is not done again. Under torchrun each rank takes its share
    of the images, and rank 0 opens the folder, merges and reports. suffix: of the folder's name, in a sweep. Returns
    the folder, None on another rank than 0."""
    keep_freed_memory()
    made = setup(config)
    started = dt.datetime.now(dt.UTC)
    experiment = str(config.get("experiment") or "run")
    with record.ranks() as (rank, world, wait_for_all), ExitStack() as held:
        if rank:
            wait_for_all()
        folder = record.open_folder(config, experiment, force and not rank, suffix)
        if not rank:
            held.enter_context(record.alone(folder))
            record.same_inputs(folder, provenance.inputs(made))
            _announce(made, config, folder)
            wait_for_all()
        job = as_run(config, made, Store(folder), made.indices[rank::world], rank)
        with progress() as bar:
            task = bar.add_task("explain, score", total=len(job.indices) * len(made.plan.views))
            pipeline.run(job, lambda count: bar.advance(task, count))
        wait_for_all()
        if rank:
            return None
        _check_complete(job, made.indices)
        rows, cases = job.store.merge()
        facts = provenance.facts(made, job.store, config, cases, started)
        record.save_run(folder, facts)
        if job.score and "report" in config["stages"]:
            write_report(replace(job, indices=made.indices), facts, config, rows, cases)
    return folder


def _check_complete(job: Run, indices: Sequence[int]) -> None:
    """Every image of the plan is in a part, under every view: a run that lost some must not end as if it had them."""
    for view in job.plan.views:
        done = {index for part in job.store.finished(f"{view_id(view)}-").values() for index in part["done"]}
        missing = len(set(indices) - done)
        if missing or not (job.store.folder / "config.yaml").is_file():
            raise UserError(f"{job.store.folder} lost {missing} images while the run went on: repeat the command")


def score(folder: str, overrides: Sequence[str], configure: Configure) -> int:
    """Scores a run's stored heatmaps again, without the model; rows of the same metric and protocol are replaced."""
    home = Path(folder)
    config, facts = _rescoring(record.load_config(home), overrides, configure), record.load_run(home)
    job = _on_maps(finished(home, config, facts), any(o.lstrip("+~").startswith("metric") for o in overrides))
    cases = read_table(home / "cases.parquet")
    part = Part(notes={"protocols": job.plan.cards()})
    missing: set[str] = set()
    with progress() as bar, threads() as pool:
        task = bar.add_task("score", total=cases.groupby("view", observed=True)["image_id"].nunique().sum())
        for view, jobs in job.plan.views.items():

            def score_played(played: Played, view: View = view, jobs: tuple[Job, ...] = jobs) -> list[dict[str, Any]]:
                missing.update({m.label for m in job.plan.methods} - set(played.maps))
                return score_image(job, view, jobs, played.cases, played.maps)[0]

            for rows in in_order(pool, score_played, replay(job, view, cases)):
                part.rows.extend(rows)
                bar.advance(task)
    for label in sorted(missing):
        say(f"not scored: the heatmaps of {label} were not stored (store={config['store']}); run with store=all")
    job.store.add(f"{provenance.RESCORED_PART}{digest(job.plan.cards())}", part)
    merged, cases = job.store.merge()
    facts["protocols"] = provenance.protocols(job.store, facts["protocols"])
    record.save_run(home, facts)
    config = record.load_config(home)
    write_report(finished(home, config, facts), facts, config, merged, cases)
    return 0


def _on_maps(job: Run, named: bool) -> Run:
    """The run with those metrics alone that heatmaps suffice for. named: the others were asked for, and are refused."""
    every = [one.metric for jobs in job.plan.views.values() for one in jobs]
    asking = ",".join(dict.fromkeys(metric.label for metric in every if metric.needs != "maps"))
    sentence = (
        f"{asking}: this questions the network, and score has heatmaps alone; use gradcam-bench run metric=[{asking}]"
    )
    if asking and (named or all(metric.needs != "maps" for metric in every)):
        raise UserError(sentence)
    if asking:
        say(f"not scored again: {sentence}")
    views = {view: tuple(one for one in jobs if one.metric.needs == "maps") for view, jobs in job.plan.views.items()}
    return replace(job, plan=replace(job.plan, views={view: jobs for view, jobs in views.items() if jobs}))


def report(folder: str, validation: str | None = None) -> int:
    """Tables, plots and page of a finished run, from its rows. validation: a run of a validation split, whose rows
    choose thresholds."""
    home = Path(folder)
    chooser = open_runs([validation])[0] if validation else None
    config, facts = record.load_config(home), record.load_run(home)
    facts["protocols"] = provenance.protocols(Store(home), facts["protocols"])
    rows, cases = Rows.open(home / "rows.parquet"), read_table(home / "cases.parquet")
    write_report(finished(home, config, facts), facts, config, rows, cases, chooser)
    return 0


def seeds(folder: str, formats: Sequence[str], **chosen: Any) -> int:
    """Seeds for segmentation networks from a run's stored heatmaps. chosen: as `export_seeds.export` takes it."""
    home = Path(folder)
    job = finished(home, record.load_config(home), record.load_run(home))
    print(export_seeds.export(job, read_table(home / "cases.parquet"), formats, **chosen))
    return 0


def show(config: Mapping[str, Any], image: str, target: int | None = None, out: str | None = None) -> int:
    """One PNG: every chosen method's heatmap of one image, with its box. target: a class (None: the first answer)."""
    path = Path(image).expanduser()
    picture, _ = decode(path)
    check_settings(config)
    network = make_network(config)
    if network is None:
        raise UserError("show needs a model: model=resnet50, or another of `gradcam-bench list models`")
    plan = make_plan(config, network.preprocessing, _metrics(config))
    refused = refusals(plan, network)
    methods = [method for method in plan.methods if method.label not in refused]
    view, jobs = next(iter(plan.views.items()))
    pixels, frame = network.preprocessing(picture, view)
    classes = () if target is None else (target,)
    sample = Sample(0, pixels, frame, annotation(path.stem, (picture.height, picture.width), classes=classes), "")
    view = replace(view, target="predicted") if target is None else view
    probe = Probe(network.module, [view.layer or network.layer], view.score)
    cases, maps, _ = explain_batch(Batch(pixels[None], (sample,)), network, probe, methods, view)
    drawn = overlays_of(cases[0], {label: list(grids[:1]) for label, grids in maps.items()}, methods, jobs)
    name = network.classes[cases[0].target] if network.classes else str(cases[0].target)
    title = f"{path.name}: {name} (class {cases[0].target}, probability {cases[0].probability:.3f})"
    heat, found = {k: o.heatmap for k, o in drawn.items()}, {k: o.boxes for k, o in drawn.items()}
    target_path = Path(out) if out else Path(config["results"]) / "show" / f"{path.stem}-{cases[0].target}.png"
    atomically(target_path, lambda file: file.write_bytes(side_by_side(np.asarray(picture), heat, found, title=title)))
    print(target_path)
    return 0


def as_run(config: Mapping[str, Any], made: Setup, store: Store, indices: Sequence[int], rank: int = 0) -> Run:
    """A set-up configuration as the pipeline takes it."""
    return Run(
        made.dataset,
        made.network,
        made.plan,
        store,
        made.preprocessing,
        config["batch_size"],
        config["workers"],
        config["store"],
        None if config["max_memory"] is None else int(config["max_memory"] * 2**30),
        config["on_error"],
        "score" in config["stages"],
        tuple(indices),
        rank,
        randomize=made.randomize,
        twin=made.twin,
    )


def finished(home: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Run:
    """A run that is over, as the pipeline takes it, but with no network: what is needed of that is in run.json."""
    recipe: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["preprocessing"].items()}
    preprocessing = Preprocessing(**recipe)
    plan = make_plan(config, preprocessing, _metrics(config))
    plan = replace(plan, methods=tuple(m for m in plan.methods if m.label not in facts["refused"]))
    dataset = make(config["dataset"], "dataset")
    store = Store(home)
    return Run(
        dataset, None, plan, store, preprocessing, keep=config["store"], label=facts["model"], layer=facts["layer"]
    )


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
        _abouts(config, facts),
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


def _announce(made: Setup, config: Mapping[str, Any], folder: Path) -> None:
    """Says what is going to be done and stored, and refuses if the disk has not that much room."""
    say(f"{len(made.indices)} images, {len(made.plan.methods)} methods, {_model(made)} -> {folder}")
    for sentence in dict.fromkeys(made.refused.values()):
        say(f"left out: {sentence}")
    for sentence in made.notes:
        say(f"note: {sentence}")
    cells = len(made.indices) * len(made.plan.views)
    grid = 14 * 14 * 4 if config["store"] != "none" else 0
    large = 224 * 224 * 2 if config["store"] == "all" else 0
    looking = sum(method.sees for method in made.plan.methods)
    maps = cells * (looking * grid + (len(made.plan.methods) - looking) * large)
    maps += len(made.indices) * looking * large * sum(view.augment != "none" for view in made.plan.views)
    rows = cells * len(made.plan.methods) * 4096
    say(f"storing about {max(maps, 0) / 1e6:.0f} MB of heatmaps and up to {rows / 1e6:.0f} MB of rows")
    record.need_space(folder, maps + rows)


def _rescoring(stored: dict[str, Any], overrides: Sequence[str], configure: Configure) -> dict[str, Any]:
    """The run's configuration with the metrics, presets and protocol axes that the overrides name."""
    touched = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    for key in sorted(touched - set(RESCORED)):
        raise UserError(f"score takes {', '.join(f'{name}=' for name in RESCORED)}; '{key}' needs a new run")
    composed = configure(overrides)
    return stored | {key: composed[key] for key in touched}


def _metrics(config: Mapping[str, Any]) -> list[catalogue.Metric]:
    return [catalogue.metric(label, spec) for label, spec in config["metric"].items()]


def _model(made: Setup) -> str:
    return f"{made.network.name} ({made.network.layer}) on {made.device}" if made.network else "no model"


def _abouts(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    described: dict[str, dict[str, Any]] = {}
    described["method"] = {label: str(spec.get("about", "")) for label, spec in config["method"].items()}
    described["metric"] = {label: next(iter(ids.values()))["about"] for label, ids in facts["protocols"].items()}
    described["preset"] = {
        n: {"about": s.get("about", ""), "source": s.get("source", "")} for n, s in config["preset"].items()
    }
    return described
