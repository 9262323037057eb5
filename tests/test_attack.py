"""Pictures that fool a network: near what they were, for an absent class, and the same whoever is in the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gradcam_bench import cli
from gradcam_bench.attack import RADIUS, attacked
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.models.scenes_nets import scenes_network
from gradcam_bench.plan import view_id
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Samples, collate


@pytest.fixture
def batch(scenes_root):
    network = scenes_network("scenes_gap")
    data = cli.configuration(["dataset=voc", f"dataset.root={scenes_root}", "dataset.split=test"])["dataset"]
    from gradcam_bench.setup import make

    opened = make({**data, "classes": list(network.classes)}, "dataset")
    return collate([Samples(opened, network.preprocessing, View(), [index])[0] for index in range(3)])[0][0]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_an_attack_takes_the_present_classes_away_and_moves_no_pixel_far(batch, activation: str) -> None:
    network = replace(scenes_network("scenes_gap"), activation=activation)
    made = attacked(batch, network, Probe(network.module, [network.layer]))
    std = torch.tensor(network.preprocessing.std)[:, None, None]
    mean = torch.tensor(network.preprocessing.mean)[:, None, None]
    moved = (made.images - batch.images).abs() * std
    assert 0.9 * RADIUS < moved.max() <= RADIUS + 1e-5
    raw = made.images * std + mean
    assert raw.min() >= -1e-5
    assert raw.max() <= 1 + 1e-5
    with torch.no_grad():
        before, after = (network.probabilities(network.module(one)) for one in (batch.images, made.images))
    for row, sample in enumerate(made.samples):
        classes = list(sample.annotation.classes)
        absent = int(after[row].argmax())
        assert absent not in classes
        assert after[row, absent] > 0.9
        assert (after[row, classes] < 0.5 * before[row, classes]).all()
        assert torch.equal(sample.pixels, made.images[row])


def test_an_attack_is_the_same_in_a_smaller_batch_that_is_filled_up(batch) -> None:
    network = scenes_network("scenes_gap")
    probe = Probe(network.module, [network.layer])
    whole = attacked(batch, network, probe, 3)
    alone = attacked(replace(batch, images=batch.images[:1], samples=batch.samples[:1]), network, probe, 3)
    assert torch.allclose(alone.images[0], whole.images[0], atol=1e-5)


def test_a_view_without_an_attack_has_the_key_that_it_always_had() -> None:
    assert view_id(View()) == "d94e9936"
    assert "attack" not in View().facts
    assert view_id(View(attack="absent")) != view_id(View())


def test_what_an_attack_does_not_go_with_is_said(tmp_path, capsys) -> None:
    with pytest.raises(UserError, match=r"does not go with view\.augment=flip"):
        View(attack="absent", augment="flip")
    words = ["run", "model=none", "method=[center]", "metric=[pointing_game]", "view.attack=absent", "limit=1"]
    assert cli.main([*words, f"results={tmp_path}"]) == 2
    assert "view.attack=absent needs a model" in capsys.readouterr().err
