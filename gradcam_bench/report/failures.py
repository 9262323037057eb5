"""The section of the page on misclassified images: the map of the true class beside that of the class that won."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from gradcam_bench.report import pictures
from gradcam_bench.report.inputs import Boxes, Overlay, Picture
from gradcam_bench.report.thumbnails import BUDGET, Box, boxes_of

NUMBERS = {  # columns of the summary, as they are headed
    "iou_true": "true class: box right",
    "iou_predicted": "first answer: box right",
    "iou_right": "right images: box right",
    "pointing_true": "true class: peak on object",
    "pointing_predicted": "first answer: peak on object",
    "pointing_right": "right images: peak on object",
    "energy_true": "true class: mass on object",
    "energy_predicted": "first answer: mass on object",
    "energy_right": "right images: mass on object",
}


@dataclass(frozen=True)
class Shown:
    """One failure as it is drawn. true, predicted: (class name, probability). true_boxes: [G,4] of the true class.
    maps: by method, of the true class and of the predicted one, their scores as captions. ranks: places in the orders
    of `ORDERS`."""

    image_id: str
    kind: str
    true: tuple[str, float]
    predicted: tuple[str, float]
    image: Picture
    true_boxes: Boxes
    maps: Mapping[str, tuple[Overlay, Overlay]]
    ranks: Sequence[int]


@dataclass(frozen=True)
class Failures:
    """The study. counts: what there is of images and failures, in words. definition: what counts as one. table: a line
    a failure and method (failures.csv). summary: a line a method. sorted_by: the score that says how well a map is
    localized, None where the data has neither boxes nor masks."""

    counts: Mapping[str, int]
    definition: str
    table: pd.DataFrame
    summary: pd.DataFrame
    shown: Sequence[Shown]
    sorted_by: str | None


ORDERS = ("most confident first", "true class best localized first", "true class worst localized first")


def section(environment: Environment, found: Failures | None, controls: Collection[str] = ()) -> Markup:
    """The section's HTML, empty where the run is no such study."""
    if found is None:
        return Markup("")
    methods = list(dict.fromkeys(method for one in found.shown for method in one.maps))
    drawn, spent = [], 0
    for one in found.shown:
        made = _drawn(one)
        spent += len(made["photo"]) + sum(len(side["heat"]) for sides in made["maps"].values() for side in sides)
        if spent > BUDGET:
            break
        drawn.append(made)
    heads = [(name, head) for name, head in NUMBERS.items() if name in found.summary]
    rows = [(row["method"], [_percent(row[name]) for name, _ in heads]) for row in found.summary.to_dict("records")]
    page = environment.get_template("failures.html.j2")
    orders = ORDERS if found.sorted_by else ORDERS[:1]
    given = {"methods": methods, "heads": heads, "rows": rows, "orders": orders, "controls": controls}
    return Markup(page.render(found=found, drawn=drawn, **given))


def as_text(found: Failures) -> str:
    """The summary for the terminal."""
    lines = ["failures: " + ", ".join(f"{count} {what}" for what, count in found.counts.items())]
    for row in found.summary.to_dict("records"):
        there = [
            f"{NUMBERS[name]} {_percent(row[name])} %" for name in NUMBERS if name in row and not pd.isna(row[name])
        ]
        lines.append(f"  {row['method']}: {', '.join(there) or 'nothing to compare with'}")
    return "\n".join(lines)


def _percent(share: Any) -> str:
    return "–" if pd.isna(share) else f"{100 * share:.1f}"


def _drawn(one: Shown) -> dict[str, Any]:
    height, width = one.image.shape[:2]
    return {
        "one": one,
        "photo": pictures.photo(one.image, 224),
        "width": width,
        "height": height,
        "true_boxes": boxes_of(one.true_boxes),
        "maps": {method: [_side(overlay) for overlay in both] for method, both in one.maps.items()},
    }


def _side(overlay: Overlay) -> dict[str, Any]:
    boxes: tuple[Box, ...] = boxes_of(overlay.boxes)
    return {"heat": pictures.heat(overlay.heatmap, 160), "boxes": boxes, "caption": overlay.caption}
