"""Weights from files: the forms they come in, what does not fit is named, and nothing in them is ever executed."""

import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gradcam_bench.errors import UserError
from gradcam_bench.models.checkpoints import classes_in, load, read


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


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, wrapper: str, prefix: str) -> None:
    inner = {f"{prefix}{name}": tensor for name, tensor in weights().items()}
    torch.save({"epoch": 3, wrapper: inner, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    assert_loaded(tmp_path / "a.pth")


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
        load(network(), {f"a.{name}": tensor for name, tensor in weights().items()}, "f.pth")
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
    with pytest.raises(UserError, match=r"a\.pth cannot be read as weights"):
        read(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


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


def test_the_number_of_classes_is_read_off_the_last_bias() -> None:
    assert classes_in(weights(), network()) == 5
    assert classes_in({f"module.{name}": tensor for name, tensor in weights().items()}, network()) == 5
    assert classes_in({"other": torch.zeros(3)}, network()) is None
