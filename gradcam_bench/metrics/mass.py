"""Scores of where the map's mass lies. Negative values carry none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradcam_bench.trial import Trial

LEAST_TOTAL = 1e-7  # of a grid's map, below which it says nothing; Rao et al.'s code
LEAST_OBJECT = 100  # pixels, up to which the weighting game leaves an object out


def mass_accuracy(trial: Trial) -> Tensor:
    """sum of the map inside the object / sum of the map, in [0, 1]: [U].

    Relevance mass accuracy, Arras, Osman and Samek 2022, sec. 3.4: the ratio that the energy pointing game takes too,
    there of relevance as it is (`normalize: none`) and a mask (`region: mask`). A map without positive mass has none of
    it on the object: 0.
    """
    return _each(trial, trial.region, _share)


def rank_accuracy(trial: Trial) -> Tensor:
    """The share of the object's K pixels among the map's K largest values, in [0, 1]: [U].

    Relevance rank accuracy, Arras, Osman and Samek 2022, sec. 3.4. Of values that tie for the last places each is taken
    as likely as any, and the expected share is the score: a constant map has that of chance, the object's share of the
    image.
    """
    return _each(trial, trial.region, _ranked)


def inside_outside_ratio(trial: Trial) -> Tensor:
    """The map's mean inside the class' boxes / its mean outside of them, 0 or more, 1 for a flat map: [U].

    Selvaraju et al. 2017 and 2020, on captions (3.27 for Grad-CAM, 6.38 for Guided Grad-CAM). Not defined where the map
    is 0 outside of the boxes (the ratio would be infinite) or where they cover the whole frame: not scored, so that the
    mean is over fewer cases. A few maps that are next to nothing outside make the mean of the ratios: see
    `inside_outside_ratio_of_means`.
    """
    inside, outside = _means(trial)
    for unit in range(len(trial)):
        if not outside[unit] > 0:
            trial.notes.setdefault(unit, "nothing outside of the boxes")
    return torch.where(outside > 0, inside / outside, torch.nan)


def inside_outside_ratio_of_means(trial: Trial) -> tuple[None, Tensor]:
    """The curve [U,2]: the map's mean inside the class' boxes, and outside of them.

    Ours: the score is the mean of the one over all cases / that of the other, so that no single map makes it, and one
    that is 0 outside is scored too. Each map counts by what it holds, brought to [0, 1] by `normalize`. 1 if all flat.
    """
    inside, outside = _means(trial)
    for unit in range(len(trial)):
        if outside[unit].isnan():
            trial.notes.setdefault(unit, "nothing outside of the boxes")
    return None, torch.stack([inside, outside], 1)


def weighting_game(trial: Trial) -> Tensor:
    """The share of the map's mass within the class' masks, in [0, 1]: [U].  Raatikainen and Rahtu 2022.

    Objects of at most 100 pixels of the frame are left out, as their program does; it also grows each mask by 4 pixels
    all round, which is not done here. A map without positive mass: 0.
    """
    share = _each(trial, trial.mask, _share)
    for unit in range(len(trial)):
        mask = trial.mask(unit)
        if mask is not None and mask.sum() <= LEAST_OBJECT:
            trial.notes[unit] = f"the object covers no more than {LEAST_OBJECT} pixels"
            share[unit] = torch.nan
    return share


def grid_pointing_game(trial: Trial) -> Tensor:
    """The share of the map's positive mass that lies in the class' own cell of a mosaic, in [0, 1]: [U].

    GridPG, Rao, Böhle and Schiele 2022, sec. 3.1, on a data set of mosaics (`dataset=grids`), whose boxes are the
    cells. Chance is 1 / number of cells. A map of next to no positive mass (1e-7 or less in sum): 0.
    """
    return _each(trial, trial.inside, lambda mass, cell: _share(mass, cell, LEAST_TOTAL))


def _each(trial: Trial, object_of: Callable[[int], Tensor | None], score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """score(positive part of the map [H,W] float64, object [H,W] bool) of each unit whose object is known."""
    found = torch.full((len(trial),), torch.nan)
    for unit, heatmap in enumerate(trial.maps):
        region = object_of(unit)
        if region is not None:
            found[unit] = score(heatmap.double().clamp(min=0), region).float()
    return found


def _share(mass: Tensor, region: Tensor, least: float = 0.0) -> Tensor:
    total = mass.sum()
    return mass[region].sum() / total if total > least else mass.new_zeros(())


def _ranked(mass: Tensor, region: Tensor) -> Tensor:
    count = int(region.sum())
    last = mass.flatten().kthvalue(mass.numel() - count + 1).values
    above, ties = mass > last, mass == last
    chance = (count - above.sum()) / ties.sum()  # that a pixel of the last value is taken
    return ((above & region).sum() + chance * (ties & region).sum()) / count


def _means(trial: Trial) -> tuple[Tensor, Tensor]:
    """The map's mean inside the class' boxes [U], and outside [U]; NaN, both, where one of these is no place at all."""
    inside = _each(
        trial, trial.inside, lambda mass, box: mass[box].mean() if not box.all() else mass.new_tensor(torch.nan)
    )
    outside = _each(trial, trial.inside, lambda mass, box: mass[~box].mean())
    return inside, outside
