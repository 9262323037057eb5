"""What a YAML file says of a method, a metric or a preset, as an object. One file, one label, one object.

The command line gets these mappings from Hydra with the user's overrides in them, the Python interface straight from
the files; both come through here, so a method is the same thing in both.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gradcam_bench.analysis.reductions import REDUCTIONS
from gradcam_bench.choices import AXES, VIEW_CHOICES, Protocol, View
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.labels import CONF, about, names, spec

__all__ = ["CONF", "Method", "Metric", "Preset", "about", "method", "metric", "names", "preset", "spec"]

BLIND = ("images", "shape", "generators")  # what there is without a model
SUPPLIES = ("evidence", "head", "ask", "look", "pixels", "pyramid", "attentions", "network", "black", *BLIND)
T = TypeVar("T")
UNITS = ("case", "image", "pair", "dataset")
NEEDS = ("maps", "model", "stages")
LEVELS = ("iou", "value")
COMPARES = ("randomised", "smoothed", "full", "other_class")  # what a metric that needs stages is given
PASSES = {  # what a method that takes this asks of the network; the first that it takes says it
    "network": "another library's own passes",
    "ask": "forward passes on changed images",
    "look": "looks at changed images",
    "pixels": "backward to the pixels",
    "attentions": "one look at attention",
    "pyramid": "one look at several layers",
    "head": "one look and passes of the head",
    "evidence": "one look",
}
RULES = tuple(rule for rule in AXES["rectify"].valid if rule != "paper")  # what `rectify` of a method may be
PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Method:
    """A way to make heatmaps: function(**what it takes by name, **parameters) -> [Q,h,w], signed.

    takes: what the pipeline supplies, read off the signature: evidence (one look), images [Q,3,H,W] (the cases'
    inputs), shape (Q, H, W) (only how many cases and how large the input is), generators (Q of them, one a case), and
    what else of the network it may ask (see `supplies`).
    paper, year: where it was published.
    rectify: what `rectify=paper` means for this method.
    version: raised when the function's result changes, so that stored maps are not mistaken for its own.
    control: knows nothing of the network; every comparison sets it apart.
    formula: with these parameters, where that is not the first paragraph of the function's docstring.
    unlike_paper: where `rectify` is not the last step of the paper, what is, and why.
    """

    label: str
    about: str
    function: Callable[..., Any]
    takes: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rectify: str = "relu"
    version: int = 1
    control: bool = False
    paper: str = ""
    year: int | None = None
    formula: str = ""
    unlike_paper: str = ""

    @property
    def sees(self) -> bool:
        """Whether it takes anything of the network."""
        return any(name not in BLIND for name in self.takes)

    @property
    def passes(self) -> str:
        """What it asks of the network."""
        return passes(self.takes)

    def key(self) -> list[Any]:
        """What identifies the function's result, for the map store."""
        return [self.label, dict(self.parameters), self.version]


@dataclass(frozen=True)
class Metric:
    """A score: function(trial) -> statistics [U] or (statistics [U] or None, curve [U,T]); see `trial.Trial`.

    unit: what one statistic is about. higher_is_better: the direction, None for a score that is never ranked.
    reads: the protocol axes it depends on. reduce: the name of the reduction in `analysis.reductions`. target: the
    view's target rule that it is defined for, None for any. compares: of a metric that needs stages, with what the map
    of the trained network is compared: that of each `randomised` stage, the same `smoothed` over noisy inputs, that of
    the network all of whose weights are random (`full`), or its own for another class (`other_class`). masks: it asks
    for masks whatever the axis `region` says. levels: what its stored curve [256] holds at each threshold, `iou` (the
    best IoU, to be compared with those demanded) or `value` (the statistic itself), None where the curve is no curve
    over thresholds.
    """

    label: str
    about: str
    function: Callable[..., Any]
    unit: str
    higher_is_better: bool | None
    needs: str
    reads: tuple[str, ...]
    reduce: str
    target: str | None = None
    compares: str = "randomised"
    masks: bool = False
    levels: str | None = None


@dataclass(frozen=True)
class Preset:
    """A published recipe: one view, one protocol, and the metrics it defines, with its source and its caveats."""

    name: str
    about: str
    source: str = ""
    view: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()


def passes(takes: Collection[str]) -> str:
    """What a method that takes these supplies asks of the network."""
    return next((words for name, words in PASSES.items() if name in takes), "nothing of the network")


def build(label: str, spec: Mapping[str, Any], meta: Sequence[str] = ()) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function named by `_target_` and its parameters: every key that is not one of `meta`."""
    if "_target_" not in spec:
        raise UserError(f"{label}: its configuration has no _target_ (the dotted name of a function)")
    return locate(str(spec["_target_"])), {k: v for k, v in spec.items() if k != "_target_" and k not in meta}


def locate(dotted: str) -> Callable[..., Any]:
    """The function or class at a dotted name such as `package.module.function`, of an installed package, of one on
    PYTHONPATH or in the working directory."""
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(_module(module), name)
    except ModuleNotFoundError as error:
        where = "; it is looked for among what is installed, on PYTHONPATH and in the working directory"
        raise UserError(f"cannot import '{dotted}': {error}{where}") from None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import '{dotted}': {error}") from None
    except Exception as error:  # a module of the user's own
        raise UserError(f"cannot import '{dotted}': {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UserError(f"'{dotted}' is no function or class")
    return found


def _module(name: str) -> types.ModuleType:
    """`python -m` looks in the working directory, the installed command does not: there it is tried last. The path
    stays, for the processes that read pictures."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        here = str(Path.cwd())
        if "" in sys.path or here in sys.path:
            raise
        sys.path.append(here)
        importlib.invalidate_caches()
        return importlib.import_module(name)


def check_parameters(
    label: str, function: Callable[..., Any], given: Mapping[str, Any], supplied: Sequence[str]
) -> None:
    """Refuses a parameter that the function does not take, naming the nearest one that it does."""
    try:
        signature = inspect.signature(function).parameters
    except ValueError:  # a builtin that does not say what it takes
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    valid = [name for name in signature if name not in supplied]
    plain = _plain_types(function)
    for name, value in given.items():
        if name not in valid and not open_ended:
            raise unknown(f"parameter of {label}", name, valid or ["none"])
        kinds = plain.get(name, ())
        fits = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
        fits &= not isinstance(value, float) or math.isfinite(value)
        if kinds and not fits:
            words = " or ".join(PLAIN[kind] for kind in kinds if not (kind is int and float in kinds))
            raise UserError(f"{label}.{name}={value!r}: {words} is needed")


def _plain_types(function: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """The parameters that are annotated with plain types alone (str, int, float, bool, None), with those types."""
    called: Any = vars(function).get("__init__", function) if isinstance(function, type) else function
    try:
        hints = typing.get_type_hints(called)
    except (NameError, TypeError):
        return {}
    unions = (typing.Union, types.UnionType)
    kinds = {
        name: typing.get_args(hint) if typing.get_origin(hint) in unions else (hint,) for name, hint in hints.items()
    }
    plain = {name: found for name, found in kinds.items() if all(kind in PLAIN for kind in found)}
    return {name: (*found, int) if float in found and int not in found else found for name, found in plain.items()}


def _well_formed(make: Callable[[str, Mapping[str, Any]], T]) -> Callable[[str, Mapping[str, Any]], T]:
    """A YAML file whose values are not of the kinds they should be is refused in a sentence."""

    @functools.wraps(make)
    def checked(label: str, spec: Mapping[str, Any]) -> T:
        try:
            return make(label, spec)
        except UserError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{make.__name__} {label}: its YAML file is not as it should be ({error})") from None

    return checked


@_well_formed
def method(label: str, spec: Mapping[str, Any]) -> Method:
    """The Method that a YAML's mapping describes."""
    told = ("about", "paper", "year", "rectify", "version", "control", "formula", "unlike_paper")
    function, parameters = build(f"method {label}", spec, told)
    check_parameters(f"method {label}", function, parameters, SUPPLIES)
    rule = spec.get("rectify", "relu")
    if rule not in RULES:
        raise unknown(f"rectify of method {label}", rule, map(str, RULES))
    takes = tuple(name for name in inspect.signature(function).parameters if name in SUPPLIES)
    bound = partial(function, **parameters) if parameters else function
    version, control = int(spec.get("version", 1)), bool(spec.get("control", False))
    paper, year = str(spec.get("paper", "")), None if spec.get("year") is None else int(spec["year"])
    about, formula, unlike = (str(spec.get(name, "")) for name in ("about", "formula", "unlike_paper"))
    return Method(label, about, bound, takes, parameters, rule, version, control, paper, year, formula, unlike)


@_well_formed
def metric(label: str, spec: Mapping[str, Any]) -> Metric:
    """The Metric that a YAML's mapping describes."""
    keys = ("about", "unit", "higher_is_better", "needs", "reads", "reduce", "target", "compares", "masks", "levels")
    function, rest = build(f"metric {label}", spec, keys)
    for name in rest:
        raise UserError(f"metric {label}: unexpected '{name}'; a metric takes its choices from the protocol axes alone")
    for name, value, valid in (
        *(("axis read by", axis, tuple(AXES)) for axis in spec.get("reads", ())),
        ("unit of", spec.get("unit", "case"), UNITS),
        ("needs of", spec.get("needs", "maps"), NEEDS),
        ("reduce of", spec.get("reduce", "mean"), REDUCTIONS),
        ("target of", spec.get("target") or "gt", VIEW_CHOICES["target"]),
        ("compares of", spec.get("compares", "randomised"), COMPARES),
        ("masks of", str(spec.get("masks", False)).lower(), ("false", "true")),
        ("levels of", spec.get("levels") or "iou", LEVELS),
    ):
        if value not in valid:
            raise unknown(f"{name} metric {label}", value, valid)
    return Metric(
        label,
        str(spec.get("about", "")),
        function,
        spec.get("unit", "case"),
        spec.get("higher_is_better"),
        spec.get("needs", "maps"),
        tuple(spec.get("reads", ())),
        spec.get("reduce", "mean"),
        spec.get("target"),
        spec.get("compares", "randomised"),
        bool(spec.get("masks", False)),
        spec.get("levels"),
    )


@_well_formed
def preset(name: str, spec: Mapping[str, Any]) -> Preset:
    """The Preset that a YAML's mapping describes; its view and protocol are checked here."""
    for key in spec:
        if key not in ("about", "source", "view", "protocol", "metrics"):
            raise unknown(f"key of preset {name}", key, ("about", "source", "view", "protocol", "metrics"))
    made = Preset(
        name,
        str(spec.get("about", "")),
        str(spec.get("source", "")),
        dict(spec.get("view") or {}),
        dict(spec.get("protocol") or {}),
        tuple(spec.get("metrics") or ()),
    )
    View().but(**made.view)
    Protocol(made.protocol)
    return made
