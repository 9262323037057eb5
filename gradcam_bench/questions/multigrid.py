"""The system of linear imputation solved by conjugate gradients, preconditioned by a multigrid cycle.

Each level is a grid half as fine, whose cells stand for up to 2x2 missing pixels each (piecewise constant, so that any
shape of holes has its coarse levels) with the couplings added up; one Gauss-Seidel sweep down, one back up. Three
channels are solved at once. Arrays have a border of one cell, in which nothing is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcam_bench.regions.compiled import compiled

Floats = NDArray[np.floating[Any]]
COARSEST, SWEEPS = 4, 8  # cells a side of the last grid, and the sweeps that solve it
STIFF = 1.7  # a correction that is constant within cells is too small by about this


class Grid:
    """One level, float32: couplings [4,h+2,w+2], diagonal and its inverse [h+2,w+2], right side and solution
    [h+2,w+2,3]."""

    def __init__(self, couplings: Floats, diagonal: Floats) -> None:
        self.couplings, self.diagonal = couplings, diagonal
        self.inverse = np.where(diagonal > 0, 1 / np.where(diagonal > 0, diagonal, 1), 0).astype(np.float32)
        self.side = np.zeros((*diagonal.shape, 3), np.float32)
        self.found = np.zeros_like(self.side)


def solve(couplings: Floats, diagonal: Floats, side: Floats, tolerance: float, most: int = 200) -> Floats:
    """x [h+2,w+2,3] with diagonal x - sum of couplings * neighbours = side; 0 where diagonal is 0. All float64, save
    that the cycle computes in float32. couplings [4,h+2,w+2]: to the east, south, south-east and south-west.

    tolerance: of the error in the energy norm, as a share of that of x = 0."""
    grids = [Grid(couplings.astype(np.float32), diagonal.astype(np.float32))]
    while min(grids[-1].diagonal.shape) - 2 > COARSEST:
        grids.append(Grid(*_coarser(grids[-1].couplings, grids[-1].diagonal)))
    found, left = np.zeros_like(side), side.copy()
    direction, product = np.zeros_like(side), np.zeros_like(side)
    energy: Floats = np.ones(3)
    first = None
    for _ in range(most):
        step = _cycle(grids, 0, left.astype(np.float32))
        now = _dot(left, step)
        first = now if first is None else first
        if (now <= tolerance**2 * first).all():
            break
        _follow(direction, step, now / np.where(energy > 0, energy, 1))
        energy = now
        bend = _apply(direction, product, couplings, diagonal)
        _advance(found, left, direction, product, now / np.where(bend > 0, bend, 1))
    return found


def _cycle(grids: list[Grid], level: int, side: Floats) -> Floats:
    grid = grids[level]
    grid.found[:] = 0
    if level == len(grids) - 1:
        for _ in range(SWEEPS):
            _sweep(grid.found, side, grid.inverse, grid.couplings, False)
            _sweep(grid.found, side, grid.inverse, grid.couplings, True)
        return grid.found
    _sweep(grid.found, side, grid.inverse, grid.couplings, False)
    below = grids[level + 1]
    below.side[:] = 0
    _restrict(grid.found, side, below.side, grid.couplings, grid.diagonal)
    _correct(grid.found, _cycle(grids, level + 1, below.side), grid.diagonal)
    _sweep(grid.found, side, grid.inverse, grid.couplings, True)
    return grid.found


@compiled
def _sweep(x: Floats, side: Floats, inverse: Floats, couplings: Floats, backward: bool) -> None:
    east, south, southeast, southwest = couplings[0], couplings[1], couplings[2], couplings[3]
    height, width = inverse.shape
    for i in range(1, height - 1):
        row = height - 1 - i if backward else i
        for j in range(1, width - 1):
            column = width - 1 - j if backward else j
            scale = inverse[row, column]
            if scale > 0:
                for c in range(3):
                    total = side[row, column, c]
                    total += east[row, column] * x[row, column + 1, c]
                    total += east[row, column - 1] * x[row, column - 1, c]
                    total += south[row, column] * x[row + 1, column, c]
                    total += south[row - 1, column] * x[row - 1, column, c]
                    total += southeast[row, column] * x[row + 1, column + 1, c]
                    total += southeast[row - 1, column - 1] * x[row - 1, column - 1, c]
                    total += southwest[row, column] * x[row + 1, column - 1, c]
                    total += southwest[row - 1, column + 1] * x[row - 1, column + 1, c]
                    x[row, column, c] = total * scale


@compiled
def _apply(x: Floats, product: Floats, couplings: Floats, diagonal: Floats) -> Floats:
    """product = A x; returns <x, A x> a channel."""
    east, south, southeast, southwest = couplings[0], couplings[1], couplings[2], couplings[3]
    height, width = diagonal.shape
    bend = np.zeros(3)
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            if diagonal[i, j] > 0:
                for c in range(3):
                    total = diagonal[i, j] * x[i, j, c]
                    total -= east[i, j] * x[i, j + 1, c] + east[i, j - 1] * x[i, j - 1, c]
                    total -= south[i, j] * x[i + 1, j, c] + south[i - 1, j] * x[i - 1, j, c]
                    total -= southeast[i, j] * x[i + 1, j + 1, c] + southeast[i - 1, j - 1] * x[i - 1, j - 1, c]
                    total -= southwest[i, j] * x[i + 1, j - 1, c] + southwest[i - 1, j + 1] * x[i - 1, j + 1, c]
                    product[i, j, c] = total
                    bend[c] += x[i, j, c] * total
    return bend


@compiled
def _restrict(x: Floats, side: Floats, below: Floats, couplings: Floats, diagonal: Floats) -> None:
    """Adds what is left of the right side to the cells of the coarser grid."""
    east, south, southeast, southwest = couplings[0], couplings[1], couplings[2], couplings[3]
    height, width = diagonal.shape
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            if diagonal[i, j] > 0:
                for c in range(3):
                    total = side[i, j, c] - diagonal[i, j] * x[i, j, c]
                    total += east[i, j] * x[i, j + 1, c] + east[i, j - 1] * x[i, j - 1, c]
                    total += south[i, j] * x[i + 1, j, c] + south[i - 1, j] * x[i - 1, j, c]
                    total += southeast[i, j] * x[i + 1, j + 1, c] + southeast[i - 1, j - 1] * x[i - 1, j - 1, c]
                    total += southwest[i, j] * x[i + 1, j - 1, c] + southwest[i - 1, j + 1] * x[i - 1, j + 1, c]
                    below[(i + 1) // 2, (j + 1) // 2, c] += total


@compiled
def _correct(x: Floats, coarse: Floats, diagonal: Floats) -> None:
    height, width = diagonal.shape
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            if diagonal[i, j] > 0:
                for c in range(3):
                    x[i, j, c] += np.float32(STIFF) * coarse[(i + 1) // 2, (j + 1) // 2, c]


@compiled
def _coarser(fine: Floats, diagonal: Floats) -> tuple[Floats, Floats]:
    """Couplings and diagonal of the grid half as fine: sums over the pairs of pixels in different, or in one, cell."""
    height, width = diagonal.shape
    shape = ((height - 1) // 2 + 2, (width - 1) // 2 + 2)
    couplings = np.zeros((4, *shape), np.float32)
    middle = np.zeros(shape, np.float32)
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            y, x = (i + 1) // 2, (j + 1) // 2
            middle[y, x] += diagonal[i, j]
            for k, (down, right) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
                weight = fine[k, i, j]
                if weight == 0:
                    continue
                below, beside = (i + down + 1) // 2 - y, (j + right + 1) // 2 - x
                if below == 0 and beside == 0:
                    middle[y, x] -= 2 * weight
                elif below == 0 and beside == 1:
                    couplings[0, y, x] += weight
                elif below == 0 and beside == -1:
                    couplings[0, y, x - 1] += weight
                elif beside == 0:
                    couplings[1, y, x] += weight
                elif beside == 1:
                    couplings[2, y, x] += weight
                else:
                    couplings[3, y, x] += weight
    return couplings, middle


@compiled
def _dot(a: Floats, b: Floats) -> Floats:
    total = np.zeros(3)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            for c in range(3):
                total[c] += a[i, j, c] * b[i, j, c]
    return total


@compiled
def _follow(direction: Floats, step: Floats, ratio: Floats) -> None:
    for i in range(step.shape[0]):
        for j in range(step.shape[1]):
            for c in range(3):
                direction[i, j, c] = step[i, j, c] + ratio[c] * direction[i, j, c]


@compiled
def _advance(found: Floats, left: Floats, direction: Floats, product: Floats, length: Floats) -> None:
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            for c in range(3):
                found[i, j, c] += length[c] * direction[i, j, c]
                left[i, j, c] -= length[c] * product[i, j, c]
