"""Trials made by hand: heatmaps of whole pixels beside boxes and masks."""

import torch
from torch import Tensor

from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame, warp
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

INPUT = {"frame": "input", "normalize": "max", "quantize": "percent"}


def drawn(*rows: str) -> Tensor:
    """A map from one text a row: digits are tenths, # is 1, a dot is 0."""
    return torch.tensor([[1.0 if c == "#" else 0.0 if c == "." else int(c) / 10 for c in row] for row in rows])


def trial(
    maps: list[Tensor], objects=(), protocol=None, ranks=None, classes=None, frame: Frame | None = None, **masks
) -> Trial:
    """Maps as they are (no ReLU), asked for class 0 unless `classes` says otherwise, in a picture of their own size."""
    size = tuple(maps[0].shape)
    frame = frame or warp(size, size)
    return Trial(
        maps,
        ["none"] * len(maps),
        classes or [0] * len(maps),
        ranks or [0] * len(maps),
        frame,
        annotation("cat", frame.source, objects, **masks),
        Protocol(protocol or {}),
    )
