"""Does the heatmap foretell what changes of the input do to the answer, and does it stay when nothing much changes?

Yeh et al. 2019, `On the (in)fidelity and sensitivity of explanations`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.questions.answers import answers, fill, whole, witness
from gradcam_bench.trial import Trial


def infidelity(trial: Trial) -> Tensor:
    """The mean over draws I of (<I, map> - (f(x) - f(x - I)))^2: [U].  Yeh et al. 2019, definition 2.1.

    The map in the input's pixels stands for each channel alike. `perturb_draw`: `square` replaces a square of side
    `perturb_side` times the shorter side, anywhere, by `fill` (their square removal); `gaussian` adds noise of standard
    deviation `perturb_sigma` to the normalised image. `perturb_samples` draws, the same for all methods of a case.
    `perturb_scale`: `optimal` multiplies each map by the number that suits it best (a heatmap has no unit of its own),
    `none` does not. Lower is better; not below 0; of a map that is 0 the mean squared change of the answer.
    """
    p = trial.protocol
    before = answers(trial, whole(trial))
    found = torch.empty(len(trial))
    for units in _cases(trial):
        draws = perturbations(trial, units[0])
        logits = witness(trial).outputs(witness(trial).image - some for some in draws.split(8))
        changes = before[units[0]] - answers(trial, logits[None], units[:1])[0]
        for unit in units:
            found[unit] = _misfit(draws, trial.in_input[unit], changes, p.perturb_scale)
    return found


def _misfit(draws: Tensor, heatmap: Tensor, changes: Tensor, scale: str) -> Tensor:
    """Draws [S,3,H,W], a map [H,W] and the answer's changes [S] -> the mean squared error of the map's forecast."""
    forecast = (draws.sum(1).double().cpu() * heatmap.double()).sum((1, 2))
    energy = forecast.square().sum()
    if scale == "optimal" and energy > 0:
        forecast = forecast * ((forecast * changes.double()).sum() / energy)
    return (forecast - changes.double()).square().mean().float()


def perturbations(trial: Trial, unit: int) -> Tensor:
    """[S,3,H,W]: what is taken from the image for a unit's case. Reads perturb_draw, perturb_samples and the like."""
    asked, p = witness(trial), trial.protocol
    count, image = int(p.perturb_samples), asked.image
    generator = asked.generator("infidelity", unit)
    if p.perturb_draw == "gaussian":
        return p.perturb_sigma * torch.randn((count, *image.shape), generator=generator).to(image.device)
    lost, found = image - fill(asked, p.fill), image.new_zeros((count, *image.shape))
    side = max(round(p.perturb_side * min(image.shape[1:])), 1)
    for one in found:
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in image.shape[1:])
        rows, columns = slice(top, top + side), slice(left, left + side)
        one[:, rows, columns] = lost[:, rows, columns]
    return found


def max_sensitivity(trial: Trial) -> Tensor:
    """The largest ||map(x + d) - map(x)|| / ||map(x)|| over draws d: [U].  Yeh et al. 2019, definition 4.1, as captum.

    `perturb_nearby` draws, each value uniform within `perturb_radius` of the normalised image's, the same for all
    methods of a case; maps in the input's pixels, as the protocol prepares them; Euclidean norms. Lower is better, 0
    for a map that does not look at the image. NaN where the map is 0.
    """
    own, found = trial.in_input, torch.full((len(trial),), torch.nan)
    for units in _cases(trial):
        images = _nearby(trial, units[0])
        for unit in units:
            size = own[unit].norm()
            if size > 0:
                asked = [unit] * len(images)
                maps = trial.again(witness(trial).explain(images, asked), asked)
                found[unit] = (maps - own[unit]).flatten(1).norm(dim=1).max() / size
            else:
                trial.notes[unit] = "the map is 0 everywhere"
    return found


def _nearby(trial: Trial, unit: int) -> Tensor:
    """[S,3,H,W]: the image with noise, drawn for a unit's case. Reads perturb_nearby and perturb_radius."""
    asked, p = witness(trial), trial.protocol
    shape = int(p.perturb_nearby), *asked.image.shape
    noise = torch.rand(shape, generator=asked.generator("max_sensitivity", unit))
    return asked.image + p.perturb_radius * (2 * noise - 1).to(asked.image.device)


def _cases(trial: Trial) -> list[list[int]]:
    """The units of each case, in the order of their first."""
    found: dict[int, list[int]] = {}
    for unit, target in enumerate(trial.classes):
        found.setdefault(target, []).append(unit)
    return list(found.values())
