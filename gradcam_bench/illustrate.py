"""Pictures of a run's cases: every method's heatmap and boxes over the image, for the page's gallery and for `show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.answers import Case
from gradcam_bench.catalogue import Method
from gradcam_bench.cells import Rows
from gradcam_bench.choices import Protocol, View
from gradcam_bench.errors import UserError
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.regions.boxes import boxes_at
from gradcam_bench.replay import Played, replay
from gradcam_bench.report.gallery import choose, disagreed, scores
from gradcam_bench.report.inputs import Chooser, Item, Overlay
from gradcam_bench.scoring import make_trial
from gradcam_bench.trial import Trial

PER_GROUP = 12  # cases of a group of the gallery
PREFERRED = (
    *("max_box_acc", "localization_error_gt_known", "pointing_game", "energy_pointing_game", "cor_loc", "box_iou"),
    *("grad_cam_pp_loc", "instance_recall", "mass_accuracy", "rank_accuracy", "weighting_game", "grid_pointing_game"),
)


def gallery(job: Run, rows: Rows, cases: pd.DataFrame, per_group: int = PER_GROUP) -> list[Item]:
    """Best, median and worst cases of one method under one metric, and those on which methods disagree most, with all
    methods' heatmaps; empty where there is nothing to choose by. The metric is the first of PREFERRED that was scored,
    the method Grad-CAM or the first that is no control."""
    chooser = _chooser(job, rows)
    if chooser is None:
        return []
    view, one = chooser
    plain = [m.label for m in job.plan.methods if not m.control]
    method = "grad_cam" if "grad_cam" in plain else next(iter(plain), job.plan.methods[0].label)
    up = one.metric.higher_is_better is not False
    levels = {m.label: scores(rows, m.label, one.metric.label, one.id) for m in job.plan.methods if len(rows.frame)}
    chosen = choose(rows, method, one.metric.label, one.id, per_group, up)
    judged = {label: levels[label][0] for label in plain if len(levels[label][0])}
    chosen += disagreed(judged, per_group)
    images = {choice.case_id.rpartition("#")[0] for choice in chosen}
    wanted = {choice.case_id for choice in chosen}
    items = {}
    for played in replay(job, view, cases, images, pictures=True):
        for q, case in enumerate(played.cases):
            if case.id in wanted and played.picture is not None:
                items[case.id] = _item(job, played, q, _overlays(job, played, q, one, levels))
    told = cases.loc[cases["view"].astype(str) == view_id(view), ["case_id", "size", "rank"]].astype(object)
    known = {row["case_id"]: row for row in told.where(told.notna(), None).to_dict("records")}
    made = []
    for choice in chosen:
        if choice.case_id in items:
            of = Chooser("" if choice.group == "disagreed" else method, one.metric.label, one.id)
            size, rank = known[choice.case_id]["size"], known[choice.case_id]["rank"]
            item = replace(items[choice.case_id], group=choice.group, chooser=of)
            made.append(replace(item, size=str(size or ""), correct=None if rank is None else rank == 0))
    return made


def _item(job: Run, played: Played, q: int, overlays: dict[str, Overlay]) -> Item:
    """Case q of an image, not yet in a group."""
    case, picture = played.cases[q], played.picture
    assert picture is not None
    truth = case.sample.annotation
    name = job.dataset.classes[case.target] if case.target < len(job.dataset.classes) else str(case.target)
    boxes = truth.boxes[truth.labels == case.target].numpy()
    mask = _mask(job, case.sample.index, case.target)
    return Item(
        case.id, truth.image_id, name, np.asarray(picture.image), boxes, overlays, "", Chooser("", "", ""), mask
    )


def _mask(job: Run, index: int, target: int) -> np.ndarray | None:
    """The pixels [H,W] of a class in an image, where the data have masks."""
    try:
        known = job.dataset.annotate(index, True)
    except UserError:
        return None
    if known.masks is None or known.mask_labels is None:
        return None
    mine = known.masks[known.mask_labels == target]
    return mine.any(0).numpy() if len(mine) else None


def _chooser(job: Run, rows: Rows) -> tuple[View, Job] | None:
    scored = rows.frame[rows.frame["problem"].isna()]
    there = set(zip(scored["metric"].astype(str), scored["protocol"].astype(str), strict=True))
    jobs = [(view, one) for view, jobs in job.plan.views.items() for one in jobs if (one.metric.label, one.id) in there]
    rank = {label: number for number, label in enumerate(PREFERRED)}
    jobs = [pair for pair in jobs if pair[1].metric.label in rank]
    return min(jobs, key=lambda pair: rank[pair[1].metric.label]) if jobs else None


def _overlays(
    job: Run, played: Played, q: int, one: Job, scored: Mapping[str, tuple[pd.Series, int | None]]
) -> dict[str, Overlay]:
    """Each method's overlay for case q of an image, boxes at the level at which its score was read."""
    case = played.cases[q]
    grids = {label: [maps[q]] for label, maps in played.maps.items()}
    trial, where, _ = make_trial(job.plan.methods, [case], grids, {})
    overlays = {}
    for unit, (_, method) in enumerate(where):
        assert trial is not None
        found, level = scored[method.label]
        score = float(found[case.id]) if case.id in found.index else None
        overlays[method.label] = overlay(trial, unit, one, level, score, _caption(one, level))
    return overlays


def overlays_of(
    case: Case, maps: Mapping[str, Sequence[Tensor]], methods: Sequence[Method], jobs: Sequence[Job]
) -> dict[str, Overlay]:
    """Each method's overlay for one case that was not scored; boxes by the first job that has a rule for them."""
    trial, where, _ = make_trial(methods, [case], maps, {})
    ruled = [job for job in jobs if "rule" in job.protocol and job.protocol["rule"] == "largest_component"]
    made = {}
    for unit, (_, method) in enumerate(where):
        assert trial is not None
        empty = Overlay(_drawn(trial, unit).numpy(), np.zeros((0, 4)), None, "")
        made[method.label] = overlay(trial, unit, ruled[0], None, None, "") if ruled else empty
    return made


def overlay(trial: Trial, unit: int, one: Job, level: int | None, score: float | None, caption: str) -> Overlay:
    """A unit of a trial as it is drawn: heatmap in the source frame, boxes by the job's protocol if it has a rule."""
    seen = trial.under(one.protocol)
    boxes = np.zeros((0, 4))
    if "rule" in one.protocol:
        p = one.protocol
        at = level if level is not None else heatmaps.level(p["threshold"], p["quantize"])
        boxes = boxes_at(seen.levels[unit].numpy(), at, p["rule"], p["connectivity"]).astype(float)
        if p["frame"] == "input":
            boxes = _to_source(seen, boxes)
    return Overlay(_drawn(trial, unit).numpy(), boxes, score, caption)


def _caption(one: Job, level: int | None) -> str:
    """What the score of an overlay is."""
    if level is None or one.protocol["rule"] == "cam_2016_code":
        return one.metric.label
    steps = 100 if one.protocol["quantize"] == "percent" else 255
    return f"best IoU at threshold {level / steps:.2f}, {one.metric.label}"


def _to_source(trial: Trial, boxes: np.ndarray) -> np.ndarray:
    (sy, sx), (oy, ox) = trial.frame.scale, trial.frame.offset
    return (boxes + np.array([ox, oy, ox, oy])) / np.array([sx, sy, sx, sy])


def _drawn(trial: Trial, unit: int) -> Tensor:
    """[H,W] in [0, 1]: what the eye is shown is always the paper's map, bilinear, min-max, in the source frame."""
    return trial.under(Protocol()).maps[unit]
