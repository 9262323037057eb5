"""From a resolved configuration (plain mappings) to the objects that a run is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gradcam_bench import catalogue, plan, randomize
from gradcam_bench.building import build, check_parameters
from gradcam_bench.catalogue import Metric
from gradcam_bench.errors import UserError, unknown
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.probe import Probe
from gradcam_bench.rehearsal import check
from gradcam_bench.samples import Dataset

DEVICES = ("auto", "cpu", "cuda", "mps")
STORES = ("grid", "all", "none")
STAGES = ("explain", "score", "report")


@dataclass(frozen=True)
class Setup:
    """refused: methods that cannot explain this network, with their sentences; they are not in the plan.
    notes: what a reader of the numbers must know, such as class lists that differ."""

    dataset: Dataset
    network: Network | None
    plan: plan.Plan
    metrics: tuple[Metric, ...]
    preprocessing: Preprocessing
    indices: tuple[int, ...]
    device: str
    refused: Mapping[str, str]
    notes: tuple[str, ...]
    randomize: randomize.Settings = field(default_factory=randomize.Settings)
    twin: Network | None = None


def setup(config: Mapping[str, Any]) -> Setup:
    """Builds everything, and refuses what cannot work before any work is done."""
    check_settings(config)
    metrics = [catalogue.metric(label, spec) for label, spec in (config["metric"] or {}).items()]
    make_plan(config, Preprocessing(), metrics)  # every name and choice is checked before anything is loaded
    stages = any(metric.needs == "stages" for metric in metrics)
    settings = randomize.settings(config.get("randomize"))
    dataset: Dataset = make(config["dataset"], "dataset")
    network = make_network(config)
    count = len(dataset.ids) if config["limit"] is None else min(int(config["limit"]), len(dataset.ids))
    preprocessing = network.preprocessing if network else Preprocessing()
    made = make_plan(config, preprocessing, metrics)
    check_needs(made, network)
    refused = refusals(made, network)
    if stages:
        check_stages(made, settings, network)
    twin = make_twin(config, network, settings.twin) if stages and network and settings.twin else None
    made = replace(made, methods=tuple(method for method in made.methods if method.label not in refused))
    device = str(next(network.module.parameters()).device) if network else "cpu"
    notes = class_notes(dataset, network)
    return Setup(
        dataset,
        network,
        made,
        tuple(metrics),
        preprocessing,
        tuple(range(count)),
        device,
        refused,
        notes,
        settings,
        twin,
    )


def check_stages(made: plan.Plan, settings: randomize.Settings, network: Network | None) -> None:
    """Refuses metrics that need stages under a view whose target cannot be taken again, and weights that nobody knows
    how to draw."""
    if settings.initialization == "architecture" and network and network.untrained is None:
        raise UserError(randomize.UNKNOWN)
    for view, jobs in made.views.items():
        for label in (job.metric.label for job in jobs if job.metric.needs == "stages"):
            if settings.target == "retaken" and view.target != "predicted":
                raise UserError(
                    f"randomize.target=retaken asks each network for its first answer, so metric {label} needs "
                    f"view.target=predicted, not {view.target}"
                )


def make_twin(config: Mapping[str, Any], network: Network, name: str) -> Network:
    """The network trained on permuted labels: a model of the catalogue, or the run's own with weights from a file."""
    known = name in catalogue.names("model")
    spec = catalogue.spec("model", name) if known else {**config["model"], "weights": name}
    if not known and not Path(name).expanduser().is_file():
        raise unknown("randomize.twin", name, [*catalogue.names("model"), "a file of weights"])
    twin = make_network({**config, "model": spec})
    if twin is None:
        raise UserError(f"randomize.twin={name} leads to no network: give a model, a file of weights, or null")
    if twin.preprocessing != network.preprocessing:
        raise UserError(f"randomize.twin={name}: it does not take its images as {network.name} does")
    return twin


def class_notes(dataset: Dataset, network: Network | None) -> tuple[str, ...]:
    """A sentence where the data set's classes are not plainly the network's outputs; refuses more of them."""
    if network is None or network.classes is None:
        return ()
    ours, theirs = dataset.classes, network.classes
    if len(ours) > len(theirs):
        raise UserError(f"the data set has {len(ours)} classes, model {network.name} only {len(theirs)} outputs")
    if getattr(dataset, "disconnected", False) and len(ours) != len(theirs):
        raise UserError(
            f"the mosaics' cells have {len(ours)} classes in all, model {network.name} {len(theirs)} outputs: give "
            "dataset.outputs, that of the network before it was taken apart, and the same side"
        )
    if all(name.isdecimal() for name in ours) or len(ours) == len(theirs):
        return ()
    pairs = ", ".join(f"{i}: {a} = {b}" for i, (a, b) in enumerate(zip(ours[:3], theirs, strict=False)))
    counts = f"the data set has {len(ours)} classes, model {network.name} {len(theirs)} outputs"
    return (f"{counts}: class i is taken to be output i ({pairs}, ...); is that meant?",)


def make_plan(config: Mapping[str, Any], preprocessing: Preprocessing, metrics: Sequence[Metric]) -> plan.Plan:
    """The plan of a configuration, every chosen method in it."""
    chosen = [catalogue.method(label, spec) for label, spec in (config["method"] or {}).items()]
    methods = catalogue.at_layers(chosen, config.get("layers") or ())
    presets = [catalogue.preset(name, spec) for name, spec in (config["preset"] or {}).items()]
    view, protocol = (_given(config[key]) for key in ("view", "protocol"))
    if config["precision"] != "float32":
        view["precision"] = config["precision"]
    if config["seed"]:
        view["seed"] = config["seed"]
    return plan.make(methods, metrics, presets, preprocessing, view, protocol)


def _given(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Overrides that say something: null stands for what the preset has."""
    return {key: value for key, value in (overrides or {}).items() if value is not None}


def refusals(made: plan.Plan, network: Network | None) -> dict[str, str]:
    """The methods of a plan that cannot explain this network, with their sentences. Raises if none is left."""
    if network is None:
        needing = [method.label for method in made.methods if method.sees]
        if len(needing) == len(made.methods):
            raise UserError("every chosen method needs a model: choose controls, as method=[center], or a model")
        for where in made.views:
            for name, blind in (("target", "gt"), ("attack", "none")):
                if getattr(where, name) != blind:
                    raise UserError(f"view.{name}={getattr(where, name)} needs a model, and there is none (model=none)")
        return {label: f"{label} needs a model, and there is none (model=none)" for label in needing}
    refused: dict[str, str] = {}
    for where in made.views:
        probe = Probe(network.module, [where.layer or network.layer], where.score)
        usual = network.preprocessing  # of use where the view leaves images at their size
        size = where.crop or where.size or usual.crop or usual.size or 224
        refused |= check(network, probe, made.methods, size)
    return refused


def check_needs(made: plan.Plan, network: Network | None) -> None:
    """Refuses metrics that question the network where there is none, or where it sees an image in pieces."""
    for view, jobs in made.views.items():
        asking = [job.metric.label for job in jobs if job.metric.needs != "maps"]
        if asking and network is None:
            raise UserError(f"metric {asking[0]} questions the network, and there is none (model=none)")
        if asking and view.augment != "none":
            raise UserError(
                f"metric {asking[0]} questions the network about one input: it does not go with "
                f"view.augment={view.augment}, which cuts an image into several"
            )


def make_network(config: Mapping[str, Any]) -> Network | None:
    """The network, frozen by nobody yet, on its device and in its precision; None for model=none."""
    if config["model"].get("_target_") is None:
        return None
    network: Network = make(config["model"], "model")
    dtype = torch.bfloat16 if config["precision"] == "bf16" else torch.float32
    module = network.module.to(pick_device(config["device"]), dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return replace(network, module=module.eval())


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA, else MPS, else the CPU. Raises UserError for a device that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in there.items() if present))
    kind, colon, number = name.partition(":")
    if kind not in there:
        raise unknown("device", name, DEVICES)
    if not there[kind]:
        raise UserError(f"device={name}: this machine has none; there is {', '.join(k for k, v in there.items() if v)}")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if colon and not (number.isdecimal() and int(number) < count):
        raise UserError(f"device={name}: this machine has {kind}:0 to {kind}:{count - 1}")
    return torch.device(name)


def make(spec: Any, what: str) -> Any:
    """The object that a mapping with `_target_` describes; mappings inside it are made first."""
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        return spec
    inner = {key: make(value, f"{what}.{key}") for key, value in spec.items()}
    function, parameters = build(what, inner)
    check_parameters(what, function, parameters, ())
    try:
        return function(**parameters)
    except TypeError as error:
        raise UserError(f"{what}: {error}") from None


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuses settings that no part of a run could use, each by name."""
    for key in ("method", "metric", "preset"):
        if not isinstance(config.get(key) or {}, Mapping):
            raise UserError(f"{key}={config[key]}: give a list of names, as {key}=[NAME,NAME]")
        if not all(isinstance(spec, Mapping) for spec in (config.get(key) or {}).values()):
            raise UserError(f"{key}: a YAML file of it holds no mapping below its label")
    for key in ("view", "protocol"):
        if not isinstance(config[key] or {}, Mapping):
            raise UserError(f"{key}={config[key]}: give its choices one by one, as {key}.NAME=VALUE")
    for key in ("results", "device", "precision", "store", "on_error"):
        if not isinstance(config[key], str) or not config[key]:
            raise UserError(f"{key}={config[key] or repr(config[key])}: text is needed")
    if not isinstance(config.get("layers") or [], list):
        raise UserError(f"layers={config['layers']}: give a list, as layers=[layer3,layer4]")
    if isinstance(config["model"], Mapping) and isinstance(config["model"].get("layer"), list):
        raise UserError("model.layer is one layer: give several as layers=[layer3,layer4], each method at each of them")
    if not isinstance(config["stages"], list):
        raise UserError(f"stages={config['stages']}: give a list, as stages=[explain,score]")
    if "explain" not in config["stages"]:
        raise UserError(
            f"stages={config['stages']}: a run begins with explain; gradcam-bench score RUN scores one again"
        )
    for key, low, high in (("batch_size", 1, 2**16), ("workers", 0, 2**10), ("seed", 0, 2**63)):
        value = config[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"{key}={value}: a whole number from {low} to {high} is needed")
    limit = config["limit"]
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UserError(f"limit={limit}: a whole number of at least 1 is needed")
    memory = config["max_memory"]
    if memory is not None and (not isinstance(memory, int | float) or isinstance(memory, bool) or not memory > 0):
        raise UserError(f"max_memory={memory}: a number of GiB above 0 is needed, or null")
    for key, valid in (("store", STORES), ("on_error", ("skip", "raise")), ("precision", ("float32", "bf16"))):
        if config[key] not in valid:
            raise unknown(key, config[key], valid)
    randomize.settings(config.get("randomize"))
    stratified = (config.get("statistics") or {}).get("stratified")
    if stratified not in (None, True, False):
        raise UserError(f"statistics.stratified={stratified}: true or false is needed")
    pick_device(config["device"])
    for stage in config["stages"]:
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)
