"""The verb `seeds`: a finished run's stored heatmaps as seeds for segmentation networks, without the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gradcam_bench import seed_files
from gradcam_bench.axes import check_axis
from gradcam_bench.choices import Protocol, View
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.files import write_json
from gradcam_bench.plan import Run
from gradcam_bench.regions import crf, seeds
from gradcam_bench.replay import Played, replay
from gradcam_bench.samples import as_tensor
from gradcam_bench.scoring import make_trial
from gradcam_bench.seed_files import FORMATS, Numbers, Seed
from gradcam_bench.terminal import progress, say

READS = ("rectify", "normalize", "resize", "order", "smooth", "smooth_maps", "frame", "seed_rule", "background", "crf")


def export(
    job: Run,
    cases: pd.DataFrame,
    formats: Sequence[str],
    background: float | None = None,
    methods: Sequence[str] = (),
    preset: str | None = None,
    saliency: str | None = None,
    alpha: float | None = None,
) -> Path:
    """Writes <run>/seeds/<method>/<format>/ for every stored method, and <run>/seeds/seeds.json, which says by which
    view and protocol; returns the folder.

    The protocol is that of the run's first score of seeds (of `preset`), in source pixels, or the default one where the
    run has none; background: another level than its own. methods: only these. saliency: the method whose maps tell
    SEC's background (the highest of all classes'); None: the method's own. alpha: with a dense random field, the
    background's score being (1 - highest)^alpha (`regions.crf`); None: as the protocol has it. Images of which a map is
    not finite are left out.
    """
    if alpha is not None and not 0 < alpha < 1e3:
        raise UserError(f"--crf {alpha:g}: the background's exponent must lie between 0 and 1000; PSA takes 4 and 24")
    for name in formats:
        if name not in FORMATS:
            raise unknown("format of seeds", name, FORMATS)
    if {"png", "sec"}.intersection(formats):
        seed_files.named(cases["class_index"].unique().tolist())
    labels = [method.label for method in job.plan.methods]
    for name in (*methods, *([saliency] if saliency else [])):
        if name not in labels:
            raise unknown("method of this run", name, labels)
    view, protocol = _chosen(job, preset, background)
    alpha = protocol.crf or None if alpha is None else alpha
    folder, chosen = job.store.folder / "seeds", list(methods) or labels
    truth = getattr(job.dataset, "truth", None)  # COCO's annotations number images and classes in their own way
    numbers = Numbers(getattr(truth, "numbers", {}), getattr(truth, "categories", ()))
    writers = {label: [FORMATS[name](folder / label / name, numbers) for name in formats] for label in chosen}
    written, left_out = dict.fromkeys(chosen, 0), dict.fromkeys(chosen, 0)
    with progress() as bar:
        task = bar.add_task("seeds", total=cases["image_id"].nunique())
        for played in replay(job, view, cases, pictures=alpha is not None):
            found = dict(_seeds(job, played, protocol, chosen, saliency, alpha))
            for label, seed in found.items():
                for writer in writers[label]:
                    writer.add(seed)
                written[label] += 1
            for label in set(chosen) & set(played.maps) - set(found):
                left_out[label] += 1
            bar.advance(task)
    _close(job, folder, writers, written, left_out)
    facts = {
        "formats": list(formats),
        "view": view.__dict__,
        "protocol": dict(protocol),
        "saliency": saliency,
        "crf": alpha,
    }
    write_json(folder / "seeds.json", facts | {"images": written, "left_out": left_out})
    return folder


def _chosen(job: Run, preset: str | None, background: float | None) -> tuple[View, Protocol]:
    """The view and the protocol, in source pixels, of the run's first score of seeds (of a preset)."""
    scored = [(view, one) for view, jobs in job.plan.views.items() for one in jobs if "seed_rule" in one.protocol]
    presets = list(dict.fromkeys(one.preset for _, one in scored))
    if preset is not None and preset not in presets:
        raise unknown("preset of this run's seeds", preset, presets)
    scored = [(view, one) for view, one in scored if preset in (None, one.preset)]
    fixed = [(view, one) for view, one in scored if "background" in one.protocol]
    view, axes = next(iter(job.plan.views)), dict[str, Any]()
    if scored:
        view, one = (fixed or scored)[0]
        axes = {name: one.protocol[name] for name in READS if name in one.protocol}
    axes["frame"] = "source"
    if background is not None:
        axes["background"] = check_axis("background", background)
    return view, Protocol(axes).only(READS)


def _seeds(
    job: Run, played: Played, protocol: Protocol, labels: Sequence[str], saliency: str | None, alpha: float | None
) -> Iterator[tuple[str, Seed]]:
    """(method, seed) of one image, for each method all of whose maps are there and finite."""
    trial, where, broken = make_trial(job.plan.methods, played.cases, played.maps, {})
    if trial is None:
        return
    seen, bad = trial.under(protocol), {method.label for _, method, _ in broken}
    mine = {label: [u for u, (_, method) in enumerate(where) if method.label == label] for label in labels}
    calm = [u for u, (_, method) in enumerate(where) if method.label == saliency]
    share = protocol.background if protocol.seed_rule == "sec" else seeds.SHARE
    for label, units in mine.items():
        if not units or label in bad or (saliency and (not calm or saliency in bad)):
            continue
        units.sort(key=lambda unit: seen.classes[unit])
        maps = seen.maps[units]
        cues = seeds.cues(maps, seen.maps[calm or units].amax(0), share)
        classes = [seen.classes[unit] for unit in units]
        scores = [1.0 if where[unit][0].probability is None else float(where[unit][0].probability) for unit in units]  # type: ignore[arg-type]
        beliefs = None if alpha is None else _field(played, maps, alpha)
        if beliefs is None:
            labelled = seed_files.label_map(maps, protocol.seed_rule, protocol.background, cues)
        else:
            labelled = beliefs.argmax(0).to(torch.uint8)
        yield label, Seed(seen.annotation.image_id, classes, maps, labelled, cues, scores, beliefs)


def _field(played: Played, maps: Tensor, alpha: float) -> Tensor:
    """[1 + Q,H,W]: the random field's beliefs for maps [Q,H,W] of one image, whose picture it needs."""
    if played.picture is None:
        raise UserError(f"{played.cases[0].sample.annotation.image_id}: its picture cannot be read, and --crf needs it")
    return crf.mean_field(crf.with_background(maps, alpha), as_tensor(played.picture.image))


def _close(
    job: Run, folder: Path, writers: dict[str, list[Any]], written: dict[str, int], left: dict[str, int]
) -> None:
    for label, count in written.items():
        for one in writers[label] if count else ():
            one.close()
        if left[label]:
            say(f"left out: {left[label]} images of {label}, as a heatmap is not finite")
    missing = [label for label, count in written.items() if not count and not left[label]]
    if len(missing) == len(written):
        raise UserError(
            f"{job.store.folder} holds none of these heatmaps (store={job.keep}): run it again with store=all"
        )
    for label in missing:
        say(f"not written: the heatmaps of {label} were not stored (store={job.keep}); run with store=all")
    say(f"seeds of {max(written.values())} images, {len(written) - len(missing)} methods -> {folder}")
