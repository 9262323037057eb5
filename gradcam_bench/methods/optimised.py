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
from gradcam_bench.perturb import baseline_colour, blur, enlarged, rehearsed, widened
from gradcam_bench.probe import Evidence

AREAS = (0.025, 0.05, 0.1, 0.2)


def opti_cam(
    evidence: Evidence,
    images: Tensor,
    ask: Ask,
    black: Tensor,
    steps: int = 100,
    rate: float = 0.1,
    released: bool = False,
) -> Tensor:
    """sum_k softmax(u)_k A_k, with the u that maximises f_c(n(Up(sum_k softmax(u)_k A_k)) X), n min-max to [0, 1].

    Zhang et al. 2023; [Q,h,w]. A goes through a ReLU first and u starts at equal weights, as in the authors' code; then
    `steps` steps of Adam at `rate` (100 is the default of the authors' class, 0.1 that of their demo). Of all u met the
    best is taken, the start included: the score never ends below where it began. f_c is the view's score; one forward
    and one backward pass a step. released: the last u is taken, and no further step where the score fell since a tenth
    of the steps before; and what is masked is the image before normalisation, so that n fades to black (black [3,1,1]:
    that after the network's normalisation) and not to the mean colour. Their demo does so in 50 steps, the code for
    several images together, here for each.
    """
    features, maps, steps = widened(evidence.features).relu().to(images.device), [], rehearsed(ask, steps)
    colour = baseline_colour("black" if released else "zero", black)
    for case, (image, channels) in enumerate(zip(images, features, strict=True)):
        with torch.inference_mode(False), torch.enable_grad():
            maps.append(_combination(channels.clone(), image.clone(), colour.clone(), ask, case, steps, rate, released))
    return torch.stack(maps) if maps else features.sum(1)


def _combination(
    channels: Tensor, image: Tensor, colour: Tensor, ask: Ask, case: int, steps: int, rate: float, released: bool
) -> Tensor:
    """The combination [h,w] of channels [C,h,w] under which the image [3,H,W], elsewhere of a colour [3,1,1], scores
    highest, or that was last."""
    u = channels.new_zeros(len(channels), requires_grad=True)
    adam = torch.optim.Adam([u], lr=rate)
    best, found = -math.inf, channels.mean(0)
    for step in range(steps + 1):
        combined = torch.einsum("k,khw->hw", u.softmax(0), channels)
        mask = normalize(enlarged(combined[None], image), "minmax")
        score = ask((colour + mask * (image - colour))[None], case).sum()
        reached = float(score.detach())
        if released or reached > best:
            found = combined.detach()
        if released and step % max(steps // 10, 1) == 0:
            if reached < best:
                break
            best = reached
        elif not released:
            best = max(best, reached)
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

    Fong et al. 2019 (the preservation game); every constant is that of the authors' TorchRay. A mask m(u) =
    smax_v k(u - v) p(v) (temperature 1/20, p in [0, 1] on a lattice of `step`, 1 at the start, k =
    exp(-2 max(0, |z| / sigma - 1/2)^2)) blurs the image at u by a Gaussian of (1 - m(u)) `strongest`, interpolated
    between 8 levels. Ascent on score - lambda mean (sort(m) - r_a)^2, r_a the sorted values of a hard mask of area a, a
    share of the image with a margin of sigma about it (of the image alone it can be a third more): 800 steps of
    gradient descent (0.01, momentum and dampening 0.9), lambda from 300 upwards by 1.0035 a step; in every other step
    the network sees the image mirrored left to right. Lengths are shares of the shorter side (21, 7, 20 pixels of 224).
    smooth: the summed masks are blurred by a Gaussian of that share of it, as in TorchRay's pointing game on VOC (areas
    2.5, 5, 10, 20 %; on COCO 1.8, 2.5, 5, 10 %). Chosen here: m is made on the lattice and enlarged bilinearly (there
    at every pixel), and equal values share what is ideal for their ranks (there the sort breaks ties).
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
        maps.append(_smoothed(masks.sum(0), smooth * shorter))
    return torch.stack(maps) if maps else images.sum(1)


def _extremal_masks(
    levels: Tensor, ask: Ask, case: int, areas: Sequence[float], steps: int, sigma: float, step: int
) -> Tensor:
    """One mask [A,H,W] for each area, found together: their scores do not mix."""
    size = levels.shape[2:]
    kernel, lattice = _kernel(sigma / step).to(levels), [math.ceil(length / step) for length in size]
    margin = step * _beyond(kernel)
    ideal = _ideal(areas, math.prod(step * n + 2 * margin for n in lattice)).to(levels)
    inside = (slice(None), *(slice(margin, margin + length) for length in size))
    pattern = levels.new_ones((len(areas), 1, *lattice)).requires_grad_()
    descent, weight = torch.optim.SGD([pattern], lr=0.01, momentum=0.9, dampening=0.9), 300.0
    for turn in range(steps):
        masks = _masks(pattern, kernel, step)
        shown = _perturbed(levels, masks[inside])
        scores = ask(shown.flip(3) if turn % 2 == 0 else shown, case)
        ranked = masks.flatten(1).sort(1).values
        misfit = (ranked - _shared(ideal, ranked.detach())).square().mean(1)
        (pattern.grad,) = torch.autograd.grad((weight * misfit - scores).sum(), [pattern])
        descent.step()
        with torch.no_grad():
            pattern.clamp_(0, 1)
        weight *= 1.0035
    return _masks(pattern.detach(), kernel, step)[inside]


def _masks(pattern: Tensor, kernel: Tensor, step: int) -> Tensor:
    """[A, step (h + 2 m), step (w + 2 m)] from parameters [A,1,h,w] on the lattice: the smooth maximum of the kernel's
    copies, enlarged, with a margin of m points (`_beyond`) about the image."""
    beyond = _beyond(kernel)
    near = F.unfold(pattern, kernel.shape, padding=2 * beyond + 1) * kernel.reshape(1, -1, 1)  # [A,side^2,places]
    small = (near * (near * 20).softmax(1)).sum(1)
    small = small.reshape(len(pattern), 1, *(n + 2 * beyond for n in pattern.shape[2:]))
    return F.interpolate(small, scale_factor=float(step), mode="bilinear", align_corners=False)[:, 0]


def _beyond(kernel: Tensor) -> int:
    """How many points of the lattice sigma is, rounded up: one less than the kernel reaches."""
    return kernel.shape[0] // 2 - 1


def _kernel(sigma: float) -> Tensor:
    """exp(-2 max(0, |z| / sigma - 1/2)^2) on a square of the lattice that goes one point beyond sigma."""
    radius = 1 + math.ceil(sigma)
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
    return torch.stack([_smoothed(image, strongest * level / (count - 1)) for level in range(count)])


def _smoothed(images: Tensor, sigma: float) -> Tensor:
    """[...,H,W] blurred by a Gaussian cut off at 4 sigma, zeros (of images: the mean colour) beyond the border."""
    return blur(images, sigma, math.ceil(4 * sigma), "zero")


def _perturbed(levels: Tensor, masks: Tensor) -> Tensor:
    """[A,3,H,W]: each pixel as blurred as masks [A,H,W] say, 1 not at all; linear between neighbouring levels."""
    place = (1 - masks)[:, None] * (len(levels) - 1)
    below = place.detach().long().clamp(0, len(levels) - 2)
    less, more = (levels.gather(0, level.expand(-1, levels.shape[1], -1, -1)) for level in (below, below + 1))
    return torch.lerp(less, more, (place - below).expand_as(less))
