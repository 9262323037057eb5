"""Pictures for the page: small, and carried inside it as base64."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradcam_bench.report.inputs import Heat, Picture
from gradcam_bench.report.style import COLORMAP

PHOTO_SIDE, MAP_SIDE = 320, 224  # longest side in pixels


def photo(image: Picture, side: int = PHOTO_SIDE) -> str:
    """A picture [H,W,3] as a WebP data address, no side longer than `side`."""
    return _webp(_shrunk(Image.fromarray(np.ascontiguousarray(image)), side), 80)


def heat(heatmap: Heat, side: int = MAP_SIDE) -> str:
    """A heatmap [H,W] in [0, 1] in the report's colours as a WebP data address."""
    small = _shrunk(Image.fromarray((255 * _clean(heatmap)).round().astype(np.uint8)), side)
    return _webp(Image.fromarray(coloured(np.asarray(small) / 255)), 72)


def outline(mask: NDArray[np.bool_], side: int = PHOTO_SIDE) -> str:
    """The border of a mask [H,W], white within and dark without, as a WebP data address; clear elsewhere."""
    inside = np.asarray(_shrunk(Image.fromarray(mask.astype(np.uint8) * 255), side)) > 127
    drawn = np.zeros((*inside.shape, 4), np.uint8)
    drawn[_grown(inside) & ~inside] = (20, 23, 27, 190)
    drawn[inside & _grown(~inside)] = (255, 255, 255, 255)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, format="WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with the four neighbours of its pixels."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def coloured(heatmap: Heat) -> Picture:
    """A heatmap [H,W] in [0, 1] as colours uint8 [H,W,3]; what is no number counts as 0."""
    return mpl.colormaps[COLORMAP](_clean(heatmap), bytes=True)[..., :3]


def _clean(heatmap: Heat) -> Heat:
    return np.nan_to_num(np.asarray(heatmap, dtype=float), posinf=1.0).clip(0, 1)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _webp(image: Image.Image, quality: int) -> str:
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
