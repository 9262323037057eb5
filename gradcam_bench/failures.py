"""Why did it get that wrong? Misclassified images, the map of the true class beside that of the class that won.

Selvaraju et al. 2017, sec. 6.1, who found reasons for predictions that seem unreasonable. Of every failure both maps
are scored against the annotated object: does the network see the object although it names another class, and does what
it names instead lie on the object or beside it? A run under `view.target=gt_and_predicted` has both maps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from gradcam_bench.answers import Case
from gradcam_bench.cells import Rows
from gradcam_bench.choices import View
from gradcam_bench.plan import Job, Run, view_id
from gradcam_bench.replay import Played, replay
from gradcam_bench.report.failures import Failures, Shown
from gradcam_bench.report.inputs import Overlay
from gradcam_bench.scoring import make_trial, outcomes
from gradcam_bench.trial import Trial

TARGET = "gt_and_predicted"
SCORES = {"iou": "box_iou", "energy": "energy_pointing_game", "pointing": "pointing_game"}  # the first sorts
RIGHT = 0.5  # IoU from which a box is right
EACH = 12  # failures that the page shows from the head of each order
WRONG, MISSED = "wrong first answer", "missed class"
Draw = Callable[[Trial, int, Job, int | None, float | None, str], Overlay]
DEFINITION = {
    False: "An image is misclassified where the network's first answer is none of its annotated classes; each of these "
    "is one failure.",
    True: "The network sees several classes in an image. A failure is an annotated class of an image whose first "
    f"answer is none of the annotated ones ({WRONG}), or one with a probability below one half that is not itself the "
    f"first answer ({MISSED}).",
}


def study(job: Run, rows: Rows, cases: pd.DataFrame, several: bool, draw: Draw) -> Failures | None:
    """The study of a finished run, None where it does not ask for both classes. several: whether the network sees
    several classes in an image (sigmoids). draw: how a unit of a trial is drawn (`illustrate.overlay`)."""
    view = next((one for one in job.plan.views if one.target == TARGET), None)
    if view is None:
        return None
    mine = cases[(cases["view"].astype(str) == view_id(view)) & cases["predicted"].notna()]
    pairs = pairs_of(mine, several)
    jobs = {name: one for name, label in SCORES.items() for one in job.plan.views[view] if one.metric.label == label}
    table = pd.DataFrame(list(_scored(job, view, mine, pairs, jobs)))
    best = next((name for name in jobs if len(table) and table[f"{name}_true"].notna().any()), None)
    shown = list(_shown(job, view, mine, table, jobs, best, draw)) if len(table) else []
    right = mine[~mine["case_id"].isin([pair["case_id"] for pair in pairs]) & mine["correct_top1"].astype(bool)]
    summary = _summary(job, rows, view, table, jobs, set(right["case_id"]))
    wrong = {pair["image_id"] for pair in pairs if pair["kind"] == WRONG}
    counts = {"images": mine["image_id"].nunique(), "images misclassified": len(wrong), "failures": len(pairs)}
    counts |= {"of them missed classes": sum(pair["kind"] == MISSED for pair in pairs)} if several else {}
    return Failures(counts, DEFINITION[several], table, summary, shown, best)


def pairs_of(cases: pd.DataFrame, several: bool) -> list[dict[str, Any]]:
    """The failures among the cases of one view: image, true class, the first answer, both probabilities, and kind.

    cases: as in cases.parquet. An image's case whose class is the first answer is an annotated one exactly where the
    image counts as right.
    """
    pairs = []
    for image_id, group in cases.groupby("image_id", sort=False, observed=True):
        answers = group[group["class_index"] == group["predicted"]]
        if not len(answers):
            continue
        answer, right = answers.iloc[0], bool(answers.iloc[0]["correct_top1"])
        for row in group.to_dict("records"):
            missed = several and right and row["probability"] < 0.5
            if row["class_index"] != answer["class_index"] and (missed or not right):
                facts = {"image_id": str(image_id), "case_id": row["case_id"], "kind": WRONG if not right else MISSED}
                for side, one in (("true", row), ("predicted", answer)):
                    name = one["class_name"] if isinstance(one["class_name"], str) else str(one["class_index"])
                    facts |= {f"{side}_class": int(one["class_index"]), f"{side}_name": name}
                    facts[f"{side}_probability"] = float(one["probability"])
                pairs.append({**facts, "true_rank": row["rank"]})
    return pairs


def _scored(
    job: Run, view: View, cases: pd.DataFrame, pairs: Sequence[dict[str, Any]], jobs: Mapping[str, Job]
) -> Iterator[dict[str, Any]]:
    """A line a failure and method: both maps' scores against the objects of the true class."""
    by_image: dict[str, list[dict[str, Any]]] = {}
    for pair in pairs:
        by_image.setdefault(pair["image_id"], []).append(pair)
    for played in _replayed(job, view, cases, by_image):
        for pair in by_image[played.cases[0].sample.annotation.image_id]:
            trial, sides = _trial(job, played, pair)
            found = {k: outcomes(one.metric, trial.under(one.protocol)) for k, one in jobs.items()} if trial else {}
            for method, units in sides.items():
                yield {**pair, "method": method, **_line(jobs, found, units)}


def _line(jobs: Mapping[str, Job], found: Mapping[str, Any], units: tuple[int | None, int | None]) -> dict[str, float]:
    """The scores of both maps of one method; not a number where there is none."""
    line = {}
    for name in jobs:
        for side, unit in zip(("true", "predicted"), units, strict=True):
            value = None if unit is None or name not in found else found[name][unit][0]
            line[f"{name}_{side}"] = np.nan if value is None else float(value)
    return line


def _replayed(
    job: Run, view: View, cases: pd.DataFrame, images: Collection[str], pictures: bool = False
) -> Iterator[Played]:
    return replay(job, view, cases, images, pictures) if images else iter(())


def _trial(
    job: Run, played: Played, pair: Mapping[str, Any]
) -> tuple[Trial | None, dict[str, tuple[int | None, int | None]]]:
    """Both classes' maps by every method as units that are asked about the true class, and by method the unit of the
    true and of the predicted class (None: its map is not finite)."""
    places = {case.target: place for place, case in enumerate(played.cases)}
    true, other = places[pair["true_class"]], places[pair["predicted_class"]]
    asked: list[Case] = [played.cases[true], replace(played.cases[other], target=pair["true_class"])]
    maps = {label: [grids[true], grids[other]] for label, grids in played.maps.items()}
    trial, where, _ = make_trial(job.plan.methods, asked, maps, {})
    units = {(method.label, case is asked[0]): unit for unit, (case, method) in enumerate(where)}
    return trial, {label: (units.get((label, True)), units.get((label, False))) for label in maps}


def _summary(
    job: Run, rows: Rows, view: View, table: pd.DataFrame, jobs: Mapping[str, Job], right: Collection[str]
) -> pd.DataFrame:
    """Shares in [0, 1], a line a method: boxes that are right, peaks and mass on the object, by the map of the true and
    of the predicted class, and by that of the true class where the network was right."""
    lines = []
    frame = rows.frame[rows.frame["case_id"].isin(list(right)) & (rows.frame["view"].astype(str) == view_id(view))]
    for label in _ordered(job, [method.label for method in job.plan.methods]):
        mine = table[table["method"] == label] if len(table) else table
        line: dict[str, Any] = {"method": label, "failures": len(mine)}
        for name, one in jobs.items():
            same = (frame["metric"].astype(str) == one.metric.label) & (frame["protocol"].astype(str) == one.id)
            values = frame[same & (frame["method"].astype(str) == label)]["value"]
            for side in ("true", "predicted"):
                line[f"{name}_{side}"] = _share(name, mine[f"{name}_{side}"]) if len(mine) else np.nan
            line[f"{name}_right"] = _share(name, values)
        lines.append(line)
    return pd.DataFrame(lines).dropna(axis=1, how="all")


def _share(name: str, values: pd.Series) -> float:
    known = values.dropna().astype(float)
    return float((known >= RIGHT).mean() if name == "iou" else known.mean()) if len(known) else np.nan


def _shown(
    job: Run,
    view: View,
    cases: pd.DataFrame,
    table: pd.DataFrame,
    jobs: Mapping[str, Job],
    best: str | None,
    draw: Draw,
) -> Iterator[Shown]:
    """The head of each order, most confident first, with every method's maps."""
    first = table[table["method"] == _ordered(job, table["method"])[0]].reset_index(drop=True)
    keys = [-first["predicted_probability"]]
    if best:
        keys += [-first[f"{best}_true"].fillna(-1.0), first[f"{best}_true"].fillna(2.0)]
    ranks = np.stack([key.rank(method="first").to_numpy(dtype=int) for key in keys], 1)
    chosen = first[(ranks <= EACH).any(1)].index
    images = set(first.loc[chosen, "image_id"])
    played = {one.cases[0].sample.annotation.image_id: one for one in _replayed(job, view, cases, images, True)}
    for place in sorted(chosen, key=lambda place: ranks[place, 0]):
        pair = first.loc[place].to_dict()
        one = played[pair["image_id"]]
        if one.picture is not None:
            maps = _overlays(job, one, pair, table[table["case_id"] == pair["case_id"]], jobs, draw)
            truth = one.cases[0].sample.annotation
            boxes = truth.boxes[truth.labels == pair["true_class"]].numpy()
            sides = [(pair[f"{side}_name"], pair[f"{side}_probability"]) for side in ("true", "predicted")]
            image = np.asarray(one.picture.image)
            yield Shown(pair["image_id"], pair["kind"], sides[0], sides[1], image, boxes, maps, ranks[place].tolist())


def _ordered(job: Run, labels: Iterable[str]) -> list[str]:
    """Methods without repetition, Grad-CAM first, whose maps give the orders, controls last."""
    controls = {method.label for method in job.plan.methods if method.control}
    return sorted(dict.fromkeys(labels), key=lambda label: (label in controls, label != "grad_cam"))


def _overlays(
    job: Run,
    played: Played,
    pair: Mapping[str, Any],
    lines: pd.DataFrame,
    jobs: Mapping[str, Job],
    draw: Draw,
) -> dict[str, tuple[Overlay, Overlay]]:
    trial, sides = _trial(job, played, pair)
    ruled = jobs.get("iou") or next(iter(jobs.values()), None)
    drawn = {}
    for method in _ordered(job, sides):
        true, other = sides[method]
        if trial is not None and ruled is not None and true is not None and other is not None:
            mine = {str(name): value for name, value in lines[lines["method"] == method].iloc[0].items()}
            said = [_said(mine, side) for side in ("true", "predicted")]
            both = [draw(trial, unit, ruled, None, None, caption) for unit, caption in zip((true, other), said)]
            drawn[method] = both[0], both[1]
    return drawn


def _said(line: Mapping[str, Any], side: str) -> str:
    """A map's scores in words, as far as there are any."""
    iou, energy, peak = (line.get(f"{name}_{side}", np.nan) for name in ("iou", "energy", "pointing"))
    words = [] if pd.isna(iou) else [f"IoU {iou:.2f}"]
    words += [] if pd.isna(energy) else [f"mass {energy:.2f}"]
    words += [] if pd.isna(peak) else ["peak on it" if peak else "peak off it"]
    return ", ".join(words)
