"""The papers' tables: every number has an id, a source and a confidence; experiments use numbers that are there."""

from __future__ import annotations

import pytest

from gradcam_bench import experiments, published
from gradcam_bench.errors import UserError
from gradcam_bench.published import COLUMNS, Published


def row(**changes: str) -> Published:
    return Published(**(dict.fromkeys(COLUMNS, "") | {"value": "56.51", "unit": "%"} | changes))


@pytest.mark.parametrize("paper", published.papers())
def test_every_number_says_where_it_is_from_and_how_sure_it_is(paper: str) -> None:
    for identity, one in published.table(paper).items():
        assert one.id == identity
        assert one.source
        assert one.value
        assert one.confidence in published.CONFIDENCE
        assert "/work" not in str(one)
        assert identity == identity.lower().replace(" ", "")


def test_known_numbers_are_as_printed() -> None:
    for paper, identity, value, confidence in (
        ("grad_cam_2017", "table_1/vgg_16/grad_cam/loc_error_top_1", 56.51, "secondary"),
        ("torchray_2019", "docs_pointing_csv/vgg16/pascal_voc_2007/center/pointing_game_all", 69.6, "verified"),
        ("wsol_2020", "center_baseline_recomputed/none/cub/center_all_boxes/maxboxaccat5", 59.72, "computed"),
        ("ebp_2016", "table_1/vgg16/coco_2014/center/pointing_game_all", 27.7, "remembered"),
    ):
        found = published.find(paper, identity)
        assert (found.number, found.confidence) == (value, confidence)
    with pytest.raises(UserError, match="loc_error_top_1"):
        published.find("grad_cam_2017", "table_1/vgg_16/grad_cam/loc_error_top1")
    with pytest.raises(UserError, match="cam_2016"):
        published.table("cam_2017")


def test_rounding_scale_and_what_is_no_number() -> None:
    assert row().rounding == pytest.approx(0.005)
    assert row(value="69.6").rounding == pytest.approx(0.05)
    assert row(value="82").rounding == pytest.approx(0.5)
    assert (row().scale, row(unit="prob").scale) == (100, 1)
    assert row(value="3.27+-0.18").number is None


def test_experiments_stand_beside_as_many_numbers_as_they_did() -> None:
    counts = {name: len(experiments.experiment(name).quantities) for name in experiments.names()}
    assert counts == {
        "cam_2016": 36,
        "ebp_2016": 24,
        "grad_cam_2017": 65,
        "grad_cam_pp_2018": 42,
        "gridpg_2022": 4,
        "irn_2019": 3,
        "layer_cam_2021": 6,
        "psa_2018": 4,
        "rise_2018": 16,
        "sanity_2018": 4,
        "score_cam_2020": 21,
        "shapley_cam_2025": 300,
        "smprt_emprt_2024": 3,
        "torch_cam": 16,
        "torchray_2019": 68,
        "wsol_2020": 32,
        "wsol_center": 8,
    }
