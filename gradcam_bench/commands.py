"""The verbs, on resolved configurations (plain mappings): run, score, report, seeds, show."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gradcam_bench import export_seeds, pipeline, provenance, record
from gradcam_bench.cells import Rows
from gradcam_bench.choices import View, digest
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_batch
from gradcam_bench.files import atomically, read_table
from gradcam_bench.finished import open_runs
from gradcam_bench.illustrate import overlays_of
from gradcam_bench.machine import keep_freed_memory
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.probe import Probe
from gradcam_bench.replay import Played, replay
from gradcam_bench.report.show import side_by_side
from gradcam_bench.reporting import write_report
from gradcam_bench.runs import as_run, finished, metrics_of
from gradcam_bench.samples import Batch, Sample, annotation, decode
from gradcam_bench.scoring import in_order, score_image, threads
from gradcam_bench.setup import Setup, check_settings, make_network, make_plan, refusals, setup
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


def check_scored(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses a run that is over, was to score, and had not one case: an exit code of 0 would be taken for a success.
    (Cases that lack what a metric needs are a result: they can be looked at.)"""
    if "score" in config["stages"] and not pq.read_metadata(folder / "rows.parquet").num_rows:
        raise UserError(f"nothing was scored: {folder / 'run.json'} says which images were left out, and why")


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
    plan = make_plan(config, network.preprocessing, metrics_of(config))
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


def _model(made: Setup) -> str:
    return f"{made.network.name} ({made.network.layer}) on {made.device}" if made.network else "no model"
