"""The command line: every wrong word is one sentence and exit code 2; the demo's path end to end on little things."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from gradcam_bench import catalogue, cli, record
from gradcam_bench.analysis.bootstrap import intervals
from gradcam_bench.axes import AXES
from gradcam_bench.choices import VIEW_CHOICES, View
from gradcam_bench.finished import open_runs
from gradcam_bench.overrides import configuration

SMALL = [
    "model=squeezenet1_1", "model.weights=none", "model.num_classes=10", "limit=3", "workers=0", "batch_size=2",
    "method=[grad_cam,layer_cam,center]", "preset=[default,grad_cam_2017]",
    "metric=[pointing_game,localization_error_gt_known,localization_error_top1]",
]  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def little_run(capsys: pytest.CaptureFixture[str], root: Path, results: Path, *words: str) -> tuple[int, str, str]:
    return call(capsys, "run", *SMALL, f"dataset.root={root}", f"results={results}", *words)


FAST = ["model=none", "method=[center]", "metric=[pointing_game]", "preset=[default]", "limit=1"]


def test_all_methods_are_ours() -> None:
    chosen = configuration(["method=[all]", "model=none"])["method"]
    assert list(chosen) == [label for label in catalogue.names("method") if not label.startswith("external_")]


def test_a_parameter_need_not_stand_in_the_file() -> None:
    chosen = configuration(["method=[center]", "method.center.sigma=0.25"])["method"]
    assert chosen["center"]["sigma"] == 0.25


def test_methods_are_listed_with_what_they_ask(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "list", "methods", "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert entries["grad_cam"]["passes"] == "one look"
    assert entries["center"]["control"]
    assert entries.keys() == set(catalogue.names("method"))
    _, out, _ = call(capsys, "list", "methods")
    assert next(line for line in out.splitlines() if line.startswith("grad_cam ")).endswith("one look]")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version")[:2] == (0, f"gradcam-bench {metadata.version('gradcam-bench')}\n")


WRONG = [
    (["rn"], "unknown verb 'rn': did you mean 'run'?"),
    (["run", "method=[grad_cm]"], "unknown method 'grad_cm': did you mean 'grad_cam'?"),
    (["run", "-m", "method=[cam],[grad_cm]"], "unknown method 'grad_cm': did you mean 'grad_cam'?"),
    (["run", "method=[grad_cam,grad_cam_x]"], "unknown method 'grad_cam_x': did you mean"),
    (["run", "method.grad_camm.sigma=3"], "unknown setting of method 'grad_camm': did you mean 'grad_cam'?"),
    (["run", "method.center.sigm=3"], "unknown parameter of method center 'sigm': did you mean 'sigma'?"),
    (["run", "metric=[pointing]"], "unknown metric 'pointing': did you mean 'pointing_game'?"),
    (["run", "preset=[wsol_2020]"], "unknown preset 'wsol_2020': did you mean 'wsol_2020_v"),
    (["run", "dataset=vocc"], "unknown dataset 'vocc': did you mean 'voc'?"),
    (["run", "model=resnet51"], "unknown model 'resnet51': did you mean 'resnet5"),
    (
        ["run", "method=cam,grad_cam"],
        "'method=cam,grad_cam' is several values: give 'method=[cam,grad_cam]' for a list, or -m for a run of each",
    ),
    (["run", "store=grid,all"], "'store=grid,all' is several values: give one, or -m for a run of each"),
    (["run", "datset=voc"], "unknown setting 'datset': did you mean 'dataset'?"),
    (["run", "datase.root=x"], "unknown setting 'datase': did you mean 'dataset'?"),
    (["run", "dataset.rot=x"], "unknown setting of dataset 'rot': did you mean 'root'?"),
    (["run", "protocol.tolerence=3"], "unknown setting of protocol 'tolerence': did you mean 'tolerance'?"),
    (["run", "protocol.rule=biggest"], "unknown protocol.rule 'biggest'"),
    (["run", "protocol.tolerance=-1"], "protocol.tolerance must lie in [0, 1e+06], got -1"),
    (["run", "protocol.iou_threshold=[0.5,2]"], "protocol.iou_threshold must lie in [0, 1]"),
    (["run", "protocol.connectivity=4"], "protocol.connectivity=4 does not go with protocol.rule=wsol_v1"),
    (["run", "preset=[grad_cam_2017]", "protocol.threshold=0.155"], "threshold 0.155 is no whole percent"),
    (["run", "view.target=predicted"], "localization_error_top1 is defined for view.target=gt, not predicted"),
    (["run", "model=none", "view.target=predicted", "metric=[pointing_game]"], "view.target=predicted needs a model"),
    (["run", "--config-dir", "/nowhere"], "--config-dir /nowhere: no such folder"),
    (["list", "methods", "extra=1"], "unexpected 'extra=1'"),
    (["run", "view.resize=squash"], "unknown view.resize 'squash'"),
    (["run", "view.resize=warp", "view.size=0"], "view.size must be a whole number of pixels, got 0"),
    (["run", "view.target=ground"], "unknown view.target 'ground'"),
    (["run", "method.grad_cam.samples=3"], "unknown parameter of method grad_cam 'samples'"),
    (["run", "+method.grad_cam.samples=3"], "unknown parameter of method grad_cam 'samples'"),
    (["run", "model=torchvision"], "a value is missing: give model.name=..."),
    (
        ["run", "model=torchvision", "model.name=resnet5"],
        "unknown torchvision model 'resnet5': did you mean 'resnet50'?",
    ),
    (["run", "model=resnet18", "model.weights=V3"], "unknown weights 'V3'"),
    (["run", "model=resnet18", "model.weights=/nowhere/w.pth"], "model.weights: /nowhere/w.pth is not there"),
    (["run", "dataset=voc"], "dataset.root is missing: give the folder that holds VOCdevkit/"),
    (["run", "dataset=folder"], "dataset.root is missing"),
    (["run", "dataset=voc", "dataset.root=/nowhere"], "dataset.root: no VOC2012 devkit in /nowhere"),
    (["run", "dataset=folder", "dataset.root=/nowhere"], "dataset.root: /nowhere is no folder"),
    (["run", "dataset=imagenet"], "dataset.root is missing: give the folder with ILSVRC/ or val/"),
    (["run", "dataset=imagenet", "dataset.metadata=/nowhere"], "dataset.metadata: /nowhere is no folder"),
    (["run", "dataset=cub", "dataset.root=/nowhere"], "dataset.root: /nowhere is no folder"),
    (["run", "dataset=openimages"], "dataset.metadata is missing: give the folder that holds OpenImages/test"),
    (["run", "dataset=cubv2", "dataset.root=/"], "dataset.metadata is missing: `val` is CUBV2"),
    (["run", "dataset=coco", "dataset.root=/", "dataset.split=val"], "dataset.split=val: no "),
    (["run", "batch_size=0"], "batch_size=0: a whole number from 1 to 65536 is needed"),
    (["run", "stages=[]"], "stages=[]: a run begins with explain"),
    (["run", "stages=[score]"], "gradcam-bench score RUN scores one again"),
    (["run", "limit=0"], "limit=0: a whole number of at least 1 is needed"),
    (["run", "--limit", "many"], "argument --limit: invalid int value: 'many'"),
    (["run", "--fast"], "unknown flag '--fast'"),
    (["run", "workers=-1"], "workers=-1: a whole number from 0 to 1024 is needed"),
    (["run", "store=some"], "unknown store 'some'"),
    (["run", "stages=[explain,scor]"], "unknown stage 'scor': did you mean 'score'?"),
    (["run", "precision=fp8"], "unknown precision 'fp8'"),
    (["run", "model=null"], "do not make a configuration"),
    (["run", "method=null"], "do not make a configuration"),
    (["run", "model=[1,2]"], "do not make a configuration"),
    (["run", "model.layer=3"], "model.layer=3: text or null is needed"),
    (["run", "dataset.name=5"], "dataset.name=5: text is needed"),
    (["run", "dataset.year=abc"], "dataset.year='abc': a whole number is needed"),
    (["run", "+method.center.sigma=wide"], "method center.sigma='wide': a number is needed"),
    (["run", "name=../x"], "it names one folder in"),
    (["run", "stages=null"], "stages=None: give a list"),
    (["run", "view=abc"], "view=abc: give its choices one by one"),
    (["run", "protocol=3"], "protocol=3: give its choices one by one"),
    (["run", "device=null"], "device=None: text is needed"),
    (["run", "device=tpu"], "unknown device 'tpu'"),
    (["run", "limit"], "'limit' cannot be read: give KEY=VALUE"),
    (["run", "name=é"], "a value with special characters in quotes of its own"),
    (["run", "name=a/b"], "name=a/b: it names one folder in"),
    (["run", "name=.."], "name=..: it names one folder in"),
    (["run", "name="], "it names one folder in"),
    (["run", "results="], "results='': text is needed"),
    (["run", "results=/proc/nowhere", *FAST], "results folder /proc/nowhere/run/"),
    (["run", f"results={__file__}", *FAST], "cannot be made: Not a directory; give results=DIR"),
    (["run", "method=[]"], "nothing to do: choose at least one method and one metric"),
    (["run", "metric=[]"], "nothing to do: choose at least one method and one metric"),
    (["run", "method=[]", "metric=[]", "preset=[]"], "nothing to do"),
    (["run", "batch_size=1000000000"], "batch_size=1000000000: a whole number from 1 to 65536 is needed"),
    (["run", "batch_size=2.5"], "batch_size=2.5: a whole number from 1 to 65536 is needed"),
    (["run", "batch_size=true"], "batch_size=True: a whole number from 1 to 65536 is needed"),
    (["run", "workers=1000000"], "workers=1000000: a whole number from 0 to 1024 is needed"),
    (["run", "limit=nan"], "limit=nan: a whole number of at least 1 is needed"),
    (["run", "seed=inf"], "seed=inf: a whole number from 0 to"),
    (["run", "seed=1e999"], "seed=inf: a whole number from 0 to"),
    (["run", "seed=-1"], "seed=-1: a whole number from 0 to"),
    (["run", "protocol.tolerance=nan"], "protocol.tolerance must lie in [0, 1e+06], got nan"),
    (["run", "protocol.tolerance=1e999"], "protocol.tolerance must lie in [0, 1e+06], got inf"),
    (["run", "protocol.threshold=-inf"], "protocol.threshold must lie in [0, 1], got -inf"),
    (["run", "protocol.iou_threshold=[]"], "protocol.iou_threshold must lie in [0, 1], got []"),
    (["run", "protocol.iou_threshold=[nan]"], "protocol.iou_threshold must lie in [0, 1], got [nan]"),
    (["run", "+method.center.sigma=nan", *FAST], "method center.sigma=nan: a number is needed"),
    (["run", "view.resize=warp", "view.size=1.5"], "view.size must be a whole number of pixels, got 1.5"),
    (["run", "view.resize=warp"], "view.resize=warp needs view.size, in pixels"),
    (["run", "view.crop=-3"], "view.crop must be a whole number of pixels, got -3"),
    (["run", "view.interpolation=cubic"], "unknown view.interpolation 'cubic': did you mean 'bicubic'?"),
    (["run", "device=cpu:x"], "device=cpu:x: this machine has cpu:0 to cpu:0"),
    (["run", "on_error=ignore"], "unknown on_error 'ignore'"),
    (["run", "statistics.stratified=class"], "statistics.stratified=class: true or false is needed"),
    (["run", "experiment=nope"], "unknown experiment 'nope'"),
    (
        ["run", "model=squeezenet1_1", "model.weights=none", "model.num_classes=0"],
        "model.num_classes=0: a whole number",
    ),
    (["run", "model=squeezenet1_1", "model.weights=/tmp"], "model.weights: /tmp is not there (a file"),
    (["run", "-m", "seed=0,1", "method=[grad_cm]"], "unknown method 'grad_cm': did you mean 'grad_cam'?"),
    (["run", "-m", "seed=0,1", "datset=voc"], "unknown setting 'datset': did you mean 'dataset'?"),
    (["run", "-m", "model=vgg16,vgg61"], "unknown model 'vgg61': did you mean 'vgg1"),
    (["run", "-m", "seed=0,1", "hydra/launcher=nope"], "hydra/launcher=nope is not here: it comes with `pip install"),
    (["run", "-m", "seed=0,1", "--config-dir", "/nowhere"], "--config-dir /nowhere: no such folder"),
    ([""], "unknown verb ''"),
    (["show"], "show: the following arguments are required: IMAGE"),
    (["score", __file__], "is no run folder: it has no config.yaml"),
    (["score", "/nowhere"], "/nowhere is no run folder: it has no config.yaml"),
    (["report", "/nowhere"], "/nowhere is no run folder"),
    (["score"], "the following arguments are required: RUN"),
    (["show", "/nowhere.jpg", "model=none"], "/nowhere.jpg: no such image"),
    (["list", "method_s"], "unknown list 'method_s': did you mean 'methods'?"),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words_are_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *words)
    assert code == 2
    assert sentence in err
    assert err.startswith("gradcam-bench: ")
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []  # nothing was written


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(catalogue.UserError):
        cli.main(["run", "store=some", "--debug"])


def test_run_score_report_on_a_little_data(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    work.mkdir()
    monkeypatch.chdir(work)
    code, out, err = little_run(capsys, scenes_root, results, "name=one")
    assert code == 0, err
    folder = results / "run" / "one"
    present = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml",
        "run.json",
        "maps",
        "rows",
        "rows.parquet",
        "cases.parquet",
        "summary.csv",
        "report.html",
    } <= present
    assert "grad_cam" in out
    assert "classifier (warp 224): top-1" in out
    summary = pd.read_csv(folder / "summary.csv")
    assert list(summary.columns) == (
        [
            "dataset",
            "model",
            "stage",
            "method",
            "metric",
            "protocol",
            "n",
            "value",
            "ci_low",
            "ci_high",
            "higher_is_better",
            "resampled",
        ]
    )
    assert len(summary) == 3 * 3
    error = summary.set_index(["method", "metric"])["value"]
    mixed = pd.read_csv(folder / "confusion.csv").query("metric == 'localization_error_gt_known'")
    for line in mixed.to_dict("records"):
        n = line["both"] + line["class_alone"] + line["place_alone"] + line["neither"]
        assert 1 - line["both"] / n == pytest.approx(error[line["method"], "localization_error_top1"])
        placed = (line["both"] + line["place_alone"]) / n
        assert 1 - placed == pytest.approx(error[line["method"], "localization_error_gt_known"])
    assert len(mixed) == 3
    tied = pd.read_csv(folder / "ties.csv")
    assert len(tied) == 3 * 3
    assert tied["tied"].all()  # three images tell nothing apart
    assert (tied["p_least"] > 0.05).all()
    html = (folder / "report.html").read_text(encoding="utf-8")
    for part in ('class="true-mask"', 'data-answer="', 'data-filter="size"', "So few images tell no two methods apart"):
        assert part in html
    assert list(work.iterdir()) == []  # nothing in the working directory

    code, out, err = call(capsys, "score", str(folder), "metric=[pointing_game]", "protocol.tolerance=0")
    assert code == 0, err
    rows = pd.read_parquet(folder / "rows.parquet")
    ids = set(rows.loc[rows["metric"] == "pointing_game", "protocol"])
    assert len(ids) == 2
    assert "default" in ids
    custom = (ids - {"default"}).pop()
    assert custom.startswith("custom-")
    facts = json.loads((folder / "run.json").read_text())
    assert facts["protocols"]["pointing_game"][custom]["axes"]["tolerance"] == 0
    # the localization errors of the run itself are still there, and scoring with the run's own settings changes nothing
    before = rows[rows["protocol"] != custom].reset_index(drop=True)
    code, _, err = call(capsys, "score", str(folder), "metric=[pointing_game]", "preset=[default]")
    assert code == 0, err
    after = pd.read_parquet(folder / "rows.parquet")
    pd.testing.assert_frame_equal(before, after[after["protocol"] != custom].reset_index(drop=True))

    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert call(capsys, "report", str(folder))[0] == 0
    assert len((folder / "report.html").read_bytes()) == pytest.approx(len(page), rel=0.05)


def test_intervals_within_classes_are_asked_for_and_said(scenes_root: Path, tmp_path: Path) -> None:
    words = ["run", "model=none", "method=[center]", "metric=[energy_pointing_game]", "preset=[default]", "workers=0"]
    words += [f"dataset.root={scenes_root}", f"results={tmp_path}"]
    assert cli.main([*words, "name=plain", "stages=[explain,score]"]) == 0  # no choice: the configuration is another
    assert cli.main([*words, "name=within", "statistics.stratified=true"]) == 0
    assert cli.main(["report", str(tmp_path / "run/plain")]) == 0
    (run,) = open_runs([str(tmp_path / "run/within")])
    (cell,) = run.cells("energy_pointing_game", "default").values()
    for name, stratified, said in (("plain", False, "images"), ("within", True, "images within classes")):
        line = pd.read_csv(tmp_path / "run" / name / "summary.csv").iloc[0]
        assert line["resampled"] == said
        expected = intervals({"": (cell, "mean")}, stratified=stratified)[""]
        assert (line["ci_low"], line["ci_high"]) == pytest.approx(expected)


def test_scoring_again_equals_scoring_at_once(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    """`score RUN protocol.x` gives the very rows of a run made under that protocol, controls included."""
    axes = ["protocol.tolerance=3", "protocol.normalize=max", "protocol.frame=input"]
    assert little_run(capsys, scenes_root, tmp_path, "name=plain")[0] == 0
    assert little_run(capsys, scenes_root, tmp_path, "name=axes", *axes)[0] == 0
    assert call(capsys, "score", str(tmp_path / "run" / "plain"), *axes)[0] == 0
    one, other = (pd.read_parquet(tmp_path / "run" / name / "rows.parquet") for name in ("plain", "axes"))
    one = one[one["protocol"].astype(str).isin(set(other["protocol"].astype(str)))].reset_index(drop=True)
    for column in ("case_id", "method", "metric", "protocol", "problem"):
        assert list(one[column].astype(str)) == list(other[column].astype(str))
    pd.testing.assert_series_equal(one["value"], other["value"], rtol=0, atol=1e-6)


def test_a_named_folder_with_another_configuration_is_refused(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]")[0] == 0
    code, _, err = little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]", "seed=3")
    assert code == 2
    assert "holds another run (seed: there 0, now 3)" in err
    # what cannot change a number may differ
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]", "batch_size=3")[0] == 0
    # nor does a choice that was unknown when the run began, where none is made now
    stored = tmp_path / "run" / "one" / "config.yaml"
    older = yaml.safe_load(stored.read_text())
    assert older["view"].pop("attack") is None
    stored.write_text(yaml.safe_dump(older))
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]")[0] == 0
    code, _, err = little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]", "view.attack=absent")
    assert code == 2
    assert "(view.attack: there None, now 'absent')" in err
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]", "seed=3", "--force")[0] == 0
    assert yaml.safe_load((tmp_path / "run" / "one" / "config.yaml").read_text())["seed"] == 3


def test_a_run_does_not_go_on_with_other_data(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scenes_root, copy)
    assert little_run(capsys, copy, tmp_path, "name=one", "stages=[explain]")[0] == 0
    xml = next((copy / "VOCdevkit/VOC2012/Annotations").iterdir())
    xml.write_text(xml.read_text().replace("<xmin>", "<xmin>1"))
    code, _, err = little_run(capsys, copy, tmp_path, "name=one", "stages=[explain]")
    assert code == 2
    assert "began with other inputs (dataset changed since)" in err


def test_one_process_at_a_time(capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path) -> None:
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]")[0] == 0
    with record.alone(tmp_path / "run" / "one"):
        code, _, err = little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]")
    assert code == 2
    assert "another process is at work here" in err


def test_classes_that_are_not_plainly_the_models_are_named(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    thousand = ["model.num_classes=1000", "name=many", "stages=[explain]"]
    code, _, err = little_run(capsys, scenes_root, tmp_path, *thousand)
    assert code == 0
    assert "note: the data set has 10 classes, model squeezenet1_1 1000 outputs: class i is taken to be output i" in err


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("    raise RuntimeError('no')", "method broken failed: RuntimeError: no"),
        ("    return None", "method broken must return heatmaps [2,h,w]; it returned NoneType"),
        ("    return evidence.features", "method broken must return heatmaps [2,h,w]; it returned [2, 512,"),
    ],
)
def test_a_users_own_method_that_fails_is_named(
    capsys: pytest.CaptureFixture[str],
    scenes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    sentence: str,
) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "broken.yaml").write_text("broken:\n  _target_: broken_method.broken\n")
    (tmp_path / "broken_method.py").write_text(f"def broken(evidence):\n{body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_method", raising=False)
    words = ["stages=[explain]", "method=[broken]", "--config-dir", str(tmp_path / "conf")]
    code, _, err = little_run(capsys, scenes_root, tmp_path / "results", *words)
    assert code == 2
    assert sentence in err


def test_the_same_command_finds_its_folder_again(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert little_run(capsys, scenes_root, tmp_path, "stages=[explain]")[0] == 0
    assert len(list((tmp_path / "run").iterdir())) == 1
    assert little_run(capsys, scenes_root, tmp_path, "stages=[explain]", "seed=1")[0] == 0
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_explain_alone_writes_no_rows_and_score_makes_them(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]")[0] == 0
    folder = tmp_path / "run" / "one"
    assert len(pd.read_parquet(folder / "rows.parquet")) == 0
    assert len(pd.read_parquet(folder / "maps" / "index.parquet")) > 0
    assert call(capsys, "score", str(folder))[0] == 0
    assert little_run(capsys, scenes_root, tmp_path, "name=two")[0] == 0
    one, two = (pd.read_parquet(tmp_path / "run" / name / "rows.parquet") for name in ("one", "two"))
    pd.testing.assert_series_equal(one["value"], two["value"], rtol=0, atol=1e-6)


def test_show_writes_one_png(capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path) -> None:
    picture = next((scenes_root / "VOCdevkit/VOC2012/JPEGImages").iterdir())
    out = tmp_path / "shown.png"
    small = ["model=squeezenet1_1", "model.weights=none", "model.num_classes=10", "method=[grad_cam,center]"]
    code, printed, err = call(capsys, "show", str(picture), "--target", "3", "--out", str(out), *small)
    assert code == 0, err
    assert printed.strip() == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("what", ["methods", "metrics", "datasets", "models", "presets", "recipes", "experiments"])
def test_list_names_what_the_folder_holds(capsys: pytest.CaptureFixture[str], what: str) -> None:
    code, out, _ = call(capsys, "list", what, "--json")
    assert code == 0
    entries = json.loads(out)
    assert [entry["name"] for entry in entries] == catalogue.names(what.removesuffix("s"))
    assert all(entry["about"] for entry in entries)
    code, plain, _ = call(capsys, "list", what)
    assert code == 0
    assert len(plain.strip().splitlines()) == max(len(entries), 0)


def test_every_axis_and_view_choice_can_be_overridden() -> None:
    """conf/config.yaml lists them all as null, so that a misspelt one is refused by name."""
    config = cli.configuration([])
    assert set(config["protocol"]) == set(AXES)
    assert set(config["view"]) == set(View.__dataclass_fields__) - {"layer", "precision", "seed"}
    assert set(VIEW_CHOICES) - {"precision"} <= set(config["view"])


@pytest.mark.parametrize("name", catalogue.names("dataset"))
def test_every_dataset_composes(name: str) -> None:
    assert cli.configuration([f"dataset={name}"])["dataset"]["_target_"]


@pytest.mark.parametrize("name", [n for n in catalogue.names("model") if n not in ("torchvision", "timm", "custom")])
def test_every_model_composes(name: str) -> None:
    assert "_target_" in cli.configuration([f"model={name}"])["model"]


def test_a_users_own_folder_of_yaml_files(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new method is one function and one YAML, outside the package too."""
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "sum_cam.yaml").write_text(
        '# @package method\nsum_cam:\n  _target_: my_methods.sum_cam\n  about: "Sum of activations"\n  rectify: relu\n'
    )
    (tmp_path / "my_methods.py").write_text("def sum_cam(evidence):\n    return evidence.features.sum(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["name=own", "stages=[explain,score]", "method=[sum_cam,center]", "--config-dir", str(tmp_path / "conf")]
    code, _, err = little_run(capsys, scenes_root, tmp_path / "results", *words)
    assert code == 0, err
    rows = pd.read_parquet(tmp_path / "results" / "run" / "own" / "rows.parquet")
    assert set(rows["method"]) == {"sum_cam", "center"}


def test_wrong_words_about_ones_own_yaml_files_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    own = {"powers": "powers:\n  _target_: my_powers.powers\n  about: Powers\n", "torn": "torn: [\n"}
    for name, text in own.items():
        (tmp_path / "conf" / "method" / f"{name}.yaml").write_text(f"# @package method\n{text}")
    (tmp_path / "my_powers.py").write_text("def powers(evidence, power: float = 1.0): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = str(tmp_path / "conf")
    assert configuration(["method=[powers]", "method.powers.power=2"], folder)["method"]["powers"]["power"] == 2
    for words, sentence in (
        (
            ["method=[powers]", "method.powers.pwer=2"],
            "unknown parameter of method powers 'pwer': did you mean 'power'?",
        ),
        (["method=[powers]", "limt=2"], "unknown setting 'limt': did you mean 'limit'?"),
        (["method=[power]"], "unknown method 'power': did you mean 'powers'?"),
        (["method=[torn]"], "a YAML file cannot be read: "),
    ):
        code, _, err = call(capsys, "run", *words, "--config-dir", folder, f"results={tmp_path}")
        assert code == 2, err
        assert sentence in err
    assert "torn.yaml" in err


def test_the_global_random_state_is_untouched(
    capsys: pytest.CaptureFixture[str], scenes_root: Path, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    assert little_run(capsys, scenes_root, tmp_path, "name=one", "stages=[explain]")[0] == 0
    assert torch.equal(before, torch.get_rng_state())
