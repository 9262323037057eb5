"""Scenes: pictures drawn by the computer, with exact masks and boxes, for demos and tests without a download.

One to four objects of ten classes on a cluttered background. The class is the SHAPE alone; colour, texture, size and
rotation say nothing about it. Later objects lie over earlier ones; an object keeps at least half of its pixels visible.
All arithmetic is on integers and the random numbers come from `RandomState`, whose stream is frozen (NEP 19), so a
picture depends on (VERSION, seed, index) only and is the same on every platform. The pixels of a version never change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
VERSION = 1
SPLIT_SEEDS = {"train": 1_000_003, "val": 2_000_003, "test": 3_000_017}  # disjoint: the seed is part of every picture
UNIT = 1024  # an object's radius in its own coordinates; also the fixed point of sine and cosine
TURN = 64  # rotation steps in a full turn
TILT = 8  # steps an object is turned at most, either way: 45 degrees
_QUARTER = (0, 100, 200, 297, 392, 483, 569, 650, 724, 792, 851, 903, 946, 980, 1004, 1019, 1024)
_SINE = (*_QUARTER, *_QUARTER[-2::-1], *(-s for s in _QUARTER[1:]), *(-s for s in _QUARTER[-2:0:-1]))
_STAR_NORMALS = ((0, 1024), (974, 316), (602, -828), (-602, -828), (-974, 316))
_RADII = ((16, 22), (24, 34), (30, 44), (38, 54), (46, 66))  # pixels; the band is drawn first

SHAPES: dict[str, Callable[[Ints, Ints], Mask]] = {  # which points (u, v) belong; every shape has radius about UNIT
    "disc": lambda u, v: u * u + v * v <= 900**2,
    "square": lambda u, v: (abs(u) <= 760) & (abs(v) <= 760),
    "triangle": lambda u, v: (v <= 512) & (1774 * abs(u) - UNIT * v <= UNIT * UNIT),
    "cross": lambda u, v: ((abs(u) <= 290) & (abs(v) <= 950)) | ((abs(v) <= 290) & (abs(u) <= 950)),
    # a point of a pentagram lies on the inner side of at least four of its five lines
    "star": lambda u, v: np.sum([p * u + q * v <= 330 * UNIT for p, q in _STAR_NORMALS], axis=0) >= 4,
    "ring": lambda u, v: (u * u + v * v <= 960**2) & (u * u + v * v >= 540**2),
    "crescent": lambda u, v: (u * u + v * v <= 960**2) & ((u - 470) ** 2 + v * v >= 780**2),
    "heart": lambda u, v: (abs(u) + abs(v) <= 820) | ((abs(u) - 410) ** 2 + (v + 410) ** 2 <= 580**2),
    "arrow": lambda u, v: (
        ((v >= -980) & (v <= 60) & (100 * abs(u) <= 80 * (v + 980))) | ((abs(u) <= 240) & (v > 0) & (v <= 940))
    ),
    "hourglass": lambda u, v: (abs(v) <= 880) & (10 * abs(u) <= 9 * abs(v) + 600),
}
CLASSES = tuple(SHAPES)


@dataclass(frozen=True)
class Scene:
    """One picture. image uint8 [H,W,3]; instances uint8 [H,W], 0 = background, k = k-th object (visible pixels);
    labels, truncated (cut by the frame) and occluded (partly under another object): one entry an object."""

    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    labels: tuple[int, ...]
    truncated: tuple[bool, ...]
    occluded: tuple[bool, ...]

    @cached_property
    def boxes(self) -> Ints:
        """Tight boxes of the visible pixels [N,4]: xyxy, half-open, in pixels."""
        return np.array([_tight_box(self.instances == k + 1) for k in range(len(self.labels))], dtype=np.int64)

    @cached_property
    def areas(self) -> tuple[int, ...]:
        """Visible pixels of each object."""
        return tuple(np.bincount(self.instances.ravel(), minlength=len(self.labels) + 1)[1:].tolist())

    @cached_property
    def semantic(self) -> NDArray[np.uint8]:
        """Class map [H,W] as VOC stores it: 0 background, 1 + label elsewhere."""
        return np.array([0, *(label + 1 for label in self.labels)], dtype=np.uint8)[self.instances]


def draw(index: int, seed: int) -> Scene:
    """The `index`-th scene of stream `seed`; independent of every other index."""
    rng = np.random.RandomState([VERSION, seed, index])
    width, height = _between(rng, 200, 320), _between(rng, 180, 280)
    canvas = _background(rng, height, width)
    instances = np.zeros((height, width), dtype=np.uint8)
    labels: list[int] = []
    full: list[int] = []  # pixels of each object before anything lies over it
    truncated: list[bool] = []
    for _ in range(_between(rng, 1, 4)):
        label = _between(rng, 0, len(CLASSES) - 1)
        placed = _place(rng, label, instances, full)
        if placed is None:
            continue
        mask, u, v, r = placed
        _paint(rng, canvas, mask, u, v, r)
        labels.append(label)
        instances[mask] = len(labels)
        full.append(int(mask.sum()))
        truncated.append(bool(mask[[0, -1]].any() or mask[:, [0, -1]].any()))
    amplitude = _between(rng, 2, 12)
    canvas += rng.randint(-amplitude, amplitude + 1, size=canvas.shape, dtype=np.int16)
    seen = np.bincount(instances.ravel())[1:]
    occluded = tuple(bool(s < area) for s, area in zip(seen, full, strict=True))
    return Scene(canvas.clip(0, 255).astype(np.uint8), instances, tuple(labels), tuple(truncated), occluded)


def _between(rng: np.random.RandomState, low: int, high: int) -> int:
    """One integer, both ends included. The dtype is named because the default differs between platforms."""
    return int(rng.randint(low, high + 1, dtype=np.int64))


def _tight_box(mask: Mask) -> tuple[int, int, int, int]:
    """Half-open xyxy box of a mask [H,W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _background(rng: np.random.RandomState, height: int, width: int) -> NDArray[np.int16]:
    """A gradient, soft blobs, thin lines and specks [H,W,3]; none of them is an object."""
    y, x = np.ogrid[:height, :width]
    start, end = (rng.randint(40, 216, size=3, dtype=np.int64) for _ in range(2))
    end = start + (end - start) // 2
    angle = _between(rng, 0, TURN - 1)
    ramp = (x * _SINE[(angle + 16) % TURN] + y * _SINE[angle]) // UNIT
    ramp = ramp - ramp.min()
    canvas = start + (ramp * 256 // max(int(ramp.max()), 1))[..., None] * (end - start) // 256
    for _ in range(_between(rng, 0, 5)):
        cx, cy, r = _between(rng, 0, width), _between(rng, 0, height), _between(rng, 25, 90)
        tint = rng.randint(-50, 51, size=3, dtype=np.int64)
        weight = (r * r - (x - cx) ** 2 - (y - cy) ** 2).clip(0) * 256 // (r * r)
        canvas += weight[..., None] * tint // 256
    for _ in range(_between(rng, 0, 6)):
        across = (x - _between(rng, 0, width)) * (slope := _SINE[_between(rng, 0, TURN - 1)])
        line = abs(across + (y - _between(rng, 0, height)) * (UNIT - abs(slope))) < UNIT * _between(rng, 1, 2) // 2
        canvas[line] += rng.randint(-80, 81, size=3, dtype=np.int64)
    for _ in range(_between(rng, 0, 40)):
        cx, cy, r = _between(rng, 0, width), _between(rng, 0, height), _between(rng, 1, 3)
        canvas[cy : cy + r, cx : cx + r] += rng.randint(-90, 91, size=3, dtype=np.int64)
    return canvas.clip(0, 255).astype(np.int16)


def _place(
    rng: np.random.RandomState, label: int, instances: NDArray[np.uint8], full: list[int]
) -> tuple[Mask, Ints, Ints, int] | None:
    """Mask [H,W], own coordinates (u, v) of its pixels and radius in pixels; None where ten tries fail."""
    height, width = instances.shape
    y, x = np.mgrid[:height, :width]
    for _ in range(10):
        low, high = _RADII[_between(rng, 0, len(_RADII) - 1)]
        r, angle = _between(rng, low, high), _between(rng, -TILT, TILT)
        cx, cy = (_between(rng, r * 7 // 8, side - r * 7 // 8) for side in (width, height))
        cosine, sine = _SINE[(angle + 16) % TURN], _SINE[angle]
        u, v = ((x - cx) * cosine + (y - cy) * sine) // r, ((y - cy) * cosine - (x - cx) * sine) // r
        mask = SHAPES[CLASSES[label]](u, v)
        covered = np.bincount(instances[mask], minlength=len(full) + 1)[1:]
        seen = np.bincount(instances.ravel(), minlength=len(full) + 1)[1:]
        if all(2 * (s - c) >= area for s, c, area in zip(seen, covered, full, strict=True)):
            return mask, u[mask], v[mask], r
    return None


def _paint(rng: np.random.RandomState, canvas: NDArray[np.int16], mask: Mask, u: Ints, v: Ints, r: int) -> None:
    """Fill the mask with a texture of two colours that both stand out from what they cover; `r` in pixels."""
    under = canvas[mask].astype(np.int64).sum(0) // len(u)
    first = _contrasting(rng, under)
    pole = 0 if under.sum() > 384 else 255  # the second shade lies towards the end far from what it covers
    second = first + (pole - first) * _between(rng, 80, 160) // 256
    finest = max(5 * UNIT // r, 180)  # a cell is at least five pixels wide
    cell = _between(rng, finest, finest + 240)
    p, q = u % (2 * cell) // cell, v % (2 * cell) // cell
    match _between(rng, 0, 3):
        case 0:
            chosen = np.zeros_like(p)
        case 1:
            chosen = p
        case 2:
            chosen = p ^ q
        case _:
            chosen = ((u % cell - cell // 2) ** 2 + (v % cell - cell // 2) ** 2 <= (cell // 3) ** 2).astype(np.int64)
    canvas[mask] = np.where(chosen[:, None] == 1, second, first).astype(np.int16)


def _contrasting(rng: np.random.RandomState, under: Ints) -> Ints:
    """A colour [3] that differs from `under` by 240 or more, summed over the channels."""
    while True:
        colour = rng.randint(0, 256, size=3, dtype=np.int64)
        if abs(colour - under).sum() >= 240:
            return colour
