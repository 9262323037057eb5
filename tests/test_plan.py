"""Which metric is scored through which view, by which protocol, under which id."""

import pytest

from gradcam_bench.catalogue import Metric, Preset, metric, preset, spec
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.plan import Plan, make, view_id

USED = ("default", "grad_cam_2017", "wsol_2020_v1", "wsol_2020_v2")
PRESETS = [preset(name, spec("preset", name)) for name in USED]
METHODS, USUAL = ["any"], Preprocessing()
ERRORS = [f"localization_error_{known}" for known in ("gt_known", "top1", "top5")]
CHOSEN = (*ERRORS, "max_box_acc", "pointing_game", "energy_pointing_game")


def made(*metrics: str, presets=PRESETS, preprocessing=USUAL, **overrides) -> Plan:
    return make(METHODS, [metric(m, spec("metric", m)) for m in metrics], presets, preprocessing, **overrides)


def ids(plan: Plan) -> list[tuple[str, str]]:
    return sorted((job.metric.label, job.id) for jobs in plan.views.values() for job in jobs)


def test_every_metric_goes_with_the_presets_that_define_it_and_else_with_default() -> None:
    assert ids(made("pointing_game", "max_box_acc", "localization_error_top1")) == [
        ("localization_error_top1", "grad_cam_2017"),
        ("max_box_acc", "wsol_2020_v1"),
        ("max_box_acc", "wsol_2020_v2"),
        ("pointing_game", "default"),
    ]
    assert ids(made("max_box_acc", presets=[p for p in PRESETS if p.name == "wsol_2020_v2"])) == [
        ("max_box_acc", "wsol_2020_v2")
    ]
    assert ids(made("max_box_acc", presets=[])) == [("max_box_acc", "default")]


def test_recipes_that_look_alike_share_one_look() -> None:
    plan = made(*CHOSEN)
    warped, usual = View(resize="warp", size=224), View(resize="shorter", size=256, crop=224)
    assert set(plan.views) == {warped, usual}
    assert {job.id for job in plan.views[usual]} == {"default"}
    assert {job.id for job in plan.views[warped]} == {"grad_cam_2017", "wsol_2020_v1", "wsol_2020_v2"}
    # Weights that are themselves fed warped pictures: one look for all.
    assert set(made(*CHOSEN, preprocessing=Preprocessing("warp", 224, None)).views) == {warped}


def test_an_override_reaches_every_preset_and_renames_where_it_matters() -> None:
    plan = made("pointing_game", "energy_pointing_game", "max_box_acc", protocol={"tolerance": 0})
    assert ids(plan) == [
        ("energy_pointing_game", "default"),
        ("max_box_acc", "wsol_2020_v1"),
        ("max_box_acc", "wsol_2020_v2"),
        ("pointing_game", "custom-72232353"),
    ]
    seen = made("pointing_game", view={"resize": "warp", "size": 64})
    assert [job.id.startswith("custom-") for jobs in seen.views.values() for job in jobs] == [True]
    assert set(seen.views) == {View(resize="warp", size=64)}


def test_two_presets_that_overrides_make_one_are_scored_once() -> None:
    plan = made("max_box_acc", protocol={"rule": "wsol_v2", "iou_threshold": [0.5]})
    assert len(ids(plan)) == 1


def test_a_job_is_restricted_to_the_axes_of_its_metric() -> None:
    plan = made(*CHOSEN)
    for view, jobs in plan.views.items():
        for job in jobs:
            assert set(job.protocol) == set(job.metric.reads)
            assert set(job.card(view)["axes"]) == set(job.metric.reads)
    strict = made("pointing_game", protocol={"tolerance": 0}).cards()["pointing_game"]
    assert {name: card["preset"] for name, card in strict.items()} == {"custom-72232353": "default"}
    cards = plan.cards()
    assert cards["max_box_acc"]["wsol_2020_v2"]["axes"]["iou_threshold"] == (0.3, 0.5, 0.7)
    assert cards["pointing_game"]["default"]["view"]["crop"] == 224


def test_masks_are_read_only_where_a_metric_asks_for_them() -> None:
    assert not made(*CHOSEN).masks
    assert made("seed_miou").masks
    assert made("pointing_game", protocol={"region": "mask"}).masks
    assert not made("max_box_acc", protocol={"region": "mask"}).masks
    assert made("max_box_acc", "pixel_ap").masks


def test_view_ids_differ_where_views_do() -> None:
    views = [View(), View(seed=1), View(resize="warp", size=64), View(layer="x")]
    assert len({view_id(view) for view in views}) == 4
    assert view_id(View()) == view_id(View())
    assert len(view_id(View())) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": {"tolerence": 3}}, "did you mean 'tolerance'"),
        ({"view": {"sise": 3}}, "did you mean 'size'"),
        ({"protocol": {"threshold": 0.155}}, "no whole percent"),
        ({"protocol": {"connectivity": 4}}, "connectivity=4 does not go with protocol.rule=wsol_v1"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(*CHOSEN, **arguments)


def test_choices_that_a_metric_does_not_read_are_not_held_against_it() -> None:
    assert ids(made("pointing_game", protocol={"connectivity": 4, "threshold": 0.155})) == [
        ("pointing_game", "default")
    ]


def test_nothing_to_do_is_a_sentence() -> None:
    with pytest.raises(UserError, match="choose at least one method and one metric"):
        made()
    with pytest.raises(UserError, match="choose at least one method"):
        make([], [Metric("m", "", len, "case", True, "maps", (), "mean")], [Preset("p", "")], Preprocessing())
