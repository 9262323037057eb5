"""What a gate tolerates: margins, level, and what it looks at, from the command line or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from gradcam_bench.choices import View
from gradcam_bench.errors import UserError, unknown

SWITCHES = ("unpaired", "partial")
KEYS = ("margin", "alpha", "methods", "metrics", "allow", *SWITCHES)
ALLOWED = tuple(field.name for field in fields(View) if field.name != "seed")  # the protocol is the yardstick
DEFAULT = "default"  # the margin of metrics that have none of their own


@dataclass(frozen=True)
class Terms:
    """margin: the loss that is tolerated, in the metrics' own unit; margins: of single metrics. alpha: the level of
    each verdict. methods, metrics: only these, empty for all. unpaired: run and baseline are independent samples.
    partial: the run is of fewer images than the baseline, on purpose. allow: choices of the view in which the two
    may differ."""

    margin: float = 0.02
    margins: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 0.05
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    unpaired: bool = False
    partial: bool = False
    allow: tuple[str, ...] = ()

    def margin_of(self, metric: str, default: float | None = None) -> float:
        """default: of a metric whose unit is not that of a loss."""
        return self.margins.get(metric, self.margin if default is None else default)


def terms(
    margins: Sequence[str] = (),
    alpha: str | float | None = None,
    methods: Sequence[str] = (),
    metrics: Sequence[str] = (),
    unpaired: bool = False,
    config: str | None = None,
    partial: bool = False,
    allow: Sequence[str] = (),
) -> Terms:
    """The terms in a YAML file (config) with what the command line says put over them. margins: `0.02` or
    `max_box_acc=0.03` each. Raises UserError for what is no such thing."""
    stored = _read(Path(config)) if config else {}
    found = _margins(stored.get("margin", {}), f"margin in {config}")
    for word in margins:
        name, is_one, value = word.rpartition("=")
        found[name if is_one else DEFAULT] = _number("--margin", value)
    where = f"alpha in {config}" if alpha is None else "--alpha"
    level = _number(where, stored.get("alpha", Terms.alpha) if alpha is None else alpha)
    if not 0 < level < 0.5:
        raise UserError(f"{where} must lie between 0 and 0.5, got {level:g}")
    for name in SWITCHES:
        if not isinstance(stored.get(name, False), bool):
            raise UserError(f"{name} in {config} is true or false, got {stored[name]!r}")
    allowed = tuple(allow) or _names(stored, "allow", config)
    for name in allowed:
        if name not in ALLOWED:
            raise unknown("choice of the view to allow", name, ALLOWED)
    return Terms(
        found.pop(DEFAULT, Terms.margin),
        found,
        level,
        tuple(methods) or _names(stored, "methods", config),
        tuple(metrics) or _names(stored, "metrics", config),
        unpaired or stored.get("unpaired", False),
        partial or stored.get("partial", False),
        allowed,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there: --config names a YAML file with {', '.join(KEYS)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must be a mapping with {', '.join(KEYS)}")
    for key in loaded:
        if key not in KEYS:
            raise unknown(f"key of {path}", key, KEYS)
    return loaded


def _margins(value: Any, where: str) -> dict[str, float]:
    given = value if isinstance(value, dict) else {DEFAULT: value}
    return {str(name): _number(where, one) for name, one in given.items()}


def _number(where: str, value: Any) -> float:
    try:
        found = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        found = float("nan")
    if not 0 <= found < float("inf"):
        raise UserError(f"{where}: a number from 0 is needed, got {value!r}")
    return found


def _names(stored: Mapping[str, Any], key: str, config: str | None) -> tuple[str, ...]:
    names = stored.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{key} in {config} is a list of names, got {names!r}")
    return tuple(names)
