"""The verb `train`, end to end on pictures that a glance tells apart: it learns, resumes, refuses, leaves files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gradcam_bench import cli
from gradcam_bench.errors import UserError
from gradcam_bench.models.trained import facts_in, trained_network
from gradcam_bench.models.zoo import custom_network
from gradcam_bench.overrides import configuration
from gradcam_bench.training import train as training
from gradcam_bench.training.outcome import CHECKPOINT, LOG, WEIGHTS
from gradcam_bench.training.preparation import fold, setup
from gradcam_bench.training.train import train

pytest.importorskip("lightning")
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 40, 50)}


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight noisy pictures of each of three colours, one folder a colour."""
    root, noise = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for k in range(8):
            pixels = np.array(colour) + noise.normal(0, 40, (36, 40, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{k}.png")
    return root


def words(root: Path, results: Path, *more: str) -> list[str]:
    """A quick training: the small network for scenes, from random weights, on 32x32 pixels."""
    return [
        "recipe=dog_breeds_vgg16", "model=scenes_gap", "model.weights=none", f"dataset.root={root}", "device=cpu",
        "recipe.preprocessing={resize: warp, size: 32, crop: null}", "recipe.augment=flip", "lr=0.02", "epochs=4",
        "batch_size=6", "workers=0", "held_out=0.25", f"results={results}", "name=one", *more,
    ]  # fmt: skip


def trained(overrides: Sequence[str], force: bool = False) -> Path:
    folder = train(configuration(overrides, None, "train"), force)
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def done(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(words(colours, tmp_path_factory.mktemp("done")))


def same(one: Path, other: Path) -> None:
    for name in (WEIGHTS, LOG):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_it_learns_and_says_so(done: Path) -> None:
    log = pd.read_csv(done / LOG)
    assert list(log["epoch"]) == [0, 1, 2, 3, 4]
    assert log["loss"].iloc[-1] < 0.5 * log["loss"].iloc[1]
    assert log["validation_accuracy"].iloc[0] < 0.7
    assert log["validation_accuracy"].iloc[-1] == 1
    assert (log["pictures"].iloc[1:] == 18).all()
    assert (log["validation_pictures"] == 6).all()
    told = json.loads((done / "run.json").read_text())
    assert told["before"]["validation_accuracy"] == log["validation_accuracy"].iloc[0]
    assert told["after"]["validation_loss"] == log["validation_loss"].iloc[-1]
    assert told["versions"]["lightning"] != "not installed"


def test_what_it_leaves(done: Path) -> None:
    assert not (done / CHECKPOINT).exists()
    there = {path.name for path in (done / "plots").iterdir()}
    assert {f"training.{kind}" for kind in ("svg", "pdf", "png")} <= there
    assert {"grad_cam_0.png", "grad_cam_3.png"} <= there
    assert not list(done.rglob("*.tmp"))
    facts = facts_in(done / WEIGHTS)
    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["recipe"]["epochs"] == 4
    assert facts["dataset"]["fingerprint"]
    assert (facts["layer"], facts["activation"], facts["surgery"]) == ("layer4", "softmax", "head")


def test_an_interrupted_training_ends_the_same(
    done: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = training.write_text

    def stop(path: Path, text: str) -> None:
        written(path, text)
        if path.name == LOG and len(text.splitlines()) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_text", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(words(colours, tmp_path))
    monkeypatch.undo()
    folder = tmp_path / "train" / "one"
    assert (folder / CHECKPOINT).is_file()
    assert not (folder / WEIGHTS).exists()
    same(trained(words(colours, tmp_path, "workers=2")), done)


def test_one_killed_before_its_weights_were_written_only_writes_them(
    done: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(words(colours, tmp_path))
    monkeypatch.undo()
    same(trained(words(colours, tmp_path)), done)


def test_random_numbers_and_modes_stay_as_they_were(colours: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trained(words(colours, tmp_path, "epochs=1"))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_finished_training_is_not_repeated_and_another_is_refused(
    done: Path, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = done.parent.parent
    before = (done / WEIGHTS).stat().st_mtime_ns
    trained(words(colours, results))
    assert "finished before" in capsys.readouterr().err
    assert (done / WEIGHTS).stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"recipe.batch_size: there 6, now 5"):
        trained(words(colours, results, "batch_size=5"))


def test_a_damaged_checkpoint_is_a_sentence(colours: Path, tmp_path: Path) -> None:
    trained(words(colours, tmp_path, "epochs=1"))
    folder = tmp_path / "train" / "one"
    (folder / WEIGHTS).unlink()
    (folder / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"is damaged .*--force"):
        trained(words(colours, tmp_path, "epochs=1"))


def test_a_run_and_a_picture_with_the_trained_network(
    done: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["model=trained", f"model.weights={done / WEIGHTS}", f"results={tmp_path}", "method=[cam,grad_cam]"]
    picture = str(colours / "red" / "0.png")
    assert cli.main(["show", picture, *model]) == 0
    assert capsys.readouterr().out.strip().endswith("0-2.png"), "red is class 2"
    data = ["dataset=folder", f"dataset.root={colours}", "workers=0", "name=two", "limit=2"]
    assert cli.main(["run", *data, *model, "metric=[average_drop]", "preset=[default]"]) == 0
    found = json.loads((tmp_path / "run" / "two" / "run.json").read_text())
    assert found["weights"] == trained_network(str(done / WEIGHTS)).digest
    assert found["accuracy"][0]["top1"] == 1
    assert not found["refused"], "the network ends in an average and one linear map: CAM applies"


def test_several_classes_a_picture(scenes_root: Path, tmp_path: Path) -> None:
    data = [
        f"dataset.root={scenes_root}",
        f"validation.root={scenes_root}",
        "dataset.split=test",
        "validation.split=test",
    ]
    rest = ["recipe.preprocessing.size=64", "epochs=1", "device=cpu", "workers=0", f"results={tmp_path}", "name=two"]
    folder = trained([*data, *rest])
    log = pd.read_csv(folder / LOG)
    assert log["validation_mean_average_precision"].between(0, 1).all()
    network = trained_network(str(folder / WEIGHTS))
    assert network.activation == "sigmoid"
    assert network.preprocessing.size == 64
    said = network.probabilities(torch.tensor([[0.0, 0.0]]))
    assert said.tolist() == [[0.5, 0.5]]


def test_permuted_labels_are_learnt_by_heart(colours: Path, tmp_path: Path) -> None:
    more = ["recipe.labels=permuted", "recipe.stop_at=0.7", "epochs=60", "recipe.augment=none", "recipe.weight_decay=0"]
    folder = trained(words(colours, tmp_path, *more, "recipe.optimizer=adamw", "lr=0.003"))
    log = pd.read_csv(folder / LOG)
    assert log["accuracy"].iloc[-1] >= 0.7 > log["accuracy"].iloc[1:-1].max(), "it stops where it was told to"
    assert log["epoch"].iloc[-1] < 60
    assert facts_in(folder / WEIGHTS)["recipe"]["labels"] == "permuted"


def test_frozen_layers_and_batch_norms_stay(colours: Path, tmp_path: Path) -> None:
    more = ["recipe.lr_factors={new: 10, stem: 0, layer1: 0}", "recipe.batch_norm=frozen", "epochs=1"]
    config = configuration(words(colours, tmp_path, *more), None, "train")
    before = setup(fold(config)).network.module.state_dict()
    folder = train(config)
    assert folder is not None
    after = trained_network(str(folder / WEIGHTS)).module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith(("stem", "layer1")) or "running" in name]
    assert {"fc.weight", "layer4.conv1.weight", "layer4.bn1.weight"} <= changed


def test_a_broken_picture_is_left_out_or_stops(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    for name in COLOURS:
        (root / name).mkdir(parents=True)
        for path in sorted((colours / name).iterdir())[:3]:
            (root / name / path.name).write_bytes(path.read_bytes())
    torn = (root / "red" / "0.png").read_bytes()
    (root / "red" / "0.png").write_bytes(torn[: len(torn) // 2])
    folder = trained(words(root, tmp_path, "epochs=1", "batch_size=4"))
    log = pd.read_csv(folder / LOG)
    assert log[["pictures", "validation_pictures"]].iloc[-1].sum() == 8
    assert "0.png: cannot be decoded" in capsys.readouterr().err
    with pytest.raises(UserError, match="cannot be decoded"):
        trained(words(root, tmp_path, "epochs=1", "batch_size=4", "on_error=raise", "name=two"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["held_out=1"], "held_out=1: a share"),
        (["limit=1"], "limit=1"),
        (["workers=-1"], "workers=-1"),
        (["precision=float16"], "unknown precision 'float16'"),
        (["device=tpu"], "unknown device"),
        (["precision=fp16"], "fp16 needs a CUDA device"),
        (["recipe=gapp"], "unknown recipe 'gapp'"),
        (["recipe.surgary=gap"], "unknown setting of recipe 'surgary': did you mean 'surgery'"),
        (["recipe.surgery=none"], r"10 outputs, the data set 3 classes: recipe.surgery=head"),
        (["recipe.surgery=irn"], "not for scenes_gap"),
        (["recipe.preprocessing={sise: 3}"], "did you mean 'size'"),
        (["recipe.lr_factors={layer9: 0}"], "unknown module in recipe.lr_factors 'layer9'"),
        (["model.layer=layer9"], "no such module"),
        (["model=none"], "train needs a model"),
        (["model=trained"], "none is not there"),
        (["dataset@validation=folder", "validation.root=EMPTY"], "other classes"),
        (
            ["recipe.augment=crop_flip", "recipe.preprocessing={resize: none, size: null, crop: null}"],
            "crops to a size",
        ),
    ],
)
def test_what_cannot_work_is_a_sentence(
    colours: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty" / "purple").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "empty" / "purple" / "0.png")
    overrides = words(colours, tmp_path, *(word.replace("EMPTY", str(tmp_path / "empty")) for word in more))
    assert cli.main(["train", *overrides]) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert "Traceback" not in told


def test_a_network_of_ones_own(colours: Path, tmp_path: Path) -> None:
    own = ["model=custom", "model.target=torchvision.models.shufflenet_v2_x0_5", "model.layer=conv5"]
    made = [word for word in words(colours, tmp_path) if not word.startswith("model")]
    folder = trained([*made, *own, "+model.num_classes=3", "epochs=1", "recipe.surgery=none"])
    with pytest.raises(UserError, match=r"model=custom model.target=torchvision.models.shufflenet_v2_x0_5"):
        trained_network(str(folder / WEIGHTS))
    network = custom_network(own[1].partition("=")[2], "conv5", str(folder / WEIGHTS), num_classes=3)
    stored = load_file(folder / WEIGHTS)
    assert all(torch.equal(value, stored[name]) for name, value in network.module.state_dict().items())


def test_mixed_precision_keeps_weights_in_float32(colours: Path, tmp_path: Path) -> None:
    folder = trained(words(colours, tmp_path, "epochs=1", "precision=bf16"))
    state = trained_network(str(folder / WEIGHTS)).module.state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    full = trained(words(colours, tmp_path, "epochs=1", "name=two"))
    assert (folder / LOG).read_bytes() != (full / LOG).read_bytes()


def test_a_loss_that_runs_away_is_a_sentence(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a lower lr="):
        trained(words(colours, tmp_path, "lr=1e30", "epochs=2", "batch_size=3"))


def test_without_lightning_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert cli.main(["train"]) == 2
    assert "pip install 'gradcam-bench[train]'" in capsys.readouterr().err
