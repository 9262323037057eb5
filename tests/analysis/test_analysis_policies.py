"""Policies of thresholds by hand, and against loops that try every threshold on every fold."""

import numpy as np
import pandas as pd
import pytest

from gradcam_bench.analysis.policies import COLUMNS, best, judged, policies, shares
from gradcam_bench.analysis.reductions import Cell, number
from gradcam_bench.cells import Rows

LEVELS = 256


def cell(table, classes=None, images=None, **axes) -> Cell:
    table = np.asarray(table, np.float32)
    count = len(table)
    return Cell(
        np.full(count, np.nan),
        table,
        np.array(classes if classes is not None else ["0"] * count),
        np.array(images if images is not None else [f"{n:03d}" for n in range(count)]),
        axes,
    )


#                two images like low thresholds, one a high one, one any
BY_HAND = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]]


def test_policies_by_hand() -> None:
    made = cell(BY_HAND)
    found = judged(made.curves.astype(float), made, "mean", 2, None, folds=4, seed=0)
    assert found["fixed"] == (2, 0.25)
    assert found["oracle"] == (0, 0.75)  # of levels 0 and 1 the lowest
    assert found["image_oracle"][1] == 1
    # each image alone: the others choose level 0 for all, save for the first two, of whom the other then shares the
    # best place with the third: at 0 two of three, at 3 two of three; the lowest is taken
    assert found["cross_fitted"] == (0, 0.75)


def test_a_threshold_that_only_one_image_likes_is_not_worth_on_it_what_the_oracle_says() -> None:
    """Each of four images is right at a level of its own: the oracle has 1/4, a threshold from the others nothing."""
    made = cell(np.eye(4))
    found = judged(np.eye(4), made, "mean", 0, None, folds=4, seed=0)
    assert found["oracle"] == (0, 0.25)
    assert found["cross_fitted"][1] == 0
    assert found["image_oracle"][1] == 1


def test_the_validation_split_chooses() -> None:
    made, other = cell(BY_HAND), cell([[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = judged(made.curves.astype(float), made, "mean", 0, (other.curves.astype(float), other), 4, 0)
    assert found["validation"] == (3, 0.5)


def test_images_are_held_out_whole_and_have_one_threshold_of_their_own() -> None:
    """Two cases of image a want different levels: its own best threshold satisfies one of them."""
    made = cell([[1, 0], [0, 1], [0, 1]], images=["a", "a", "b"])
    found = judged(made.curves.astype(float), made, "mean", 0, None, folds=2, seed=0)
    assert found["image_oracle"][1] == pytest.approx(2 / 3)
    # b is judged at a's best (both equal: the lowest, 0), a at b's (1): one of two cases right
    assert found["cross_fitted"][1] == pytest.approx(1 / 3)


def test_one_image_cannot_be_cross_fitted() -> None:
    made = cell([[1, 0]])
    assert "cross_fitted" not in judged(made.curves.astype(float), made, "mean", 0, None, 5, 0)


def test_class_means_weigh_classes_alike() -> None:
    weights = shares(np.array(["a", "a", "a", "b"]), "class_mean", np.array([True, True, False, True]))
    assert weights.tolist() == [0.25, 0.25, 0, 0.5]
    assert best(np.array([[1, 0], [1, 0], [1, 0], [0, 1]]), weights) == 0
    made = cell(np.random.default_rng(0).random((20, 5)), np.random.default_rng(1).integers(0, 4, 20).astype(str))
    for column in range(5):
        plain = Cell(made.curves[:, column].astype(float), None, made.classes, made.images, {})
        once = np.ones(20, bool)
        for reduce in ("mean", "class_mean"):
            assert shares(made.classes, reduce, once) @ plain.values == pytest.approx(number(plain, reduce), abs=1e-6)


def slow(table, classes, images, reduce, folds, seed):
    """Cross-fitting and both oracles, by trying every level on every fold and image."""

    def value(level, chosen):
        part = [n for n in range(len(table)) if chosen[n]]
        if reduce == "mean":
            return sum(table[n][level] for n in part) / len(part)
        by_class = {c: [table[n][level] for n in part if classes[n] == c] for c in {classes[n] for n in part}}
        return sum(sum(v) / len(v) for v in by_class.values()) / len(by_class)

    def weight(n):
        if reduce == "mean":
            return 1 / len(table)
        return 1 / len(set(classes)) / list(classes).count(classes[n])

    names = sorted(set(images))
    turn = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % folds))
    crossed, own = 0.0, 0.0
    for fold in range(folds):
        others = [turn[image] != fold for image in images]
        scores = [round(value(level, others), 12) for level in range(len(table[0]))]
        chosen = scores.index(max(scores))
        crossed += sum(weight(n) * table[n][chosen] for n in range(len(table)) if not others[n])
    for image in names:
        mine = [n for n in range(len(table)) if images[n] == image]
        own += max(sum(weight(n) * table[n][level] for n in mine) for level in range(len(table[0])))
    whole = max(value(level, [True] * len(table)) for level in range(len(table[0])))
    return crossed, whole, own


@pytest.mark.parametrize("reduce", ["mean", "class_mean"])
@pytest.mark.parametrize("seed", range(3))
def test_policies_equal_the_slow_way(reduce: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, classes = rng.integers(0, 2, (40, 12)), rng.integers(0, 4, 40).astype(str)
    images = np.array([f"i{n:02d}" for n in rng.integers(0, 25, 40)])
    made = cell(table, classes, images)
    found = judged(table.astype(float), made, reduce, 0, None, folds=5, seed=seed)
    expected = slow(table.tolist(), classes, images, reduce, 5, seed)
    assert [found[p][1] for p in ("cross_fitted", "oracle", "image_oracle")] == pytest.approx(expected)
    assert found["cross_fitted"][1] <= found["oracle"][1] + 1e-12 or reduce == "class_mean"
    assert found["oracle"][1] <= found["image_oracle"][1] + 1e-12


def row(image, curve, metric="max_box_acc", protocol="p", problem=None, **other):
    made = {"image_id": image, "case_id": f"{image}#0", "dataset": "d", "model": "m", "stage": "trained"}
    made |= {"method": "cam", "metric": metric, "protocol": protocol, "value": None, "problem": problem, "view": "v"}
    curve = None if curve is None else np.pad(np.float32(curve), (0, LEVELS - len(curve)))
    return made | {"curve": curve} | other


def card(levels, reduce="mean_of_max", better=True, **axes):
    axes = {"quantize": "uint8", "iou_threshold": (0.5,)} | axes
    made = {"axes": axes, "reduce": reduce, "higher_is_better": better}
    return made | ({"levels": levels} if levels else {})


def test_the_table() -> None:
    curves = [[0.6, 0.4, 0.8], [0.2, 0.6, 0.8], [0.6, 0.6, 0.1]]
    cards = {
        "max_box_acc": {"p": card("iou", iou_threshold=(0.5, 0.7))},
        "localization_error": {"q": card("iou", "mean", False, threshold=1 / 255)},
        "grad_cam_pp_loc": {"q": card("value", "mean", True, threshold=0.0)},
        "pixel_ap": {"p": card(None)},
    }
    rows = [row(str(n), curve) for n, curve in enumerate(curves)]
    rows += [row(str(n), curve, "localization_error", "q", value=0.0) for n, curve in enumerate(curves)]
    rows += [row(str(n), curve, "grad_cam_pp_loc", "q", value=0.5) for n, curve in enumerate(curves)]
    rows += [row("9", None, problem="no box"), row("8", [1, 2], "pixel_ap")]
    made = policies(Rows.of(pd.DataFrame(rows)), cards, folds=3)
    assert list(made.columns) == COLUMNS
    assert set(made["metric"]) == set(cards) - {"pixel_ap"}
    assert (made["n"] == 3).all()
    of = made.set_index(["metric", "iou", "policy"])
    by_iou = of.loc["max_box_acc"]["value"]
    assert by_iou[0.5, "oracle"] == pytest.approx(2 / 3)
    assert by_iou[0.7, "oracle"] == pytest.approx(2 / 3)
    mean = made[(made["metric"] == "max_box_acc") & made["iou"].isna()].set_index("policy")
    assert mean.loc["oracle", "value"] == pytest.approx(2 / 3)  # what mean_of_max reduces to
    assert mean["threshold"].isna().all()
    assert of.loc[("max_box_acc", 0.7, "oracle"), "threshold"] == pytest.approx(2 / 255)
    error = made[made["metric"] == "localization_error"].set_index("policy")
    assert error.loc["fixed", "value"] == pytest.approx(1 / 3)  # at level 1 two of three are right
    assert error.loc["oracle", "value"] == pytest.approx(1 / 3)
    assert error.loc["image_oracle", "value"] == 0
    loc = made[made["metric"] == "grad_cam_pp_loc"].set_index("policy")
    assert loc.loc["oracle", "value"] == pytest.approx((0.8 + 0.8 + 0.1) / 3)
    assert loc.loc["fixed", "value"] == pytest.approx((0.6 + 0.2 + 0.6) / 3)
    assert made.set_index("policy")["leak"].to_dict() == {
        "fixed": False, "cross_fitted": False, "oracle": True, "image_oracle": True
    }  # fmt: skip


def test_a_validation_run_chooses_for_the_same_method_metric_and_protocol_only() -> None:
    cards = {"max_box_acc": {"p": card("iou")}}
    rows = Rows.of(pd.DataFrame([row("a", [0.9, 0.1]), row("b", [0.9, 0.1])]))
    other = pd.DataFrame([row("x", [0.1, 0.9], dataset="val")])
    made = policies(rows, cards, (Rows.of(other), cards)).set_index("policy")
    assert made.loc["validation", ["threshold", "value"]].tolist() == [1 / 255, 0]
    assert not made.loc["validation", "leak"]
    unlike = policies(rows, cards, (Rows.of(other.assign(method="grad_cam")), cards))
    assert "validation" not in set(unlike["policy"])
