"""Choices: what is refused and how, which choice changes a protocol's id, and a table of ids that may only grow."""

from dataclasses import asdict

import pytest

from gradcam_bench.axes import AXES, check_axis
from gradcam_bench.catalogue import metric, names, preset, spec
from gradcam_bench.choices import Protocol, View, digest, protocol_id, view_changes
from gradcam_bench.errors import UserError, unknown


def id_of(of_preset: str, of_metric: str, view: dict | None = None, protocol: dict | None = None) -> str:
    made, reads = preset(of_preset, spec("preset", of_preset)), metric(of_metric, spec("metric", of_metric)).reads
    intended = View().but(**made.view), Protocol(made.protocol).only(reads)
    actual = intended[0].but(**(view or {})), Protocol({**made.protocol, **(protocol or {})}).only(reads)
    return protocol_id(made.name, intended, actual)


# What has once been printed means the same for ever: lines may be added to these two tables, never changed.
DEFAULTS = {
    "rectify": "paper",
    "normalize": "minmax",
    "resize": "bilinear",
    "order": "resize_first",
    "smooth": 0.0,
    "smooth_maps": "all",
    "frame": "source",
    "quantize": "uint8",
    "threshold": 0.15,
    "rule": "largest_component",
    "connectivity": 8,
    "iou": "half_open",
    "iou_threshold": (0.5,),
    "matching": "any",
    "region": "box",
    "tolerance": 15.0,
    "ties": "first",
    "difficult": "skip",
    "cases": "all",
    "rejection": 0.0,
    "similarity_map": "minmax",
    "similarity_ssim": "wang_2004",
    "similarity_top": 0.1,
    "similarity_bins": 100.0,
    "answer": "probability",
    "fill": "mean",
    "fill_insertion": "blur",
    "perturb_keep": 1.0,
    "perturb_steps": 100,
    "perturb_area": "trapezoid",
    "perturb_shares": (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    "perturb_noise": 0.01,
    "perturb_grid": 14,
    "perturb_patch": 45 / 224,
    "perturb_draw": "square",
    "perturb_samples": 64,
    "perturb_side": 0.25,
    "perturb_sigma": 0.2,
    "perturb_scale": "optimal",
    "perturb_nearby": 10,
    "perturb_radius": 0.02,
    "seed_rule": "argmax",
    "background": 0.15,
    "crf": 0.0,
    "background_levels": tuple(level / 100 for level in range(60)),
}
VIEW_DEFAULTS = {
    "resize": "model",
    "size": None,
    "crop": None,
    "interpolation": "bilinear",
    "augment": "none",
    "target": "gt",
    "score": "logit",
    "layer": None,
    "precision": "float32",
    "seed": 0,
    "attack": "none",
}
ROUGH = {"smooth": 0.0, "smooth_maps": "all"}
IDS = [
    ("default", "pointing_game", {}, {}, "default"),
    ("default", "energy_pointing_game", {}, {}, "default"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {}, "grad_cam_2017"),
    ("grad_cam_2017", "localization_error_top1", {}, {}, "grad_cam_2017"),
    ("grad_cam_2017", "localization_error_top5", {}, {}, "grad_cam_2017"),
    ("wsol_2020_v1", "max_box_acc", {}, {}, "wsol_2020_v1"),
    ("wsol_2020_v2", "max_box_acc", {}, {}, "wsol_2020_v2"),
    ("default", "pointing_game", {}, {"tolerance": 0}, "custom-72232353"),
    ("default", "pointing_game", {}, {"tolerance": 0.0, "ties": "any"}, "custom-8dd4fc7f"),
    ("default", "pointing_game", {}, {"region": "mask"}, "custom-4a64d44b"),
    ("default", "pointing_game", {}, {"difficult": "keep"}, "custom-e74807e5"),
    ("default", "pointing_game", {}, {"frame": "input"}, "custom-254457ba"),
    ("default", "pointing_game", {}, {"rectify": "none"}, "custom-04b20174"),
    ("default", "pointing_game", {"resize": "warp", "size": 224}, {}, "custom-15042066"),
    ("default", "pointing_game", {"target": "predicted"}, {"matching": "first"}, "custom-ae7399e3"),
    ("default", "pointing_game", {"score": "exp"}, {"tolerance": 15}, "custom-bb4b6ccf"),
    ("default", "energy_pointing_game", {}, {"normalize": "max"}, "custom-32714c44"),
    ("default", "energy_pointing_game", {}, {"order": "normalize_first", "resize": "bicubic"}, "custom-0e9ec815"),
    ("default", "energy_pointing_game", {"layer": "layer3"}, {}, "custom-98ef7c8b"),
    ("default", "energy_pointing_game", {"precision": "bf16"}, {}, "custom-4c8fdc8a"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {"threshold": 0.2}, "custom-49e3d8ea"),
    ("grad_cam_2017", "localization_error_top1", {}, {"threshold": 0.2}, "custom-49e3d8ea"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {"connectivity": 4}, "custom-2b525b4a"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {"quantize": "uint8"}, "custom-0a11488d"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {"rule": "components", "threshold": 0.5}, "custom-339f4309"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {"iou_threshold": [0.3, 0.5, 0.7]}, "custom-acb34f2f"),
    ("grad_cam_2017", "localization_error_gt_known", {"resize": "model", "size": None}, {}, "custom-eb8d9c47"),
    ("wsol_2020_v1", "max_box_acc", {}, {"rule": "wsol_v2"}, "custom-83827156"),
    ("wsol_2020_v1", "max_box_acc", {}, {"rectify": "relu"}, "custom-06d0b387"),
    ("wsol_2020_v2", "max_box_acc", {}, {"iou": "half_open"}, "custom-c485a08e"),
    ("wsol_2020_v2", "max_box_acc", {}, {"iou_threshold": 0.5}, "custom-83827156"),
    (
        "wsol_2020_v2",
        "max_box_acc",
        {"resize": "shorter", "size": 256, "crop": 224},
        {"matching": "first"},
        "custom-836cc84b",
    ),
    ("wsol_2020_v2", "max_box_acc", {"interpolation": "bicubic"}, {}, "custom-fb3e78be"),
    ("cam_2016_text", "localization_error_gt_known", {}, {}, "cam_2016_text"),
    ("cam_2016_code", "localization_error_gt_known", {}, {}, "cam_2016_code"),
    ("grad_cam_2017_crop", "localization_error_top1", {}, {}, "grad_cam_2017_crop"),
    ("grad_cam_2017_kth", "localization_error_top1", {}, {}, "grad_cam_2017_kth"),
    ("layer_cam_2021", "localization_error_top5", {}, {}, "layer_cam_2021"),
    ("torchray_2019", "pointing_game", {}, {}, "torchray_2019"),
    ("torchray_2019_coco", "pointing_game", {}, {}, "torchray_2019_coco"),
    ("torchray_2019_difficult", "pointing_game", {}, {}, "torchray_2019_difficult"),
    ("torchray_2019_coco_difficult", "pointing_game", {}, {}, "torchray_2019_coco_difficult"),
    ("voc_pointing_2016", "pointing_game", {}, {}, "voc_pointing_2016"),
    # These three are of the time when torchray_2019 did not smooth; their ids still mean that.
    ("torchray_2019", "pointing_game", {}, {"cases": "ebp_difficult"} | ROUGH, "custom-038cf07e"),
    ("torchray_2019", "pointing_game", {}, {"resize": "cubic_skimage"} | ROUGH, "custom-2e081b24"),
    ("torchray_2019", "pointing_game", {"interpolation": "bilinear"}, ROUGH, "custom-5ee1f445"),
    ("torchray_2019", "pointing_game", {}, {"cases": "ebp_difficult"}, "custom-6566bf05"),
    ("default", "pointing_game", {}, {"smooth": 0.02}, "custom-ea66c80b"),
    ("default", "energy_pointing_game", {}, {"smooth": 0.02, "smooth_maps": "gradients"}, "custom-1c3381b7"),
    ("voc_pointing_2016", "pointing_game", {}, {"resize": "spline", "region": "mask"}, "custom-db171516"),
    ("cam_2016_code", "localization_error_gt_known", {"augment": "ten_crop"}, {}, "custom-0117cbcf"),
    ("cam_2016_code", "localization_error_gt_known", {}, {"quantize": "uint8"}, "custom-3dd9cc2f"),
    (
        "cam_2016_code",
        "localization_error_gt_known",
        {},
        {"resize": "cubic_matlab", "rule": "largest_rectangle"},
        "custom-7bd1b5a5",
    ),
    ("layer_cam_2021", "localization_error_gt_known", {"augment": "none"}, {}, "custom-0f9010b7"),
    ("layer_cam_2021", "localization_error_gt_known", {}, {"order": "normalize_first"}, "custom-38f49275"),
    ("grad_cam_2017_kth", "localization_error_gt_known", {}, {"iou": "half_open"}, "custom-eb316945"),
    ("grad_cam_2017", "localization_error_gt_known", {}, {"resize": "bilinear_corners"}, "custom-72c80672"),
    ("default", "deletion", {}, {"perturb_steps": 28}, "custom-a054403d"),
    ("default", "deletion", {}, {"fill": "black"}, "custom-cafebd32"),
    ("default", "road_combined", {}, {"perturb_shares": [20, 40, 60, 80]}, "custom-22dcab31"),
    ("default", "average_drop", {}, {"perturb_keep": 0.5}, "custom-6d08fc38"),
    ("rise_2018", "insertion", {}, {"perturb_steps": 100}, "custom-c92b4c6c"),
    ("rise_2018", "deletion", {"target": "gt"}, {}, "custom-02eafc46"),
    ("score_cam_2020", "average_drop", {}, {"perturb_keep": 1}, "custom-15042066"),
    ("arcc_2026", "arcc", {}, {"perturb_noise": 0}, "custom-6eb00e8d"),
    ("default", "infidelity", {}, {"perturb_draw": "gaussian"}, "custom-0e6e0d4a"),
    ("default", "max_sensitivity", {}, {"perturb_radius": 0.1}, "custom-778dbd47"),
    ("default", "occlusion_rank_correlation", {}, {"perturb_grid": 7}, "custom-d29252a2"),
    ("grad_cam_pp_2018", "win", {}, {}, "grad_cam_pp_2018"),
    ("rise_2018", "deletion", {}, {}, "rise_2018"),
    ("score_cam_2020", "energy_pointing_game", {}, {}, "score_cam_2020"),
    ("poly_cam_2022", "insertion", {}, {}, "poly_cam_2022"),
    ("adcc_2021", "adcc_of_means", {}, {}, "adcc_2021"),
    ("road_2022", "road_morf", {}, {}, "road_2022"),
    ("arcc_2026", "arcc", {}, {}, "arcc_2026"),
    ("irn_2019", "seed_miou", {}, {}, "irn_2019"),
    ("irn_2019", "seed_miou_best", {}, {}, "irn_2019"),
    ("psa_2018", "seed_precision", {}, {}, "psa_2018"),
    ("psa_2018_crf", "seed_miou", {}, {}, "psa_2018_crf"),
    ("psa_2018", "seed_miou", {}, {"crf": 4}, "custom-8a7597e9"),
    ("psa_2018", "seed_miou_best", {}, {"crf": 4}, "psa_2018"),
    ("psa_2018", "seed_recall", {}, {}, "psa_2018"),
    ("sec_2016", "seed_false_positives", {}, {}, "sec_2016"),
    ("sec_2016", "seed_false_negatives", {}, {}, "sec_2016"),
    ("default", "seed_miou", {}, {}, "default"),
    ("irn_2019", "seed_miou", {}, {"background": 0.2}, "custom-69e8cb15"),
    ("irn_2019", "seed_miou", {}, {"normalize": "max"}, "custom-8c280281"),
    ("irn_2019", "seed_miou_best", {}, {"background_levels": [0.1, 0.2]}, "custom-d4a86bc7"),
    ("irn_2019", "seed_miou", {"augment": "multi_scale"}, {}, "custom-271d0adc"),
    ("psa_2018", "seed_miou", {"augment": "none"}, {"seed_rule": "sec"}, "custom-034dd1c2"),
    ("irn_2019", "seed_miou_best", {}, {"background": 0.3}, "irn_2019"),
]


def test_defaults_are_frozen() -> None:
    assert {name: axis.default for name, axis in AXES.items() if name in DEFAULTS} == DEFAULTS
    assert {name: value for name, value in asdict(View()).items() if name in VIEW_DEFAULTS} == VIEW_DEFAULTS
    assert set(AXES) == set(DEFAULTS), "a new axis: add its default here, and what the code did before must be it"
    assert set(asdict(View())) == set(VIEW_DEFAULTS), "a new choice of a view: add its default here"


@pytest.mark.parametrize(("of_preset", "of_metric", "view", "protocol", "expected"), IDS)
def test_ids_are_frozen(of_preset: str, of_metric: str, view: dict, protocol: dict, expected: str) -> None:
    assert id_of(of_preset, of_metric, view, protocol) == expected


def test_a_choice_that_the_metric_does_not_read_leaves_its_id_alone() -> None:
    assert id_of("grad_cam_2017", "localization_error_gt_known", protocol={"tolerance": 0, "ties": "any"}) == (
        "grad_cam_2017"
    )
    assert id_of("default", "energy_pointing_game", protocol={"tolerance": 0}) == "default"
    assert id_of("wsol_2020_v2", "max_box_acc", protocol={"threshold": 0.9}) == "wsol_2020_v2"


def test_an_override_equal_to_the_presets_own_value_leaves_the_name() -> None:
    same = {"threshold": 0.15, "rule": "largest_component", "iou_threshold": 0.5, "connectivity": 8}
    same_view = {"resize": "warp", "size": 224}
    assert id_of("grad_cam_2017", "localization_error_gt_known", same_view, same) == "grad_cam_2017"


def test_the_seed_names_a_draw_and_changes_no_id() -> None:
    assert id_of("default", "pointing_game", {"seed": 7}) == "default"
    assert view_changes(View(seed=7, score="exp")) == {"view.score": "exp"}


def test_every_choice_of_a_view_and_every_axis_read_changes_the_id() -> None:
    others = {"resize": "none", "size": 100, "crop": 90, "interpolation": "nearest", "target": "top5"}
    others |= {"augment": "ten_crop"}
    others |= {"score": "softmax", "layer": "x", "precision": "bf16", "attack": "absent"}
    assert set(others) == set(VIEW_DEFAULTS) - {"seed"}
    found = {id_of("default", "pointing_game", {name: value}) for name, value in others.items()}
    values = {"iou_threshold": [0.3], "threshold": 0.3, "tolerance": 3.0, "rejection": 3.0, "perturb_shares": [50.0]}
    values |= {"background_levels": [0.3]}
    values |= {name: 3 for name, axis in AXES.items() if axis.kind == "whole"}
    numbers = {name: axis for name, axis in AXES.items() if axis.kind == "number" and name not in values}
    values |= {name: max(0.3, axis.valid[0]) for name, axis in numbers.items()}
    for label in names("metric"):
        for axis in metric(label, spec("metric", label)).reads:
            value = values.get(axis, next((v for v in AXES[axis].valid if v != AXES[axis].default), None))
            found.add(id_of("default", label, protocol={axis: value}))
    assert "default" not in found
    assert len(found) == len(others) + len(AXES)  # one id a choice, the same for every metric that reads it


def test_an_id_depends_on_what_is_chosen_and_not_on_how_it_was_written() -> None:
    spelt = [{"iou_threshold": 0.3}, {"iou_threshold": [0.3]}, {"iou_threshold": (0.3,)}]
    assert len({id_of("wsol_2020_v1", "max_box_acc", protocol=one) for one in spelt}) == 1
    assert id_of("default", "pointing_game", protocol={"tolerance": 3}) == id_of(
        "default", "pointing_game", protocol={"tolerance": 3.0}
    )
    assert id_of("grad_cam_2017", "localization_error_gt_known", protocol={"connectivity": 4.0}) == id_of(
        "grad_cam_2017", "localization_error_gt_known", protocol={"connectivity": 4}
    )


def test_digest_is_sha256_of_sorted_json() -> None:
    assert digest({"b": 1, "a": (2, 3)}) == digest({"a": [2, 3], "b": 1})
    assert digest({}, 64) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"resize": "wrap"}, r"unknown view.resize 'wrap': did you mean 'warp'\?"),
        ({"target": "predict"}, "did you mean 'predicted'"),
        ({"score": "prob"}, "valid: exp, log_softmax, log_sum_exp, logit, sigmoid, softmax"),
        ({"size": 0}, "view.size must be a whole number of pixels, got 0"),
        ({"size": 224.0}, "view.size must be a whole number"),
        ({"crop": True}, "view.crop must be a whole number"),
        ({"resize": "warp"}, "view.resize=warp needs view.size"),
        ({"sise": 224}, "unknown view choice 'sise': did you mean 'size'"),
    ],
)
def test_views_refuse(choices: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        View().but(**choices)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tolerence", 3, "unknown protocol axis 'tolerence': did you mean 'tolerance'"),
        ("rule", "largest_componnt", "did you mean 'largest_component'"),
        ("connectivity", 6, "unknown protocol.connectivity '6'"),
        ("connectivity", True, "unknown protocol.connectivity 'True'"),
        ("threshold", 1.5, r"protocol.threshold must lie in \[0, 1\], got 1.5"),
        ("threshold", "0.2", r"must lie in \[0, 1\], got '0.2'"),
        ("threshold", None, r"must lie in \[0, 1\], got None"),
        ("threshold", float("nan"), r"must lie in \[0, 1\]"),
        ("threshold", True, r"must lie in \[0, 1\], got True"),
        ("threshold", [0.1, 0.2], "takes one number"),
        ("iou_threshold", [], "must lie in"),
        ("iou_threshold", [0.3, 2], "must lie in"),
        ("iou_threshold", [[0.3]], "must lie in"),
        ("iou_threshold", {"a": 0.3}, "must lie in"),
        ("tolerance", -1, "must lie in"),
    ],
)
def test_axes_refuse(name: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Protocol({name: value})


def test_values_take_one_form() -> None:
    assert check_axis("iou_threshold", 0.5) == check_axis("iou_threshold", [0.5]) == (0.5,)
    assert repr(check_axis("tolerance", 3)) == "3.0"
    assert repr(check_axis("connectivity", 4.0)) == "4"


def test_a_protocol_is_read_on_declared_axes_only() -> None:
    some = Protocol({"tolerance": 3, "rule": "components"}).only(["tolerance", "ties"])
    assert dict(some) == {"ties": "first", "tolerance": 3}
    assert (some.tolerance, some["ties"], len(some), "rule" in some) == (3, "first", 2, False)
    with pytest.raises(RuntimeError, match="'rule' is read but not declared"):
        _ = some.rule
    with pytest.raises(UserError, match="did you mean 'tolerance'"):
        _ = some.tolerence
    with pytest.raises(UserError, match="did you mean 'ties'"):
        some.only(["tie"])
    assert some.changed() == {"tolerance": 3}
    assert Protocol().changed() == {}


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all() -> None:
    assert str(unknown("method", "grad_cm", ["grad_cam", "cam"])) == (
        "unknown method 'grad_cm': did you mean 'grad_cam'? (valid: cam, grad_cam)"
    )
    assert str(unknown("method", "zzz", ["grad_cam", "cam"])) == "unknown method 'zzz': (valid: cam, grad_cam)"
