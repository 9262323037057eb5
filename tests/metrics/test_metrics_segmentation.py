"""Seeds as segmentations: by hand, against a plain confusion matrix over whole label maps, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_trials import drawn
from torch import Tensor

from gradcam_bench import catalogue
from gradcam_bench.analysis.reductions import Cell, ious, mean_iou, number, pooled
from gradcam_bench.choices import Protocol
from gradcam_bench.geometry import Frame, Size, warp
from gradcam_bench.metrics.segmentation import seed_miou, seed_miou_best
from gradcam_bench.regions import crf
from gradcam_bench.samples import annotation
from gradcam_bench.trial import Trial

SCORES = ("seed_miou", "seed_precision", "seed_recall", "seed_false_positives", "seed_false_negatives")
AXES_OF_BEST = catalogue.spec("metric", "seed_miou_best")["reads"]
AS_IT_IS = {"normalize": "none", "rectify": "none"}


def trial(maps, classes, masks, mask_labels, methods=None, ignore=None, frame: Frame | None = None, **protocol):
    size = tuple(masks.shape[1:])
    count = len(maps)
    truth = annotation(
        "cat",
        size,
        classes=sorted(set(classes)),
        masks=masks,
        mask_labels=torch.tensor(mask_labels, dtype=torch.int64),
        ignore=ignore,
    )
    return Trial(
        list(maps),
        ["none"] * count,
        classes,
        [None] * count,
        frame or warp(size, size),
        truth,
        Protocol({**AS_IT_IS, **protocol}),
        methods=methods or ["cam"] * count,
    )


def cell_of(trials: list[Trial], metric=seed_miou, method: str = "cam") -> Cell:
    """One method's scored units of several images, as a cell of the summary."""
    curves, classes, images = [], [], []
    for image, one in enumerate(trials):
        for unit, curve in enumerate(metric(one)[1]):
            if one.methods[unit] == method and not curve.isnan().any():
                curves.append(curve.numpy())
                classes.append(str(one.classes[unit]))
                images.append(image)
    return Cell(np.full(len(curves), np.nan), np.stack(curves), np.array(classes), np.array(images), {})


def counted(cell: Cell) -> np.ndarray:
    return pooled(cell)(np.ones((len(cell.curves), 1)))[..., 0]


def numbers(trials: list[Trial]) -> dict[str, float]:
    found = {}
    for label in SCORES:
        one = catalogue.metric(label, catalogue.spec("metric", label))
        cell = cell_of(trials, one.function)
        found[label] = number(cell, one.reduce)
    return found


CAT = drawn(
    "##..",
    "##..",
    "....",
)
DOG = drawn(
    ".77.",
    "...2",
    "1..9",
)


def two_classes(**protocol) -> Trial:
    masks = torch.zeros(2, 3, 4, dtype=torch.bool)
    masks[0, :2, :2] = True  # class 3 where its map is
    masks[1, :2, 2:] = True  # class 5 right of it
    ignore = torch.zeros(3, 4, dtype=torch.bool)
    ignore[2, 3] = True
    return trial([CAT, DOG], [3, 5], masks, [3, 5], ignore=ignore, **protocol)


def test_counts_by_hand() -> None:
    _, curve = seed_miou(two_classes())
    # Labels at .15:  3 3 5 0     truth:  3 3 5 5
    #                 3 3 0 5             3 3 5 5
    #                 0 0 0 5             0 0 0 .
    assert curve[0].tolist() == [4, 0, 0, 3, 2, 0]  # the cat, all right; background: 3 right, 2 wrong
    assert curve[1].tolist() == [2, 0, 2, 0, 0, 0]  # the dog's last pixel is ignored
    found = numbers([two_classes()])
    assert found["seed_miou"] == pytest.approx((3 / 5 + 4 / 4 + 2 / 4) / 3)
    assert found["seed_precision"] == pytest.approx((3 / 5 + 1 + 1) / 3)
    assert found["seed_recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["seed_false_positives"] == 0
    assert found["seed_false_negatives"] == pytest.approx((0 + 2 / 4) / 2)


def test_the_level_moves_the_counts() -> None:
    assert seed_miou(two_classes(background=0.2))[1][1].tolist() == [1, 0, 3, 0, 0, 0]  # .2 ties: background
    assert seed_miou(two_classes(background=0.05))[1][1].tolist() == [2, 1, 2, 0, 0, 0]  # .1 spills over


def test_all_levels_are_the_single_ones() -> None:
    levels = (0.0, 0.05, 0.1, 0.2, 0.7, 0.9, 1.0)
    _, swept = seed_miou_best(two_classes(background_levels=levels))
    by_level = swept.reshape(2, 6, len(levels))
    for place, level in enumerate(levels):
        assert torch.equal(by_level[:, :, place], seed_miou(two_classes(background=level))[1])


def pictures(seed: int, count: int = 4, sizes: tuple[Size, ...] = ((13, 17), (20, 11))):
    """Random maps with ties, masks of instances of four classes (no two overlap), ignored pixels, two methods."""
    rng = np.random.default_rng(seed)
    for image in range(count):
        size = sizes[image % len(sizes)]
        classes = sorted(rng.choice(4, size=1 + image % 3, replace=False).tolist())
        labels = rng.choice([0, 0, *(c + 1 for c in classes)], size=size)
        ignore = rng.random(size) < 0.1
        masks = [labels == c + 1 for c in classes if (labels == c + 1).any()]
        halves = [half for mask in masks for half in (mask & (rng.random(size) < 0.5), mask)]  # instances
        maps = [np.round(rng.random(size), 1).astype(np.float32) for _ in classes * 2]
        yield classes, labels, ignore, halves, maps


def as_trials(made, **protocol) -> list[Trial]:
    found = []
    for classes, labels, ignore, halves, maps in made:
        owners = [int(labels[half][0]) - 1 if half.any() else 0 for half in halves]
        found.append(
            trial(
                [torch.from_numpy(one) for one in maps],
                classes * 2,
                torch.from_numpy(np.stack(halves)),
                owners,
                ["cam"] * len(classes) + ["other"] * len(classes),
                torch.from_numpy(ignore),
                **protocol,
            )
        )
    return found


def confusion_of(made, level: float, offset: int = 0) -> np.ndarray:
    """[5,5] truth by prediction, over all pixels of all images: the padding, the argmax and the keys of eval_cam.py."""
    confusion = np.zeros((5, 5))
    for classes, labels, ignore, _, maps in made:
        mine = np.stack(maps[offset * len(classes) : (offset + 1) * len(classes)])
        padded = np.pad(mine, ((1, 0), (0, 0), (0, 0)), constant_values=level)
        predicted = np.array([0, *(c + 1 for c in classes)])[padded.argmax(0)]
        np.add.at(confusion, (labels[~ignore], predicted[~ignore]), 1)
    return confusion


def by_confusion(confusion: np.ndarray) -> dict[str, float]:
    true, predicted, hits = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    union = true + predicted - hits

    def mean(part, whole):
        return float(np.mean([a / b for a, b in zip(part, whole) if b]))

    return {
        "seed_miou": mean(hits, union),
        "seed_precision": mean(hits, predicted),
        "seed_recall": mean(hits, true),
        "seed_false_positives": mean((predicted - hits)[1:], union[1:]),
        "seed_false_negatives": mean((true - hits)[1:], union[1:]),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.0, 0.15, 0.3, 0.7])
def test_every_score_equals_a_plain_confusion_matrix(seed: int, level: float) -> None:
    made = list(pictures(seed))
    assert numbers(as_trials(made, background=level)) == pytest.approx(by_confusion(confusion_of(made, level)))


@pytest.mark.parametrize("seed", range(3))
def test_the_best_level_equals_sixty_confusion_matrices(seed: int) -> None:
    made = list(pictures(seed, 6))
    cell = cell_of(as_trials(made), seed_miou_best, "other")
    curve = mean_iou(counted(cell))
    expected = [by_confusion(confusion_of(made, level / 100, 1))["seed_miou"] for level in range(60)]
    np.testing.assert_allclose(curve, expected, rtol=1e-12)
    assert number(cell, "max_miou_pooled") == pytest.approx(max(expected), rel=1e-12)


def test_an_image_drawn_twice_counts_twice() -> None:
    made = list(pictures(3, 5))
    cell = cell_of(as_trials(made))
    times = np.array([2, 0, 1, 3, 0])
    whole = number(cell, "miou_pooled", times[cell.images])
    repeated = [made[n] for n, count in enumerate(times) for _ in range(count)]
    assert whole == pytest.approx(by_confusion(confusion_of(repeated, 0.15))["seed_miou"], rel=1e-12)


def test_iou_and_both_errors_add_up_to_one() -> None:
    cell = cell_of(as_trials(list(pictures(0))), seed_miou_best)
    counts = counted(cell)
    union = counts.sum(1)
    there = union > 0
    assert there.sum() > 100
    np.testing.assert_allclose((ious(counts) + (counts[:, 1] + counts[:, 2]) / union)[there], 1, rtol=1e-12)
    found = numbers(as_trials(list(pictures(0))))
    single = cell_of(as_trials(list(pictures(0))))
    objects = ious(counted(single))[1:].mean()
    assert objects + found["seed_false_positives"] + found["seed_false_negatives"] == pytest.approx(1)


def test_another_methods_maps_do_not_matter() -> None:
    both = as_trials(list(pictures(1, 1)))[0]
    count = len(both.classes) // 2
    alone = replace(
        both, grids=both.grids[:count], paper=both.paper[:count], classes=both.classes[:count], methods=["cam"] * count,
        ranks=both.ranks[:count], cache={},
    )  # fmt: skip
    assert torch.equal(seed_miou(both)[1][:count], seed_miou(alone)[1])


def test_the_order_of_units_does_not_matter() -> None:
    given = as_trials(list(pictures(2, 3)))[2]
    order = list(range(len(given)))[::-1]
    turned = replace(given, cache={}, **{n: [getattr(given, n)[i] for i in order] for n in
                                         ("grids", "paper", "classes", "ranks", "methods")})  # fmt: skip
    assert torch.equal(seed_miou(turned)[1], seed_miou(given)[1][order])


def test_a_class_whose_map_is_missing_leaves_the_image_unscored() -> None:
    given = two_classes()
    both = replace(
        given, grids=[*given.grids, CAT], paper=["none"] * 3, classes=[3, 5, 3], ranks=[None] * 3,
        methods=["cam", "cam", "broken"],
    )  # fmt: skip
    _, curve = seed_miou(both)
    assert curve[2].isnan().all()
    assert not curve[:2].isnan().any()
    assert both.notes == {2: "heatmap of another class of the image not finite"}


def test_without_masks_nothing_is_scored() -> None:
    given = two_classes()
    bare = replace(given, annotation=annotation("cat", (3, 4), [(3, (0, 0, 2, 2), False)], classes=[3, 5]))
    assert seed_miou(bare)[1].isnan().all()
    assert bare.notes == dict.fromkeys((0, 1), "no masks of the image")


def test_a_class_without_a_pixel_is_scored_by_its_mistakes() -> None:
    masks = torch.zeros(1, 3, 4, dtype=torch.bool)
    masks[0, :2, :2] = True
    made = trial([CAT, DOG], [3, 5], masks, [3])
    assert seed_miou(made)[1][1].tolist() == [0, 3, 0, 0, 0, 0]
    empty = trial([CAT * 0, DOG * 0], [3, 5], masks[:0], [])
    assert seed_miou(empty)[1][0].tolist() == [0, 0, 0, 12, 0, 0]
    assert numbers([empty])["seed_miou"] == 1  # background alone: the classes are neither there nor predicted
    assert np.isnan(numbers([empty])["seed_false_positives"])


def test_pixels_that_two_classes_claim_do_not_count() -> None:
    masks = torch.zeros(3, 3, 4, dtype=torch.bool)
    masks[0, :2, :2] = masks[1, 0, 1:] = masks[2, 0, 0] = True  # 3, 5, and an instance of 3 within the other
    _, curve = seed_miou(trial([CAT, DOG], [3, 5], masks, [3, 5, 3]))
    assert curve[0, :3].tolist() == [3, 0, 0]
    assert curve[1, :3].tolist() == [1, 2, 1]


def test_one_pixel_the_whole_image_and_constant_maps() -> None:
    whole = torch.ones(1, 2, 2, dtype=torch.bool)
    assert seed_miou(trial([torch.ones(2, 2)], [0], whole, [0]))[1].tolist() == [[4, 0, 0, 0, 0, 0]]
    flat = trial([torch.ones(2, 2)], [0], whole, [0], normalize="minmax")  # constant: zeros, all background
    assert seed_miou(flat)[1].tolist() == [[0, 0, 4, 0, 4, 0]]
    assert seed_miou(trial([torch.ones(1, 1)], [0], whole[:, :1, :1], [0]))[1].tolist() == [[1, 0, 0, 0, 0, 0]]


def test_units_without_a_method_stand_alone() -> None:
    given = replace(two_classes(), methods=None)
    _, curve = seed_miou(given)
    # The dog alone takes a pixel of the cat too; to its background belong the three true ones and five that are not.
    assert curve[1].tolist() == [2, 1, 2, 3, 5, 0]


def test_in_the_input_frame_the_truth_is_what_the_crop_shows() -> None:
    frame = Frame((4, 6), (4, 4), (1.0, 1.0), (0.0, 1.0))  # columns 1..4
    masks = torch.zeros(1, 4, 6, dtype=torch.bool)
    masks[0, :, :3] = True
    heat = torch.zeros(4, 4)
    heat[:, :2] = 1.0
    seen = trial([heat], [0], masks, [0], frame=frame)
    assert seed_miou(replace(seen, protocol=Protocol({**AS_IT_IS, "frame": "input"})))[1].tolist() == [
        [8, 0, 0, 8, 0, 0]
    ]
    assert seed_miou(seen)[1].tolist() == [[8, 0, 4, 12, 4, 0]]  # in the source, column 0 was never seen


def two_colours() -> tuple[Trial, Tensor]:
    """A disc of one colour on another, under a soft map that is too wide; its mask."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(60), indexing="ij")
    distance = ((rows - 22.0) ** 2 + (columns - 30.0) ** 2).sqrt()
    disc = distance < 12
    picture = torch.where(disc, 200, 40).to(torch.uint8).expand(3, -1, -1)
    made = trial([torch.exp(-(((distance + 3) / 16) ** 2))], [3], disc[None], [3], normalize="max")
    return replace(made, picture=picture), disc


def test_a_random_field_raises_the_seeds_of_a_clean_picture() -> None:
    made, disc = two_colours()
    without = number(cell_of([made.under(Protocol({**AS_IT_IS, "normalize": "max"}))]), "miou_pooled")
    field = made.under(Protocol({**AS_IT_IS, "normalize": "max", "crf": 4}))
    drawn = number(cell_of([field]), "miou_pooled")
    assert drawn > 0.97 > 0.8 > without
    labels = crf.mean_field(crf.with_background(made.maps, 4), made.picture).argmax(0) > 0
    both, either = (labels & disc).sum(), (labels | disc).sum()
    outside = (~labels & ~disc).sum() / (~labels | ~disc).sum()
    assert drawn == pytest.approx(float((both / either + outside) / 2), rel=1e-6)


def test_a_random_field_in_the_inputs_frame_sees_what_the_crop_shows() -> None:
    made, _ = two_colours()
    frame = Frame((48, 60), (40, 50), (1.0, 1.0), (5.0, 4.0))
    cropped = replace(made, frame=frame, grids=[made.grids[0][4:44, 5:55]], cache={})
    axes = {**AS_IT_IS, "normalize": "max", "crf": 4, "frame": "input"}
    assert number(cell_of([cropped.under(Protocol(axes))]), "miou_pooled") > 0.97


def test_without_the_picture_there_is_no_random_field() -> None:
    made = replace(two_colours()[0], picture=None).under(Protocol({"crf": 4}))
    assert seed_miou(made)[1].isnan().all()
    assert made.notes == {0: "no picture of the image, which a random field looks at"}
    assert not seed_miou_best(made.under(Protocol({"crf": 4}).only([*AXES_OF_BEST])))[1].isnan().any()


def test_max_epsilon_divides_by_a_little_more() -> None:
    weak = torch.full((1, 4), 2e-6)
    weak[0, 0] = 1e-5
    masks = torch.ones(1, 1, 4, dtype=torch.bool)
    for how, right in (("max", 4), ("max_epsilon", 1)):  # .2 of the maximum, or a tenth of twice as much
        assert seed_miou(trial([weak], [0], masks, [0], normalize=how))[1][0, 0] == right


def test_secs_cues_are_scored_with_what_they_leave_open() -> None:
    heat = torch.zeros(41, 41)
    heat[:20] = 1.0
    heat[20:] = -torch.arange(21 * 41).reshape(21, 41) / 861
    masks = torch.zeros(1, 41, 41, dtype=torch.bool)
    masks[0, :10] = True
    made = trial([heat], [0], masks, [0], seed_rule="sec", background=0.2)
    curve = seed_miou(made)[1][0]
    assert curve[:3].tolist() == [10 * 41, 10 * 41, 0]
    assert curve[3] + curve[5] == 31 * 41
    assert 100 < curve[3] <= 168  # a tenth of 1681, less what the median evens out
    assert curve[4] == 0
    large = trial([heat.repeat_interleave(2, 0).repeat_interleave(2, 1)], [0], masks.repeat_interleave(2, 1)
                  .repeat_interleave(2, 2), [0], seed_rule="sec", background=0.2)  # fmt: skip
    assert seed_miou(large)[1][0].tolist() == (4 * curve).tolist()
