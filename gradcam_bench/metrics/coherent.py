"""Scores of a map by what it makes the network and itself say: coherency, complexity, and their harmonic means.

Poppi et al. 2021 (ADCC); Score-CAM's and Grad-CAM++'s drop is joined by two terms that no flat map passes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.questions import masks, removal
from gradcam_bench.questions.answers import probabilities, whole
from gradcam_bench.trial import Trial


def coherency(trial: Trial) -> Tensor:
    """(r + 1) / 2 with r Pearson's correlation of map and map of the image under the map, in [0, 1]: [U].

    Poppi et al. 2021, eq. 3: CAM(x * CAM(x)) should be CAM(x). Both in the input's pixels. NaN for a constant map,
    which correlates with nothing; 1/2 where only the second map is constant.
    """
    return masks.coherency(trial)


def complexity(trial: Trial) -> Tensor:
    """The mean absolute value of the map in the input's pixels, in [0, 1] once normalised: [U].

    Poppi et al. 2021, eq. 4 (the L1 norm, over the number of pixels). Lower is better; it needs no network.
    """
    return masks.complexity(trial)


def adcc(trial: Trial) -> tuple[Tensor, Tensor]:
    """3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop)), in [0, 1]: [U], with the three terms [U,3].

    Poppi et al. 2021, eq. 5, here of each case, then averaged, as later tables have it (`adcc_of_means`: of the data
    set's means). The drop is `average_drop`. 0 where a term is 0; NaN where coherency or drop is.
    """
    terms = _terms(trial)
    return _harmonic(terms), terms


def adcc_of_means(trial: Trial) -> tuple[None, Tensor]:
    """The three terms of `adcc` [U,3]; the number is the harmonic mean of their means over the data set.

    Poppi et al. 2021, eq. 5 and table 1, as the paper computes it. There is no statistic a case.
    """
    return None, _terms(trial)


def arcc(trial: Trial) -> tuple[Tensor, Tensor]:
    """Harmonic mean of coherency, 1 - complexity and 2 * `road_combined` cut to [0, 1]: [U], with the terms [U,3].

    Of RefineCAM's authors, 2026, as pytorch-grad-cam has it (with shares of 20, 40, 60 and 80 percent). 0 where a term
    is 0: a map that ROAD finds no better than its opposite has no ARCC.
    """
    road = (2 * removal.road_combined(trial)).clamp(0, 1)
    terms = torch.stack([masks.coherency(trial), 1 - masks.complexity(trial), road], 1)
    return _harmonic(terms), terms


def _terms(trial: Trial) -> Tensor:
    """[U,3]: coherency, 1 - complexity, 1 - drop."""
    before, after = (probabilities(trial, of(trial)) for of in (whole, masks.under_map))
    kept = torch.where(before > 0, 1 - (before - after).clamp(min=0) / before, torch.nan)
    for unit in kept.isnan().nonzero().flatten().tolist():
        trial.notes[unit] = "the probability of the class is 0"
    return torch.stack([masks.coherency(trial), 1 - masks.complexity(trial), kept], 1)


def _harmonic(terms: Tensor) -> Tensor:
    """The harmonic mean of each row of [U,n] in [0, 1]: 0 where an entry is 0."""
    return terms.shape[1] / (1 / terms).sum(1)
