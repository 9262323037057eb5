"""Linear imputation against its definition: every missing pixel is the weighted mean of its neighbours."""

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from gradcam_bench.questions.imputation import impute
from gradcam_bench.questions.removal import removed_pixels


def dense(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """One equation a pixel, by loops."""
    height, width = missing.shape
    matrix, sides = np.eye(missing.size), image.reshape(3, -1).T.astype(float).copy()
    for y, x in np.argwhere(missing):
        row, total = y * width + x, 0.0
        sides[row] = 0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                if inside and (dy or dx):
                    weight = 1 / 12 if dy and dx else 1 / 6
                    matrix[row, (y + dy) * width + x + dx] -= weight
                    total += weight
        matrix[row, row] = total
    return np.linalg.solve(matrix, sides).T.reshape(image.shape)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("blob", [False, True])
def test_it_is_the_solution_of_the_dense_system(share: float, blob: bool) -> None:
    random = np.random.default_rng(int(share * 100))
    image, (y, x) = random.normal(size=(3, 12, 17)).astype(np.float32), np.mgrid[:12, :17]
    order = np.hypot(y - 4, x - 11) if blob else random.random((12, 17))
    missing = order <= np.quantile(order, share)
    found = impute(image, missing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, dense(image, missing), rtol=0, atol=2e-5)
    assert (found[:, ~missing] == image[:, ~missing]).all()


def test_a_plane_is_continued_and_extremes_bound_the_rest() -> None:
    y, x = np.mgrid[:20, :30].astype(np.float32)
    image = np.stack([x, y, 2 * x - 3 * y]).astype(np.float32)
    missing = np.zeros((20, 30), bool)
    missing[5:15, 6:24] = True
    np.testing.assert_allclose(impute(image, missing), image, rtol=0, atol=1e-3)
    image = np.random.default_rng(0).random((3, 20, 30), dtype=np.float32)
    found = impute(image, missing)
    assert found.min() >= image[:, ~missing].min() - 1e-6
    assert found.max() <= image[:, ~missing].max() + 1e-6


def test_one_known_pixel_colours_all() -> None:
    image, missing = np.random.default_rng(1).random((3, 9, 8), dtype=np.float32), np.ones((9, 8), bool)
    missing[3, 4] = False
    found = impute(image, missing)
    np.testing.assert_allclose(found, np.broadcast_to(image[:, 3:4, 4:5], found.shape), rtol=0, atol=1e-4)


def test_nothing_missing_is_the_image_and_no_view_of_it() -> None:
    image = np.random.default_rng(2).random((3, 4, 4), dtype=np.float32)
    found = impute(image, np.zeros((4, 4), bool))
    assert (found == image).all()
    assert found is not image


@pytest.mark.parametrize("pixels", [4, 49, 1000, 50176])
def test_so_many_pixels_go_as_lie_at_or_above_the_percentile(pixels: int) -> None:
    values = np.random.default_rng(pixels).permutation(pixels)
    for share in (0, 10, 20, 37.5, 50, 90, 99):
        assert removed_pixels(share, pixels) == (values >= np.percentile(values, 100 - share)).sum()
        assert removed_pixels(share, pixels) < pixels or share > 90


@pytest.mark.parametrize("kind", ["smooth", "noise", "frame", "stripes"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_holes_of_any_shape_agree_with_a_direct_solver(kind: str, share: float) -> None:
    random, (y, x) = np.random.default_rng(3), np.mgrid[:101, :90]
    image = random.normal(size=(3, 101, 90)).astype(np.float32)
    orders = {
        "smooth": np.sin(y / 17) + np.cos(x / 23 + y / 40),
        "noise": random.random((101, 90)),
        "frame": np.maximum(abs(y - 50), abs(x - 45)) + random.random((101, 90)),
        "stripes": (x % 7 > 2) + random.random((101, 90)),
    }
    missing = orders[kind] >= np.quantile(orders[kind], 1 - share)
    np.testing.assert_allclose(impute(image, missing), direct(image, missing), rtol=0, atol=1e-4)


def direct(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """By a sparse factorisation, one row after the other."""
    number, places = np.cumsum(missing).reshape(missing.shape) - 1, np.argwhere(missing)
    rows, columns, values, sides = [], [], [], np.zeros((len(places), 3))
    for y, x in places:
        near = [(y + a, x + b, 1 / 12 if a and b else 1 / 6) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        near = [(v, u, w) for v, u, w in near if 0 <= v < missing.shape[0] and 0 <= u < missing.shape[1]]
        me = number[y, x]
        entries = [(me, sum(w for _, _, w in near))] + [(number[v, u], -w) for v, u, w in near if missing[v, u]]
        sides[me] = sum((w * image[:, v, u] for v, u, w in near if not missing[v, u]), np.zeros(3))
        rows += [me] * len(entries)
        columns += [column for column, _ in entries]
        values += [value for _, value in entries]
    found = image.astype(float)
    found[:, missing] = spsolve(csc_matrix((values, (rows, columns))), sides).T
    return found
