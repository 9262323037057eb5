"""Three independent libraries asked the same question, and what the suite and the papers answer, all in [0, 1]."""

import functools
from pathlib import Path

import networks
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from captum.attr import LayerGradCam
from PIL import Image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from gradcam_bench import heatmaps
from gradcam_bench.choices import View
from gradcam_bench.models.zoo import torchvision_network
from gradcam_bench.probe import Probe

REAL = Path(__file__).parents[3] / "shared" / "real"


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


@functools.cache
def trained(name):
    """A network with trained weights, three pictures, the classes it sees in them; float32 at 224x224."""
    found = [REAL / "weights" / f"{name}{kind}.safetensors" for kind in ("", ".fp16")]
    weights, pictures = next((path for path in found if path.is_file()), None), REAL / "imagenet_val_subset" / "images"
    if weights is None or not pictures.is_dir():
        pytest.skip("trained weights and pictures are not part of the repository (looked for ../shared/real)")
    network = torchvision_network(name, str(weights))
    chosen = sorted(pictures.iterdir())[:3]
    images = torch.stack([network.preprocessing(Image.open(path).convert("RGB"), View())[0] for path in chosen])
    with torch.no_grad():
        targets = network.module.float()(images).argmax(1).tolist()
    return networks.Halves(network.module, network.layer, None, None), images, targets


@functools.cache
def large(name):
    """A network of torchvision with random weights, logits of the order of one, two images of 96x96, a class each."""
    network = torchvision_network(name, "none", num_classes=7)
    networks.settle_batch_norm(network.module)
    halves = networks.Halves(network.module, network.layer, None, None, 96)
    images = halves.images(2)
    with torch.no_grad():
        size = network.module(images).std()
        for parameter in [m for m in network.module.modules() if isinstance(m, torch.nn.Linear)][-1].parameters():
            parameter /= size
    return halves, images, [1, 4]


TRAINED = ("squeezenet1_1", "mobilenet_v2", "resnet18", "resnet50")
LARGE = ("resnet50", "vgg16", "densenet121", "efficientnet_b0")
CASES = {name: functools.partial(case, build) for name, build in NETWORKS.items()}
CASES |= {f"trained {name}": functools.partial(trained, name) for name in TRAINED}
CASES |= {f"large {name}": functools.partial(large, name) for name in LARGE}
SLOW = ("trained resnet18", "trained resnet50", *(f"large {name}" for name in LARGE))


def params(names):
    """Names of cases as a test's parameters; those of large networks are slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]
