"""Linear imputation: each missing pixel is the weighted mean of its eight neighbours, known or missing.

Rong et al. 2022 (ROAD), sec. 4.2 and appendix: weights 1/6 for the four neighbours across an edge and 1/12 for those
across a corner, left out beyond the border. That is one sparse, symmetric, positive definite system for all channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcam_bench.questions.multigrid import solve

Floats = NDArray[np.floating[Any]]
NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))  # rows, columns, weight: each pair once
TOLERANCE = 2e-6  # of the solution; ROAD adds noise of 0.01 to it


def impute(image: Floats, missing: NDArray[np.bool_]) -> Floats:
    """An image [3,H,W] float32 whose missing pixels [H,W] are imputed. At least one pixel must be known."""
    if not missing.any():
        return image.copy()
    found = solve(*system(image, missing), TOLERANCE)
    return np.where(missing, found[1:-1, 1:-1].transpose(2, 0, 1), image).astype(np.float32)


def system(image: Floats, missing: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """What `multigrid.solve` takes: couplings of missing pixels [4,H+2,W+2], sums of weights [H+2,W+2], and what the
    known neighbours give [H+2,W+2,3]."""
    height, width = missing.shape
    known = np.where(missing, 0.0, image).transpose(1, 2, 0)
    couplings, weight = np.zeros((len(NEIGHBOURS), height + 2, width + 2)), np.zeros((height + 2, width + 2))
    side = np.zeros((*weight.shape, 3))
    weights, sides = weight[1:-1, 1:-1], side[1:-1, 1:-1]
    for coupling, (down, right, share) in zip(couplings, NEIGHBOURS, strict=True):
        here = slice(0, height - down), slice(max(-right, 0), width - max(right, 0))
        there = slice(down, height), slice(max(right, 0), width - max(-right, 0))
        coupling[1:-1, 1:-1][here] = share * (missing[here] & missing[there])
        for a, b in ((here, there), (there, here)):
            weights[a] += share
            sides[a] += share * known[b]
    weights *= missing
    sides *= missing[..., None]
    return couplings, weight, side
