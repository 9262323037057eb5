"""One folder that holds every data set of the papers' experiments in its true layout, drawn: the twin of the real ones.

A reader that is given this folder as its root finds what it would find in the real thing, so an experiment that runs on
it from end to end runs on the real thing too; numbers from it mean nothing.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from gradcam_bench.datasets.scenes import CLASSES, VERSION
from gradcam_bench.models import trained
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.models.surgery import operate
from gradcam_bench.twins import layouts
from gradcam_bench.twins.scenes import biased, scenes, text

COUNT, LAYOUT = 8, 4  # LAYOUT: raised when what is written changes
VOC_LISTS = ("Main/train", "Main/val", "Main/test", "Segmentation/train", "Segmentation/val")


def root() -> Path:
    """The folder, written on first use into the user's cache; it appears all at once when complete."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradcam-bench"
    final = cache / f"twins-v{LAYOUT}.{VERSION}-{COUNT}"
    if not final.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".twins-", dir=cache) as part:
            write(Path(part) / "whole")
            try:
                (Path(part) / "whole").rename(final)
            except OSError:
                if not final.exists():  # else another process was first
                    raise
    return final


def write(place: Path, count: int = COUNT) -> None:
    """ImageNet, CUB and OpenImages with the text lists of wsolevaluation, VOC 2007 and 2012, COCO 2014, Imagenette, and
    two folders of one's own pictures, `biased` and `balanced`; and weights of a few-shot network that has learnt
    nothing."""
    every, one_class, one = (scenes(kind, count) for kind in ("all", "class", "one"))
    images = layouts.imagenet_kaggle(place, one_class).ids
    listed = [f"val/{image_id}.JPEG" for image_id in images]
    layouts.wsol_lists(place / "metadata/ILSVRC/test", one_class, listed)
    layouts.wsol_lists(place / "metadata/CUB/test", one, layouts.cub_official(place, one).ids)
    layouts.openimages(place, one_class)
    text(place / "openimages_classes.txt", CLASSES)
    for year in (2007, 2012):
        layouts.voc(place, every, year, CLASSES, VOC_LISTS)
    layouts.coco(place, every, "val2014")
    layouts.imagenette(place, one_class)
    layouts.folder_table(place / "balanced", one_class)
    layouts.folder_table(place / "biased", biased(one_class))
    _few_shot(place / "few_shot.safetensors")


def _few_shot(path: Path, classes: int = 1000) -> None:
    network = scenes_network("scenes_gap")
    module = operate("foreground", network.module, "scenes_gap", classes).module
    made = replace(network, module=module, layer="foreground", classes=tuple(map(str, range(classes))))
    built = {"library": "scenes", "name": "scenes_gap", "options": {}}
    trained.save(path, made, {"architecture": built, "surgery": "foreground"})
