"""gate: what the network answers, and choices of the view that may differ, on runs of a dozen scenes."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from gradcam_bench import baseline
from gradcam_bench.analysis.reductions import Cell
from gradcam_bench.cli import main
from gradcam_bench.finished import open_runs
from gradcam_bench.shift import SHIFT, moved

CHOICES = ["method=[grad_cam]", "metric=[energy_pointing_game]", "workers=0", "limit=24", "stages=[explain,score]"]


def batch_statistics(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, norm.weight, norm.bias, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one`; `train`, its batch norms in train mode; `bf16`; `random`, of other weights; the baseline of `one`."""
    results = tmp_path_factory.mktemp("results")
    for name, more in (("one", []), ("bf16", ["precision=bf16"]), ("random", ["model.weights=none"])):
        assert main(["run", *CHOICES, f"results={results}", f"name={name}", *more]) == 0
    with mock.patch.object(nn.BatchNorm2d, "forward", batch_statistics):
        assert main(["run", *CHOICES, f"results={results}", "name=train"]) == 0
    assert main(["gate", str(results / "run/one"), "--baseline", str(results / "run/base"), "--update"]) == 0
    return results / "run"


def gated(folder: Path, run: str, *flags: str) -> int:
    return main(["gate", str(folder / run), "--baseline", str(folder / "base"), *flags])


def line_of(said: str) -> list[str]:
    (line,) = [line for line in said.splitlines() if line.startswith(SHIFT)]
    return line.split()


def test_the_same_answers_pass(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert gated(folder, "one", "--margin", "0", "--margin", f"{SHIFT}=0") == 0
    assert "every score as it was: 2 of 2 checks" in capsys.readouterr().out


def test_batch_norm_in_train_mode_is_caught_by_its_answers_alone(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert gated(folder, "train", "--margin", "0.2") == 1
    found = line_of(capsys.readouterr().out)
    assert found[-1] == "regression"
    one, train = (
        run.cases.set_index("case_id")["probability"] for run in open_runs([f"{folder}/one", f"{folder}/train"])
    )
    shift = (train - one).abs().mean()
    assert [float(word) for word in found[-7:-4]] == pytest.approx([0, shift, shift], abs=1e-4)
    assert gated(folder, "train", "--margin", "0.2", "--metrics", "energy_pointing_game") == 0
    assert gated(folder, "train", "--margin", "0.2", "--margin", f"{SHIFT}=0.5") == 0
    assert gated(folder, "train", "--margin", "0.2", "--metrics", SHIFT, "--methods", "grad_cam") == 1


def test_other_weights_answer_otherwise(folder: Path, capsys: pytest.CaptureFixture) -> None:
    gated(folder, "random")
    said = capsys.readouterr().out
    assert SHIFT not in said
    assert "answers of the network not compared: its weights are not the baseline's" in said
    assert gated(folder, "random", "--metrics", SHIFT) == 2  # nothing is left to judge


def test_two_samples_share_no_answer(folder: Path, capsys: pytest.CaptureFixture) -> None:
    gated(folder, "train", "--unpaired", "--margin", "0.9")
    said = capsys.readouterr().out
    assert SHIFT not in said
    assert "answers of the network not compared: two samples" in said


def test_another_precision_is_refused_unless_it_is_allowed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert gated(folder, "bf16") == 2
    said = capsys.readouterr().out
    assert "they differ in view.precision (float32 / bf16) (--allow precision judges it all the same)" in said
    assert "2 undecided" in said
    assert gated(folder, "bf16", "--allow", "interpolation") == 2
    capsys.readouterr()
    assert gated(folder, "bf16", "--allow", "precision") == 0
    said = capsys.readouterr().out
    assert said.count("allowed to differ (baseline / run): view.precision (float32 / bf16)") == 1
    assert "2 pass" in said
    assert "not in the baseline" not in said
    shift = float(line_of(said)[-5])
    assert 0 < shift < 0.01
    config = tmp_path / "gate.yaml"
    config.write_text("allow: [precision]")
    assert gated(folder, "bf16", "--config", str(config)) == 0
    assert gated(folder, "one", "--allow", "precision") == 0
    capsys.readouterr()
    assert gated(folder, "bf16", "--allow", "precision", "--margin", f"{SHIFT}=0") == 1  # nor is it judged more mildly


def test_rounding_of_the_answers_is_no_regression_where_a_score_is_undecided(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """The size of a change is above 0 beyond doubt whatever changed it: only beyond its margin is it worse."""
    assert gated(folder, "bf16", "--allow", "precision", "--margin", "0") == 2
    said = capsys.readouterr().out
    assert float(line_of(said)[-4]) > 0  # the lower bound
    assert "cannot be judged (1 pass, 1 undecided)" in said


@pytest.mark.parametrize(("word", "nearest"), [("precison", "precision"), ("tolerance", ""), ("seed", "")])
def test_only_choices_of_the_view_are_allowed(
    folder: Path, word: str, nearest: str, capsys: pytest.CaptureFixture
) -> None:
    assert gated(folder, "one", "--allow", word) == 2
    error = capsys.readouterr().err
    assert f"unknown choice of the view to allow '{word}'" in error
    assert f"did you mean '{nearest}'" in error or not nearest


def test_a_baseline_of_the_first_format_has_no_answers(folder: Path, capsys: pytest.CaptureFixture) -> None:
    made = baseline.read(folder / "base")
    cells = {one: cells for one, cells in made.cells.items() if one[0] != SHIFT}
    baseline.write(folder / "first", baseline.Baseline({**made.facts, "format": 1}, cells))
    assert main(["gate", str(folder / "train"), "--baseline", str(folder / "first"), "--margin", "0.2"]) == 0
    said = capsys.readouterr().out
    assert "answers of the network not compared: the baseline has none (--update)" in said


def test_answers_are_kept_with_their_view(folder: Path) -> None:
    back = baseline.read(folder / "base")
    ((metric, view),) = [one for one in back.cells if one[0] == SHIFT]
    assert (metric, view) == (SHIFT, "warp 224")
    assert back.card((metric, view))["view"]["precision"] == "float32"
    ((network, cell),) = back.cells[metric, view].items()
    assert network == "scenes_gap"
    (run,) = open_runs([str(folder / "one")])
    known = run.cases.set_index("case_id")["probability"]
    keys = [f"{image}#{label}" for image, label in zip(cell.images, cell.classes, strict=True)]
    assert np.array_equal(cell.values, known[keys].to_numpy(np.float32))
    assert json.loads(json.dumps(back.facts))["format"] == 2


def test_a_case_moves_by_what_its_own_probability_does() -> None:
    def cell(values: list[float], images: list[str], classes: list[str]) -> Cell:
        return Cell(np.array(values), None, np.array(classes), np.array(images), {})

    now = cell([0.9, 0.2, 0.5, 0.7], ["a", "a", "b", "new"], ["1", "2", "1", "1"])
    then = cell([0.5, 0.6, 0.1], ["b", "a", "a"], ["1", "1", "2"])
    run, zeros = moved(now, then)
    assert run.values[:3] == pytest.approx([0.3, 0.1, 0.0])
    assert list(zeros.values) == [0, 0, 0]
    assert list(zeros.images) == ["b", "a", "a"]
