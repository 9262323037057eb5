"""Weights from files: the forms they come in, what does not fit is named, and nothing in them is ever executed."""

import argparse
import pickle
import random
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import classes_in, fitting, load, read


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 5))


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, tensor in network().state_dict().items():
        drawn[name] = torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor + 3
    return drawn


def assert_loaded(path: Path, rtol: float = 0.0) -> None:
    module = network()
    load(module, read(path), str(path))
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, weights()[name], rtol=rtol, atol=0)


def test_safetensors_and_pytorch_files(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors")
    torch.save(weights(), tmp_path / "a.pth")
    torch.save(weights(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert_loaded(path)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net", "ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "backbone.", "_orig_mod.", "a.b.c."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, wrapper: str, prefix: str) -> None:
    inner = {f"{prefix}{name}": tensor for name, tensor in weights().items()}
    torch.save({"epoch": 3, wrapper: inner, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    assert_loaded(tmp_path / "a.pth")


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    """The network below a prefix, a loss function's weights, a metric's state and plain values beside."""
    beside = {"criterion.weight": torch.ones(5), "train_accuracy.correct": torch.tensor(3)}
    saved = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in weights().items()} | beside,
        "hyper_parameters": {"lr": 0.1, "name": "net", "betas": (0.9, 0.99), "nested": {"a": [1, None]}},
        "hparams_name": "kwargs",
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.7)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
    }
    torch.save(saved, tmp_path / "last.ckpt")
    assert_loaded(tmp_path / "last.ckpt")


def test_names_of_a_compiled_network(tmp_path: Path) -> None:
    for number, name_of in enumerate(
        (lambda n: f"_orig_mod.{n}", lambda n: f"module._orig_mod.{n}", lambda n: n.replace(".", "._orig_mod.", 1))
    ):
        save_file({name_of(name): tensor for name, tensor in weights().items()}, tmp_path / f"{number}.safetensors")
        assert_loaded(tmp_path / f"{number}.safetensors")


def test_an_averaged_network_and_its_counter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network())
    averaged.module.load_state_dict(weights())
    torch.save({"ema": averaged.state_dict(), "epoch": 1}, tmp_path / "a.pth")
    assert_loaded(tmp_path / "a.pth")


def test_the_network_itself_goes_before_its_average(tmp_path: Path) -> None:
    average = {name: tensor * 0 for name, tensor in weights().items()}
    torch.save({"model_ema": average, "ema": average, "model": weights()}, tmp_path / "a.pth")
    assert_loaded(tmp_path / "a.pth")


def test_a_student_and_its_teacher_are_refused() -> None:
    both = {f"{who}.{name}": tensor for name, tensor in weights().items() for who in ("student", "teacher")}
    with pytest.raises(UserError, match=r"f.pth holds several such networks \(student\., teacher\.\): save one alone"):
        load(network(), both, "f.pth")


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    save_file({n: t.half() if t.is_floating_point() else t for n, t in weights().items()}, tmp_path / "a.safetensors")
    assert_loaded(tmp_path / "a.safetensors", rtol=1e-3)


def test_a_counter_of_batches_may_be_missing() -> None:
    load(network(), {n: t for n, t in weights().items() if "num_batches" not in n}, "x")


def test_what_does_not_fit_is_named() -> None:
    fewer = {name: tensor for name, tensor in weights().items() if not name.startswith("2.")}
    more = weights() | {"9.extra": torch.zeros(1)}
    wrong = weights() | {"2.bias": torch.zeros(7)}
    with pytest.raises(UserError, match=r"f.pth does not fit Sequential: 2 missing \(such as 2.bias\)$"):
        load(network(), fewer, "f.pth")
    with pytest.raises(UserError, match=r"1 unexpected \(such as 9.extra\)"):
        load(network(), more, "f.pth")
    with pytest.raises(UserError, match=r"8 missing .*9 unexpected"):
        load(network(), {f"a{name}": tensor for name, tensor in weights().items()}, "f.pth")
    with pytest.raises(
        UserError, match=r"does not fit Sequential: 1 missing \(such as 2.bias\), 1 unexpected \(such as 3"
    ):
        load(network(), {f"module.{'3.bias' if n == '2.bias' else n}": t for n, t in weights().items()}, "f.pth")
    with pytest.raises(UserError, match=r"f.pth: 2.bias has shape \(7,\), Sequential wants \(5,\)"):
        load(network(), wrong, "f.pth")


def test_a_file_that_does_not_fit_changes_nothing() -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError):
        load(module, weights() | {"2.bias": torch.zeros(7)}, "x")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["zip", "old", "bare"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    evil = {"0.weight": Code(tmp_path / "ran")}
    if how == "bare":
        (tmp_path / "a.pth").write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, tmp_path / "a.pth", _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UserError, match=r"a\.pth cannot be read as weights \(.* save plain tensors") as error:
        read(tmp_path / "a.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_objects_beside_the_tensors_are_named(tmp_path: Path) -> None:
    for number, (beside, name) in enumerate(
        ((argparse.Namespace(lr=0.1), "argparse.Namespace"), (network(), "torch.nn.modules.container.Sequential"))
    ):
        torch.save({"state_dict": weights(), "hyper_parameters": beside}, tmp_path / f"{number}.pth")
        with pytest.raises(
            UserError, match=f"it holds Python objects, {name}, which could run code: save plain tensors"
        ):
            read(tmp_path / f"{number}.pth")


def contents(tmp_path: Path) -> dict[str, bytes]:
    save_file(weights(), tmp_path / "whole.safetensors")
    torch.save(weights(), tmp_path / "whole.pth")
    safe, zipped = (tmp_path / "whole.safetensors").read_bytes(), (tmp_path / "whole.pth").read_bytes()
    found = {"text.safetensors": b"<html>404</html>", "text.pth": b"<html>404</html>", "empty.pth": b""}
    found |= {"empty.safetensors": b"", "huge.safetensors": b"\xff" * 16}
    rng = random.Random(0)
    found |= {f"junk{n}.pth": b"\x80\x02" + rng.randbytes(40) for n in range(50)}
    found |= {f"cut{n}.safetensors": safe[:n] for n in (4, 100, len(safe) - 1)}
    return found | {f"cut{n}.pth": zipped[:n] for n in (1, 4, 100, len(zipped) // 2, len(zipped) - 1)}


def test_a_broken_file_is_a_sentence(tmp_path: Path) -> None:
    for name, content in contents(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as weights") as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_holds_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.pth is not there \(a file, DEFAULT, none"):
        read(tmp_path / "gone.pth")
    for number, content in enumerate(({"a": 1}, [torch.zeros(1)], torch.zeros(2), {})):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(UserError, match="holds no tensors by name"):
            read(tmp_path / f"{number}.pth")


def test_the_number_of_classes_is_read_off_the_head() -> None:
    seven = weights() | {"2.weight": torch.zeros(7, 4), "2.bias": torch.zeros(7)}
    for tensors, expected in ((weights(), 5), (seven, 7)):
        assert classes_in(tensors, network(), 5) == expected
        assert classes_in({f"module.{name}": tensor for name, tensor in tensors.items()}, network(), 5) == expected
    assert classes_in({"other": torch.zeros(3)}, network(), 5) is None
    assert classes_in(weights(), network(), 9) is None  # nothing in the network is so long


def test_a_network_gets_as_many_classes_as_the_file_has() -> None:
    made = []

    def construct(classes: int | None) -> nn.Sequential:
        made.append(classes)
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, classes or 1000))

    for asked in (None, 5):
        module, classes = fitting(construct, weights(), asked, "f.pth")
        assert (classes, module[2].out_features) == (5, 5)
    assert made == [None, 5, 5]
    with pytest.raises(UserError, match=r"f\.pth has 5 classes, model\.num_classes=1000 asked$"):
        fitting(construct, weights(), 1000, "f.pth")


FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t",
    "swin_v2_t", "vgg11_bn", "vit_b_32",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_the_number_of_classes_is_read_in_every_family(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet cannot be built on meta
        like = torchvision.models.get_model(name, weights=None)
        file = torchvision.models.get_model(name, weights=None, num_classes=7).state_dict()
    assert classes_in(file, like, 1000) == 7
    assert classes_in(like.state_dict(), like, 1000) == 1000
