"""The study of misclassified images: what counts as one, what is scored against what, and where it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import networks
import numpy as np
import pandas as pd
import pytest
import torch

import gradcam_bench as gb
from gradcam_bench import cli
from gradcam_bench.explain import explain_batch
from gradcam_bench.failures import MISSED, WRONG, pairs_of
from gradcam_bench.probe import Probe
from gradcam_bench.record import load_config, load_run
from gradcam_bench.runs import finished


def frame(rows: list[tuple[str, int, float, int, int, bool]]) -> pd.DataFrame:
    names = ("image_id", "class_index", "probability", "rank", "predicted", "correct_top1")
    made = pd.DataFrame(rows, columns=names)
    return made.assign(case_id=[f"{i}#{c}" for i, c in zip(made["image_id"], made["class_index"])], class_name=None)


CASES = frame(
    [
        ("right", 1, 0.9, 0, 1, True),  # annotated 1, answered 1
        ("wrong", 2, 0.2, 1, 3, False),  # annotated 2, answered 3
        ("wrong", 3, 0.7, 0, 3, False),
        ("two", 4, 0.8, 0, 4, True),  # annotated 4 and 5, answered 4; 5 is below one half
        ("two", 5, 0.4, 1, 4, True),
        ("unsure", 6, 0.3, 0, 6, True),  # annotated 6, the first answer though below one half
        ("both", 7, 0.6, 1, 0, False),  # annotated 7 and 8, answered 0
        ("both", 8, 0.1, 5, 0, False),
        ("both", 0, 0.9, 0, 0, False),
    ]
)


@pytest.mark.parametrize(
    ("several", "expected"),
    [
        (False, [("wrong#2", 3, WRONG), ("both#7", 0, WRONG), ("both#8", 0, WRONG)]),
        (True, [("wrong#2", 3, WRONG), ("two#5", 4, MISSED), ("both#7", 0, WRONG), ("both#8", 0, WRONG)]),
    ],
)
def test_what_counts_as_a_failure(several: bool, expected: list[tuple[str, int, str]]) -> None:
    found = pairs_of(CASES, several)
    assert [(one["case_id"], one["predicted_class"], one["kind"]) for one in found] == expected
    assert found[0] == {
        "image_id": "wrong",
        "case_id": "wrong#2",
        "kind": WRONG,
        "true_class": 2,
        "true_name": "2",
        "true_probability": 0.2,
        "predicted_class": 3,
        "predicted_name": "3",
        "predicted_probability": 0.7,
        "true_rank": 1,
    }


def test_both_classes_are_asked_once_each() -> None:
    """Annotated classes, then the first answer where it is none of them; in no image twice."""
    halves = networks.gap()
    halves.model.float()
    images = halves.images(3).float()
    with torch.no_grad():
        first = halves.model(images).argmax(1).tolist()
    others = [(c + 1) % 4 for c in first]
    batch = networks.batch(images, [(others[0],), (first[1], others[1]), ()])
    cases, _, _ = explain_batch(
        batch,
        networks.network(halves),
        Probe(halves.model, [halves.layer]),
        [],
        networks.view(target="gt_and_predicted"),
    )
    places = [batch.samples.index(case.sample) for case in cases]
    assert [(b, case.target) for b, case in zip(places, cases)] == [
        (0, others[0]),
        (0, first[0]),
        (1, first[1]),
        (1, others[1]),
        (2, first[2]),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes_root: Path) -> Path:
    """A network with random weights is wrong on most of twelve scenes."""
    results = tmp_path_factory.mktemp("failures")
    words = [
        "experiment=failures",
        f"dataset.root={scenes_root}",
        "model.weights=none",
        f"results={results}",
        "name=it",
    ]
    assert cli.main(["run", *words, "workers=0"]) == 0
    return results / "failures" / "it"


def test_both_maps_are_scored_against_the_annotated_object(run: Path) -> None:
    table = pd.read_csv(run / "failures.csv")
    cases, rows = pd.read_parquet(run / "cases.parquet"), pd.read_parquet(run / "rows.parquet")
    assert len(table) >= 8
    assert set(table["method"]) == {"grad_cam", "grad_cam_pp", "layer_cam", "center"}
    wrong = cases[~cases["correct_top1"]]
    asked = wrong[wrong["class_index"] != wrong["predicted"]]["case_id"]
    assert set(asked) <= set(table["case_id"])
    named = rows.astype({"metric": str, "method": str}).set_index(["case_id", "method", "metric"])["value"]
    metrics = {"iou": "box_iou", "energy": "energy_pointing_game", "pointing": "pointing_game"}
    for line in table.to_dict("records"):
        for short, metric in metrics.items():
            scored = named[line["case_id"], line["method"], metric]
            assert line[f"{short}_true"] == pytest.approx(scored, abs=1e-6, nan_ok=True), "the run's own number"
    job = finished(run, load_config(run), load_run(run))
    index = job.store.index()
    for line in table[table["method"] == "grad_cam"].to_dict("records")[:4]:
        mine = index[
            (index["case_id"] == f"{line['image_id']}#{line['predicted_class']}") & (index["method"] == "grad_cam")
        ]
        (_, heatmap), *_ = job.store.read(mine)
        truth = job.dataset.annotate(list(job.dataset.ids).index(line["image_id"]))
        boxes = truth.boxes[truth.labels == line["true_class"]]
        full = gb.resize(gb.normalize(gb.rectify(heatmap[None], "relu"), "minmax"), truth.size)[0]
        x, y = np.meshgrid(np.arange(truth.size[1]), np.arange(truth.size[0]))
        inside = np.zeros(truth.size, bool)
        for x0, y0, x1, y1 in boxes.tolist():
            inside |= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        share = float(full.numpy()[inside].sum() / full.numpy().sum()) if full.sum() else 0.0
        assert line["energy_predicted"] == pytest.approx(share, abs=0.02)


def test_the_summary_is_the_tables_means_beside_the_images_that_were_right(run: Path) -> None:
    table, facts = pd.read_csv(run / "failures.csv"), json.loads((run / "run.json").read_text())
    assert facts["activation"] == "sigmoid"
    text = (run / "report.html").read_text()
    assert 'href="#failures"' in text
    assert "The network sees several classes in an image." in text
    mine = table[table["method"] == "grad_cam"]
    for share in ((mine["iou_true"].dropna() >= 0.5).mean(), mine["energy_predicted"].mean()):
        assert f'<td class="number">{100 * share:.1f}</td>' in text
    assert f"<dt>failures</dt><dd>{len(mine)}</dd>" in text


def test_a_run_of_one_class_alone_has_no_such_section(tmp_path: Path, scenes_root: Path) -> None:
    words = [
        f"dataset.root={scenes_root}",
        "method=[grad_cam]",
        "metric=[pointing_game]",
        "preset=[default]",
        "limit=2",
    ]
    assert cli.main(["run", *words, f"results={tmp_path}", "name=it", "workers=0"]) == 0
    assert 'id="failures"' not in (tmp_path / "run/it/report.html").read_text()
    assert not (tmp_path / "run/it/failures.csv").exists()


def test_without_boxes_they_are_sorted_by_confidence_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for number in range(4):
        place = tmp_path / "data" / f"class_{number}"
        place.mkdir(parents=True)
        noise = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{number}.png")
    words = ["experiment=failures", "dataset=folder", f"dataset.root={tmp_path / 'data'}", "model.weights=none"]
    assert cli.main(["run", *words, f"results={tmp_path}", "name=it", "workers=0", "method=[grad_cam]"]) == 0
    text = (tmp_path / "failures/it/report.html").read_text()
    assert "most confident first" in text
    assert "best localized" not in text
    said = capsys.readouterr().out
    assert "failures: 4 images" in said
    assert "by the map of the true class" not in said


def test_heatmaps_that_were_not_kept_are_named(tmp_path: Path, scenes_root: Path) -> None:
    words = ["experiment=failures", f"dataset.root={scenes_root}", "model.weights=none", "method=[grad_cam]", "limit=3"]
    assert cli.main(["run", *words, f"results={tmp_path}", "name=it", "workers=0", "store=none"]) == 0
    assert (
        "No heatmap of them was kept: run again with store=all." in (tmp_path / "failures/it/report.html").read_text()
    )
