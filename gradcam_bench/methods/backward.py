"""Heatmaps of input gradients under backward rules, [Q,H,W], at the input's resolution.

reduce: how the three channels of a gradient become one number a pixel: `max_abs` (the largest magnitude, Simonyan et
al. 2014, section 3.1), `sum_abs`, `sum` (signed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench.errors import unknown
from gradcam_bench.perturb import baseline_colour
from gradcam_bench.pixels import Pixels
from gradcam_bench.probe import Evidence
from gradcam_bench.rules import GUIDED


def reduced(gradients: Tensor, how: str) -> Tensor:
    """[..., 3, H, W] -> [..., H, W]."""
    if how == "max_abs":
        return gradients.abs().amax(-3)
    if how == "sum_abs":
        return gradients.abs().sum(-3)
    if how == "sum":
        return gradients.sum(-3)
    raise unknown("reduce", how, ("max_abs", "sum_abs", "sum"))


def saliency(pixels: Pixels, reduce: str = "max_abs") -> Tensor:
    """max_c |dS/dx_c|.  Simonyan et al. 2014, section 3."""
    return reduced(pixels(), reduce)


def input_x_gradient(pixels: Pixels, images: Tensor, reduce: str = "sum") -> Tensor:
    """sum_c x_c dS/dx_c, signed.  Shrikumar et al. 2016, section 3.2; x is the image as it is fed, normalised."""
    return reduced(images * pixels(), reduce)


def deconvnet(pixels: Pixels, reduce: str = "max_abs") -> Tensor:
    """The signal at the pixels when each activation, backward, is relu(g).  Zeiler and Fergus 2014, section 2.1.

    Max-pools hand it to the winner, as the paper's switches do. The paper shows the three channels as a picture.
    """
    return reduced(pixels("deconv"), reduce)


def guided_backprop(pixels: Pixels, reduce: str = "max_abs") -> Tensor:
    """The signal at the pixels when each activation, backward, is f'(x) relu(g).  Springenberg et al. 2015, 3.4.

    The paper shows the three channels as a picture.
    """
    return reduced(pixels("guided"), reduce)


def guided_grad_cam(evidence: Evidence, pixels: Pixels, reduce: str = "max_abs") -> Tensor:
    """relu(Grad-CAM), resized bilinearly to the input, times guided backpropagation.  Selvaraju et al. 2017, 3.2.

    The paper's Grad-CAM has its ReLU inside, so this is nowhere negative for the reductions of magnitudes; the authors
    show the product's three channels as a picture.
    """
    weights = evidence.gradients.mean((2, 3))  # [Q,C]
    cam = torch.einsum("qc,qchw->qhw", weights, evidence.features).relu()
    guided = pixels(replace(GUIDED, method="guided_grad_cam"))
    cam = F.interpolate(cam[:, None], size=guided.shape[-2:], mode="bilinear", align_corners=False)
    return reduced(cam * guided, reduce)


def smooth_grad(
    pixels: Pixels,
    images: Tensor,
    generators: Sequence[torch.Generator],
    samples: int = 50,
    sigma: float = 0.15,
    reduce: str = "sum_abs",
) -> Tensor:
    """sum_c |mean_n dS/dx_c (x + noise_n)|, noise ~ N(0, (sigma (max x - min x))^2).  Smilkov et al. 2017, section 3.1.

    Mean of signed gradients, then magnitudes summed over channels, as the authors' code (PAIR saliency) draws it.
    """
    drawn = _noisy_gradients(pixels, images, generators, samples, sigma)
    return torch.stack([reduced(gradients.mean(0), reduce) for gradients in drawn])


def var_grad(
    pixels: Pixels,
    images: Tensor,
    generators: Sequence[torch.Generator],
    samples: int = 50,
    sigma: float = 0.15,
    reduce: str = "sum",
) -> Tensor:
    """sum_c Var_n dS/dx_c (x + noise_n), the noise as in `smooth_grad`.  Adebayo et al. 2018b, section 3 (VarGrad).

    The variance over the samples themselves (divided by their number).
    """
    drawn = _noisy_gradients(pixels, images, generators, samples, sigma)
    return torch.stack([reduced(gradients.var(0, correction=0), reduce) for gradients in drawn])


def _noisy_gradients(
    pixels: Pixels, images: Tensor, generators: Sequence[torch.Generator], samples: int, sigma: float
) -> Iterator[Tensor]:
    """Each case's gradients [samples,3,H,W] at its image with noise."""
    for q, (image, generator) in enumerate(zip(images, generators, strict=True)):
        noise = torch.randn((samples, *image.shape), generator=generator).to(image)
        yield pixels("plain", image + sigma * (image.max() - image.min()) * noise, q)


def integrated_gradients(
    pixels: Pixels, images: Tensor, black: Tensor, steps: int = 50, baseline: str = "black", reduce: str = "sum"
) -> Tensor:
    """sum_c (x_c - x'_c) mean_k dS/dx_c (x' + k/m (x - x')), k = 1..m.  Sundararajan et al. 2017, eq. 3, m = `steps`.

    Signed; sums to S(x) - S(x') as m grows. baseline x': `black` (the paper's; black [3,1,1] is that after the
    network's normalisation) or `zero` (of the normalised image: the mean colour).
    """
    colour = baseline_colour(baseline, black)
    along = torch.arange(1, steps + 1).to(images).reshape(-1, 1, 1, 1) / steps
    maps = []
    for q, image in enumerate(images):
        gradients = pixels("plain", colour + along * (image - colour), q)
        maps.append(reduced((image - colour) * gradients.mean(0), reduce))
    return torch.stack(maps)


def full_grad(pixels: Pixels, images: Tensor) -> Tensor:
    """psi(x dS/dx) + sum over layers and channels of psi(b dS/db).  Srinivas and Fleuret 2019, eq. 6.

    psi: magnitudes, min-max over a layer's channels and places together, resized bilinearly to the input. Biases are
    those of convolutions and, as linear maps, of batch norms; linear maps after the grid have no place and are left
    out, as in the authors' code. The gradients add up to the score (proposition 1) where activations are piecewise
    linear and there are no gates; a smooth activation has a bias of its own, which neither they nor this counts.
    Resizing is linear, so the layers of one grid size are added up before it.
    """
    gradients, layers = pixels.biases(_channels_together)
    total = _channels_together(images * gradients)
    by_size: dict[torch.Size, Tensor] = {}
    for layer in layers:
        if layer.numel():
            by_size[layer.shape] = by_size[layer.shape] + layer if layer.shape in by_size else layer
    for grids in by_size.values():
        resized = F.interpolate(grids[:, None], size=total.shape[-2:], mode="bilinear", align_corners=True)
        total = total + resized[:, 0]
    return total


def _channels_together(values: Tensor) -> Tensor:
    """[N,C,h,w] -> magnitudes, min-max over all of a row, summed over channels [N,h,w]; [N,0] for what has no grid."""
    if values.ndim != 4:
        return values.new_zeros((len(values), 0))
    values = values.abs()
    low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    span = high - low
    above = values.sum(1, keepdim=True) - values.shape[1] * low  # one pass less than (values - low).sum(1)
    return (above / span.where(span > 0, torch.inf))[:, 0]
