"""Every choice that moves a number: the view (before a map exists), the protocol (after), and their names.

A number is only as good as the choices behind it, so each choice has one name, one default and one owner here.
Defaults never change; a new axis' default is what the code did before it existed; so a protocol id, once printed,
means the same for ever (tests/test_choices.py freezes a table of them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gradcam_bench.axes import AXES, check_axis
from gradcam_bench.errors import UserError, unknown


@dataclass(frozen=True)
class View:
    """Every choice made before a heatmap exists.

    resize: `model` (the weights' own preprocessing), `warp` (to size x size, aspect lost), `shorter` (shorter side to
    `size`, aspect kept), `none` (pixels as they are); then, save under `model`, a centre crop of `crop` if given.
    interpolation: `bilinear`, `bicubic`, `nearest` of PIL, on 8 bits and anti-aliased; `bilinear_tensor` on the float
    image, not anti-aliased. augment: `none`; several pieces whose maps are merged (`augment`): `ten_crop` and
    `ten_crop_cam`, ten crops instead of the central one; `flip`; `multi_scale`, `multi_scale_irn`, `multi_scale_psa`.
    target: which classes of an image become cases: `gt` (those annotated), `predicted` (the top class), `top5`,
    `positives` (those whose probability is above one half, of a network that sees several classes), or
    `gt_and_predicted` (those annotated, and the top class where it is none of them).
    score: what is differentiated: `logit`, `softmax` (probability), `log_softmax`, `sigmoid` (probability of one class
    of several that may be there), `exp` (exponential of the logit) or `log_sum_exp`: log of the sum of exp(score) over
    positions, whose gradient weighs positions by exp(score) as TorchRay's pointing game does; the others take the mean
    over positions. Most networks have one position, where that is the logit.
    attack: `none`, or `absent`: pictures changed until the network takes them for a class that is not there
    (`attack`). layer: the target layer, None for the model's own. precision: `float32` or `bf16`. seed: of every
    random method.
    """

    resize: str = "model"
    size: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    augment: str = "none"
    target: str = "gt"
    score: str = "logit"
    layer: str | None = None
    precision: str = "float32"
    seed: int = 0
    attack: str = "none"

    def __post_init__(self) -> None:
        for name, valid in VIEW_CHOICES.items():
            if getattr(self, name) not in valid:
                raise unknown(f"view.{name}", getattr(self, name), valid)
        for name in ("size", "crop"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UserError(f"view.{name} must be a whole number of pixels, got {value!r}")
        if self.resize in ("warp", "shorter") and self.size is None:
            raise UserError(f"view.resize={self.resize} needs view.size, in pixels")
        if self.augment in CROPS and self.crop is None and self.resize != "model":
            raise UserError(f"view.augment={self.augment} needs view.crop, in pixels")
        if self.attack != "none" and self.augment != "none":
            raise UserError(
                f"view.attack={self.attack} does not go with view.augment={self.augment}, of several inputs"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """The choices by name, for keys that are to stay: one that came later is in it only where it is made."""
        late = {"attack": "none"}
        return {name: value for name, value in asdict(self).items() if name not in late or late[name] != value}

    def but(self, **changes: Any) -> View:
        """This view with some choices replaced; an unknown name is refused."""
        valid = [field.name for field in fields(self)]
        for name in changes:
            if name not in valid:
                raise unknown("view choice", name, valid)
        return replace(self, **changes)


CROPS = ("ten_crop", "ten_crop_cam")  # of view.augment, those that cut pieces of view.crop
VIEW_CHOICES = {
    "resize": ("model", "warp", "shorter", "none"),
    "interpolation": ("bilinear", "bicubic", "nearest", "bilinear_tensor"),
    "augment": ("none", *CROPS, "flip", "multi_scale", "multi_scale_irn", "multi_scale_psa"),
    "target": ("gt", "predicted", "top5", "positives", "gt_and_predicted"),
    "score": ("logit", "softmax", "log_softmax", "sigmoid", "exp", "log_sum_exp"),
    "precision": ("float32", "bf16"),
    "attack": ("none", "absent"),
}


class Protocol(Mapping[str, Any]):
    """All axes with their values; read as attributes. `only(reads)` is what a metric gets: an axis that the metric's
    YAML does not declare cannot be read, so an id can never miss a choice that mattered."""

    def __init__(self, axes: Mapping[str, Any] | None = None, readable: Iterable[str] | None = None) -> None:
        given = {name: check_axis(name, value) for name, value in (axes or {}).items()}
        self._axes = {name: axis.default for name, axis in AXES.items()} | given
        self._readable = frozenset(AXES if readable is None else readable)
        for name in self._readable:
            if name not in AXES:
                raise unknown("protocol axis", name, AXES)

    def only(self, reads: Iterable[str]) -> Protocol:
        return Protocol(self._axes, reads)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self._axes:
            raise unknown("protocol axis", name, AXES)
        if name not in self._readable:
            raise RuntimeError(f"protocol axis '{name}' is read but not declared in `reads` of the metric's YAML")
        return self._axes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._readable

    def __iter__(self) -> Any:
        return iter(sorted(self._readable))

    def __len__(self) -> int:
        return len(self._readable)

    def changed(self) -> dict[str, Any]:
        """The readable axes that differ from the default, sorted by name."""
        return {name: self._axes[name] for name in self if self._axes[name] != AXES[name].default}


def digest(value: Any, length: int = 8) -> str:
    """Hexadecimal sha256, shortened, of a JSON-able value; the same everywhere and for ever."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def view_changes(view: View) -> dict[str, Any]:
    """The choices of a view that differ from the default (the seed is no choice: it only names the draw)."""
    default = asdict(View())
    return {f"view.{k}": v for k, v in sorted(asdict(view).items()) if v != default[k] and k != "seed"}


def protocol_id(preset: str, intended: tuple[View, Protocol], actual: tuple[View, Protocol]) -> str:
    """The preset's name, or `custom-` + 8 hex digits where a choice was overridden.

    intended, actual: the (view, protocol) of the preset alone, and with the user's overrides; both protocols restricted
    to the axes that the metric reads. The hash is over the sorted choices that differ from the defaults.
    """
    changes = [view_changes(view) | protocol.changed() for view, protocol in (intended, actual)]
    return preset if changes[0] == changes[1] else f"custom-{digest(changes[1])}"
