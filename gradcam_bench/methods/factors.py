"""Heatmaps of the parts into which an image's activations fall, [Q,h,w]."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.cases import probabilities
from gradcam_bench.derivatives import class_of
from gradcam_bench.head import Head
from gradcam_bench.machine import one_thread
from gradcam_bench.probe import Evidence


def deep_feature_factorization(evidence: Evidence, head: Head, factors: int = 5, iterations: int = 200) -> Tensor:
    """H_k of A = W H, W [C,K] and H [K,hw] nowhere negative, k the factor that the head gives most to the case's class.

    Collins et al. 2018, eq. 2 (A of one image; the paper takes several); K = `factors`, multiplicative updates. The
    paper shows all factors. To ask for a class, each W_k is shown to the head as a constant map, and the factor with
    the largest probability (the network's own softmax or sigmoid) is the map, as pytorch-grad-cam names its concepts.
    Each H_k has maximum 1, so that W_k is the features at its strongest place. A channel with negative values is
    shifted to begin at 0, and its W_k back; pytorch-grad-cam shifts every channel by its minimum, negative or not, and
    factorises a batch together from a random start, here it is each image from NNDSVDa (Boutsidis and Gallopoulos
    2008), which is deterministic. Raises UserError for a target that is a function.
    """
    maps: list[Tensor] = []
    found: dict[int, tuple[Tensor, Tensor]] = {}
    grid = evidence.activations.shape[2:]
    for case, image in enumerate(evidence.image_index.tolist()):
        target = class_of("deep_feature_factorization", evidence, case)
        if image not in found:
            found[image] = _factors(evidence.activations[image].flatten(1).double(), factors, iterations)
        concepts, places = found[image]  # [C,K], [K,hw]
        shown = concepts.T[:, :, None, None].expand(-1, -1, *grid).to(evidence.activations.dtype)
        answers = probabilities(head.outputs(shown, case).double(), head.activation)[:, target]
        maps.append(places[int(answers.argmax())].reshape(grid))
    made = torch.stack(maps) if maps else evidence.features.sum(1)
    return made.to(evidence.activations.dtype)


def _factors(matrix: Tensor, count: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Features [C,K] and places [K,n] of activations [C,n]; all NaN where an activation is not finite."""
    if not matrix.isfinite().all():
        return torch.full_like(matrix[:, :1], torch.nan), torch.full_like(matrix[:1], torch.nan)
    shift = matrix.amin(1, keepdim=True).clamp(max=0)
    with one_thread():
        features, places = factorize(matrix - shift, min(count, *matrix.shape), iterations)
    peaks = places.amax(1)
    peaks = peaks.where(peaks > 0, 1.0)
    return features * peaks + shift, places / peaks[:, None]


def factorize(matrix: Tensor, count: int, iterations: int) -> tuple[Tensor, Tensor]:
    """W [C,K], H [K,n] >= 0 that bring |M - W H| (Frobenius) down from `start`; Lee and Seung 2001, W first."""
    left, right = start(matrix, count)
    for _ in range(iterations):
        left = left * _ratio(matrix @ right.T, left @ (right @ right.T))
        right = right * _ratio(left.T @ matrix, left.T @ left @ right)
    return left, right


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return above / below.where(below != 0, torch.inf)


def start(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """NNDSVDa: of each singular pair the positive or the negative parts, whichever weigh more, 0 replaced by the mean.

    The first pair of a matrix without negative entries has one sign, so its magnitudes are taken."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    left, right = torch.zeros_like(u[:, :count]), torch.zeros_like(vt[:count])
    left[:, 0], right[0] = s[0].sqrt() * u[:, 0].abs(), s[0].sqrt() * vt[0].abs()
    for k in range(1, count):
        pairs = [(sign * u[:, k]).relu() for sign in (1, -1)], [(sign * vt[k]).relu() for sign in (1, -1)]
        weights = [float(x.norm() * y.norm()) for x, y in zip(*pairs, strict=True)]
        best = 0 if weights[0] >= weights[1] else 1
        x, y = pairs[0][best], pairs[1][best]
        root = (s[k] * weights[best]).sqrt()
        if weights[best] > 0:
            left[:, k], right[k] = root * x / x.norm(), root * y / y.norm()
    mean = matrix.mean()
    return left.where(left > 0, mean), right.where(right > 0, mean)
