"""The Python interface on hand-made cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import gradcam_bench as gb
from gradcam_bench import catalogue


class Linear(nn.Module):
    """The features are the image itself, the logits W x mean over space: everything can be worked out by hand."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.fc = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.fc.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))  # type: ignore[no-any-return]


WEIGHT = torch.tensor([[1.0, -2.0, 0.0], [0.0, 3.0, 1.0]])
IMAGES = torch.arange(24.0).reshape(2, 3, 2, 2)


def test_explain_by_hand() -> None:
    maps = gb.explain(Linear(WEIGHT), IMAGES, [0, 1], methods=["grad_cam", "cam"], layer="features")
    first = IMAGES[0, 0] - 2 * IMAGES[0, 1]  # weights of class 0
    second = 3 * IMAGES[1, 1] + IMAGES[1, 2]
    assert torch.allclose(maps["cam"], torch.stack([first, second]))
    assert torch.allclose(maps["grad_cam"], torch.stack([first, second]) / 4)  # the mean over 2x2 places
    assert (maps["cam"][0] < 0).all()  # signed: no ReLU yet


def test_several_cases_of_one_image_and_a_callable() -> None:
    targets = [0, 1, lambda output: output[:, 0] - output[:, 1]]
    maps = gb.explain(Linear(WEIGHT), IMAGES, targets, layer="features", image_index=torch.tensor([1, 1, 0]))
    weights = torch.stack([WEIGHT[0], WEIGHT[1], WEIGHT[0] - WEIGHT[1]]) / 4
    expected = torch.einsum("qc,qchw->qhw", weights, IMAGES[[1, 1, 0]])
    assert torch.allclose(maps["grad_cam"], expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"targets": [0]}, "1 targets for 2 images"),
        ({"targets": [0, 1, 1], "image_index": torch.tensor([0, 1])}, "3 targets but 2 entries in image_index"),
        ({"targets": [0, 5]}, "target class 5: the model has classes 0 to 1"),
        ({"targets": [0, 1], "layer": "feature"}, "unknown layer 'feature': did you mean 'features'?"),
        ({"targets": [0, 1], "layer": ""}, "name the target layer"),
        ({"targets": [0, 1], "methods": ["grad_cams"]}, "unknown method 'grad_cams': did you mean 'grad_cam'?"),
        ({"targets": [0], "images": IMAGES[0]}, r"images must be \[B,3,H,W\], got \[3, 2, 2\]"),
        (
            {"targets": [0, 1], "images": IMAGES.to(torch.uint8)},
            "images must be a tensor of floats, .* got torch.uint8",
        ),
        ({"targets": [0, 1], "images": IMAGES.numpy()}, "images must be a tensor of floats, .* got ndarray"),
        (
            {"targets": [0, 1], "images": IMAGES.double()},
            "images are torch.float64 on cpu, the model is torch.float32 on cpu: bring them together",
        ),
        ({"targets": 1}, "targets must be a list, a class index or a callable a case, got 1"),
        ({"targets": ["cat", "dog"]}, r"targets\[0\] is 'cat': a class index or a callable"),
        ({"targets": torch.tensor([0.0, 1.5])}, r"targets\[1\] is 1.5: a class index or a callable"),
        ({"targets": [0, 1], "layer": nn.Identity()}, "name the target layer"),
        ({"targets": [0, 1], "methods": "grad_cam"}, r"a list of names: methods=\['grad_cam'\]"),
        ({"targets": [0, 1], "std": (1, 1, 0)}, r"std above 0, got .* and \(1, 1, 0\)"),
        (
            {"targets": [0, 1], "model": nn.Sequential(nn.Conv2d(5, 2, 1)), "layer": "0"},
            r"the model fails on images \[2, 3, 2, 2\]",
        ),
        ({"targets": [0, 1], "model": len}, "model must be an nn.Module, got builtin_function_or_method"),
    ],
)
def test_explain_names_what_does_not_fit(arguments: dict[str, object], sentence: str) -> None:
    given = {"model": Linear(WEIGHT), "images": IMAGES, "layer": "features"} | arguments
    with pytest.raises(gb.UserError, match=sentence):
        gb.explain(**given)  # type: ignore[arg-type]


def test_threads_take_turns_with_one_model() -> None:
    """Each look hangs hooks on the model and freezes it; two at once would see each other's."""

    class Slow(Linear):
        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.02)
            return super().forward(images)

    model = Slow(WEIGHT)
    states = [weight.requires_grad for weight in model.parameters()]
    alone = gb.explain(model, IMAGES, [0, 1], layer="features")["grad_cam"]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: gb.explain(model, IMAGES, [0, 1], layer="features")["grad_cam"], range(8))
    assert all(torch.equal(one, alone) for one in found)
    assert [weight.requires_grad for weight in model.parameters()] == states


def test_boxes_by_hand() -> None:
    heatmap = torch.zeros(5, 6)
    heatmap[1:3, 1:4] = 1.0
    heatmap[4, 5] = 0.5
    assert gb.boxes(heatmap, 0.15).tolist() == [[1, 1, 4, 3]]
    assert sorted(gb.boxes(heatmap, 0.15, "components").tolist()) == [[1, 1, 4, 3], [5, 4, 6, 5]]
    assert gb.boxes(heatmap, 0.5, "components").tolist() == [[1, 1, 4, 3]]  # strict: 0.5 is not above 0.5
    assert gb.boxes(torch.zeros(5, 6)).tolist() == []
    assert gb.boxes(heatmap - 2).tolist() == []  # nowhere positive


def test_boxes_by_a_programs_own_thresholds() -> None:
    heatmap = torch.zeros(60, 80)
    heatmap[16:40, 8:48] = 1.0
    (box,) = gb.boxes(heatmap, rule="cam_2016_code").tolist()
    assert box == [8, 16, 49, 41]  # x + width and y + height count; the JPEG file's ringing stays below 20 of 255
    with pytest.raises(gb.UserError, match="did you mean 'cam_2016_code'"):
        gb.boxes(heatmap, rule="cam_2016")
    with pytest.raises(gb.UserError, match="cam_2016_code is 8-connected by definition"):
        gb.boxes(heatmap, rule="cam_2016_code", connectivity=4)


def test_score_under_a_preset_with_a_crop_clips_the_truth() -> None:
    """A map of 224 pixels shows the middle of the picture at a shorter side of 256."""
    heatmap = torch.zeros(1, 224, 224)
    heatmap[0, :112, :56] = 1.0
    truth = gb.annotate(boxes=[torch.tensor([[0.0, 0.0, 72.0, 128.0]])], sizes=[(256, 256)])
    rows = gb.score({"mine": heatmap}, truth, ["localization_error_gt_known"], preset="grad_cam_2017_crop")
    assert max(rows["curve"][0]) == 1.0


def test_score_by_hand() -> None:
    """The peak of `good` is inside the box, that of `bad` 20 pixels away, more than the tolerance of 15."""
    good, bad = torch.zeros(1, 40, 40), torch.zeros(1, 40, 40)
    good[0, 5, 5], bad[0, 5, 29] = 1.0, 1.0
    truth = gb.annotate(boxes=[torch.tensor([[0.0, 0.0, 10.0, 10.0]])], sizes=[(40, 40)])
    rows = gb.score({"good": good, "bad": bad}, truth, ["pointing_game", "energy_pointing_game"])
    table = rows.pivot_table(index="method", columns="metric", values="value")
    assert table.loc["good"].tolist() == [1.0, 1.0]
    assert table.loc["bad"].tolist() == [0.0, 0.0]
    assert set(rows["protocol"]) == {"default"}


def test_score_under_a_preset_warps_the_truth() -> None:
    """A map that is the box itself, at the preset's 224 pixels, localizes without error."""
    heatmap = torch.zeros(1, 224, 224)
    heatmap[0, :112, :56] = 1.0
    truth = gb.annotate(boxes=[torch.tensor([[0.0, 0.0, 10.0, 10.0]])], sizes=[(20, 40)])
    rows = gb.score({"mine": heatmap}, truth, ["localization_error_gt_known"], preset="grad_cam_2017")
    assert rows["value"].tolist() == [0.0]
    assert max(rows["curve"][0]) == 1.0


def test_a_case_without_truth_is_a_problem_not_a_hit() -> None:
    truth = gb.annotate(boxes=[torch.zeros(0, 4)], sizes=[(8, 8)])
    rows = gb.score({"mine": torch.ones(1, 8, 8)}, truth, ["pointing_game"])
    assert rows["problem"].tolist() == ["no box of the class"]
    assert rows["value"].isna().all()


OF_MAPS = [label for label in catalogue.names("metric") if catalogue.spec("metric", label).get("needs") == "maps"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("metric", OF_MAPS)
def test_one_value_that_is_not_finite_is_a_problem_not_a_number(metric: str, bad: float) -> None:
    """Of every score of maps: neither value nor curve, and the maps beside it are scored as without it."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 12, 12, generator=generator)
    broken = maps.clone()
    broken[0, 3, 4] = bad
    masks = [torch.zeros(12, 12, dtype=torch.bool) for _ in range(2)]
    for mask in masks:
        mask[2:7, 3:9] = True
    truth = gb.annotate(boxes=[torch.tensor([[3.0, 2.0, 9.0, 7.0]])] * 2, masks=masks)
    rows = gb.score({"grad_cam": broken, "edges": maps}, truth, [metric])
    alone = gb.score({"edges": maps}, truth, [metric])
    assert rows["case"].tolist() == [0, 0, 1, 1]
    assert rows["method"].tolist() == ["grad_cam", "edges"] * 2
    first = rows.iloc[0]
    assert first["problem"] == "heatmap not finite"
    assert pd.isna(first["value"])
    assert first["curve"] is None
    beside = rows[rows["method"] == "edges"].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside[["value", "curve"]], alone[["value", "curve"]], check_dtype=False)
    assert beside["problem"].fillna("").tolist() == alone["problem"].fillna("").tolist()
    assert rows.loc[2, "problem"] != "heatmap not finite"


def test_nothing_but_broken_maps() -> None:
    truth = gb.annotate(boxes=[torch.tensor([[0.0, 0.0, 4.0, 4.0]])], sizes=[(8, 8)])
    rows = gb.score({"mine": torch.full((1, 8, 8), torch.nan)}, truth, ["energy_pointing_game", "max_box_acc"])
    assert rows["problem"].tolist() == ["heatmap not finite"] * 2
    assert rows["value"].isna().all()
    assert rows["curve"].isna().all()


def test_score_and_annotate_name_what_does_not_fit() -> None:
    truth = gb.annotate(boxes=[torch.tensor([[0.0, 0.0, 4.0, 4.0]])], sizes=[(8, 8)])
    with pytest.raises(gb.UserError, match="2 maps of mine for 1 annotated cases"):
        gb.score({"mine": torch.ones(2, 8, 8)}, truth)
    with pytest.raises(gb.UserError, match="must have one entry a case"):
        gb.annotate(boxes=[torch.zeros(0, 4)], sizes=[(8, 8), (8, 8)])
    with pytest.raises(gb.UserError, match="give sizes"):
        gb.annotate(boxes=[torch.zeros(0, 4)])
    with pytest.raises(gb.UserError, match="covers no pixel"):
        gb.annotate(boxes=[torch.tensor([[9.0, 9.0, 12.0, 12.0]])], sizes=[(8, 8)])


BOX = torch.tensor([[0.0, 0.0, 4.0, 4.0]])


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: gb.annotate(boxes=BOX, sizes=[(8, 8)]), r"boxes\[0\] must be \[N,4\], half-open xyxy, got \[4\]"),
        (lambda: gb.annotate(boxes=[[[0, 0, 4]]], sizes=[(8, 8)]), r"boxes\[0\] must be \[N,4\], .* got \[1, 3\]"),
        (lambda: gb.annotate(boxes=["a"], sizes=[(8, 8)]), r"boxes\[0\] must be \[N,4\]"),
        (lambda: gb.annotate(boxes=[BOX], sizes=[8]), r"sizes\[0\] must be \(height, width\), .* got 8"),
        (lambda: gb.annotate(boxes=[BOX], sizes=[(0, 8)]), r"sizes\[0\] must be .* got \(0, 8\)"),
        (lambda: gb.annotate(masks=[torch.ones(4, 4)], sizes=[(8, 8)]), r"masks\[0\] is \[4, 4\], its image \[8, 8\]"),
        (lambda: gb.annotate(masks=[torch.ones(1, 4, 4)]), r"masks\[0\] must be \[H,W\], got \[1, 4, 4\]"),
        (lambda: gb.score(torch.ones(1, 4, 4), None), r"score takes heatmaps \{method: \[Q,h,w\]\}"),
        (
            lambda: gb.score({"m": torch.ones(1, 1, 4, 4)}, gb.annotate(boxes=[BOX], sizes=[(8, 8)])),
            r"m must be \[Q,h,w\]",
        ),
        (
            lambda: gb.score({}, gb.annotate(boxes=[BOX], sizes=[(8, 8)]), "pointing_game"),
            r"metrics=\['pointing_game'\]",
        ),
        (lambda: gb.boxes(torch.ones(4, 4).numpy()), r"must be a tensor \[\.\.\.,h,w\], got ndarray"),
        (lambda: gb.boxes(torch.ones(0, 0)), r"heatmaps must be \[\.\.\.,h,w\], got \[0, 0\]"),
        (lambda: gb.boxes(torch.ones(4, 4), "0.2"), r"threshold must lie in \[0, 1\], got 0.2"),
        (lambda: gb.rectify([[1.0]]), "got list"),
        (lambda: gb.normalize(torch.ones(4)), r"got \[4\]"),
        (lambda: gb.resize(torch.ones(4, 4), 8), r"size must be \(height, width\), whole numbers above 0, got 8"),
        (lambda: gb.resize(torch.ones(4, 4), (8.5, 8)), r"size must be .* got \(8.5, 8\)"),
        (lambda: gb.resize(torch.ones(4, 4).long(), (8, 8)), "resize takes maps of floats, got torch.int64"),
    ],
)
def test_what_is_of_the_wrong_kind_or_shape_is_named(ask: Callable[[], object], sentence: str) -> None:
    with pytest.raises(gb.UserError, match=sentence):
        ask()


def test_annotate_takes_lists_and_arrays() -> None:
    tensors = gb.annotate(boxes=[BOX], masks=[torch.eye(8)])
    others = gb.annotate(boxes=[BOX.int().tolist()], masks=[torch.eye(8).numpy()])
    assert torch.equal(tensors.annotations[0].boxes, others.annotations[0].boxes)
    assert torch.equal(tensors.annotations[0].masks, others.annotations[0].masks)


def test_steps_between() -> None:
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]]])
    assert gb.rectify(maps).min() == 0
    assert gb.normalize(maps).tolist() == [[[0.0, 0.25], [0.5, 1.0]]]
    assert torch.allclose(gb.normalize(maps, "max"), maps / 3)
    assert gb.resize(maps, (4, 6)).shape == (1, 4, 6)
