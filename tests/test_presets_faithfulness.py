"""Presets that question the network, walked through by another route: from the paper's or program's words, by loops."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from test_presets import _Named, gap, map_in, picture, tensor, weights_and_features
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from gradcam_bench import catalogue, plan
from gradcam_bench.explain import explain_batch
from gradcam_bench.models.network import Network, Preprocessing
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Batch, Sample, annotation
from gradcam_bench.scoring import question_image


def ours(name: str, seed: int, metrics: list[str], target: int | None = None) -> tuple[dict, Tensor, int]:
    """Rows of a preset for Grad-CAM on one picture by metric, the picture as it was fed, the class."""
    recipe, preprocessing = catalogue.preset(name, catalogue.spec("preset", name)), Preprocessing()
    assert set(metrics) <= set(recipe.metrics)
    chosen = [catalogue.metric(label, catalogue.spec("metric", label)) for label in metrics]
    made = plan.make(
        [catalogue.method("grad_cam", catalogue.spec("method", "grad_cam"))], chosen, [recipe], preprocessing
    )
    ((view, jobs),) = made.views.items()
    image = picture(seed)
    pixels, frame = preprocessing(image, view)
    truth = annotation("a", (image.height, image.width), classes=() if target is None else (target,))
    sample = Sample(0, pixels, frame, truth, "")
    network = Network("tiny", gap().model, preprocessing, "features", "0", "softmax")
    probe = Probe(gap().model, ["features"], view.score)
    cases, maps, _ = explain_batch(Batch(pixels[None], (sample,)), network, probe, made.methods, view)
    job = plan.Run(_Named(), network, made, None, preprocessing)
    rows = question_image(job, view, jobs, cases, {label: list(grids) for label, grids in maps.items()}, probe)
    assert {row["protocol"] for row in rows} == {name}
    return {row["metric"]: row for row in rows}, pixels, cases[0].target


def warped(seed: int) -> Tensor:
    return tensor(picture(seed).resize((224, 224), Image.Resampling.BILINEAR))


def heatmap(pixels: Tensor, target: int) -> np.ndarray:
    """Grad-CAM in the input's pixels, rectified, between 0 and 1."""
    activations, grads, _ = weights_and_features(pixels, target)
    grid = np.einsum("c,chw->hw", grads.mean((1, 2)), activations)
    found = map_in(tuple(pixels.shape[:0:-1]), grid)
    return (found - found.min()) / (found.max() - found.min())


def probability(pixels: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(gap().model(pixels[None].float()).softmax(1)[0, target])


def curve(start: Tensor, finish: Tensor, mask: np.ndarray, target: int, step: int) -> list[float]:
    """Step by step, as RISE's and Poly-CAM's programs go."""
    order, now = np.argsort(-mask.ravel(), kind="stable"), start.clone().reshape(3, -1)
    found = [probability(start, target)]
    for first in range(0, mask.size, step):
        pixels = order[first : first + step].copy()
        now[:, pixels] = finish.reshape(3, -1)[:, pixels]
        found.append(probability(now.reshape(start.shape), target))
    return found


@pytest.mark.parametrize("seed", range(2))
def test_rise_2018(seed: int) -> None:
    rows, pixels, target = ours("rise_2018", seed, ["deletion", "insertion"])
    image = warped(seed)
    torch.testing.assert_close(pixels, image)
    with torch.no_grad():
        assert target == int(gap().model(image[None]).argmax())
    point = np.zeros((11, 11))
    point[5, 5] = 1
    blurred = [convolve2d(channel, gaussian_filter(point, 5), mode="same") for channel in image.numpy()]
    mask = heatmap(image, target)
    runs = {"deletion": (image, torch.zeros_like(image)), "insertion": (torch.tensor(np.stack(blurred)).float(), image)}
    for name, (start, finish) in runs.items():
        scores = np.array(curve(start, finish, mask, target, 224))
        np.testing.assert_allclose(rows[name]["curve"], scores, atol=2e-5)
        area = (scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)
        assert rows[name]["value"] == pytest.approx(area, abs=1e-5)


def test_poly_cam_2022() -> None:
    rows, pixels, target = ours("poly_cam_2022", 1, ["deletion", "insertion"])
    blurred, mask = gaussian_blur(pixels, [11, 11], [5.0, 5.0]), heatmap(pixels, target)
    for name, (start, finish) in {"deletion": (pixels, blurred), "insertion": (blurred, pixels)}.items():
        scores = curve(start, finish, mask, target, 224)[1:]
        assert rows[name]["value"] == pytest.approx(float(np.mean(scores)), abs=1e-5)


def test_grad_cam_pp_2018_and_adcc_2021() -> None:
    for name in ("grad_cam_pp_2018", "adcc_2021"):
        rows, pixels, target = ours(name, 2, ["average_drop"])
        before = probability(pixels, target)
        after = probability(pixels * torch.tensor(heatmap(pixels, target)).float(), target)
        assert rows["average_drop"]["value"] == pytest.approx(max(0, before - after) / before, abs=1e-5)
        assert pixels.shape == (3, 224, 224)


def test_score_cam_2020() -> None:
    rows, pixels, target = ours("score_cam_2020", 3, ["average_drop", "increase", "deletion", "insertion"], target=2)
    mask = heatmap(pixels, target)
    kept = np.zeros(mask.size)
    order = np.argsort(-mask.ravel(), kind="stable")[: mask.size // 2]
    kept[order] = mask.ravel()[order]
    before = probability(pixels, target)
    after = probability(pixels * torch.tensor(kept.reshape(mask.shape)).float(), target)
    assert rows["average_drop"]["value"] == pytest.approx(max(0, before - after) / before, abs=1e-5)
    assert rows["increase"]["value"] == float(after > before)
    assert {len(rows[name]["curve"]) for name in ("deletion", "insertion")} == {101}


def test_arcc_and_road() -> None:
    rows, pixels, target = ours("arcc_2026", 4, ["coherency", "road_combined", "arcc"])
    mask = heatmap(pixels, target)
    again = heatmap(pixels * torch.tensor(mask).float(), target)
    coherency = (1 + np.corrcoef(mask.ravel(), again.ravel())[0, 1]) / 2
    assert rows["coherency"]["value"] == pytest.approx(coherency, abs=1e-4)
    road = min(max(2 * rows["road_combined"]["value"], 0), 1)
    terms = np.array([coherency, 1 - mask.mean(), road])
    np.testing.assert_allclose(rows["arcc"]["curve"], terms, atol=1e-4)
    accuracies = ours("road_2022", 4, ["road_morf"], target=target)[0]["road_morf"]
    assert set(accuracies["curve"].tolist()) <= {0.0, 1.0}
    assert len(accuracies["curve"]) == 7
