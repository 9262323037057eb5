"""Every paper's experiment runs from end to end on the twin of its data: one tiny run each, and all of them whole."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench import cli, experiments
from gradcam_bench.experiments import experiment

TINY = {  # the run that reaches most of what the others do not
    "cam_2016": "googlenet",
    "ebp_2016": "voc_vgg16",
    "grad_cam_2017": "unattacked,adversarial,captioning",
    "grad_cam_pp_2018": "loc_25",
    "gridpg_2022": "vgg11",
    "irn_2019": "resnet50",
    "layer_cam_2021": "vgg16",
    "psa_2018": "vgg16_val",
    "rise_2018": "coco_resnet50",
    "sanity_2018": "inception_v3",
    "score_cam_2020": "pointing",
    "shapley_cam_2025": "swin_t",
    "smprt_emprt_2024": "resnet18",
    "torchray_2019": "center_coco",
    "torch_cam": "resnet18",
    "wsol_2020": "cam_openimages_resnet,few_shot_cub",
    "wsol_center": "center_cub",
}


def smoked(name: str, results: Path, *words: str) -> pd.DataFrame:
    assert cli.main(["reproduce", name, "--smoke", f"results={results}", *words]) == 0
    return pd.read_csv(results / f"{name}-smoke" / "reproduction.csv")


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_runs_on_its_twin(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = smoked(name, tmp_path, "--only", TINY[name], "--limit", "2")
    assert len(table)
    assert table["ours"].notna().all(), table[table["ours"].isna()]["verdict"].tolist()
    assert (table["verdict"] == "cannot be judged: a smoke test on drawn pictures").all()
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiments.names() if name != "wsol_center"])
def test_a_whole_experiment_runs_on_its_twin(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = smoked(name, tmp_path)
    assert len(table) == len(experiment(name).quantities)
    assert table["ours"].notna().all(), table[table["ours"].isna()]["verdict"].tolist()
    capsys.readouterr()


def test_runs_one_by_one_make_the_table_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("center_imagenet_first", "center_cub", "center_cub"):
        table = smoked("wsol_center", tmp_path, "--only", key, "--limit", "2")
    whole = [str(one.cell) for one in experiment("wsol_center").quantities]
    assert table["cell"].tolist() == [cell for cell in whole if "all_boxes" not in cell]
    capsys.readouterr()
