"""Black-box maps: parts of the image are taken away, and what the network then says is put where they were.

Heatmaps [Q,H,W] at the input's resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench import perturb
from gradcam_bench.ask import Ask
from gradcam_bench.errors import UserError
from gradcam_bench.probe import Evidence


def occlusion(images: Tensor, ask: Ask, patch: float = 45 / 224, stride: float = 8 / 224, fill: str = "mean") -> Tensor:
    """How much the score falls when a square patch is covered, averaged over the patches that cover a pixel, [Q,H,W].

    Zeiler and Fergus 2014, sec. 4.2, who draw the score itself; here score(X) - score(X without the patch), so that
    more is more important. patch, stride: the square's side and its step, as shares of the image's shorter side;
    neither that paper nor Selvaraju et al. 2017 states them, 45 of 224 pixels is a replication's of the latter. Patches
    start at the top left, the last of a row is cut off by the border. fill: `mean` (grey, as the paper), `own_mean`,
    `blur`.
    """
    side, step = (max(round(share * min(images.shape[2:])), 1) for share in (patch, stride))
    corners = [(y, x) for y in _starts(images.shape[2], side, step) for x in _starts(images.shape[3], side, step)]
    maps = []
    for case, image in enumerate(images):
        covered, whole = perturb.fill(image, fill), ask(image[None], case)
        # A copy in any case: of one image with the channels last, contiguous() would be that image itself.
        batch = image.expand(min(ask.block, len(corners)), -1, -1, -1).clone(memory_format=torch.channels_last)
        fallen, times = image.new_zeros(2, *image.shape[1:])
        for first in range(0, len(corners), len(batch)):
            windows = [(slice(y, y + side), slice(x, x + side)) for y, x in corners[first : first + len(batch)]]
            for one, (rows, columns) in zip(batch, windows, strict=False):
                one[:, rows, columns] = covered[:, rows, columns]
            falls = whole - ask(batch[: len(windows)], case)
            for one, (rows, columns), fall in zip(batch, windows, falls, strict=False):
                one[:, rows, columns] = image[:, rows, columns]
                fallen[rows, columns] += fall
                times[rows, columns] += 1
        maps.append(fallen / times)
    return torch.stack(maps) if maps else images.sum(1)


def _starts(length: int, side: int, step: int) -> range:
    """Where patches start in a row of pixels, so that every pixel is covered where step <= side."""
    return range(0, max(math.ceil((length - side) / step), 0) * step + 1, step)


def rise(
    images: Tensor,
    ask: Ask,
    evidence: Evidence,
    generators: Sequence[torch.Generator],
    masks: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
) -> Tensor:
    """sum_i p_c(M_i X) M_i / (N E[M]), p_c the class's probability, over N random masks M_i, [Q,H,W].

    Petsiuk et al. 2018, eq. 6 and sec. 3.2: s x s cells, each 1 with probability p = `keep`, else 0; enlarged
    bilinearly to (s + 1) cells of ceil(H / s) pixels, and cut out at a random offset of up to one cell. N = 4000 is the
    paper's for VGG16, 8000 (`rise_8000`) for ResNet50; s = 7, p = 1/2. The map is nowhere negative.
    """
    maps, masks = [], perturb.rehearsed(ask, masks)
    for case, (image, target) in enumerate(zip(images, evidence.targets.tolist(), strict=True)):
        answer, masked = perturb.probability("rise", ask, target), perturb.Masked(image, ask.block)
        total = image.new_zeros(image.shape[1] * image.shape[2])
        for block in _random_masks(masks, cells, keep, image, generators[case], ask.block):
            total += answer(masked(block)) @ block.flatten(1)
        maps.append(total.reshape(image.shape[1:]) / (masks * keep))
    return torch.stack(maps) if maps else images.sum(1)


def _random_masks(
    count: int, cells: int, keep: float, image: Tensor, generator: torch.Generator, block: int
) -> Iterator[Tensor]:
    """Blocks [n,H,W] of RISE's masks. All are drawn first, so that none depends on the blocks."""
    if not 0 < keep <= 1:
        raise UserError(f"rise.keep={keep}: a probability above 0 and up to 1 is needed")
    lengths = tuple(image.shape[1:])
    grids = (torch.rand(count, cells, cells, generator=generator) < keep).to(image)
    sides = [math.ceil(length / cells) for length in lengths]
    offsets = [torch.randint(0, side, (count, 1), generator=generator) for side in sides]
    identity = torch.eye(cells)[None]
    # Bilinear enlarging and cutting out are a product with a few rows of two matrices [(s + 1) side, s].
    enlarge = [F.interpolate(identity, (cells + 1) * side, mode="linear")[0].T.to(image) for side in sides]
    taken = [(o + torch.arange(n)).to(image.device) for o, n in zip(offsets, lengths, strict=True)]  # [N,H], [N,W]
    for part in torch.arange(count).split(block):
        yield enlarge[0][taken[0][part]] @ grids[part] @ enlarge[1][taken[1][part]].mT
