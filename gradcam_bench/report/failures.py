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
from gradcam_bench.report.thumbnails import BUDGET, boxes_of, predicted

KINDS = {"iou": "box right", "pointing": "peak on object", "energy": "mass on object"}  # scores of a map
SIDES = {"true": "true class", "predicted": "first answer", "right": "right images"}  # whose map
NUMBERS = {f"{kind}_{side}": f"{whose}: {what}" for kind, what in KINDS.items() for side, whose in SIDES.items()}


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
    """The summary for the terminal: of each score its number for the true class, the first answer, and right images."""
    there = {kind: head for kind, head in KINDS.items() if f"{kind}_true" in found.summary}
    rows = [["", *there.values()]]
    for row in found.summary.to_dict("records"):
        cells = [[row.get(f"{kind}_{side}", float("nan")) for side in SIDES] for kind in there]
        rows.append([row["method"], *(" / ".join(map(_percent, cell)) for cell in cells)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = ", ".join(f"{count} {what}" for what, count in found.counts.items())
    which = "in %, by the map of the true class / of the first answer / of the true class in images answered rightly"
    return "\n".join([f"failures: {counts}", *([which, *lines] if there else [])])


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
    boxes, caption = predicted(overlay)
    return {"heat": pictures.heat(overlay.heatmap, 160), "boxes": boxes, "caption": caption}
