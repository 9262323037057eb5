"""The ranks of a map's pixels, equal ones sharing theirs: what Spearman's correlation is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcam_bench.regions.compiled import compiled

DIGIT = 11  # bits sorted by at a time: three rounds for 32


def double_ranks(values: NDArray[Any]) -> NDArray[np.int32]:
    """Twice the average ranks [N] (from 1) of N finite values, of any shape, as float32, so that they are whole
    numbers: two equal smallest ones get 3 each (1.5 twice)."""
    bits = (np.ravel(values).astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 is 0
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32)  # in the order of the values
    return _double_ranks(keys)


@compiled
def _double_ranks(keys: NDArray[np.uint32]) -> NDArray[np.int32]:
    count, mask = len(keys), (1 << DIGIT) - 1
    order, other = np.arange(count), np.empty(count, dtype=np.int64)
    for shift in (0, DIGIT, 2 * DIGIT):  # least significant digits first, each round stable
        starts = np.zeros(mask + 2, dtype=np.int64)
        for i in range(count):
            starts[((keys[i] >> shift) & mask) + 1] += 1
        for digit in range(mask + 1):
            starts[digit + 1] += starts[digit]
        for i in range(count):
            digit = (keys[order[i]] >> shift) & mask
            other[starts[digit]] = order[i]
            starts[digit] += 1
        order, other = other, order
    ranks = np.empty(count, dtype=np.int32)
    start = 0
    while start < count:
        end = start + 1
        while end < count and keys[order[end]] == keys[order[start]]:
            end += 1
        for i in range(start, end):
            ranks[order[i]] = start + 1 + end  # the first rank and the last
        start = end
    return ranks
