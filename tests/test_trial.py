"""What a metric is given: maps prepared in the order asked for, in the frame asked for; truth as the protocol says."""

from dataclasses import replace

import torch
from torch import Tensor

from gradcam_bench import heatmaps
from gradcam_bench.axes import AXES
from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame, warp
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

GRID = torch.tensor([[-1.0, 0.0], [1.0, 3.0]])
CROP = Frame((6, 10), (4, 4), (1.0, 1.0), (1.0, 3.0))  # the middle 4 x 4 of a picture 6 high, 10 wide


def trial(grids: list[Tensor], frame: Frame, objects=(), paper="relu", protocol=None, classes=None, **masks) -> Trial:
    truth = annotation("cat", frame.source, objects, **masks)
    asked = classes or [0] * len(grids)
    return Trial(grids, [paper] * len(grids), asked, [0] * len(grids), frame, truth, Protocol(protocol or {}))


def test_rectify_follows_the_method_unless_the_protocol_says_otherwise() -> None:
    made = Trial(
        [GRID, GRID], ["relu", "none"], [0, 0], [0, 0], warp((2, 2), (2, 2)), annotation("a", (2, 2)), Protocol()
    )
    assert [float(grid.min()) for grid in made.rectified] == [0, -1]
    for how, lowest in (("relu", 0), ("none", -1), ("abs", 0)):
        assert [float(g.min()) for g in made.under(Protocol({"rectify": how})).rectified] == [lowest] * 2
    assert made.under(Protocol({"rectify": "abs"})).rectified[0].tolist() == [[1, 0], [1, 3]]


def test_maps_by_hand() -> None:
    same = warp((2, 2), (2, 2))
    assert trial([GRID], same).maps[0].tolist() == [[0, 0], [torch.tensor(1 / 3).item(), 1]]
    assert trial([GRID], same, paper="none").maps[0].tolist() == [[0, 0.25], [0.5, 1]]
    assert trial([GRID], same, paper="none", protocol={"normalize": "max"}).maps[0, 0, 0] == torch.tensor(-1 / 3)
    assert trial([GRID], same).levels[0].tolist() == [[0, 0], [85, 255]]
    assert trial([GRID], same, protocol={"quantize": "percent"}).levels[0].tolist() == [[0, 0], [34, 100]]


def test_maps_of_different_grids_come_out_as_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    grids = [torch.randn(size, generator=generator) for size in ((7, 7), (3, 5), (7, 7), (12, 9), (24, 30))]
    frame = warp((24, 30), (20, 20))
    for protocol in ({}, {"frame": "input", "order": "normalize_first"}):
        together = trial(grids, frame, protocol=protocol).maps
        assert torch.equal(together, torch.cat([trial([grid], frame, protocol=protocol).maps for grid in grids]))


def test_the_order_of_resizing_and_normalising() -> None:
    frame = warp((8, 8), (8, 8))
    first, last = (
        trial([GRID], frame, protocol={"order": order, "resize": "cubic_cv2"})
        for order in ("resize_first", "normalize_first")
    )
    assert float(first.maps.max()) == 1
    assert float(last.maps.max()) > 1.01  # the cubic kernel overshoots what is normalised already
    expected = heatmaps.resize(heatmaps.normalize(torch.relu(GRID), "minmax"), (8, 8), "cubic_cv2")
    torch.testing.assert_close(last.maps[0], expected)
    assert torch.equal(last.levels[0], heatmaps.quantize(expected, "uint8"))
    # A linear map commutes with a resize that neither overshoots nor misses the extremes.
    plain = [
        trial([GRID], frame, protocol={"order": o, "resize": "nearest"}).maps
        for o in ("resize_first", "normalize_first")
    ]
    torch.testing.assert_close(*plain)


def test_in_the_source_frame_what_the_crop_cut_off_holds_the_minimum() -> None:
    grid = torch.tensor([[2.0, 3.0], [4.0, 6.0]])
    made = trial([grid, -grid], CROP, paper="none", protocol={"resize": "nearest"})
    expected = torch.zeros(6, 10)
    expected[1:5, 3:7] = torch.tensor([[0, 0.25], [0.5, 1]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(made.maps[0], expected)
    assert made.size == (6, 10)
    outside = torch.ones(6, 10, dtype=torch.bool)
    outside[1:5, 3:7] = False
    assert (made.maps[:, outside] == 0).all()
    raw = trial([grid], CROP, paper="none", protocol={"resize": "nearest", "normalize": "none"})
    assert raw.maps[0][outside].unique().tolist() == [2]
    seen = made.under(Protocol({"frame": "input", "resize": "nearest"}))
    assert seen.size == (4, 4)
    torch.testing.assert_close(seen.maps[0], expected[1:5, 3:7])


def test_a_crop_of_a_resized_picture_is_put_back_to_scale() -> None:
    frame = Frame((60, 100), (40, 40), (0.8, 0.8), (4.0, 20.0))  # to 48 x 80, the middle 40 x 40: 50 x 50 of the source
    made = trial([torch.tensor([[0.0, 1.0]])], frame, paper="none", protocol={"resize": "nearest"})
    assert frame.window() == (25, 5, 75, 55)
    assert made.maps[0].nonzero().amin(0).tolist() == [5, 50]
    assert made.maps[0].nonzero().amax(0).tolist() == [54, 74]


def test_a_cache_filled_by_every_protocol_changes_no_result() -> None:
    generator = torch.Generator().manual_seed(0)
    grids = [torch.randn(3, 3, generator=generator) for _ in range(2)]
    objects = [(0, (4, 1, 9, 5), True), (0, (0, 0, 2, 2), False)]
    masks = {"masks": torch.rand(1, 6, 10, generator=generator) > 0.5, "mask_labels": torch.tensor([0])}
    shared = trial(grids, CROP, objects, **masks)
    protocols = [
        Protocol({name: value})
        for name, axis in AXES.items()
        for value in (axis.valid if axis.kind == "name" else axis.valid[:1])
    ]
    for _ in range(2):
        for protocol in protocols:
            fresh, seen = trial(grids, CROP, objects, **masks).under(protocol), shared.under(protocol)
            assert torch.equal(seen.maps, fresh.maps)
            assert torch.equal(seen.levels, fresh.levels)
            assert torch.equal(seen.region(1), fresh.region(1))
            assert torch.equal(seen.boxes(0), fresh.boxes(0))
            assert seen.hard(0) == fresh.hard(0)
            assert seen.notes == fresh.notes
    for protocol in protocols:
        assert dict(shared.under(protocol).protocol) == dict(protocol)


OBJECTS = [(1, (0, 0, 2, 2), True), (0, (4, 1, 6, 3), False), (1, (5, 4, 7, 6), False)]


def test_boxes_of_the_class_all_or_the_first() -> None:
    made = trial([GRID] * 3, CROP, OBJECTS, classes=[1, 0, 2])
    assert made.boxes(0).tolist() == [[0, 0, 2, 2], [5, 4, 7, 6]]
    assert made.boxes(1).tolist() == [[4, 1, 6, 3]]
    assert made.notes == {}
    assert made.boxes(2).shape == (0, 4)
    assert made.notes == {2: "no box of the class"}
    assert made.under(Protocol({"matching": "first"})).boxes(0).tolist() == [[0, 0, 2, 2]]


def test_a_case_is_hard_where_every_object_of_its_class_is_difficult() -> None:
    objects = [(0, (0, 0, 2, 2), True), (1, (0, 0, 2, 2), True), (1, (0, 0, 3, 2), False), (0, (3, 3, 5, 5), True)]
    made = trial([GRID] * 3, CROP, objects, classes=[0, 1, 2])
    assert [made.hard(unit) for unit in range(3)] == [True, False, False]
    assert made.notes == {0: "difficult"}
    kept = made.under(Protocol({"difficult": "keep"}))
    assert [kept.hard(unit) for unit in range(3)] == [False] * 3


def test_the_difficult_subset_is_small_objects_beside_another_class() -> None:
    """An image of 6 x 10: a quarter of it is 15 pixels."""
    subset = {"cases": "ebp_difficult"}
    objects = [(0, (0, 0, 4, 3), False), (0, (5, 1, 6, 3), True), (1, (0, 0, 5, 3), False), (2, (0, 0, 5, 2), False)]
    objects += [(2, (0, 0, 2, 2), False)]
    made = trial([GRID] * 3, CROP, objects, protocol=subset, classes=[0, 1, 2])
    assert [made.easy(unit) for unit in range(3)] == [False, True, False]  # 14, 15 and 10 + 4 = 14 pixels
    assert made.notes == {1: "not in the difficult subset of Zhang et al. 2016"}
    whole = made.under(Protocol())
    assert [whole.easy(unit) for unit in range(3)] == [False] * 3
    alone = trial([GRID], CROP, objects[:2], protocol=subset)
    assert alone.easy(0)  # no other class
    masks = torch.zeros(3, 6, 10, dtype=torch.bool)
    masks[0, :2, :7], masks[1, 4, :], masks[2, 5, :5] = True, True, True
    truth = {"masks": masks, "mask_labels": torch.tensor([0, 1, 1])}
    made = trial([GRID] * 2, CROP, objects[:3], protocol={**subset, "region": "mask"}, classes=[0, 1], **truth)
    assert [made.easy(unit) for unit in range(2)] == [False, True]  # masks of 14 and of 10 + 5 pixels


def test_a_map_brought_to_8_bits_first_is_resized_in_whole_levels() -> None:
    grid = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    axes = {"order": "quantize_first", "normalize": "max"}
    made = trial([grid], warp((4, 4), (4, 4)), paper="none", protocol=axes)
    # 85 a step: PyTorch's bilinear weights are quarters, rounded to whole levels
    assert made.levels[0, 0].tolist() == [0, 21, 64, 85]
    assert made.levels[0, 3].tolist() == [170, 191, 234, 255]
    assert torch.equal(made.maps * 255, made.levels.float())


def test_regions_of_boxes() -> None:
    made = trial([GRID] * 2, CROP, OBJECTS, classes=[1, 2])
    expected = torch.zeros(6, 10, dtype=torch.bool)
    expected[0:2, 0:2] = expected[4:6, 5:7] = True
    assert torch.equal(made.region(0), expected)
    assert made.region(1) is None
    assert made.notes == {1: "no box of the class"}
    seen = made.under(Protocol({"frame": "input"}))
    assert torch.equal(seen.region(0), expected[1:5, 3:7])


def test_regions_of_masks_join_the_instances() -> None:
    masks = torch.zeros(3, 6, 10, dtype=torch.bool)
    masks[0, 1, 3], masks[1, 2, 4], masks[2, 3, 5] = True, True, True
    truth = {"masks": masks, "mask_labels": torch.tensor([1, 0, 1])}
    made = trial([GRID] * 2, CROP, OBJECTS, protocol={"region": "mask"}, classes=[1, 2], **truth)
    assert torch.equal(made.region(0), masks[0] | masks[2])
    assert made.region(1) is None
    assert made.notes == {1: "no mask of the class"}
    seen = made.under(Protocol({"region": "mask", "frame": "input"}))
    assert seen.region(0).nonzero().tolist() == [[0, 0], [2, 2]]
    without = trial([GRID], CROP, OBJECTS, protocol={"region": "mask"})
    assert without.region(0) is None


def test_an_object_without_a_pixel_in_the_frame_is_no_truth() -> None:
    outside = trial([GRID], CROP, [(0, (0, 0, 2, 6), False)], protocol={"frame": "input"})
    assert outside.region(0) is None
    assert outside.notes == {0: "the object covers no pixel of the frame"}
    empty = {"masks": torch.zeros(1, 6, 10, dtype=torch.bool), "mask_labels": torch.tensor([0])}
    made = trial([GRID] * 2, CROP, protocol={"region": "mask"}, **empty)
    assert made.region(0) is None
    assert made.region(1) is None
    assert set(made.notes) == {0, 1}


def test_maps_in_the_input_frame_whatever_the_frame() -> None:
    source, inside = (trial([GRID, 2 * GRID], CROP, protocol={"frame": frame}) for frame in ("source", "input"))
    assert source.maps.shape == (2, 6, 10)
    assert source.in_input.shape == (2, 4, 4)
    assert torch.equal(source.in_input, inside.maps)
    assert inside.in_input is inside.maps
    only = source.under(Protocol().only(["rectify", "normalize", "resize", "order"]))
    assert only.in_input is source.in_input


def test_smoothing_is_of_the_resized_map_before_it_is_normalised() -> None:
    """All maps, or those of TorchRay's three; within what the network saw of the picture; none unless declared."""
    grids = [torch.rand(4, 4, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    made = replace(trial(grids, CROP), methods=["grad_cam", "saliency"])

    def seen(**axes: object) -> Tensor:
        return made.under(Protocol({"normalize": "none", "smooth": 0.25} | axes)).maps

    rough = made.under(Protocol({"normalize": "none"})).maps
    inside = (slice(1, 5), slice(3, 7))
    blurred = torch.stack([heatmaps.smooth(grid, 0.25) for grid in grids])  # 0.25 of 4 pixels
    for n, one in enumerate(seen()):
        torch.testing.assert_close(one[inside], blurred[n])
        assert torch.equal(one[0], one.min().expand(10))  # what the crop cut off holds the smoothed map's minimum
    chosen = seen(smooth_maps="gradients")
    assert torch.equal(chosen[0], rough[0])
    assert torch.equal(chosen[1], seen()[1])
    normal = seen(normalize="max")
    assert normal.amax((1, 2)).tolist() == [1, 1]
    torch.testing.assert_close(normal[1][inside], blurred[1] / blurred[1].max())
    first = seen(normalize="max", order="normalize_first")[1]
    torch.testing.assert_close(first[inside], heatmaps.smooth(grids[1] / grids[1].max(), 0.25))
    silent = made.under(
        Protocol({"normalize": "none", "smooth": 0.25}).only(["rectify", "normalize", "resize", "order"])
    )
    assert torch.equal(silent.in_input, torch.stack(grids))


def test_some_units_of_a_trial_keep_their_methods() -> None:
    made = replace(trial([GRID, GRID + 1, GRID + 2], warp((2, 2), (2, 2))), methods=["a", "b", "c"])
    assert made.only([2, 0]).methods == ["c", "a"]
    assert made.only([2, 0]).grids[0] is made.grids[2]


def test_heatmaps_of_changed_inputs_are_prepared_as_their_units_were() -> None:
    made = Trial(
        [GRID, GRID], ["relu", "none"], [0, 0], [0, 0], warp((2, 2), (2, 2)), annotation("a", (2, 2)), Protocol()
    )
    found = made.again([GRID, GRID, 5 * GRID], [1, 0, 0])
    assert torch.equal(found, made.in_input[[1, 0, 0]])
