"""The points a heatmap shows."""

import numpy as np
import numpy.typing as npt

Heatmap = npt.NDArray[np.floating]


def peak(heatmap: Heatmap) -> tuple[int, int]:
    """(y, x) of the maximum of a finite heatmap [H,W]; of equals, the first in row-major order."""
    y, x = np.unravel_index(int(np.argmax(heatmap)), heatmap.shape)
    return int(y), int(x)


def peaks(heatmap: Heatmap) -> npt.NDArray[np.intp]:
    """(y, x) of all pixels that share the maximum of a finite heatmap [H,W], in row-major order: [n,2]."""
    return np.argwhere(heatmap == heatmap.max())
