"""The Python interface: explain, score and the steps between, on tensors, without configuration or files."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from gradcam_bench import arguments, catalogue, heatmaps
from gradcam_bench.axes import check_axis
from gradcam_bench.catalogue import Method
from gradcam_bench.choices import Protocol, View
from gradcam_bench.errors import UserError, verdict
from gradcam_bench.explain import RECORD, heatmaps_of
from gradcam_bench.geometry import Size, warp
from gradcam_bench.models.network import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from gradcam_bench.plan import DEFAULT
from gradcam_bench.probe import Probe, Score
from gradcam_bench.regions.boxes import FOUR, boxes_at
from gradcam_bench.samples import Annotation, annotation
from gradcam_bench.scoring import BROKEN, outcomes
from gradcam_bench.supplies import Looked, Supplies, shared_look
from gradcam_bench.trial import Trial

TURNS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()


def explain(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | Sequence[int | Score],
    methods: Sequence[str | Method] = ("grad_cam",),
    layer: str | Sequence[str] = "",
    image_index: Tensor | None = None,
    seed: int = 0,
    max_memory: float | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> dict[str, Tensor]:
    """Heatmaps of Q cases by each method, from one look: {name: [Q,h,w] float32, signed, before the final ReLU}.

    images [B,3,H,W], normalised as the model wants them. targets [Q]: class indices, or callables of the model's output
    that return one number an image [B]. image_index [Q]: whose image each case is (default: Q == B, one each). layer:
    name of the target layer, as in `model.named_modules()`; of several, each method is called once a layer and its maps
    named `method@layer`. max_memory: GiB that a method's passes over changed images may take at once (default: a
    quarter of the machine's); how many go at once changes no result. mean, std: of RGB, by which the images were
    normalised, for methods that start from black. The model is left as it was found; threads that explain one model
    take turns, as a look hangs hooks on it. Raises UserError for what is of the wrong kind, for lengths that do not
    fit, naming both, and for a method that cannot explain this model.
    """
    arguments.check_model(model)
    arguments.check_images(images)
    arguments.check_targets(targets)
    layers = [layer] if isinstance(layer, str) else list(layer) if isinstance(layer, Sequence) else []
    if not layers or not all(isinstance(one, str) and one for one in layers):
        raise UserError("name the target layer: layer='layer4' for a ResNet, 'features.29' for a VGG16")
    arguments.check_colours(mean, std)
    names = arguments.names("methods", methods)
    chosen = [m if isinstance(m, Method) else catalogue.method(m, catalogue.spec("method", m)) for m in names]
    chosen = catalogue.at_layers(chosen, [] if isinstance(layer, str) else layers)
    if max_memory is not None and not max_memory > 0:
        raise UserError(f"max_memory must be a number of GiB above 0, got {max_memory}")
    budget = None if max_memory is None else int(max_memory * 2**30)
    record = any(RECORD.intersection(method.takes) for method in chosen)
    black = Preprocessing(mean=tuple(mean), std=tuple(std)).black
    with TURNS.setdefault(model, threading.RLock()):
        looked = _look(model, layers[0], images, targets, image_index, record, budget, black=black)
        evidence = looked.evidence
        asked = zip(evidence.image_index.tolist(), evidence.targets.tolist(), strict=True)
        cases = [f"{b}#{t}" if t >= 0 else f"{b}#callable {q}" for q, (b, t) in enumerate(asked)]
        return heatmaps_of(chosen, Supplies(images[evidence.image_index], cases, seed, looked))[0]


def _look(model: nn.Module, layer: str, images: Tensor, *rest: Any, **known: Any) -> Looked:
    """`shared_look`; what the model itself raises becomes a sentence, what is the machine's fault stays as it is."""
    try:
        return shared_look(Probe(model, [layer]), images, *rest, **known)
    except RuntimeError as error:
        arguments.check_alike(model, images, error)
        if verdict(error):
            raise
        raise UserError(f"the model fails on images {list(images.shape)}: {error}") from error


def rectify(maps: Tensor, how: str = "relu") -> Tensor:
    """Maps [..., h, w] with negative values dropped (`relu`), kept (`none`) or mirrored (`abs`)."""
    return heatmaps.rectify(arguments.maps(maps), how)


def normalize(maps: Tensor, how: str = "minmax") -> Tensor:
    """Maps [..., h, w] in [0, 1], by `minmax` or `max`; constant or nowhere positive ones become zeros."""
    return heatmaps.normalize(arguments.maps(maps), how)


def resize(maps: Tensor, size: Size, kernel: str = "bilinear") -> Tensor:
    """Maps [..., h, w], of floats, resampled to [..., H, W] by a kernel of the axis `resize`: `bilinear`, `cubic_cv2`,
    ..."""
    if not arguments.maps(maps).is_floating_point():
        raise UserError(f"resize takes maps of floats, got {maps.dtype}")
    return heatmaps.resize(maps, arguments.size("size", size), kernel)


def boxes(heatmap: Tensor, threshold: float = 0.15, rule: str = "largest_component", connectivity: int = 8) -> Tensor:
    """Boxes [N,4] (half-open xyxy, pixels of the map) of the regions of heatmap [H,W] above threshold * its maximum.

    The comparison is strict, on the map divided by its maximum (`normalize` it by minmax first where a protocol wants
    that). rule: one of the axis `rule`; `cam_2016_code` has thresholds of its own, on the map as a JPEG file.
    A map that is nowhere positive has no box.
    """
    if arguments.maps(heatmap).ndim != 2:
        raise UserError(f"boxes takes one heatmap [H,W], got {list(heatmap.shape)}")
    if isinstance(threshold, str) or not 0 <= threshold <= 1:
        raise UserError(f"threshold must lie in [0, 1], got {threshold}")
    rule, connectivity = check_axis("rule", rule), check_axis("connectivity", connectivity)
    if rule not in FOUR and connectivity != 8:
        raise UserError(f"rule {rule} is 8-connected by definition, connectivity={connectivity} does not go with it")
    normalized = heatmaps.normalize(heatmap.detach().float().cpu(), "max")
    own = rule == "cam_2016_code"
    levels = heatmaps.quantize(normalized, "jpeg") if own else (normalized > threshold).to(torch.uint8)
    found = boxes_at(levels.numpy(), 0, rule, connectivity)  # type: ignore[arg-type]
    return torch.from_numpy(found)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of Q cases: one annotation a case, and whose image it is."""

    annotations: tuple[Annotation, ...]
    image_index: tuple[int, ...]


def annotate(
    boxes: Sequence[Tensor] | None = None,
    masks: Sequence[Tensor] | None = None,
    sizes: Sequence[Size] | None = None,
    image_index: Sequence[int] | Tensor | None = None,
) -> Truth:
    """The truth of Q cases. boxes: Q tensors [N,4] (half-open xyxy, source pixels); masks: Q tensors [H,W] bool; sizes:
    Q source sizes (height, width), needed without masks; image_index [Q]: cases of one image share a number."""
    given = [x for x in (boxes, masks, sizes) if x is not None]
    if not given or len({len(x) for x in given}) != 1:
        raise UserError(f"boxes, masks and sizes must have one entry a case, got {[len(x) for x in given]}")
    count = len(given[0])
    if sizes is None and masks is None:
        raise UserError("give sizes (height, width) of the source images, or masks")
    index = list(range(count)) if image_index is None else [int(i) for i in image_index]
    if len(index) != count:
        raise UserError(f"{count} cases but {len(index)} entries in image_index: give one each")
    annotations = []
    for q in range(count):
        mask = None if masks is None else arguments.mask(f"masks[{q}]", masks[q])
        size = arguments.size(f"sizes[{q}]", tuple(mask.shape) if mask is not None and sizes is None else sizes[q])  # type: ignore[index]
        if mask is not None and mask.shape != size:
            raise UserError(
                f"masks[{q}] is {list(mask.shape)}, its image {list(size)}: give the mask at the image's size"
            )
        objects = [(0, box, False) for box in (arguments.corners(f"boxes[{q}]", boxes[q]) if boxes is not None else [])]
        extra = {} if mask is None else {"masks": mask[None], "mask_labels": torch.zeros(1, dtype=torch.int64)}
        made = annotation(str(index[q]), size, objects, [0], **extra)
        if made.problems:
            raise UserError(made.problems[0])
        annotations.append(made)
    return Truth(tuple(annotations), tuple(index))


def score(
    maps: Mapping[str, Tensor], truth: Truth, metrics: Sequence[str] = ("pointing_game",), preset: str = "default"
) -> pd.DataFrame:
    """Rows (case, method, metric, protocol, value, curve, problem) of heatmaps {method: [Q,h,w]} against a truth.

    preset: whose protocol to use, by name. The network is taken to have seen the image as the preset's view shows it;
    with `resize: model`, and with ten crops, the whole of it. What depends on the classifier's answers is not scored
    here: a problem says so, as it does of a heatmap that is not finite everywhere. A method that is not in the
    catalogue is rectified by ReLU where the protocol says `paper`.
    Raises UserError for maps and truth that do not fit and for unknown names.
    """
    if not isinstance(maps, Mapping) or not isinstance(truth, Truth):
        raise UserError("score takes heatmaps {method: [Q,h,w]} as explain gives them, and what annotate gives")
    for label, grids in maps.items():
        if arguments.maps(grids).ndim != 3:
            raise UserError(f"maps of {label} must be [Q,h,w], got {list(grids.shape)}")
        if len(grids) != len(truth.annotations):
            raise UserError(f"{len(grids)} maps of {label} for {len(truth.annotations)} annotated cases: give one each")
    recipe = catalogue.preset(preset, catalogue.spec("preset", preset)) if preset != "default" else DEFAULT
    chosen = [catalogue.metric(label, catalogue.spec("metric", label)) for label in arguments.names("metrics", metrics)]
    for metric in chosen:
        if metric.needs != "maps":
            raise UserError(
                f"metric {metric.label} questions the network, score has heatmaps alone: use gradcam-bench run"
            )
    view = View().but(**recipe.view)
    rows = []
    for q, one in enumerate(truth.annotations):
        frame = warp(one.size, one.size) if view.resize == "model" else Preprocessing().frame(one.size, view)
        mine = {label: stack[q].detach().float().cpu() for label, stack in maps.items()}
        whole = [label for label, grid in mine.items() if heatmaps.degenerate(grid[None]) != ["not finite"]]
        rules, zeros, ranks = [_rule(label) for label in whole], [0] * len(whole), [None] * len(whole)
        finite = [mine[label] for label in whole]
        trial = Trial(finite, rules, zeros, ranks, frame, one, Protocol(), methods=whole)
        for metric in chosen:
            seen = trial.under(Protocol(recipe.protocol).only(metric.reads))
            found = dict(zip(whole, outcomes(metric, seen), strict=True)) if whole else {}
            for label in mine:
                value, curve, problem = found.get(label, (None, None, BROKEN))
                entry = {"case": q, "image": truth.image_index[q], "method": label, "metric": metric.label}
                rows.append(entry | {"protocol": preset, "value": value, "curve": curve, "problem": problem})
    return pd.DataFrame(rows)


def _rule(label: str) -> str:
    name = label.partition(catalogue.AT)[0]
    return str(catalogue.spec("method", name).get("rectify", "relu")) if name in catalogue.names("method") else "relu"
