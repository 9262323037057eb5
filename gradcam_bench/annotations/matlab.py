"""MATLAB's files (version 5), in which two data sets come: lists of strings, and SBD's segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from gradcam_bench.errors import UserError


def strings(path: Path, key: str) -> list[str]:
    """The cell array of strings called `key`. Raises UserError naming the file."""
    cells = [np.asarray(cell) for cell in np.asarray(_load(path, key)).ravel()]
    if not all(cell.size == 1 and cell.dtype.kind == "U" for cell in cells):
        raise UserError(f"{path}: '{key}' is no list of strings")
    return [str(cell.item()) for cell in cells]


def segmentation(path: Path) -> np.ndarray:
    """The class numbers [H,W] uint8 of one picture of SBD, 0 for background (`GTcls.Segmentation`)."""
    content = _load(path, "GTcls")
    try:
        numbers: np.ndarray = np.asarray(content["Segmentation"][0, 0])
    except (IndexError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: no GTcls.Segmentation in it ({error})") from None
    if numbers.ndim != 2 or numbers.dtype != np.uint8:
        raise UserError(
            f"{path}: GTcls.Segmentation is no picture of class numbers, but {numbers.dtype} {numbers.shape}"
        )
    return numbers


def _load(path: Path, key: str) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = loadmat(path, appendmat=False)
    except Exception as error:  # on bytes that are no MATLAB file scipy raises whatever it stumbles over
        raise UserError(f"{path}: no readable MATLAB file ({str(error) or type(error).__name__})") from None
    if key not in content:
        raise UserError(f"{path}: no '{key}' in it")
    return content[key]
