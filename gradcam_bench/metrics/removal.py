"""What becomes of the network's answer as the heatmap's pixels are taken from the image, or put into it.

The order of pixels is that of the map in the input's own pixels, the largest first; of equal values (a rectified map
has thousands of zeros) the first in reading order goes first.
"""

from __future__ import annotations

from torch import Tensor

from gradcam_bench.questions import removal
from gradcam_bench.questions.answers import answers, whole
from gradcam_bench.trial import Trial


def deletion(trial: Trial) -> tuple[Tensor, Tensor]:
    """The area under the class' answer as pixels are replaced by `fill`, the most important first: [U], [U,T+1].

    Petsiuk et al. 2018 (RISE), sec. 3.3 and their program: probability, 0 of the normalised image as fill, 224 steps of
    224 pixels, trapezoid rule. The curve holds the answer at shares 0, 1/T, ..., 1 of pixels deleted. Lower is better;
    in [0, 1] for probabilities.
    """
    curve = removal.curve(trial, inserting=False)
    return removal.area(curve, trial.protocol.perturb_area), curve


def insertion(trial: Trial) -> tuple[Tensor, Tensor]:
    """The area under the class' answer as pixels are put into `fill_insertion`, the most important first: [U], [U,T+1].

    Petsiuk et al. 2018 (RISE), sec. 3.3: from a blurred image. The curve as for `deletion`. Higher is better.
    """
    curve = removal.curve(trial, inserting=True)
    return removal.area(curve, trial.protocol.perturb_area), curve


def road_morf(trial: Trial) -> tuple[Tensor, Tensor]:
    """The mean change of the class' answer when the most important pixels are imputed from the rest: [U], [U,T].

    Rong et al. 2022 (ROAD), sec. 4: of each share in `perturb_shares` (percent), the pixels with the largest values are
    replaced by noisy linear imputation. The curve holds the answers, the value their mean less the answer for the whole
    image. With `answer: top1` it is the change in accuracy. Lower is better. Of a map whose values differ, percentile p
    of pytorch-grad-cam is the share 100 - p; on ties that program removes all pixels at the threshold, which of a
    rectified map may be the whole image.
    """
    curve = removal.road(trial, least_first=False)
    return curve.mean(1) - answers(trial, whole(trial)), curve


def road_lerf(trial: Trial) -> tuple[Tensor, Tensor]:
    """As `road_morf`, the pixels with the smallest values going first: [U], [U,T]. Higher (nearer 0) is better."""
    curve = removal.road(trial, least_first=True)
    return curve.mean(1) - answers(trial, whole(trial)), curve


def road_combined(trial: Trial) -> Tensor:
    """(LeRF - MoRF) / 2, in [-1/2, 1/2] for probabilities: [U].  Gildenblat's pytorch-grad-cam, `ROADCombined`."""
    return removal.road_combined(trial)
