"""What a metric is given: the heatmaps of one image, prepared as its protocol says, beside that image's truth.

A trial holds U units, one a (method, case) pair, all of one image, so that everything has one size and truth is shared.
Preparation (rectify, resize, normalise, quantise) is done once for all metrics whose protocols agree on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame, Size, area, rasterize
from gradcam_bench.samples import Annotation
from gradcam_bench.witness import Witness

T = TypeVar("T")
GRADIENTS = ("saliency", "deconvnet", "guided_backprop")  # of `smooth_maps`, those that TorchRay smooths


@dataclass(frozen=True)
class Trial:
    """grids: the U heatmaps [h,w], signed, each at its own resolution. paper: what `rectify=paper` means for each.
    classes [U]: the class asked for. ranks [U]: the place of that class among the model's outputs, 0 the top, None
    without a model. frame: where the input lies in the source. protocol: readable on the declared axes only.
    notes: why a unit could not be scored, written when its truth was asked for in vain. methods: the label of each
    unit's method, so that one method's maps of the image can be looked at together; None: every unit stands alone.
    trained: the same units with the heatmaps of the network as trained, where `grids` are those of a stage (metrics
    that need stages). witness: the network, for metrics that question it (`needs: model`). picture: [3,H,W] uint8, the
    source's own pixels, for metrics that look at them."""

    grids: Sequence[Tensor]
    paper: Sequence[str]
    classes: Sequence[int]
    ranks: Sequence[int | None]
    frame: Frame
    annotation: Annotation
    protocol: Protocol
    cache: dict[Any, Any] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    methods: Sequence[str] | None = None
    trained: Trial | None = None
    witness: Witness | None = None
    picture: Tensor | None = None

    def under(self, protocol: Protocol) -> Trial:
        """The same trial seen through another protocol; prepared maps are shared."""
        trained = None if self.trained is None else self.trained.under(protocol)
        return replace(self, protocol=protocol, notes={}, trained=trained)

    def only(self, units: Sequence[int]) -> Trial:
        """The same with some of its units."""
        names = ["grids", "paper", "classes", "ranks", *([] if self.methods is None else ["methods"])]
        parts: dict[str, Any] = {name: [getattr(self, name)[u] for u in units] for name in names}
        return replace(self, **parts, cache={}, notes={})

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def size(self) -> Size:
        """(height, width) in pixels of the frame in which map and truth are compared."""
        return self.frame.source if self.protocol.frame == "source" else self.frame.input

    @property
    def rectified(self) -> list[Tensor]:
        """The heatmaps [h,w] after the rectify axis, still at their own resolution."""
        how = self.protocol.rectify
        rules = [paper if how == "paper" else how for paper in self.paper]
        return self._once(
            ("rectified", *rules),
            lambda: [heatmaps.rectify(grid, rule) for grid, rule in zip(self.grids, rules, strict=True)],
        )

    @property
    def preparation(self) -> tuple[object, ...]:
        """The values of the axes that `in_input` reads, for keys; a metric that does not declare the two of smoothing
        gets maps that are not smoothed."""
        p = self.protocol
        smooth, which = (p.smooth, p.smooth_maps) if "smooth" in p else (0.0, "all")
        return p.rectify, p.normalize, p.resize, p.order, *((smooth, which) if smooth else ())

    @property
    def maps(self) -> Tensor:
        """[U,H,W] float32: rectified, resized to the frame, smoothed, normalised. Reads rectify, normalize, resize,
        order, smooth, smooth_maps, frame.

        In the source frame a cropped view leaves a border that the network never saw: it holds each map's minimum.
        """
        frame = self.protocol.frame
        return self._once(("maps", *self.preparation, frame), lambda: self._prepare(frame))

    @property
    def in_input(self) -> Tensor:
        """[U,H,W] float32: as `maps`, but always in the input's own pixels. Reads all that `maps` reads but frame."""
        return self._once(("maps", *self.preparation, "input"), lambda: self._prepare("input"))

    def again(self, grids: Sequence[Tensor], units: Sequence[int]) -> Tensor:
        """[N,H,W]: heatmaps of changed inputs, grids[n] of unit units[n]'s method, prepared as `in_input` is."""
        return replace(self.only(units), grids=grids).in_input

    def _prepare(self, frame: str) -> Tensor:
        grids, p = self.rectified, self.protocol
        maps: list[Tensor] = [torch.empty(0)] * len(grids)
        for shape in dict.fromkeys(grid.shape for grid in grids):  # one call for all the maps of one resolution
            chosen = [i for i, grid in enumerate(grids) if grid.shape == shape]
            stacked = torch.stack([grids[i].float() for i in chosen])
            if p.order == "quantize_first":
                made = heatmaps.normalize(stacked, p.normalize)
                stacked = self._place(made, chosen, frame, heatmaps.resize_quantized)
            elif p.order == "normalize_first":
                stacked = self._place(heatmaps.normalize(stacked, p.normalize), chosen, frame)
            else:
                stacked = heatmaps.normalize(self._place(stacked, chosen, frame), p.normalize)
            for i, one in zip(chosen, stacked, strict=True):
                maps[i] = one
        return torch.stack(maps)

    def _place(
        self, maps: Tensor, units: Sequence[int], frame: str, resize: Callable[..., Tensor] = heatmaps.resize
    ) -> Tensor:
        kernel = self.protocol.resize
        if frame == "input":
            return self._smoothed(resize(maps, self.frame.input, kernel), units)
        x0, y0, x1, y1 = self.frame.window()
        inside = self._smoothed(resize(maps, (y1 - y0, x1 - x0), kernel), units)
        if (y1 - y0, x1 - x0) == self.frame.source:
            return inside
        canvas = inside.amin((1, 2))[:, None, None].expand(-1, *self.frame.source).clone()
        canvas[:, y0:y1, x0:x1] = inside
        return canvas

    def _smoothed(self, maps: Tensor, units: Sequence[int]) -> Tensor:
        """The units' resized maps, those that the protocol says smoothed."""
        p = self.protocol
        if "smooth" not in p or not p.smooth:
            return maps
        known = self.methods or [""] * len(self)
        chosen = [p.smooth_maps == "all" or known[unit] in GRADIENTS for unit in units]
        return torch.stack(
            [heatmaps.smooth(one, p.smooth) if yes else one for yes, one in zip(chosen, maps, strict=True)]
        )

    @property
    def levels(self) -> Tensor:
        """[U,H,W] uint8: `maps` on the grid of thresholds. Reads quantize too."""
        p = self.protocol
        key = ("levels", p.quantize, *self.preparation, p.frame)
        return self._once(key, lambda: heatmaps.quantize(self.maps, p.quantize))

    def boxes(self, unit: int) -> Tensor:
        """True boxes [G,4] of the unit's class in source pixels, half-open. Reads matching."""
        mine = self.annotation.boxes[self.annotation.labels == self.classes[unit]]
        if not len(mine):
            self.notes[unit] = "no box of the class"
        return mine[:1] if self.protocol.matching == "first" else mine

    def hard(self, unit: int) -> bool:
        """Whether every object of the unit's class is marked difficult and such cases are skipped. Reads difficult."""
        flags = self.annotation.difficult[self.annotation.labels == self.classes[unit]]
        hard = self.protocol.difficult == "skip" and len(flags) > 0 and bool(flags.all())
        if hard:
            self.notes[unit] = "difficult"
        return hard

    def easy(self, unit: int) -> bool:
        """Whether the unit lies outside the cases that are scored. Reads cases and region.

        `ebp_difficult` keeps a case whose objects (boxes, or masks) add up to less than a quarter of the image, in an
        image with another class in it.  Zhang et al. 2016, sec. 4.1. `one_box_small` keeps those of images with one box
        that covers at most half of them.  Wang et al. 2020, sec. 4.3.
        """
        if self.protocol.cases == "all":
            return False
        a, wanted = self.annotation, self.classes[unit]
        whole = a.size[0] * a.size[1]
        if self.protocol.cases == "one_box_small":
            easy = len(a.boxes) != 1 or 2 * float(area(a.boxes).sum()) > whole
            why = "not of an image with one box that covers at most half of it"
        else:
            easy = 4 * self._covered(wanted) >= whole or not set(a.classes) - {wanted}
            why = "not in the difficult subset of Zhang et al. 2016"
        if easy:
            self.notes[unit] = why
        return easy

    def _covered(self, wanted: int) -> float:
        """Pixels of the source that the class' boxes, or masks, add up to."""
        a = self.annotation
        if self.protocol.region == "box":
            return float(area(a.boxes[a.labels == wanted]).sum())
        known = a.masks is not None and a.mask_labels is not None
        return float(a.masks[a.mask_labels == wanted].sum()) if known else 0.0  # type: ignore[index]

    def absent(self, unit: int) -> bool:
        """Whether the unit's class is known not to be in the image: its classes are annotated, and this is none."""
        return self.classes[unit] not in self.annotation.classes

    def region(self, unit: int) -> Tensor | None:
        """[H,W] bool, the pixels of the frame that belong to the unit's class (all its objects), None where that is not
        known. Reads region, frame, matching."""
        return self.inside(unit) if self.protocol.region == "box" else self.mask(unit)

    def inside(self, unit: int) -> Tensor | None:
        """The same by the class' boxes, whatever `region` says. Reads frame, matching."""
        return self._object(unit, "box", self.protocol.matching)

    def mask(self, unit: int) -> Tensor | None:
        """The same by the class' masks, whatever `region` says. Reads frame."""
        return self._object(unit, "mask")

    @property
    def ignored(self) -> Tensor:
        """[H,W] bool, the pixels of the frame that count neither way. Reads frame."""
        left = self.annotation.ignore
        key = ("ignored", self.protocol.frame)
        return self._once(key, lambda: torch.zeros(self.size, dtype=torch.bool) if left is None else self._seen(left))

    def _object(self, unit: int, kind: str, matching: str = "any") -> Tensor | None:
        make = self._box_region if kind == "box" else self._mask_region
        found = self._once(("region", self.classes[unit], kind, self.protocol.frame, matching), lambda: make(unit))
        if found is None:
            self.notes[unit] = f"no {kind} of the class"
        elif not found.any():
            self.notes[unit] = "the object covers no pixel of the frame"
            return None
        return found

    def _box_region(self, unit: int) -> Tensor | None:
        boxes = self.boxes(unit)
        if not len(boxes):
            return None
        return rasterize(boxes if self.protocol.frame == "source" else self.frame.to_input(boxes), self.size)

    def _mask_region(self, unit: int) -> Tensor | None:
        a = self.annotation
        if a.masks is None or a.mask_labels is None or not (a.mask_labels == self.classes[unit]).any():
            return None
        return self._seen(a.masks[a.mask_labels == self.classes[unit]].any(0))

    def _seen(self, pixels: Tensor) -> Tensor:
        """Pixels [H,W] bool of the source as the frame shows them, by nearest neighbour."""
        if self.protocol.frame == "source":
            return pixels
        x0, y0, x1, y1 = self.frame.window()
        return heatmaps.resize(pixels[None, y0:y1, x0:x1].float(), self.frame.input, "nearest")[0] > 0.5

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]
