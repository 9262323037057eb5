"""Grad-CAM before and after a training, of a few validation pictures, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gradcam_bench import heatmaps
from gradcam_bench.api import explain
from gradcam_bench.cases import scores_in
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.files import atomically
from gradcam_bench.models.network import Network
from gradcam_bench.report.show import side_by_side
from gradcam_bench.samples import Dataset
from gradcam_bench.training.data import Labels

COUNT = 4


@dataclass(frozen=True, eq=False)
class Heat:
    """Grad-CAM of a picture's first class. image uint8 [H,W,3], as the network sees it; heat [H,W] in [0, 1];
    probability of the class."""

    image_id: str
    target: int
    image: np.ndarray
    heat: np.ndarray
    probability: float


def heats(network: Network, dataset: Dataset, known: Labels, count: int = COUNT) -> list[Heat]:
    """Grad-CAM of up to `count` pictures that can be read and have a class, spread evenly over those that are known."""
    found: list[Heat] = []
    labelled = [position for position in range(len(known)) if known.targets[position].any()]
    for position in labelled[:: max(len(labelled) // count, 1)][:count]:
        index, target = known.indices[position], int(known.targets[position].argmax())
        try:
            pixels, _ = network.preprocessing(dataset.read(index).image, View())
            made = explain(network.module, pixels[None], [target], layer=network.layer)["grad_cam"]
        except UserError:  # an unreadable picture, or a layer that Grad-CAM has no use for: nothing to show
            continue
        with torch.inference_mode():
            said = network.probabilities(scores_in(network.module(pixels[None])).mean(2))
        heat = heatmaps.resize(heatmaps.rectify(made, "relu"), (pixels.shape[1], pixels.shape[2]), "bilinear")
        mean, std = (torch.tensor(v)[:, None, None] for v in (network.preprocessing.mean, network.preprocessing.std))
        image = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        shown = heatmaps.normalize(heat, "minmax")[0].numpy()
        found.append(Heat(dataset.ids[index], target, image, shown, float(said[0, target])))
    return found


def draw(before: Sequence[Heat], after: Sequence[Heat], classes: Sequence[str], folder: Path) -> list[str]:
    """One PNG a picture in a folder: the picture, its Grad-CAM before and after; returns the files' names."""
    earlier = {one.image_id: one for one in before}
    made = []
    for number, late in enumerate(one for one in after if one.image_id in earlier):
        early = earlier[late.image_id]
        panels = {
            f"before, p = {early.probability:.3f}": early.heat,
            f"after, p = {late.probability:.3f}": late.heat,
        }
        title = f"{classes[late.target]}: {late.image_id}"
        picture = side_by_side(late.image, panels, title=title)
        made.append(f"grad_cam_{number}.png")
        atomically(folder / made[-1], lambda path, picture=picture: path.write_bytes(picture))  # type: ignore[misc]
    return made
