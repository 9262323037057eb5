"""The gallery's cases as the page carries them: small pictures and boxes in source pixels, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradcam_bench.report import pictures
from gradcam_bench.report.gallery import GROUPS
from gradcam_bench.report.inputs import Boxes, Chooser, Item, Overlay

BUDGET = 10 * 2**20  # characters of pictures and boxes in a page
DRAWN = 20  # predicted boxes of a map: one in specks has thousands, which would hide it
OF_A_BOX = 150  # characters, about

Box = tuple[float, float, float, float]  # x, y, width, height in source pixels


@dataclass(frozen=True)
class Layer:
    """One method over one picture. score: as printed, empty where there is none; caption: what it is."""

    method: str
    heat: str
    boxes: tuple[Box, ...]
    score: str
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """One case. width, height: of the source image in pixels; photo, heat and true_mask are data addresses, the last
    empty where there is no mask. size, answer (`right`, `wrong`): what the gallery is filtered by, empty if unknown."""

    case_id: str
    image_id: str
    class_name: str
    width: int
    height: int
    photo: str
    true_boxes: tuple[Box, ...]
    layers: tuple[Layer, ...]
    true_mask: str
    size: str
    answer: str

    @property
    def weight(self) -> int:
        boxes = len(self.true_boxes) + sum(len(layer.boxes) for layer in self.layers)
        pictures = (self.photo, self.true_mask, *(layer.heat for layer in self.layers))
        return sum(map(len, pictures)) + OF_A_BOX * boxes


@dataclass(frozen=True)
class Group:
    """The cases shown together: why, and by whose score."""

    name: str
    chooser: Chooser
    thumbnails: tuple[Thumbnail, ...]


def groups(items: Sequence[Item], methods: Sequence[str], budget: int = BUDGET) -> tuple[list[Group], int]:
    """The items by chooser and group, in their order, and how many were left out to keep the page small.

    Cases are taken in turns (the first of each group, then the second...), so that no group starves.
    """
    sorted_items: dict[tuple[Chooser, str], list[Item]] = {}
    for item in items:
        sorted_items.setdefault((item.chooser, item.group), []).append(item)
    turns = sorted(
        ((place, key, item) for key, mine in sorted_items.items() for place, item in enumerate(mine)),
        key=lambda turn: turn[0],
    )
    kept: dict[tuple[Chooser, str], list[Thumbnail]] = {key: [] for key in sorted_items}
    spent = left_out = 0
    for _, key, item in turns:
        made = thumbnail(item, methods) if spent < budget else None
        if made is None or spent + made.weight > budget:
            spent, left_out = budget, left_out + 1
            continue
        kept[key].append(made)
        spent += made.weight
    choosers = list(dict.fromkeys(key[0] for key in kept))
    order = sorted(kept, key=lambda key: (choosers.index(key[0]), _rank(key[1])))
    return [Group(key[1], key[0], tuple(kept[key])) for key in order if kept[key]], left_out


def thumbnail(item: Item, methods: Sequence[str]) -> Thumbnail:
    """An item with its pictures encoded, its methods in the given order (others after them, by name)."""
    order = {name: i for i, name in enumerate(methods)}
    layers = []
    for method in sorted(item.overlays, key=lambda name: (order.get(name, len(order)), name)):
        overlay = item.overlays[method]
        score = "" if overlay.score is None or np.isnan(overlay.score) else f"{overlay.score:.2f}"
        boxes, caption = predicted(overlay)
        layers.append(Layer(method, pictures.heat(overlay.heatmap), boxes, score, caption))
    height, width = item.image.shape[:2]
    return Thumbnail(
        item.case_id,
        item.image_id,
        item.class_name,
        width,
        height,
        pictures.photo(item.image),
        boxes_of(item.true_boxes),
        tuple(layers),
        "" if item.true_mask is None else pictures.outline(item.true_mask),
        item.size,
        "" if item.correct is None else ("right" if item.correct else "wrong"),
    )


def predicted(overlay: Overlay) -> tuple[tuple[Box, ...], str]:
    """The largest of an overlay's boxes, and its caption, which says so where there are more."""
    boxes, caption = np.asarray(overlay.boxes, dtype=float).reshape(-1, 4), overlay.caption
    if len(boxes) > DRAWN:
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        caption = ", ".join([*([caption] if caption else []), f"the largest {DRAWN} of {len(boxes)} boxes"])
        boxes = boxes[np.sort(np.argsort(-area, kind="stable")[:DRAWN])]
    return boxes_of(boxes), caption


def _rank(group: str) -> int:
    return GROUPS.index(group) if group in GROUPS else len(GROUPS)


def boxes_of(boxes: Boxes) -> tuple[Box, ...]:
    rounded = [[round(float(v), 2) for v in box] for box in np.asarray(boxes, dtype=float).reshape(-1, 4)]
    return tuple((x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)) for x0, y0, x1, y1 in rounded)
