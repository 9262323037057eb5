"""Recipes: every one of the catalogue composes, rates go as they say, and what is wrong is a sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from gradcam_bench import catalogue
from gradcam_bench.errors import UserError
from gradcam_bench.overrides import configuration
from gradcam_bench.training.preparation import check_settings, fold
from gradcam_bench.training.recipe import Recipe, recipe


def spec(**changes: Any) -> dict[str, Any]:
    return dict(configuration(["recipe.lr=0.1", "recipe.epochs=10"], None, "train")["recipe"]) | changes


def made(**changes: Any) -> Recipe:
    return recipe(spec(**changes))


@pytest.mark.parametrize("name", catalogue.names("recipe"))
def test_every_recipe_composes(name: str) -> None:
    config = configuration([f"recipe={name}", "dataset.root=DIR"], None, "train")
    found = recipe(fold(config)["recipe"])
    assert found.about
    assert found.source
    assert config["dataset"]["_target_"]
    if config.get("validation") and name != "scenes_gap":
        assert config["validation"]["root"] == "DIR", "one root is given for both"
        assert config["validation"]["split"] != config["dataset"]["split"]
    check_settings(config)


def test_short_words_are_part_of_the_recipe() -> None:
    config = fold(configuration(["epochs=3", "lr=0.5", "batch_size=7"], None, "train"))
    assert [config["recipe"][name] for name in ("epochs", "lr", "batch_size")] == [3, 0.5, 7]
    assert not {"epochs", "lr", "batch_size"} & set(config)


def test_factors_by_layer_need_no_plus() -> None:
    words = ["recipe.lr_factors.layer1=0", "recipe.preprocessing.size=64"]
    found = configuration(words, None, "train")["recipe"]
    assert found["lr_factors"] == {"new": 20, "layer1": 0}
    assert found["preprocessing"] == {"size": 64}


def test_rates() -> None:
    step, poly, cosine, cycle = (made(schedule=name) for name in ("step", "poly", "cosine", "one_cycle"))
    assert [made(schedule="constant").rate(done) for done in (0, 5, 10)] == [1, 1, 1]
    short = made(schedule="step", decay_epochs=4)
    assert [short.rate(done) for done in (0, 3.99, 4, 9)] == pytest.approx([1, 1, 0.1, 0.01])
    assert step.rate(9.99) == 1
    assert [poly.rate(done) for done in (0, 5, 10)] == pytest.approx([1, 0.5**0.9, 0])
    assert [cosine.rate(done) for done in (0, 2.5, 5, 10)] == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])
    assert [cycle.rate(done) for done in (0, 0.5, 1, 5.5, 10)] == pytest.approx([0.04, 0.52, 1, 0.5, 0])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer10, self.fc = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)


def test_parameters_by_rate() -> None:
    net = Net()
    groups = made(lr_factors={"new": 10, "layer1": 0}).groups(net, ("fc",))
    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.1, 2), (1.0, 2)]
    assert groups[0]["params"][0] is net.layer10.weight, "layer10 does not lie below layer1"
    assert groups[1]["params"][0] is net.fc.weight
    assert not net.layer1.weight.requires_grad
    assert net.fc.weight.requires_grad
    longest = made(lr_factors={"fc": 0, "fc.bias": 2}).groups(Net(), ())
    assert [(group["lr"], len(group["params"])) for group in longest] == [(0.1, 4), (0.2, 1)]


def test_optimizers() -> None:
    sgd = made(nesterov=True, optimizer="sgd", momentum=0.9).optimizer_for(Net(), ())
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert isinstance(made(optimizer="adamw").optimizer_for(Net(), ()), torch.optim.AdamW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mse"}, "unknown recipe.loss 'mse'"),
        ({"surgery": "gapp"}, "did you mean 'gap'"),
        ({"augment": "flipp"}, "did you mean 'flip'"),
        ({"labels": "permutted"}, "did you mean 'permuted'"),
        ({"epochs": 0}, "epochs=0: a whole number of at least 1"),
        ({"epochs": 2.5}, "recipe.epochs=2.5: a whole number"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"lr": 0}, "lr=0: a number above 0"),
        ({"lr": math.nan}, "recipe.lr=nan: a number"),
        ({"lr": "fast"}, "recipe.lr='fast': a number"),
        ({"momentum": 1.5}, "recipe.momentum=1.5"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov=true needs"),
        ({"lr_factors": {"new": -1}}, "lr_factors"),
        ({"lr_factors": [1]}, "lr_factors"),
        ({"preprocessing": 224}, "preprocessing=224"),
        ({"mood": 1}, "unknown setting of recipe 'mood'"),
    ],
)
def test_wrong_recipes_are_sentences(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(**changes)


def test_factors_for_layers_that_are_not_there_or_for_all() -> None:
    with pytest.raises(UserError, match=r"unknown module in recipe.lr_factors 'layer2': did you mean 'layer1'"):
        made(lr_factors={"layer2": 0}).groups(Net(), ())
    with pytest.raises(UserError, match="nothing is left to train"):
        made(lr_factors={"layer1": 0, "layer10": 0, "fc": 0}).groups(Net(), ())
