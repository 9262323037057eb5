"""Pointing games: does the heatmap's peak, or its mass, lie on the object?"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.geometry import within
from gradcam_bench.regions.points import peak, peaks
from gradcam_bench.trial import Trial


def pointing_game(trial: Trial) -> Tensor:
    """1 where the map's peak lies less than `tolerance` source pixels from the object of the class, else 0: [U].

    Zhang et al. 2016, sec. 4.1: accuracy a class, hits / (hits + misses), then the mean over classes. The object is the
    union of all boxes (or masks) of the class. `ties: first` takes the first of equal maxima in reading order, `any`
    lets any of them hit, save of a constant map, which has no peak but its first pixel. A case all of whose objects
    are `difficult` is skipped, and with `cases: ebp_difficult` every case outside that subset. Distances strictly
    below, as in the reference code; in the input frame the tolerance is in input pixels.
    """
    hits = torch.full((len(trial),), torch.nan)
    for unit, heatmap in enumerate(trial.maps):
        region = trial.region(unit)
        if region is None or trial.hard(unit) or trial.easy(unit):
            continue
        several = trial.protocol.ties == "any" and heatmap.max() > heatmap.min()
        points = peaks(heatmap.numpy()) if several else [peak(heatmap.numpy())]
        hits[unit] = float(any(within(region, int(y), int(x), trial.protocol.tolerance) for y, x in points))
    return hits


def energy_pointing_game(trial: Trial) -> Tensor:
    """sum of the map inside the object / sum of the map, in [0, 1]: [U].  Wang et al. 2020 (Score-CAM), sec. 4.3.

    Negative values carry no energy; a map without any has put none of it on the object: 0.
    """
    share = torch.full((len(trial),), torch.nan)
    for unit, heatmap in enumerate(trial.maps):
        region = trial.region(unit)
        if region is None or trial.hard(unit) or trial.easy(unit):
            continue
        energy = heatmap.double().clamp(min=0)
        total = energy.sum()
        share[unit] = (energy[region].sum() / total).float() if total > 0 else 0.0
    return share
