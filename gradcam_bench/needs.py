"""What a paper's experiment takes, what of it is here, and how to get the rest: `reproduce NAME --check`."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision

from gradcam_bench.errors import UserError
from gradcam_bench.experiments import Experiment, PaperRun
from gradcam_bench.fidelity import published_url
from gradcam_bench.setup import make

HOW = {  # where a data set's files come from
    "imagenet": "ILSVRC2012 validation pictures (6.3 GB) and boxes after registration at image-net.org, or Kaggle's "
    "imagenet-object-localization-challenge; the boxes are in the text lists of github.com/clovaai/wsolevaluation too",
    "cub": "CUB_200_2011.tgz (1.1 GB) from data.caltech.edu/records/65de6-vp158",
    "openimages": "OpenImages30k (wsolevaluation's README says how to fetch pictures and masks; metadata/ lists them)",
    "voc": "VOCtrainval and VOCtest archives (2007: 0.9 GB, 2012: 1.9 GB) from host.robots.ox.ac.uk/pascal/VOC",
    "coco": "val2014.zip (6.2 GB) and annotations_trainval2014.zip from cocodataset.org",
    "folder": "pictures of your own: images/ and boxes.csv, or one folder a class",
}
CELL, DENSE, MANY = 14 * 14 * 4 + 4096, 224 * 224 * 2, 50000  # bytes: a small map with its rows, a large map; images
FEW = 20  # pictures that are looked for
Configure = Callable[[Sequence[str]], dict[str, Any]]


@dataclass(frozen=True)
class Need:
    """One thing that a run takes. there: whether it is here. found: what is, or how to get it."""

    run: str
    what: str
    there: bool
    found: str


def check(chosen: Experiment, configured: Mapping[str, Callable[[], dict[str, Any]]], results: str) -> list[Need]:
    """The needs of each run whose configuration is given (a function that makes it, or raises UserError where a folder
    was not named). Nothing is computed, nothing is fetched."""
    found, wanted = [], 0.0
    for key, configure in configured.items():
        run = chosen.runs[key]
        try:
            config = configure()
        except UserError as error:
            what = "weights" if "weights}" in str(error) else "data"
            how = run.cost if what == "weights" else HOW.get(_dataset(run), "")
            found.append(Need(key, what, False, f"{str(error).partition(';')[0]}. {how}"))
            continue
        found += [_data(key, run, config), *_network(key, config)]
        wanted += _room(run, config)
    home = Path(results).expanduser().absolute()
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:.0f} GB free at {place}, up to {wanted / 1e9:.1f} GB of heatmaps and rows"
    found.append(Need("all", "disk", free > wanted, said))
    return found


def _room(run: PaperRun, config: Mapping[str, Any]) -> float:
    """Bytes that a run's heatmaps and rows may take, at most."""
    images = min(run.images or MANY, config.get("limit") or MANY)
    large = DENSE if config["store"] == "all" else 0
    return float(images * len(config["method"] or {}) * (CELL + large))


def _dataset(run: PaperRun) -> str:
    words = [word.partition("=")[2] for word in run.set if word.startswith(("dataset=", "dataset@dataset.source="))]
    return words[-1] if words else ""


def _data(key: str, run: PaperRun, config: Mapping[str, Any]) -> Need:
    """Whether the data set opens, whole, with its first pictures."""
    what = f"data ({_dataset(run)})"
    try:
        data = make(config["dataset"], "dataset")
        count, seen = len(data.ids), config["model"].get("_target_") is not None
        masks = any(spec.get("masks") for spec in (config["metric"] or {}).values())
        for index in range(min(FEW, count)):
            _ = data.read(index, masks) if seen else data.annotate(index, masks)
    except UserError as error:
        return Need(key, what, False, f"{error}. {HOW.get(_dataset(run), '')}")
    of = f" of {run.images}" if run.images and run.images != count else ""
    pictures = "annotations" if not seen else "images"
    return Need(key, what, not of, f"{count}{of} {pictures}{'' if not of else ': a part is not judged'}")


def _network(key: str, config: Mapping[str, Any]) -> list[Need]:
    """Whether the weights are here, and the package that makes the network."""
    target, name = str(config["model"].get("_target_")), str(config["model"].get("name"))
    weights = str(config["model"].get("weights"))
    needs = []
    if ".timm_zoo." in target:
        there = importlib.util.find_spec("timm") is not None
        needs.append(Need(key, "package timm", there, "" if there else "pip install 'gradcam-bench[timm]'"))
        needs.append(Need(key, f"weights of {name}", True, "timm fetches them once, or give model.weights=FILE"))
    elif ".zoo." in target and weights not in ("None", "none"):
        needs.append(_torchvision(key, name, weights))
    return needs


def _torchvision(key: str, name: str, weights: str) -> Need:
    url = published_url(name, weights)
    if not url:
        there = Path(weights).expanduser().is_file()
        return Need(key, f"weights of {name}", there, weights if there else f"{weights}: no such file")
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    members = torchvision.models.get_model_weights(name)
    member = members.DEFAULT if weights == "DEFAULT" else members[weights]
    size = member.meta.get("_file_size", 0)
    how = f"torchvision fetches {url} ({size:.0f} MB) on first use; without a network: model.weights=FILE"
    return Need(key, f"weights of {name}", path.is_file(), str(path) if path.is_file() else how)


def as_text(chosen: Experiment, needs: Sequence[Need]) -> str:
    """A line a need, with what the experiment's file says before them."""
    lines = [f"{chosen.name}: {chosen.about}", f"needs: {chosen.needs}"]
    for key, run in chosen.runs.items():
        if run.cost and any(need.run == key for need in needs):
            lines.append(f"  {key}: {run.cost}")
    width = max(len(need.run) for need in needs)
    for need in needs:
        state, found = "there  " if need.there else "MISSING", f": {need.found}" if need.found else ""
        lines.append(f"{state}  {need.run:{width}}  {need.what}{found}")
    return "\n".join(lines)
