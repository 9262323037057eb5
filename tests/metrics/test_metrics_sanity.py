"""Similarities of heatmaps: numbers worked out by hand, slow second implementations, SciPy, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_trials import trial
from scipy import stats
from torch import Tensor

from gradcam_bench import similarity
from gradcam_bench.catalogue import Metric, metric, names, spec
from gradcam_bench.choices import Protocol
from gradcam_bench.metrics import sanity
from gradcam_bench.regions.ranks import double_ranks
from gradcam_bench.trial import Trial

LABELS = [label for label in names("metric") if metric(label, spec("metric", label)).needs == "stages"]


def pair(own: list[Tensor], trained: list[Tensor], **axes: object) -> Trial:
    """A stage's trial beside the trained network's."""
    made = trial(own, protocol=axes)
    return Trial(**{**vars(made), "trained": trial(trained, protocol=axes)})


def noise(count: int, size: int = 64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, size, generator=generator) for _ in range(count)]


def value(function: object, own: Tensor, trained: Tensor, **axes: object) -> float:
    return float(function(pair([own], [trained], **axes))[0])  # type: ignore[operator]


def test_ranks_by_hand() -> None:
    assert double_ranks(np.array([3.0, -1.0, 3.0, -0.0, 0.0])).tolist() == [9, 2, 9, 5, 5]
    assert double_ranks(np.array([[1.0, 2.0], [0.5, -np.float32(1e-40)]])).tolist() == [6, 8, 4, 2]
    assert double_ranks(np.array([])).tolist() == []


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_ranks_are_scipys(digits: int) -> None:
    values = np.round(np.random.default_rng(digits).normal(size=3000), digits).astype(np.float32)
    assert np.array_equal(double_ranks(values), 2 * stats.rankdata(values))


def test_spearman_by_hand() -> None:
    own, trained = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[-1.0, -4.0], [2.0, 3.0]])
    # ranks 1 2 3 4 and 2 1 3 4: 1 - 6 * 2 / (4 * 15); magnitudes rank 1 4 2 3: 1 - 6 * (4 + 1 + 1) / 60
    assert value(sanity.spearman, own, trained) == pytest.approx(0.8)
    assert value(sanity.spearman_abs, own, trained) == pytest.approx(0.4)


@pytest.mark.parametrize("function", [sanity.spearman, sanity.spearman_abs])
def test_spearman_is_scipys(function: object) -> None:
    own, trained = (m.relu() if k else m for k, m in enumerate(noise(2, 224)))  # one of them full of ties
    x, y = (m.abs() if function is sanity.spearman_abs else m for m in (own, trained))
    expected = stats.spearmanr(x.numpy().ravel(), y.numpy().ravel()).statistic
    assert value(function, own, trained) == pytest.approx(expected, abs=1e-9)


def test_signs_are_those_that_rectify_leaves() -> None:
    own, trained = noise(2)
    relu = stats.spearmanr(own.relu().numpy().ravel(), trained.relu().numpy().ravel()).statistic
    assert value(sanity.spearman, own, trained, rectify="relu") == pytest.approx(relu, abs=1e-9)
    assert value(sanity.spearman, own, -own) == pytest.approx(-1)
    assert value(sanity.spearman_abs, own, -own) == pytest.approx(1)


def slow_ssim(one: np.ndarray, other: np.ndarray, span: float, sample: bool) -> float:
    """Window by window, as Wang et al. 2004 write it."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    n, found = 121, []
    for y in range(one.shape[0] - 10):
        for x in range(one.shape[1] - 10):
            a, b = one[y : y + 11, x : x + 11], other[y : y + 11, x : x + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            ab = (window * (a - ma) * (b - mb)).sum()
            if sample:
                va, vb, ab = (v * n / (n - 1) for v in (va, vb, ab))
            c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
            found.append((2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize(("recipe", "span", "sample"), [("wang_2004", 1.0, False), ("adebayo_2018", 2.0, True)])
def test_ssim_is_what_the_paper_writes(recipe: str, span: float, sample: bool) -> None:
    own, trained = noise(2, 24)
    pictures = [(m - m.min()) / (m.max() - m.min()) for m in (own.double(), trained.double())]
    expected = slow_ssim(pictures[0].numpy(), pictures[1].numpy(), span, sample)
    assert value(sanity.ssim, own, trained, similarity_ssim=recipe) == pytest.approx(expected, abs=1e-9)


def test_pictures_by_hand() -> None:
    values = np.array([[-2.0, 0.0], [1.0, 4.0]])
    assert np.allclose(similarity.as_picture(values, "minmax"), [[0, 1 / 3], [0.5, 1]])  # type: ignore[arg-type]
    high = np.percentile([2.0, 0.0, 1.0, 4.0], 99)  # 3.94
    assert np.allclose(similarity.as_picture(values, "abs"), [[2 / high, 0], [1 / high, 1]])  # type: ignore[arg-type]
    span = np.percentile(values, 99)  # 3.91
    expected = [[(span - 2) / (2 * span), 0.5], [(span + 1) / (2 * span), 1]]
    assert np.allclose(similarity.as_picture(values, "diverging"), expected)  # type: ignore[arg-type]
    flat = np.zeros((3, 3))
    assert all(similarity.as_picture(flat, how) is None for how in ("minmax", "abs", "diverging"))


def slow_hog(picture: np.ndarray) -> np.ndarray:
    """Pixel by pixel into cells, block by block."""
    rows, columns = picture.shape[0] // 16, picture.shape[1] // 16
    cells = np.zeros((rows, columns, 9))
    for y in range(rows * 16):
        for x in range(columns * 16):
            dy = picture[y + 1, x] - picture[y - 1, x] if 0 < y < picture.shape[0] - 1 else 0.0
            dx = picture[y, x + 1] - picture[y, x - 1] if 0 < x < picture.shape[1] - 1 else 0.0
            cells[y // 16, x // 16, int(np.degrees(np.arctan2(dy, dx)) % 180 // 20)] += np.hypot(dy, dx) / 256
    blocks = []
    for y in range(rows - 2):
        for x in range(columns - 2):
            block = cells[y : y + 3, x : x + 3].ravel()
            cut = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
            blocks.append(cut / np.sqrt((cut**2).sum() + 1e-10))
    return np.concatenate(blocks)


def test_oriented_gradients_cell_by_cell() -> None:
    own, trained = (m[:, :70] for m in noise(2, 100))
    pictures = [similarity.as_picture(m.numpy(), "minmax") for m in (own, trained)]
    slow = [slow_hog(picture) for picture in pictures]  # type: ignore[arg-type]
    assert np.allclose(similarity.oriented_gradients(pictures[0]), slow[0], atol=1e-12)  # type: ignore[arg-type]
    assert value(sanity.hog_pearson, own, trained) == pytest.approx(np.corrcoef(*slow)[0, 1], abs=1e-9)
    expected = stats.spearmanr(*(s.astype(np.float32) for s in slow)).statistic
    assert value(sanity.hog_spearman, own, trained) == pytest.approx(expected, abs=1e-4)


def test_a_vertical_edge_has_one_orientation() -> None:
    picture = np.zeros((48, 48))
    picture[:, 24:] = 1
    found = similarity.oriented_gradients(picture)
    assert found is not None
    assert set(np.flatnonzero(found.reshape(9, 9).sum(0))) == {0}  # gradients along x: the bin of 0 degrees


def test_top_pixels_by_hand() -> None:
    own, trained = torch.zeros(10, 10), torch.zeros(10, 10)
    own[0], trained[0, :5], trained[1, :5] = 1.0, 2.0, 1.0
    assert value(sanity.top_k_overlap, own, trained) == pytest.approx(0.5)
    # the top 20: ten ones of each, and ten ninetieths of each of the ninety zeros, of which they share 85
    assert value(sanity.top_k_overlap, own, trained, similarity_top=0.2) == pytest.approx((5 + 10 / 9 + 85 / 9) / 20)


def test_efficient_mprt_by_hand() -> None:
    trained, own = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    low = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    found = value(sanity.efficient_mprt, own, trained, similarity_bins=4)
    assert found == pytest.approx((np.log(4) - low) / low)


@pytest.mark.parametrize("label", LABELS)
def test_a_map_is_like_itself_and_noise_like_nothing(label: str) -> None:
    one, other = noise(2, 224)
    function = metric(label, spec("metric", label)).function
    same, different = value(function, one, one.clone()), value(function, one, other)
    if label == "efficient_mprt":
        assert same == 0
    else:
        assert same == pytest.approx(1, abs=1e-12)
        assert abs(different) < {"top_k_overlap": 0.12, "hog_pearson": 0.3, "hog_spearman": 0.3}.get(label, 0.05)


@pytest.mark.parametrize("label", LABELS)
def test_constant_maps_are_undefined_with_a_reason(label: str) -> None:
    function, (good,) = metric(label, spec("metric", label)).function, noise(1)
    flat = torch.full((64, 64), 0.5)
    given = pair([flat, good, good], [good, flat, good])
    found = function(given)
    assert found.isnan().tolist() == [True, True, False]
    assert given.notes == {0: "the map is constant", 1: "trained network: the map is constant"}


@pytest.mark.parametrize("label", ["ssim", "random_logit", "hog_pearson", "hog_spearman"])
def test_too_small_pictures_are_undefined(label: str) -> None:
    one, other = noise(2, 10)
    assert np.isnan(value(metric(label, spec("metric", label)).function, one, other))


@pytest.mark.parametrize("label", LABELS)
def test_each_reads_the_axes_that_its_yaml_declares(label: str) -> None:
    seen: set[str] = set()

    class Recording(Protocol):
        def __getitem__(self, name: str) -> object:
            seen.add(name)
            return super().__getitem__(name)

    one: Metric = metric(label, spec("metric", label))
    own, trained = noise(2)
    made = pair([own], [trained])
    made.under(Recording({}, one.reads))
    one.function(made.under(Recording({}, one.reads)))
    assert seen == set(one.reads)
    assert one.higher_is_better is None  # none is ranked: docs/sanity.md, after Binder et al. 2023


def test_maps_of_different_grids_are_compared_at_the_inputs_size() -> None:
    from gradcam_bench.geometry import warp
    from gradcam_bench.heatmaps import resize

    coarse, fine = noise(1, 7)[0], noise(1, 32, seed=3)[0]
    frame = warp((50, 40), (32, 32))
    own, trained = trial([coarse], frame=frame), trial([fine], frame=frame)
    found = sanity.spearman(Trial(**{**vars(own), "trained": trained}))
    expected = stats.spearmanr(resize(coarse[None], (32, 32))[0].numpy().ravel(), fine.numpy().ravel()).statistic
    assert float(found[0]) == pytest.approx(expected, abs=1e-9)


def test_without_a_trained_map_there_is_nothing_to_compare() -> None:
    with pytest.raises(RuntimeError, match="trained"):
        sanity.spearman(trial(noise(1)))
