"""The pointing game with rejection: of the classes that a model names, which does its map find, and which not?"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.geometry import within
from gradcam_bench.regions.points import peak
from gradcam_bench.trial import Trial


def pointing_game_rejection(trial: Trial) -> Tensor:
    """1 for a hit, 0 for a miss, of each of the model's first five classes: [U]; its mean is hits / (hits + misses).

    Selvaraju et al. 2020 (IJCV), on the pointing game. A map whose maximum, not normalised, lies below `rejection` is
    rejected. To reject is a hit where the class is not in the image and a miss where it is; to point is a hit within
    less than `tolerance` pixels of an object of the class, and a miss elsewhere. The paper states neither the threshold
    nor the tolerance, nor that to reject a class that is there is a miss.
    """
    top, kept, rejected = _outcomes(trial).unbind(1)
    return torch.where(top < trial.protocol.rejection, rejected, kept)


def max_pointing_game_rejection(trial: Trial) -> tuple[None, Tensor]:
    """For each of the model's first five classes the map's maximum, not normalised, and whether it is a hit if kept and
    if rejected: [U,3].

    The score is the accuracy of `pointing_game_rejection` at the one threshold that suits the data set best, of all
    that there are (an upper bound): a threshold means something for the maps of one method and network alone.
    """
    return None, _outcomes(trial)


def _outcomes(trial: Trial) -> Tensor:
    """[U,3]: maximum, hit if kept, hit if rejected; NaN where it is not known whether the class is there, or where."""
    found = torch.full((len(trial), 3), torch.nan)
    for unit, (heatmap, grid) in enumerate(zip(trial.maps, trial.rectified, strict=True)):
        if trial.absent(unit):
            if not _annotated(trial):
                trial.notes[unit] = f"no {trial.protocol.region} of any class in the image"
                continue
            kept, rejected = 0.0, 1.0
        else:
            region = trial.region(unit)
            if region is None or trial.hard(unit):
                continue
            kept, rejected = float(within(region, *peak(heatmap.numpy()), trial.protocol.tolerance)), 0.0
        found[unit] = torch.tensor([float(grid.max()), kept, rejected])
    return found


def _annotated(trial: Trial) -> bool:
    """Whether objects of the image are known: else only its absent classes would be scored, which are easily right."""
    known = trial.annotation.boxes if trial.protocol.region == "box" else trial.annotation.masks
    return known is not None and len(known) > 0
