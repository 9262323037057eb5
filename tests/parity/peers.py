"""Three independent libraries asked the same question, and what the suite and the papers answer, all in [0, 1]."""

import networks
import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
from captum.attr import LayerGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from gradcam_bench import heatmaps
from gradcam_bench.probe import Probe


def scaled(maps):
    """At grid resolution: min-max to [0, 1]."""
    return heatmaps.normalize(maps, "minmax")


def scaled_at_input(maps, size):
    """As pytorch-grad-cam hands its maps out: min-max, resized to the input, min-max again."""
    return scaled(heatmaps.resize(scaled(maps), size))


def look(halves, images, targets):
    return Probe(halves.model, [halves.layer]).look(images, targets)[halves.layer]


def case(build, count=3, targets=(1, 0, 3)):
    """(halves, images, targets), single precision."""
    halves = build()
    halves.model.float()
    return halves, halves.images(count).float(), list(targets)


def grad_cam(name, halves, images, targets):
    """pytorch-grad-cam: after its ReLU, in [0, 1], [Q,H,W]."""
    layer = halves.model.get_submodule(halves.layer)
    with getattr(pytorch_grad_cam, name)(model=halves.model, target_layers=[layer]) as made:
        return torch.from_numpy(made(images, [ClassifierOutputTarget(target) for target in targets]))


def torchcam_maps(name, halves, images, targets, normalized=False):
    """torchcam: after the ReLU, if it has one, [Q,h,w]."""
    layer = halves.model.get_submodule(halves.layer)
    more = [linear(halves.model)] if name == "CAM" else []
    with getattr(torchcam.methods, name)(halves.model, layer, *more, input_shape=images.shape[1:]) as made:
        scores = halves.model(images)
        return made(targets, scores, normalized=normalized)[0].detach()


def captum(halves, images, targets, **options):
    """captum's LayerGradCam, [Q,h,w]."""
    made = LayerGradCam(halves.model, halves.model.get_submodule(halves.layer))
    return made.attribute(images, torch.tensor(targets), **options)[:, 0].detach()


def paper(formula, evidence):
    """A formula of slow_cams.py in float64 on the same activations and gradients, before the final ReLU."""
    pairs = zip(evidence.features.double().numpy(), evidence.gradients.double().numpy())
    return torch.from_numpy(np.stack([formula(a, g) for a, g in pairs]))


def linear(model):
    return next(module for module in model.modules() if isinstance(module, torch.nn.Linear))


def apart(found, expected):
    return float((found.double() - expected.double()).abs().max())


NETWORKS = {
    "gap": networks.gap,
    "gap, signed": lambda: networks.gap(signed=True),
    "vgg11": networks.vgg11,
    "resnet18": networks.resnet18,
    "resnet18, layer3": lambda: networks.resnet18("layer3"),
    "mobilenet_v2": networks.mobilenet_v2,
    "squeezenet1_1": networks.squeezenet1_1,
}
