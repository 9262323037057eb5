"""Faithfulness as other libraries have it, on the same maps of the same network."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import warp
from gradcam_bench.metrics import coherent, drops, removal, stability
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial
from gradcam_bench.witness import Witness

SIZE = (24, 28)
CLASSES = (2, 0, 3, 2)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(3)
    stem = nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
    made = nn.Sequential(*stem, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)).eval()
    made[-1].weight.data *= 12
    return made


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def maps() -> Tensor:
    """[4,H,W] in [0, 1], no two values of one map alike."""
    random = torch.rand(4, *SIZE, generator=torch.Generator().manual_seed(6))
    low, high = random.amin((1, 2), keepdim=True), random.amax((1, 2), keepdim=True)
    return (random - low) / (high - low)


def asked(net: nn.Module, image: Tensor, maps: Tensor, explainer=lambda images, units: [], **axes: object) -> Trial:
    colour = torch.zeros(3, 1, 1)
    names = [f"a#{c}" for c in CLASSES[: len(maps)]]

    def answer(images: Tensor) -> Tensor:
        with torch.no_grad():
            return net(images)

    witness = Witness(image, 8, answer, partial(torch.softmax, dim=1), explainer, names, 0, colour, colour)
    return Trial(
        list(maps),
        ["none"] * len(maps),
        CLASSES[: len(maps)],
        [0] * len(maps),
        warp(SIZE, SIZE),
        annotation("a", SIZE, classes=(0,)),
        Protocol(axes),
        witness=witness,
    )


def repeated(image: Tensor) -> Tensor:
    return image.expand(len(CLASSES), -1, -1, -1).clone()


@pytest.mark.parametrize("answer", ["probability", "logit"])
def test_pytorch_grad_cams_drop_is_the_absolute_one(net: nn.Module, image: Tensor, maps: Tensor, answer: str) -> None:
    metrics = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    targets = _targets(answer)
    trial = asked(net, image, maps, answer=answer)
    theirs = metrics.DropInConfidence()(repeated(image), maps.numpy(), targets, net)
    np.testing.assert_allclose(drops.average_drop_absolute(trial), theirs, atol=1e-5)
    increased = metrics.IncreaseInConfidence()(repeated(image), maps.numpy(), targets, net)
    np.testing.assert_array_equal(drops.increase(trial), increased)


def _targets(answer: str) -> list:
    made = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    kinds = {"probability": made.ClassifierOutputSoftmaxTarget, "logit": made.ClassifierOutputTarget}
    return [kinds[answer](c) for c in CLASSES]


@pytest.mark.parametrize("answer", ["probability", "logit"])
def test_road_is_pytorch_grad_cams_without_noise(
    net: nn.Module, image: Tensor, maps: Tensor, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    monkeypatch.setattr(road, "NoisyLinearImputer", partial(_quiet(road), noise=0.0))
    road.NoisyLinearImputer.setup_sparse_system = road_imputer.setup_sparse_system  # type: ignore[name-defined]
    assert True


def _quiet(road):
    return road.NoisyLinearImputer
