"""Sanity checks: how alike are the heatmaps of the trained network and of one that knows less?

Every metric compares `trial`, the maps of a randomised stage, with `trial.trained`, unit by unit. Both are rectified
(`rectify`), brought to the size of the network's input (`resize`) and not normalised. A map that is constant is like no
other and like every other: undefined. Similarities are never ranked: that a map changes when the weights do is
necessary, not a merit (see docs/sanity.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gradcam_bench import heatmaps, similarity
from gradcam_bench.regions.ranks import double_ranks
from gradcam_bench.similarity import Floats, Numbers
from gradcam_bench.trial import Trial

T = TypeVar("T")
CONSTANT = "the map is constant"


def spearman(trial: Trial) -> Tensor:
    """Spearman's rank correlation of the two maps' pixels, signs as `rectify` leaves them, in [-1, 1]: [U].

    Equal pixels share their average rank.  Adebayo et al. 2018, section 4 (rank correlation without absolute values).
    """
    return _each(trial, "ranks", double_ranks, similarity.correlation)


def spearman_abs(trial: Trial) -> Tensor:
    """Spearman's rank correlation of the two maps' magnitudes, in [-1, 1]: [U].  Adebayo et al. 2018, section 4."""
    return _each(trial, "ranks_abs", lambda m: double_ranks(np.abs(m)), similarity.correlation)


def ssim(trial: Trial) -> Tensor:
    """Mean structural similarity of the two maps as pictures (`similarity_map`), in [-1, 1]: [U].

    Adebayo et al. 2018, section 4; `similarity_ssim` says which window statistics and which range (`similarity.ssim`).
    """
    how, recipe = trial.protocol.similarity_map, trial.protocol.similarity_ssim

    def seen(heatmap: Floats) -> tuple[Floats, tuple[Floats, Floats]] | None:
        picture = similarity.as_picture(heatmap, how)
        small = picture is None or min(picture.shape) < similarity.TAPS
        return None if picture is None or small else (picture, similarity.moments(picture))

    return _each(trial, f"ssim/{how}", seen, lambda own, other: similarity.ssim(other[0], own[0], recipe, other[1]))


def hog_pearson(trial: Trial) -> Tensor:
    """Pearson's correlation of the two maps' histograms of oriented gradients, in [-1, 1]: [U].

    On maps as pictures (`similarity_map`), in cells of 16 x 16 pixels.  Adebayo et al. 2018, section 4, its text.
    """
    how = trial.protocol.similarity_map
    return _each(trial, f"hog/{how}", lambda m: _gradients(m, how), similarity.correlation)


def hog_spearman(trial: Trial) -> Tensor:
    """Spearman's correlation of the two maps' histograms of oriented gradients, in [-1, 1]: [U].

    As `hog_pearson`, but what the authors' notebooks compute.
    """
    how = trial.protocol.similarity_map

    def seen(heatmap: Floats) -> Numbers | None:
        found = _gradients(heatmap, how)
        return None if found is None else double_ranks(found)

    return _each(trial, f"hog_ranks/{how}", seen, similarity.correlation)


def top_k_overlap(trial: Trial) -> Tensor:
    """The share of the highest pixels that the two maps have in common, in [0, 1]: [U].  Ghorbani et al. 2019, sec. 2.

    `similarity_top` says how many of all pixels those are; a random map scores about that share. Pixels that tie at the
    limit share what is left of it evenly.
    """
    share = trial.protocol.similarity_top

    def common(own: Floats, trained: Floats) -> float:
        return float(np.minimum(own, trained).sum() / own.sum())

    return _each(trial, f"top/{share}", lambda m: similarity.top(m, share), common)


def random_logit(trial: Trial) -> Tensor:
    """SSIM of the maps of this class and of another one, drawn at random, of the same trained network: [U].

    Sixt et al. 2020, section 5: lower is better, as a map that is the same whatever is asked explains no answer. Not
    ranked here.
    """
    return ssim(trial)


def smooth_mprt(trial: Trial) -> Tensor:
    """`spearman_abs` of maps that are means over noisy inputs, `randomize.samples` of them, in [-1, 1]: [U].

    Hedström et al. 2024 (Sanity checks revisited), section 4: noise of the gradients' own that no weights explain, and
    that makes a map look changed, averages out.
    """
    return spearman_abs(trial)


def efficient_mprt(trial: Trial) -> Tensor:
    """(C(random) - C(trained)) / C(trained): [U].  Hedström et al. 2024, section 4.

    C is the entropy of a map's histogram (`similarity_bins` over its range), all weights are random. The authors:
    higher is better, as a map of a network without knowledge should be the more complex one; not ranked here, where it
    puts guided backpropagation first on photographs. Undefined where the trained one's is 0.
    """
    bins = int(trial.protocol.similarity_bins)

    def rise(own: float, trained: float) -> float | None:
        return (own - trained) / trained if trained > 0 else None

    return _each(trial, f"entropy/{bins}", lambda m: similarity.entropy(m, bins), rise)


def _gradients(heatmap: Floats, how: str) -> Floats | None:
    picture = similarity.as_picture(heatmap, how)
    return None if picture is None else similarity.oriented_gradients(picture)


def _each(
    trial: Trial, name: str, see: Callable[[Floats], T | None], compare: Callable[[T, T], float | None]
) -> Tensor:
    """compare(what is seen of a unit's map, what is seen of the trained network's) [U]. What is seen of a trained
    network's map is kept for the stages to come, and shared by metrics that look for the same."""
    if trial.trained is None:
        raise RuntimeError("there is no trained network's map to compare with")
    found = torch.full((len(trial),), torch.nan, dtype=torch.float64)
    for unit in range(len(trial)):
        pair = []
        for one, words in ((trial, CONSTANT), (trial.trained, f"trained network: {CONSTANT}")):
            heatmap = _maps(one)[unit]
            if heatmap.min() == heatmap.max():
                trial.notes[unit] = words
                break
            pair.append(_once(one, (name, unit), lambda heatmap=heatmap: see(heatmap)))  # type: ignore[misc]
        if len(pair) == 2:
            value = None if pair[0] is None or pair[1] is None else compare(pair[0], pair[1])
            found[unit] = torch.nan if value is None else value
    return found


def _maps(trial: Trial) -> list[Floats]:
    """The maps [H,W] of all units in the frame of the input, rectified and not normalised. Reads rectify, resize."""
    kernel, size = trial.protocol.resize, trial.frame.input
    return _once(
        trial,
        ("resized",),
        lambda: [heatmaps.resize(m[None].float(), size, kernel)[0].numpy() for m in trial.rectified],
    )


def _once(trial: Trial, key: tuple[object, ...], make: Callable[[], T]) -> T:
    full = ("sanity", trial.protocol.rectify, trial.protocol.resize, *key)
    if full not in trial.cache:
        trial.cache[full] = make()
    found: T = trial.cache[full]
    return found
