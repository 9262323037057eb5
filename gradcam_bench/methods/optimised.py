"""Masks found by gradient ascent on the score of the masked image. Each case is optimised by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.ask import Ask
from gradcam_bench.errors import UserError
from gradcam_bench.heatmaps import normalize
from gradcam_bench.perturb import blur, enlarged, rehearsed, widened
from gradcam_bench.probe import Evidence

AREAS = (0.025, 0.05, 0.1, 0.2)


def opti_cam(evidence: Evidence, images: Tensor, ask: Ask, steps: int = 100, rate: float = 0.1) -> Tensor:
    """sum_k softmax(u)_k A_k, with the u that maximises f_c(n(Up(sum_k softmax(u)_k A_k)) X), n min-max to [0, 1].

    Zhang et al. 2023, eq. 11 to 14; [Q,h,w]. A goes through a ReLU first, as in the authors' code; u starts at equal
    weights and takes `steps` steps of Adam at `rate` (100 at 0.1; the code's demo takes 50, and stops where a tenth of
    the steps brought nothing). Of all u met the best is taken, the start included: the score never ends below where it
    began. f_c is the view's score; one forward and one backward pass a step.
    """
    features, maps, steps = widened(evidence.features).relu().to(images.device), [], rehearsed(ask, steps)
    for case, (image, channels) in enumerate(zip(images, features, strict=True)):
        with torch.inference_mode(False), torch.enable_grad():
            maps.append(_best_combination(channels.clone(), image.clone(), ask, case, steps, rate))
    return torch.stack(maps) if maps else features.sum(1)


def _best_combination(channels: Tensor, image: Tensor, ask: Ask, case: int, steps: int, rate: float) -> Tensor:
    """The combination [h,w] of channels [C,h,w] under which the image [3,H,W] scores highest."""
    u = channels.new_zeros(len(channels), requires_grad=True)
    adam = torch.optim.Adam([u], lr=rate)
    best, found = -math.inf, channels.mean(0)
    for _ in range(steps + 1):
        combined = torch.einsum("k,khw->hw", u.softmax(0), channels)
        mask = normalize(enlarged(combined[None], image), "minmax")
        score = ask((mask * image)[None], case).sum()
        if float(score.detach()) > best:
            best, found = float(score.detach()), combined.detach()
        (u.grad,) = torch.autograd.grad(-score, [u])
        adam.step()
    return found


def extremal_perturbation(
    images: Tensor,
    ask: Ask,
    areas: Sequence[float] = AREAS,
    steps: int = 800,
    sigma: float = 21 / 224,
    step: float = 7 / 224,
    strongest: float = 20 / 224,
    smooth: float = 0.09,
) -> Tensor:
    """The sum over areas a of the smooth mask of area a that keeps most of the score, [Q,H,W] in [0, len(areas)].

    Fong et al. 2019, eq. 4 to 8 (the preservation game). A mask m(u) = smax_v k(u - v) p(v) (temperature 1/20, p in
    [0, 1] on a lattice of `step`, k = exp(-2 max(0, |z| / sigma - 1/2)^2)) blurs the image at u by a Gaussian of
    (1 - m(u)) `strongest`, interpolated between 8 levels. Ascent on score - lambda mean (sort(m) - r_a)^2, r_a the
    sorted values of a hard mask of area a: 800 steps of gradient descent (0.01, momentum and dampening 0.9), lambda
    from 300 upwards by 1.0035 a step. Lengths are shares of the shorter side (21, 7, 20 pixels of 224). smooth: the
    summed masks are blurred by a Gaussian of that share of the longer side, as for the pointing game (there areas 2.5,
    5, 10, 20 %). Written from the paper; its random jitter is left out, so the result is deterministic.
    """
    if not areas or not all(0 < area < 1 for area in areas):
        raise UserError(
            f"extremal_perturbation.areas={list(areas)}: shares of the image above 0 and below 1 are needed"
        )
    shorter, maps, steps = min(images.shape[2:]), [], rehearsed(ask, steps)
    for case, image in enumerate(images):
        with torch.inference_mode(False), torch.enable_grad():
            levels = _blurred(image.clone(), strongest * shorter)
            masks = _extremal_masks(levels, ask, case, areas, steps, sigma * shorter, max(round(step * shorter), 1))
        maps.append(blur(masks.sum(0), smooth * max(image.shape[1:])))
    return torch.stack(maps) if maps else images.sum(1)


def _extremal_masks(
    levels: Tensor, ask: Ask, case: int, areas: Sequence[float], steps: int, sigma: float, step: int
) -> Tensor:
    """One mask [A,H,W] for each area, found together: their scores do not mix."""
    size = levels.shape[2:]
    kernel, ideal = _kernel(sigma / step).to(levels), _ideal(areas, size[0] * size[1]).to(levels)
    lattice = [math.ceil(length / step) + kernel.shape[0] - 1 for length in size]  # it goes on beyond the image
    pattern = levels.new_full((len(areas), 1, *lattice), 0.5, requires_grad=True)
    descent, weight = torch.optim.SGD([pattern], lr=0.01, momentum=0.9, dampening=0.9), 300.0
    for _ in range(steps):
        masks = _masks(pattern, kernel, step, size)
        scores = ask(_perturbed(levels, masks), case)
        ranked = masks.flatten(1).sort(1).values
        misfit = (ranked - _shared(ideal, ranked.detach())).square().mean(1)
        (pattern.grad,) = torch.autograd.grad((weight * misfit - scores).sum(), [pattern])
        descent.step()
        with torch.no_grad():
            pattern.clamp_(0, 1)
        weight *= 1.0035
    return _masks(pattern, kernel, step, size).detach()


def _masks(pattern: Tensor, kernel: Tensor, step: int, size: torch.Size) -> Tensor:
    """[A,H,W] from parameters [A,1,h,w] on the lattice: the smooth maximum of the kernel's copies, enlarged."""
    near = F.unfold(pattern, kernel.shape) * kernel.reshape(1, -1, 1)  # [A,side^2,places]
    small = (near * (near * 20).softmax(1)).sum(1)
    small = small.reshape(len(pattern), 1, *(1 + n - kernel.shape[0] for n in pattern.shape[2:]))
    large = F.interpolate(small, scale_factor=float(step), mode="bilinear", align_corners=False)
    return large[:, 0, : size[0], : size[1]]


def _kernel(sigma: float) -> Tensor:
    """exp(-2 max(0, |z| / sigma - 1/2)^2) on a square of the lattice, cut off at 2 sigma, where it is 1 %."""
    radius = math.ceil(2 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    distance = (steps[:, None] ** 2 + steps**2).sqrt() / sigma
    return torch.exp(-2 * (distance - 0.5).clamp(min=0) ** 2)


def _ideal(areas: Sequence[float], pixels: int) -> Tensor:
    """[A,HW]: for each area the sorted values of a mask that is 1 on that share of the pixels and 0 elsewhere."""
    ranks = torch.arange(pixels)
    return torch.stack([(ranks >= pixels - round(area * pixels)).double() for area in areas])


def _shared(ideal: Tensor, ranked: Tensor) -> Tensor:
    """[A,HW]: equal values share what is ideal for their ranks. The sort's own order among them would favour a corner
    of the image, and at the start all are equal."""
    made = []
    for values, wanted in zip(ranked, ideal, strict=True):
        _, group, count = values.unique_consecutive(return_inverse=True, return_counts=True)
        made.append((wanted.new_zeros(len(count)).index_add_(0, group, wanted) / count)[group])
    return torch.stack(made)


def _blurred(image: Tensor, strongest: float, count: int = 8) -> Tensor:
    """[count,3,H,W]: the image, blurred more and more up to a Gaussian of `strongest` pixels."""
    return torch.stack([blur(image, strongest * level / (count - 1)) for level in range(count)])


def _perturbed(levels: Tensor, masks: Tensor) -> Tensor:
    """[A,3,H,W]: each pixel as blurred as masks [A,H,W] say, 1 not at all; linear between neighbouring levels."""
    place = (1 - masks)[:, None] * (len(levels) - 1)
    below = place.detach().long().clamp(0, len(levels) - 2)
    less, more = (levels.gather(0, level.expand(-1, levels.shape[1], -1, -1)) for level in (below, below + 1))
    return torch.lerp(less, more, (place - below).expand_as(less))
