"""Files of trained networks: what goes in comes out, and what is no such file is a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gradcam_bench.catalogue import spec
from gradcam_bench.errors import UserError
from gradcam_bench.models import trained
from gradcam_bench.models.network import Network, Preprocessing, fingerprint
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.models.surgery import operate
from gradcam_bench.models.zoo import torchvision_network

CLASSES = ("beagle", "pug", "whippet")
RECIPE = Preprocessing("warp", 96, None, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))


def a_network() -> Network:
    """scenes_gap with a head for three classes, random."""
    torch.manual_seed(3)
    made = operate("head", scenes_network("scenes_gap", None).module, "scenes_gap", 3)
    digest = fingerprint("scenes_gap", made.module)
    return Network("scenes_gap", made.module.eval(), RECIPE, "layer3", digest, "sigmoid", CLASSES)


FACTS: dict[str, Any] = {
    "architecture": {"library": "scenes", "name": "scenes_gap", "options": {}},
    "surgery": "head",
    "seed": 4,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    trained.save(tmp_path / "weights.safetensors", a_network(), FACTS)
    return tmp_path / "weights.safetensors"


def altered(file: Path, **changes: Any) -> Path:
    """The file with some of its facts changed; None takes one out."""
    with safe_open(file, "pt") as opened:
        told = json.loads(opened.metadata()[trained.KEY])
    told = {key: value for key, value in (told | changes).items() if value is not None}
    save_file(load_file(file), file, metadata={trained.KEY: json.dumps(told)})
    return file


def test_all_of_a_network_comes_back(file: Path) -> None:
    before, after = a_network(), trained.trained_network(str(file))
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(before.module(images), after.module(images))
    for name in ("name", "preprocessing", "layer", "digest", "activation", "classes"):
        assert getattr(before, name) == getattr(after, name), name
    assert trained.facts_in(file)["seed"] == 4
    assert trained.trained_network(str(file), layer="layer4").layer == "layer4"


def test_a_surgery_is_done_again(tmp_path: Path) -> None:
    network = torchvision_network("resnet18", "none")
    built = trained.architecture(spec("model", "resnet18"), network.module)
    assert built == {"library": "torchvision", "name": "resnet18", "options": {}}
    made = operate("irn", network.module, "resnet18", 3).module.eval()
    before = Network("resnet18", made, RECIPE, "layer4", "", "sigmoid", CLASSES)
    trained.save(tmp_path / "a.safetensors", before, FACTS | {"architecture": built, "surgery": "irn"})
    after = trained.trained_network(str(tmp_path / "a.safetensors")).module
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(made(images), after(images))
    assert after.layer4[0].conv2.stride == (1, 1)


def test_a_new_head_alone_is_also_weights_of_the_architecture(tmp_path: Path) -> None:
    network = torchvision_network("resnet18", "none")
    made = operate("head", network.module, "resnet18", 3).module.eval()
    facts = FACTS | {"architecture": {"library": "torchvision", "name": "resnet18", "options": {}}}
    trained.save(tmp_path / "a.safetensors", Network("resnet18", made, RECIPE, "layer4", "", "softmax", CLASSES), facts)
    again = torchvision_network("resnet18", str(tmp_path / "a.safetensors")).module
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(made(images), again(images))


def test_an_architecture_knows_whether_it_recentres_its_input() -> None:
    network = torchvision_network("googlenet", "none", transform_input=True)
    options = trained.architecture(spec("model", "googlenet"), network.module)["options"]
    assert options == {"transform_input": True}


def test_a_network_of_ones_own_is_named_and_not_called(tmp_path: Path) -> None:
    own = trained.architecture(
        {"_target_": "gradcam_bench.models.zoo.custom_network", "target": "os.abort"}, torch.nn.ReLU()
    )
    assert own == {"library": "custom", "name": "os.abort", "options": {}}
    trained.save(tmp_path / "a.safetensors", a_network(), FACTS | {"architecture": own})
    with pytest.raises(UserError, match=r"model=custom model.target=os.abort model.layer=layer3"):
        trained.trained_network(str(tmp_path / "a.safetensors"))


def preprocessing(**changes: Any) -> Mapping[str, Any]:
    good = {"resize": "warp", "size": 96, "crop": None, "interpolation": "bilinear"}
    return {"preprocessing": good | {"mean": [0.5] * 3, "std": [0.5] * 3} | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "damaged .*architecture"),
        ({"architecture": {"library": "os", "name": "abort", "options": {}}}, "damaged .*library os"),
        ({"architecture": {"library": "scenes", "name": "scenes_gab", "options": {}}}, "did you mean 'scenes_gap'"),
        ({"architecture": {"library": "scenes", "name": "scenes_gap", "options": {"depth": 4}}}, "cannot be built"),
        ({"surgery": "lobotomy"}, "cannot be built"),
        ({"surgery": "none"}, "has shape"),
        ({"classes": []}, "damaged .*classes"),
        ({"classes": ["a", "b"]}, "has shape"),
        ({"activation": "tanh"}, "damaged .*tanh"),
        ({"format": 2}, "format 2"),
        (preprocessing(size=10**9), "damaged .*preprocessing"),
        (preprocessing(std=[0, 1, 1]), "damaged .*preprocessing"),
        (preprocessing(resize="fold"), "damaged .*preprocessing"),
        (preprocessing(blur=3), "damaged"),
    ],
)
def test_damaged_facts_are_sentences(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        trained.trained_network(str(altered(file, **changes)))
    assert str(file) in str(found.value)


def test_files_that_are_none_of_ours_are_sentences(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UserError, match=r"needs model.weights=FILE"):
        trained.trained_network()
    with pytest.raises(UserError, match="is not there"):
        trained.trained_network(str(tmp_path / "nowhere.safetensors"))
    (tmp_path / "torn.safetensors").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"torn.safetensors cannot be read as safetensors"):
        trained.trained_network(str(tmp_path / "torn.safetensors"))
    save_file(load_file(file), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="does not say what network it is of"):
        trained.trained_network(str(tmp_path / "plain.safetensors"))
    save_file(load_file(file), tmp_path / "text.safetensors", metadata={trained.KEY: "resnet50"})
    with pytest.raises(UserError, match="damaged"):
        trained.trained_network(str(tmp_path / "text.safetensors"))
