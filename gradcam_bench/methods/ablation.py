"""Maps from what the rest of the network makes of the target layer's features when some of them are taken away."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcam_bench.cases import probabilities
from gradcam_bench.errors import UserError
from gradcam_bench.head import Head
from gradcam_bench.probe import Evidence

KERNEL = ((1 / 16, 1 / 8, 1 / 16), (1 / 8, 1 / 4, 1 / 8), (1 / 16, 1 / 8, 1 / 16))


def ablation_cam(evidence: Evidence, head: Head) -> Tensor:
    """sum_k w_k A_k, w_k = (y - y_k) / y, y_k the score with channel k set to zero; 0 where y is 0.

    Desai and Ramaswamy 2020, eq. 4 and 5; [Q,h,w], signed (eq. 5's ReLU: `rectify: relu`). A negative y turns the map's
    sign, by the paper's own formula. pytorch-grad-cam sets channels to zero only where the smallest activation of the
    whole layer is exactly 0, and to 1e7 below the smallest otherwise.
    """
    if evidence.scores is None:
        raise ValueError("the look gave no scores")
    score = evidence.scores[:, None]
    without = torch.stack([head.without_channels(case) for case in range(len(score))]) if len(score) else score
    weights = torch.where(score != 0, (score - without) / score.where(score != 0, 1.0), 0.0)  # [Q,C]
    return torch.einsum("qc,qchw->qhw", weights.to(evidence.features.dtype), evidence.features)


def recipro_cam(evidence: Evidence, head: Head, gaussian: bool = False) -> Tensor:
    """At each place the probability of the class for features that are zero at every other place, [Q,h,w].

    Byun and Lee 2022, eq. 1 to 5, whose last step is min-max: one pass of the head for each of the grid's places; the
    softmax probability, as in the authors' code, or the network's own sigmoid. gaussian: the features of the one place
    are put on its 3 x 3 neighbours too, weighted by 1/16, 1/8, 1/4. Raises UserError for a target that is a function:
    it has none.
    """
    if (evidence.targets < 0).any():
        raise UserError("recipro_cam does not apply: it asks for the probability of a class, and the target is none")
    features = evidence.features
    cases, channels, height, width = features.shape
    places = torch.eye(height * width, device=features.device, dtype=features.dtype).reshape(-1, 1, height, width)
    if gaussian:
        kernel = torch.tensor(KERNEL, device=features.device, dtype=features.dtype)[None, None]
        places = torch.nn.functional.conv2d(places, kernel, padding=1)
    maps = []
    for case, target in enumerate(evidence.targets.tolist()):
        centres = features[case].reshape(channels, -1).T[:, :, None, None]  # [hw,C,1,1]
        maps.append(
            probabilities(head.outputs(centres * places, case), head.activation)[:, target].reshape(height, width)
        )
    return torch.stack(maps) if cases else features.sum(1)
