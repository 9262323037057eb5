"""Does the heatmap rank places as covering them does?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.questions.answers import answers, fill, once, whole, witness
from gradcam_bench.questions.masks import correlation
from gradcam_bench.trial import Trial


def occlusion_rank_correlation(trial: Trial) -> Tensor:
    """Spearman's correlation of the map with the fall of the class' answer when patches are covered, in [-1, 1]: [U].

    Selvaraju et al. 2017, sec. 5.3 (`faithfulness via occlusion`). The input is cut into `perturb_grid` x
    `perturb_grid` cells; a square patch of side `perturb_patch` times the shorter side, centred on a cell and filled
    with `fill`, gives the fall of that cell; the map is averaged over each cell. Ties share their mean rank. Patch and
    grid are not stated in the paper; 45 of 224 pixels and 14 cells are a replication's. NaN where map or falls are all
    equal.
    """
    p = trial.protocol
    cells = int(p.perturb_grid)
    key = ("occlusion", p.fill, p.perturb_patch, cells)
    logits = once(trial, key, lambda: witness(trial).outputs(_covered(trial, cells)))
    falls = answers(trial, whole(trial))[:, None] - answers(trial, logits.expand(len(trial), -1, -1))
    means = F.adaptive_avg_pool2d(trial.in_input[:, None], cells).flatten(1)
    mine, theirs = (torch.from_numpy(rankdata(rows.numpy(), axis=1)) for rows in (means, falls))
    found = correlation(mine, theirs).where(theirs.amax(1) > theirs.amin(1), torch.nan)
    for unit in found.isnan().nonzero().flatten().tolist():
        trial.notes[unit] = "the map, or the fall of the answer, is the same everywhere"
    return found


def _covered(trial: Trial, cells: int) -> Iterator[Tensor]:
    """Images [1,3,H,W], each with the patch of one cell covered, in reading order."""
    asked, p = witness(trial), trial.protocol
    image, filled = asked.image, fill(asked, p.fill)
    height, width = image.shape[1:]
    side = max(round(p.perturb_patch * min(height, width)), 1)
    for y in range(cells):
        for x in range(cells):
            top, left = (round((k + 0.5) * length / cells - side / 2) for k, length in ((y, height), (x, width)))
            rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
            covered = image.clone()
            covered[:, rows, columns] = filled[:, rows, columns]
            yield covered[None]
