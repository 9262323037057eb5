"""The picture of one image with methods side by side."""

from __future__ import annotations

import io
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from gradcam_bench.errors import UserError
from gradcam_bench.report import show
from gradcam_bench.report.pictures import coloured, heat, photo
from gradcam_bench.report.show import side_by_side
from gradcam_bench.report.style import PREDICTED

GREY = np.full((60, 80, 3), 128, dtype=np.uint8)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(picture - np.array(colour)) <= 3).all(-1)


def test_original_first_then_each_map() -> None:
    hot, cold = np.ones((60, 80)), np.zeros((60, 80))
    picture = opened(side_by_side(GREY, {"hot": hot, "cold": cold}))
    middle = picture[picture.shape[0] * 6 // 10]
    width = picture.shape[1]
    seen = [tuple(middle[width * k // 6]) for k in (1, 3, 5)]
    mix = [np.round(0.5 * 128 + 0.5 * coloured(m)[0, 0].astype(float)) for m in (hot, cold)]
    assert seen[0] == (128, 128, 128)
    np.testing.assert_allclose(seen[1], mix[0], atol=1)
    np.testing.assert_allclose(seen[2], mix[1], atol=1)


def test_predicted_boxes_only_on_their_panel() -> None:
    cyan = tuple(int(PREDICTED[i : i + 2], 16) for i in (1, 3, 5))
    maps = {"a": np.zeros((60, 80)), "b": np.zeros((60, 80))}
    picture = opened(side_by_side(GREY, maps, {"b": np.array([[20.0, 10, 60, 50]])}))
    columns = np.flatnonzero(near(picture, cyan).any(0))
    assert columns.min() > picture.shape[1] * 2 / 3
    assert opened(side_by_side(GREY, maps)).shape == picture.shape
    assert not near(opened(side_by_side(GREY, maps)), cyan).any()


def test_many_methods_wrap_and_the_same_call_gives_the_same_bytes() -> None:
    maps = {f"m{k}_$x$": np.zeros((60, 80)) for k in range(7)}
    made = side_by_side(GREY, maps, true_boxes=np.array([[1.0, 1, 9, 9]]), title="cat")
    assert made == side_by_side(GREY, maps, true_boxes=np.array([[1.0, 1, 9, 9]]), title="cat")
    assert opened(made).shape[1] == opened(side_by_side(GREY, {k: maps[k] for k in list(maps)[:4]})).shape[1]


def test_a_camera_s_picture_is_thinned_out_and_its_boxes_stay_where_they_were() -> None:
    ramp = np.repeat(np.linspace(0, 1, 80)[None], 60, 0)
    box = np.array([[20.0, 10, 60, 50]])
    small = opened(side_by_side(GREY, {"a": ramp}, {"a": box}))
    with mock.patch.object(show, "_blend", wraps=show._blend) as blend:
        large = opened(
            side_by_side(GREY.repeat(40, 0).repeat(40, 1), {"a": ramp.repeat(40, 0).repeat(40, 1)}, {"a": 40 * box})
        )
    assert [seen.shape[:2] for seen in blend.call_args.args] == [(800, 1067)] * 2  # a third of 2400 x 3200
    assert large.shape == small.shape
    assert np.abs(large - small).mean() < 1


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"map 'a' is \[7, 7\], the image \[60, 80\]"):
        side_by_side(GREY, {"a": np.zeros((7, 7))})


def test_page_pictures_are_small() -> None:
    import base64

    large = np.random.default_rng(0).integers(0, 255, (900, 600, 3), dtype=np.uint8)
    small = Image.open(io.BytesIO(base64.b64decode(photo(large).split(",")[1])))
    assert small.size == (213, 320)
    spot = Image.open(io.BytesIO(base64.b64decode(heat(np.array([[np.nan, 1.0]])).split(",")[1])))
    assert spot.size == (2, 1)
