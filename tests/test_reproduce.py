"""Published numbers beside ours: the right cell of the right run, and a verdict that claims nothing it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from gradcam_bench import cli, comparison, experiments, published, reproduce
from gradcam_bench.analysis.summary import COLUMNS as SUMMARY
from gradcam_bench.cells import write_cells
from gradcam_bench.comparison import Done, Ours, compare, verdict
from gradcam_bench.errors import UserError
from gradcam_bench.experiments import Cell, PaperRun, Quantity, experiment, placed
from gradcam_bench.fidelity import departures
from gradcam_bench.files import as_arrow
from gradcam_bench.schemas import ROWS
from tests.conftest import SHARED

METADATA = SHARED / "wsol_metadata"
PRINTED = replace(
    published.find("wsol_2020", "center_baseline_recomputed/none/cub/center_all_boxes/maxboxaccat5"), value="59.7"
)
CELL = Cell("cub", "center", "max_box_acc", "wsol_2020_v1")
ONE = Quantity(CELL, PRINTED, tolerance=0.05)
WHOLE = {"images": 10, "available": 20, "skipped": []}
RUN = PaperRun((), images=10)
EXACT = (59.74, 58.0, 61.0)


@pytest.mark.parametrize(
    ("one", "run", "facts", "ours", "expected"),
    [
        ({}, {}, {}, EXACT, "agrees"),
        ({}, {}, {}, (59.66, 58, 61), "agrees"),
        ({}, {}, {}, (59.76, 58, 61), "differs"),
        ({"tolerance": None}, {}, {}, (60.5, 59, 62), "agrees"),
        ({"tolerance": None}, {}, {}, (60.5, 59.74, 62), "agrees"),
        ({"tolerance": None}, {}, {}, (60.5, 59.76, 62), "differs"),
        ({"tolerance": None}, {}, {}, (59.74, float("nan"), float("nan")), "agrees"),
        ({"tolerance": None}, {}, {}, (59.76, float("nan"), float("nan")), "differs"),
        ({}, {}, {"images": 9}, EXACT, "cannot be judged: a part of the data, 9 of 10 images"),
        ({}, {"available": 20}, {}, EXACT, "agrees"),
        ({}, {"available": 30}, {}, EXACT, "cannot be judged: a part of the data, from 20 of 30 images"),
        ({}, {}, {"skipped": [{}, {}]}, EXACT, "cannot be judged: 2 images could not be used"),
        ({}, {"differs": "another network"}, {}, EXACT, "cannot be judged: another network"),
        ({}, {"weights": "Caffe's"}, {}, EXACT, "cannot be judged: other weights than the paper's (Caffe's)"),
        ({"differs": "another gradient"}, {}, {}, EXACT, "cannot be judged: another gradient"),
        ({"cases": 11}, {}, {}, EXACT, "cannot be judged: 10 of 11 cases"),
        ({}, {}, {}, (float("nan"),) * 3, "cannot be judged: nothing was scored"),
    ],
)
def test_a_verdict_claims_nothing_that_it_cannot(one, run, facts, ours, expected) -> None:
    mine = Done(Path(), replace(RUN, **run))
    assert verdict(replace(ONE, **one), ours, mine, WHOLE | facts, Ours(n=10)).startswith(expected)


def test_what_is_remembered_or_no_number_or_not_run_judges_nothing() -> None:
    mine = Done(Path(), RUN)
    for changed, sentence in (({"confidence": "remembered"}, "from memory"), ({"value": "60+-1"}, "no plain number")):
        one = replace(ONE, published=replace(PRINTED, **changed))
        assert sentence in verdict(one, EXACT, mine, WHOLE, Ours(n=10))
    missing = replace(mine, missing="--data cub=DIR is missing; more")
    assert verdict(ONE, EXACT, missing, {}, Ours()) == "cannot be judged: not run (--data cub=DIR is missing)"


@pytest.mark.parametrize(
    ("above", "interval", "expected"),
    [
        (True, (0.1, 0.3), "agrees"),
        (True, (-0.3, -0.1), "differs"),
        (False, (-0.3, -0.1), "agrees"),
        (False, (0.1, 0.3), "differs"),
        (True, (-0.1, 0.3), "cannot be judged: the interval holds 0"),
        (True, (float("nan"),) * 2, "cannot be judged: too few images"),
    ],
)
def test_a_claim_agrees_where_the_whole_interval_does(above: bool, interval: tuple, expected: str) -> None:
    one = Quantity(CELL, claim=("it is more", "a paper"), bound=replace(CELL, method="noise"), above=above)
    assert verdict(one, (0.0, *interval), Done(Path(), RUN), WHOLE, Ours(n=10)).startswith(expected)


def write_run(folder: Path, cells: list[tuple[str, str, str, str, float]]) -> Done:
    """A finished run's files. cells: (method, metric, protocol id, stage, value); an id `p-x` comes from preset `p`."""
    folder.mkdir()
    names = ("method", "metric", "protocol", "stage", "value")
    table = pd.DataFrame([dict(zip(names, cell, strict=True)) for cell in cells])
    table.assign(n=10).reindex(columns=SUMMARY).to_csv(folder / "summary.csv", index=False)
    ids: dict[str, dict[str, dict[str, str]]] = {}
    for _, metric, protocol, *_ in cells:
        ids.setdefault(metric, {})[protocol] = {"preset": protocol.partition("-")[0]}
    (folder / "run.json").write_text(json.dumps(WHOLE | {"protocols": ids, "refused": {"cam": "cam does not apply"}}))
    return Done(folder, RUN)


def test_each_quantity_is_read_from_its_own_cell(tmp_path: Path) -> None:
    stages = ("trained", "cascade_down/1:fc", "cascade_down/2:layer4", "independent/1:fc")
    cells = [("center", "m", "v1-x", "trained", 0.5), ("center", "m", "v2-y", "trained", 0.25)]
    cells += [("noise", "m", "v1-x", "trained", 0.125)]
    staged = [("center", "s", "v1-z", stage, 0.1 * n) for n, stage in enumerate(stages[1:], 1)]
    done = {"a": write_run(tmp_path / "a", cells), "b": write_run(tmp_path / "b", staged)}
    asked = [("a", "center", "m", "v1", "trained"), ("a", "center", "m", "v2", "trained")]
    asked += [("a", "noise", "m", "v1", "trained"), ("a", "cam", "m", "v1", "trained")]
    asked += [("b", "center", "s", "v1", "last"), ("b", "center", "s", "v1", "1")]
    table = compare([Quantity(Cell(*cell), PRINTED) for cell in asked], done)
    assert list(table.columns) == [*reproduce.COLUMNS, *reproduce.FURTHER]
    assert table["ours"].fillna(-1).round(9).tolist() == [50, 25, 12.5, -1, 20, 10]
    assert table["protocol"].tolist() == ["v1-x", "v2-y", "v1-x", "", "v1-z", "v1-z"]
    assert table["verdict"][3] == "cannot be judged: nothing was scored (cam, m, run a: cam does not apply)"
    assert table["difference"].round(9)[0] == -9.7
    flipped = compare([Quantity(Cell(*asked[2]), PRINTED, complement=True)], done)
    assert flipped["ours"].tolist() == [87.5]


def test_what_the_cases_lacked_is_said_where_nothing_was_scored(tmp_path: Path) -> None:
    done = write_run(tmp_path / "a", [("cam", "m", "v1-x", "trained", 0.5)])
    facts = json.loads((done.folder / "run.json").read_text()) | {"refused": {}}
    (done.folder / "run.json").write_text(json.dumps(facts))

    def said() -> str:
        return compare([Quantity(Cell("a", "center", "m", "v1"), PRINTED)], {"a": done}).iloc[0]["verdict"]

    assert said() == "cannot be judged: nothing was scored (center, m, run a: no image has a case)"
    problems = ["no box of the class", "no mask of the class", "no box of the class"]
    rows = [
        {"image_id": f"{n}", "case_id": f"{n}#0", "method": "center", "metric": "m", "protocol": "v1-x", "view": "v"}
        | {"model": "n", "stage": "trained", "draw": 0, "value": None, "curve": None, "problem": problem}
        for n, problem in enumerate(problems)
    ]
    write_cells(done.folder / "rows.parquet", as_arrow(pd.DataFrame(rows), ROWS))
    assert said().endswith("(center, m, run a: no box of the class (2 cases), no mask of the class (1 case))")
    skipped = [{"reason": "a.jpg cannot be read"}] * 3
    (done.folder / "run.json").write_text(json.dumps(facts | {"skipped": skipped}))
    (done.folder / "rows.parquet").unlink()
    assert said().endswith("(center, m, run a: 3 images could not be used: a.jpg cannot be read)")


def test_a_classifiers_error_is_that_under_the_quantitys_view(tmp_path: Path) -> None:
    done = write_run(tmp_path / "a", [("cam", "m", "v1", "trained", 0.5)])
    view, other = {"resize": "warp", "size": 224}, {"resize": "warp", "size": 256}
    ids = {name: comparison.view_id(comparison.View(**chosen)) for name, chosen in (("v1", view), ("v2", other))}
    cards = {name: {"preset": name, "view": chosen} for name, chosen in (("v1", view), ("v2", other))}
    accuracy = [{"view": ids[name], "images": 8, "top1": top, "top5": 1} for name, top in (("v2", 0.25), ("v1", 0.75))]
    (done.folder / "run.json").write_text(json.dumps(WHOLE | {"protocols": {"m": cards}, "accuracy": accuracy}))
    for preset, error in (("v1", 25.0), ("v2", 75.0)):
        one = Quantity(Cell("a", "cam", "classification_error_top1", preset), PRINTED)
        line = compare([one], {"a": done}).iloc[0]
        assert (line["ours"], line["n"]) == (error, 8)
        assert line["ci_low"] < error < line["ci_high"]


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_composes_and_names_metrics_that_its_presets_define(name: str) -> None:
    found = experiment(name)
    assert found.about
    assert found.needs
    configs = {key: cli.configuration(placed(found, key, [], Everywhere())) for key in found.runs}
    for one in found.quantities:
        for cell in (one.cell, one.bound):
            if not isinstance(cell, Cell):
                continue
            config = configs[cell.run]
            assert cell.method in config["method"], cell
            if cell.metric in comparison.CLASSIFIER:
                continue
            assert cell.metric in config["metric"], cell
            defined = {label for label, spec in config["preset"].items() if cell.metric in spec["metrics"]}
            assert cell.preset in (defined or {"default"}), cell
        assert one.published or all(one.claim)


class Everywhere(dict):
    """Every place is there."""

    def __missing__(self, key: str) -> str:
        return f"/{key}"

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: str | None = None) -> str:
        return self[key]


WORDS = ["dataset=imagenet", "dataset.root=X", "model=vgg16", "model.weights=IMAGENET1K_V1", "method=[grad_cam,center]"]
WORDS += ["metric=[localization_error_top1,win]", "preset=[grad_cam_2017,grad_cam_pp_2018]"]


@pytest.mark.parametrize(
    ("given", "metric", "changed"),
    [
        ([], "localization_error_top1", []),
        (["limit=3", "batch_size=2", "dataset.root=Y", "device=cpu"], "localization_error_top1", []),
        (["protocol.threshold=0.2"], "localization_error_top1", ["protocol.threshold"]),
        (["view.size=256"], "localization_error_top1", ["view.size"]),
        (["model.weights=none"], "localization_error_top1", ["model.weights"]),
        (["method=[grad_cam,noise]"], "localization_error_top1", []),
        (["preset=[grad_cam_2017]"], "localization_error_top1", []),
        (["precision=bf16"], "localization_error_top1", ["precision"]),
    ],
)
def test_what_the_user_changes_of_the_papers_run_is_found(given: list[str], metric: str, changed: list[str]) -> None:
    one = Quantity(Cell("a", "grad_cam", metric, "grad_cam_2017"), PRINTED)
    own, actual = cli.configuration(WORDS), cli.configuration([*WORDS, *given])
    assert sorted(departures(own, actual, one)) == changed


def test_another_method_matters_to_what_compares_methods() -> None:
    one = Quantity(Cell("a", "grad_cam", "win", "grad_cam_pp_2018"), PRINTED)
    changed = departures(cli.configuration(WORDS), cli.configuration([*WORDS, "method=[grad_cam,noise]"]), one)
    assert any(key.startswith("method.noise") for key in changed)


def test_a_file_with_the_published_weights_is_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradcam_bench import fidelity

    (tmp_path / "mine.pth").write_bytes(b"abc")  # sha256 ba7816bf...
    one = Quantity(Cell("a", "grad_cam", "localization_error_top1", "grad_cam_2017"), PRINTED)
    own, actual = (cli.configuration([*WORDS, *more]) for more in ([], [f"model.weights={tmp_path}/mine.pth"]))
    assert list(departures(own, actual, one)) == ["model.weights"]
    monkeypatch.setattr(fidelity, "published_digits", lambda name, weights: "ba7816bf")
    assert not departures(own, actual, one)
    mine = Done(Path(), replace(RUN, weights="Caffe's"), {ONE.identity: {"model.weights": "file"}}, vouched=True)
    assert verdict(ONE, EXACT, mine, WHOLE, Ours(n=10)) == "agrees"
    placed_file = replace(RUN, set=("model=trained", "model.weights={my_weights}"), weights="not published")
    assert verdict(ONE, EXACT, replace(mine, run=placed_file, changed={}), WHOLE, Ours(n=10)) == "agrees"
    unsaid = replace(mine, run=placed_file, changed={}, vouched=False)
    assert "other weights than the paper's (not published)" in verdict(ONE, EXACT, unsaid, WHOLE, Ours(n=10))
    other = replace(mine, changed={ONE.identity: {"model.name": "squeezenet1_1", "model.weights": "file"}})
    assert "another network or other weights (model.name=" in verdict(ONE, EXACT, other, WHOLE, Ours(n=10))


def test_a_group_chosen_anew_takes_the_experiments_settings_of_the_old_one_with_it() -> None:
    found = experiment("grad_cam_2017")
    own = ["model=squeezenet1_1", "model.weights=FILE", "dataset=folder", "dataset.root=DIR"]
    words = placed(found, "ablation_earlier_layer", own, {})
    assert words[-4:] == own
    assert not [word for word in words[:-4] if word.startswith(("model", "dataset"))]
    with pytest.raises(UserError, match="--data imagenet=DIR is missing"):
        placed(found, "vgg16", [], {})
    with pytest.raises(UserError, match="--data voc07_weights=FILE is missing"):
        placed(found, "occlusion", [], {"root": "DIR"})
    assert "dataset.root=DIR" in placed(found, "vgg16", [], {"root": "DIR"})


def test_wrong_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        (["wsol_centre"], "wsol_center"),
        (["wsol_center"], "--data wsol=DIR is missing"),
        (["wsol_center", "dataset.root=x", "--only", "cup"], "center_cub"),
        (["wsol_center", f"dataset.root={tmp_path}", "--only", "center_cub"], str(tmp_path)),
        (["wsol_center", "dataset.root=x", "batchsize=3"], "batch_size"),
        (["wsol_center", "--data", "wsol"], "--data wsol: give PLACE=DIR"),
    ):
        assert cli.main(["reproduce", *words]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(UserError, match="wsol_center"):
        experiment("wsol_centre")
    assert experiment("paper/wsol_center") == experiment("wsol_center")


def test_a_check_says_what_is_missing_and_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "rise_2018", "--check", f"results={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert "--data imagenet=DIR is missing" in said
    assert "image-net.org" in said
    assert "days on a GPU" in said
    assert cli.main(["reproduce", "wsol_2020", "--check", "--smoke", "--only", "center", f"results={tmp_path}"]) == 1
    assert "8 of 5794 annotations: a part is not judged" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not METADATA.is_dir(), reason="the annotation files of wsolevaluation are not here")
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--only", "center_cub"], 3),
        pytest.param([], 8, marks=pytest.mark.slow),
    ],
)
def test_the_centre_baseline_is_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], expected: int
) -> None:
    words = ["reproduce", "wsol_center", f"dataset.root={METADATA}", f"results={tmp_path}", *extra]
    assert cli.main([*words, "--check"]) == 0
    assert cli.main(words) == 0
    table = pd.read_csv(tmp_path / "wsol_center" / "reproduction.csv")
    assert len(table) == expected
    assert (table["difference"].abs() <= 0.05).all()
    assert (table["verdict"] == "agrees").all()
    assert set(table["n"]) <= {5794, 50000}
    assert cli.main(words) == 0  # once more: everything is there already
    assert len(pd.read_csv(tmp_path / "wsol_center" / "reproduction.csv")) == expected
    page = (tmp_path / "wsol_center" / "reproduction.html").read_text()
    assert page.count("<tr>") == expected + 1
    capsys.readouterr()


def test_a_limited_run_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not METADATA.is_dir():
        pytest.skip("the annotation files of wsolevaluation are not here")
    words = [f"dataset.root={METADATA}", f"results={tmp_path}", "--only", "center_cub", "--limit", "30"]
    assert cli.main(["reproduce", "wsol_center", *words]) == 0
    table = pd.read_csv(tmp_path / "wsol_center" / "reproduction.csv")
    assert table["verdict"].str.startswith("cannot be judged: a part").all()
    assert set(table["n"]) == {30}
    assert (table["ci_high"] > table["ci_low"]).all()
    capsys.readouterr()


def test_what_an_experiment_says_is_escaped_on_its_page(tmp_path: Path) -> None:
    from gradcam_bench.report import reproduction

    line = dict.fromkeys([*reproduce.COLUMNS, *reproduce.FURTHER], 0.5) | {"verdict": "agrees", "unit": "%"}
    table = pd.DataFrame([line | {"quantity": "<script>", "published": "a&b", "source": "<b>"}])
    page = reproduction.write(tmp_path / "page.html", "<i>name", "about", "needs", table).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;name" in page
    assert "a&amp;b" in page


def test_claims_and_gaps_of_earlier_calls_stay_in_the_table(tmp_path: Path) -> None:
    found = experiment("sanity_2018")
    done = {"inception_v3": Done(Path(), found.runs["inception_v3"], missing="no pictures")}
    table = compare(found.quantities, done)
    table.iloc[::2].to_csv(tmp_path / "reproduction.csv", index=False)
    both = reproduce._with_others(table.iloc[1::2], tmp_path / "reproduction.csv", found)
    assert both["quantity"].tolist() == [one.name for one in found.quantities]
    pd.testing.assert_frame_equal(both, table, check_dtype=False)
