"""Seeds in the files that other programs read. Each writer takes one method's answer for one image, or for all.

    irn       <image>.npy   what IRN's np.load(path, allow_pickle=True).item() gives: `keys` int64 [Q], classes from 0
                            without the background, `high_res` float32 [Q,H,W], `cam` float32 at a quarter of that.
                            As IRN writes them, `high_res` is an array, the other two are PyTorch's tensors: its
                            make_sem_seg_labels.py calls `cam_dict['cam'].cuda()`
    psa       <image>.npy   what PSA's np.load(path).item() gives: float32 [H,W] by class, a whole number from 0
    sec       localization_cues.pickle and input_list.txt: what SEC's AnnotationLayer loads, as it is
    png       <image>.png   palette picture in VOC's colours: 0 background, 1 + class, 255 unknown
    coco-rle  results.json  COCO's results: a list of image_id, category_id, segmentation (run-length code), score

With a dense random field (`--crf ALPHA`) labels are its most probable ones, and psa holds what PSA calls la_crf (alpha
4) and ha_crf (alpha 24 in the paper, 32 in the program): probabilities by label, 0 the background and 1 + class.

Three of these formats are pickles, by those programs' own choice; nothing here is ever unpickled. SEC's holds
dictionaries, lists, text and whole numbers alone, in protocol 2: Python 2 reads it, and so does a reader that refuses
every class. IRN's and PSA's are in protocol 3, and name nothing that NumPy 1 and the PyTorch of their day lack.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.annotations.pictures import PALETTE
from gradcam_bench.errors import UserError
from gradcam_bench.files import atomically
from gradcam_bench.heatmaps import EPSILON
from gradcam_bench.regions import seeds

MOST = 254  # classes that a label of 8 bits can name beside background and unknown


@dataclass(frozen=True)
class Seed:
    """One method's answer for one image. classes [Q] from 0, rising. maps [Q,H,W] float32, normalised, in pixels of the
    image. labels [H,W] uint8: 0, 1 + q, UNKNOWN. cues [41,41] uint8 likewise. scores [Q]: the classes' probabilities.
    beliefs [1 + Q,H,W]: what a random field made of the maps, where one was asked for.
    """

    image_id: str
    classes: Sequence[int]
    maps: Tensor
    labels: Tensor
    cues: Tensor
    scores: Sequence[float]
    beliefs: Tensor | None = None


@dataclass
class Numbers:
    """What a format calls images and classes: COCO's own numbers where the data set has them."""

    images: Mapping[str, Any] = field(default_factory=dict)
    categories: Sequence[int] = ()

    def image(self, image_id: str) -> Any:
        return self.images.get(image_id, image_id)

    def category(self, label: int) -> int:
        return int(self.categories[label]) if self.categories else label + 1


def irn(folder: Path, seed: Seed) -> None:
    """keys, high_res and cam of one image (Ahn et al. 2019, the authors' make_cam.py); `cam` is `high_res` made smaller
    and normalised again, where theirs is resized from the grid."""
    size = tuple((side - 1) // 4 + 1 for side in seed.maps.shape[1:])
    small = F.interpolate(seed.maps[None], size, mode="bilinear", align_corners=False)[0]
    small = small / (small.amax((1, 2), keepdim=True).clamp(min=0) + EPSILON)
    keys = torch.tensor(seed.classes, dtype=torch.int64)
    _npy(folder / f"{seed.image_id}.npy", {"keys": keys, "cam": small, "high_res": seed.maps.numpy()})


def psa(folder: Path, seed: Seed) -> None:
    """A map by class of one image; of a random field's beliefs, by label (Ahn and Kwak 2018, the authors'
    infer_cls.py)."""
    if seed.beliefs is None:
        named = zip(seed.classes, seed.maps.numpy(), strict=True)
    else:
        named = zip([0, *(1 + label for label in seed.classes)], seed.beliefs.numpy(), strict=True)
    _npy(folder / f"{seed.image_id}.npy", {int(label): np.ascontiguousarray(one) for label, one in named})


def png(folder: Path, seed: Seed) -> None:
    """The label map of one image as a palette picture."""
    picture = Image.fromarray(seeds.painted(seed.labels, named(seed.classes)).numpy())
    picture.putpalette(PALETTE)
    path = folder / f"{seed.image_id}.png"
    atomically(path, lambda temporary: picture.save(temporary, "PNG"))


class Each:
    """A file an image."""

    def __init__(self, folder: Path, write: Callable[[Path, Seed], None]) -> None:
        self.folder, self.write = folder, write

    def add(self, seed: Seed) -> None:
        self.write(self.folder, seed)

    def close(self) -> None:
        """Nothing is left to write."""


class Sec:
    """The cues of all images in one file: `<n>_labels`, classes from 1, and `<n>_cues`, three lists of as many classes,
    rows and columns, n being the image's number in input_list.txt."""

    def __init__(self, folder: Path, suffix: str = ".jpg") -> None:
        self.folder, self.suffix = folder, suffix
        self.cues: dict[str, list[Any]] = {}
        self.ids: list[str] = []

    def add(self, seed: Seed) -> None:
        number = len(self.ids)
        self.ids.append(seed.image_id)
        painted = seeds.painted(seed.cues, named(seed.classes)).numpy()
        rows, columns = np.nonzero(painted != seeds.UNKNOWN)
        self.cues[f"{number}_labels"] = [label + 1 for label in seed.classes]
        self.cues[f"{number}_cues"] = [painted[rows, columns].tolist(), rows.tolist(), columns.tolist()]

    def close(self) -> None:
        content = pickle.dumps(self.cues, protocol=2)
        atomically(self.folder / "localization_cues.pickle", lambda path: path.write_bytes(content))
        lines = "".join(f"{image_id}{self.suffix} {number}\n" for number, image_id in enumerate(self.ids))
        atomically(self.folder / "input_list.txt", lambda path: path.write_text(lines, encoding="utf-8"))


class Coco:
    """The label maps of all images as COCO's results; of unknown pixels nothing is said."""

    def __init__(self, folder: Path, numbers: Numbers) -> None:
        self.folder, self.numbers = folder, numbers
        self.entries: list[dict[str, Any]] = []

    def add(self, seed: Seed) -> None:
        for q, (label, score) in enumerate(zip(seed.classes, seed.scores, strict=True)):
            mask = (seed.labels == q + 1).numpy().astype(np.uint8)
            if mask.any():
                code = rle.encode(np.asfortranarray(mask))
                entry = {"image_id": self.numbers.image(seed.image_id), "category_id": self.numbers.category(label)}
                entry["segmentation"] = {"size": list(mask.shape), "counts": code["counts"].decode("ascii")}
                self.entries.append(entry | {"score": float(score)})

    def close(self) -> None:
        text = json.dumps(self.entries)
        atomically(self.folder / "results.json", lambda path: path.write_text(text, encoding="utf-8"))


FORMATS: dict[str, Callable[[Path, Numbers], Each | Sec | Coco]] = {
    "irn": lambda folder, numbers: Each(folder, irn),
    "psa": lambda folder, numbers: Each(folder, psa),
    "sec": lambda folder, numbers: Sec(folder),
    "png": lambda folder, numbers: Each(folder, png),
    "coco-rle": Coco,
}


def named(classes: Sequence[int]) -> list[int]:
    """The classes, if 8 bits can name them."""
    if max(classes, default=0) >= MOST:
        raise UserError(f"class {max(classes)}: a label map of 8 bits names classes 0 to {MOST - 1}; use irn or psa")
    return list(classes)


class _Pickler(pickle.Pickler):
    """Arrays are rebuilt by `numpy.ndarray` itself: NumPy 2 would name a module that NumPy before 1.26 lacks."""

    def reducer_override(self, value: Any) -> Any:
        """The way to rebuild a value; of all but arrays, the usual one."""
        return (np.ndarray, ((0,), "b"), value.__reduce__()[2]) if type(value) is np.ndarray else NotImplemented


def _npy(path: Path, content: dict[Any, Any]) -> None:
    """A dictionary as `np.save` writes one: NumPy's header of one object, and its pickle."""
    whole = np.empty((), dtype=object)
    whole[()] = content
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
    _Pickler(file, protocol=3).dump(whole)
    atomically(path, lambda temporary: temporary.write_bytes(file.getvalue()))


def label_map(maps: Tensor, rule: str, background: float, cues: Tensor) -> Tensor:
    """[H,W] uint8 by the rule of the axis `seed_rule`: SEC's cues are spread over the image by nearest neighbour."""
    if rule == "argmax":
        return seeds.at_level(maps, background)
    spread = F.interpolate(cues[None, None].float(), maps.shape[1:], mode="nearest-exact")
    return spread[0, 0].to(torch.uint8)
