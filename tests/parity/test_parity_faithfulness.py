"""Faithfulness as other libraries have it, on the same maps of the same network."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import warp
from gradcam_bench.metrics import coherent, drops, removal, stability
from gradcam_bench.questions.removal import ranks, removed_pixels
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
    made[-1].weight.data *= 60
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
        list(CLASSES[: len(maps)]),
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, at what is done there to tensors
@pytest.mark.parametrize("answer", ["probability", "logit"])
def test_road_is_pytorch_grad_cams_without_noise(net: nn.Module, image: Tensor, maps: Tensor, answer: str) -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    shares = (10, 20, 50, 90)
    trial = asked(net, image, maps, answer=answer, perturb_shares=shares, perturb_noise=0)

    def theirs(kind: type) -> np.ndarray:
        found = []
        for share in shares:
            metric = kind(100 - share)
            metric.perturbation.imputer.noise = 0.0
            found.append(metric(repeated(image), maps.numpy(), _targets(answer), net))
        return np.stack(found).mean(0)

    morf, lerf = theirs(road.ROADMostRelevantFirst), theirs(road.ROADLeastRelevantFirst)
    np.testing.assert_allclose(removal.road_morf(trial)[0], morf, atol=1e-4)
    np.testing.assert_allclose(removal.road_lerf(trial)[0], lerf, atol=1e-4)
    np.testing.assert_allclose(removal.road_combined(trial), (lerf - morf) / 2, atol=1e-4)
    assert np.abs(morf).max() > 0.05


def test_ties_at_the_threshold_go_in_reading_order_and_not_together(
    net: nn.Module, image: Tensor, maps: Tensor
) -> None:
    """Of a rectified map pytorch-grad-cam takes every pixel away once more than its support is asked for, and solves a
    singular system; ours takes as many as are asked for."""
    half = torch.where(maps > 0.7, maps, 0.0)[:1]
    counts = []
    for share in (20.0, 40.0, 60.0):
        gone = half.numpy() >= np.percentile(half.numpy(), 100 - share)
        ours = ranks(half[0]) < removed_pixels(share, half[0].numel())
        counts.append((gone.mean(), float(ours.float().mean())))
    assert [c[0] for c in counts[1:]] == [1.0, 1.0]
    assert [c[1] for c in counts] == pytest.approx([0.2, 0.4, 0.6], abs=2 / half[0].numel())
    trial = asked(net, image, half, perturb_noise=0)
    assert removal.road_combined(trial).isfinite().all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, at what is done there to tensors
def test_arcc_and_its_terms_are_pytorch_grad_cams_without_noise(
    net: nn.Module, image: Tensor, maps: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = pytest.importorskip("pytorch_grad_cam.metrics.arcc")
    imputer = pytest.importorskip("pytorch_grad_cam.metrics.road").NoisyLinearImputer
    monkeypatch.setattr(imputer.__init__, "__defaults__", (0.0, *imputer.__init__.__defaults__[1:]))

    def explain(images: Tensor) -> Tensor:
        return torch.sin(3 * images.mean(1))

    maps, shares = 1 - maps, (20, 40, 60, 80)  # ROAD finds most of these better than their opposites
    trial = asked(net, image, maps, lambda images, units: list(explain(images)), perturb_shares=shares, perturb_noise=0)
    method = lambda input_tensor, targets: explain(input_tensor).numpy()  # noqa: E731
    given = repeated(image), maps.numpy(), _targets("probability"), net
    coherency, complexity = peer.Coherency()(*given, method), peer.Complexity()(maps.numpy())
    np.testing.assert_allclose(coherent.coherency(trial), coherency, atol=1e-5)
    np.testing.assert_allclose(coherent.complexity(trial), complexity, atol=1e-6)
    theirs, (ours, _) = peer.ARCC(method, list(shares))(*given), coherent.arcc(trial)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert theirs.max() > 0.1
    assert theirs.min() < 1e-6


@pytest.mark.parametrize("scale", ["none", "optimal"])
@pytest.mark.parametrize("draw", ["square", "gaussian"])
def test_infidelity_is_captums(net: nn.Module, image: Tensor, maps: Tensor, scale: str, draw: str) -> None:
    metrics = pytest.importorskip("captum.metrics")
    axes = {"perturb_draw": draw, "perturb_scale": scale, "perturb_samples": 12}
    trial = asked(net, image, maps, **axes)
    found = stability.infidelity(trial)
    for unit, target in enumerate(CLASSES):
        draws = stability.perturbations(trial, unit)
        theirs = metrics.infidelity(
            lambda x: net(x).softmax(1),
            lambda inputs: (draws, inputs - draws),  # noqa: B023
            image[None],
            maps[unit].expand(1, 3, -1, -1),
            target=target,
            n_perturb_samples=12,
            normalize=scale == "optimal",
        )
        assert float(found[unit]) == pytest.approx(float(theirs), rel=1e-3, abs=1e-7)


def test_max_sensitivity_is_captums(net: nn.Module, image: Tensor) -> None:
    metrics = pytest.importorskip("captum.metrics")

    def explain(images: Tensor) -> Tensor:
        return torch.sin(3 * images.mean(1))

    own = explain(image[None])
    axes = {"normalize": "none", "perturb_nearby": 7, "perturb_radius": 0.3}
    trial = asked(net, image, own, lambda images, units: list(explain(images)), **axes)
    noise = torch.rand(7, 3, *SIZE, generator=trial.witness.generator("max_sensitivity", 0))
    theirs = metrics.sensitivity_max(
        lambda inputs: (explain(inputs[0]),),
        image[None],
        lambda inputs: (inputs[0] + 0.3 * (2 * noise - 1),),
        n_perturb_samples=7,
    )
    assert float(stability.max_sensitivity(trial)) == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", range(5))
def test_torchcams_drop_and_curves(net: nn.Module, image: Tensor, target: int) -> None:
    methods = pytest.importorskip("torchcam.methods")
    metrics = pytest.importorskip("torchcam.metrics")
    softmax = partial(torch.softmax, dim=-1)
    with methods.GradCAM(net, "3") as extractor:
        grid = extractor(target, softmax(net(image[None])))[0][0].detach()
        masked = metrics.ClassificationMetric(extractor, softmax)
        masked.update(image[None], target)
        areas = metrics.DeletionInsertionMetric(extractor, softmax, steps=12)
        areas.update(image[None], target)
    resized = F.interpolate(grid[None, None], SIZE, mode="bilinear")[
        0
    ]  # theirs: the order of nearly equal values decides
    trial = asked(net, image, resized, normalize="none", perturb_steps=12, fill_insertion="mean")  # 56 pixels a step
    trial.classes[:] = [target]
    assert float(drops.average_drop(trial)) == pytest.approx(masked.summary()["avg_drop"], abs=1e-5)
    assert (masked.summary()["avg_drop"] > 0) == (target == int(net(image[None]).argmax()))
    assert float(drops.increase(trial)) == masked.summary()["conf_increase"]
    assert float(removal.deletion(trial)[0]) == pytest.approx(areas.summary()["deletion_auc"], abs=1e-5)
    assert float(removal.insertion(trial)[0]) == pytest.approx(areas.summary()["insertion_auc"], abs=1e-5)
