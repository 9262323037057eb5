"""Linear imputation: each missing pixel is the weighted mean of its eight neighbours, known or missing.

Rong et al. 2022 (ROAD), sec. 4.2 and appendix: weights 1/6 for the four neighbours across an edge and 1/12 for those
across a corner, left out beyond the border. That is one sparse, symmetric, positive definite system for all channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

Floats = NDArray[np.floating[Any]]
NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))  # rows, columns, weight: each pair once


def impute(image: Floats, missing: NDArray[np.bool_]) -> Floats:
    """An image [3,H,W] float32 whose missing pixels [H,W] are imputed. At least one pixel must be known."""
    places = np.flatnonzero(missing)
    if not len(places):
        return image.copy()
    matrix, known = system(image, missing)
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    whole = image.reshape(len(image), -1).copy()
    whole[:, places] = factors.solve(known).T
    return whole.reshape(image.shape)


def system(image: Floats, missing: NDArray[np.bool_]) -> tuple[csc_matrix, Floats]:
    """(matrix [n,n], right sides [n,3]), float64: of the n missing pixels in reading order."""
    height, width = missing.shape
    places = np.flatnonzero(missing)
    number = np.full(missing.shape, -1)
    number[missing] = np.arange(len(places))
    known = np.where(missing, 0.0, image.astype(np.float64))
    weight, sides = np.zeros(missing.shape), np.zeros(image.shape)
    rows, columns, values = [np.arange(len(places))], [np.arange(len(places))], []
    for down, right, share in NEIGHBOURS:
        here = slice(0, height - down), slice(max(-right, 0), width - max(right, 0))
        there = slice(down, height), slice(max(right, 0), width - max(-right, 0))
        for a, b in ((here, there), (there, here)):
            weight[a] += share
            sides[:, *a] += share * known[:, *b]
            both = missing[a] & missing[b]
            rows.append(number[a][both])
            columns.append(number[b][both])
            values.append(np.full(len(rows[-1]), -share))
    entries = np.concatenate([weight.ravel()[places], *values])
    indices = np.concatenate(rows), np.concatenate(columns)
    matrix = csc_matrix((entries, indices), shape=(len(places), len(places)))
    return matrix, sides.reshape(len(image), -1)[:, places].T
