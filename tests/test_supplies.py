"""What methods are given beside the shared look: other images asked and looked at, several layers, the network."""

import networks
import pytest
import torch
import torchvision

import gradcam_bench as gb
from gradcam_bench import catalogue
from gradcam_bench.candidates import pyramid
from gradcam_bench.errors import UserError
from gradcam_bench.explain import heatmaps_of
from gradcam_bench.ledger import Cost
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

INDEX = torch.tensor([0, 2, 2])
TARGETS = [1, 3, 0]


def made(halves=None, targets=TARGETS, **more):
    halves = halves or networks.gap()
    halves.model.float()
    images = halves.images(3).float()
    looked = shared_look(Probe(halves.model, [halves.layer]), images, targets, INDEX, **more)
    return halves, images, Supplies(images[INDEX], ["a", "b", "c"], 0, looked)


def others(count, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("budget", [1, 2**30])
def test_asking_about_other_images(budget):
    halves, _, supplies = made(budget=budget)
    images, cases = others(7), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    with torch.no_grad():
        logits = halves.head(halves.stem(images))
    assert supplies.ask.block == (1 if budget == 1 else 16)
    torch.testing.assert_close(supplies.ask.outputs(images), logits)
    torch.testing.assert_close(supplies.ask(images, cases), logits[torch.arange(7), [1, 3, 0, 0, 3, 1, 1]])
    torch.testing.assert_close(supplies.ask(images, 1), logits[:, 3])
    assert supplies.cost == Cost(forwards=21)


def test_asking_is_differentiable_where_the_images_are():
    halves, _, supplies = made()
    images = others(2).requires_grad_()
    found = torch.autograd.grad(supplies.ask(images, 1).sum(), images)[0]
    expected = torch.autograd.grad(halves.head(halves.stem(images))[:, 3].sum(), images)[0]
    torch.testing.assert_close(found, expected)
    assert all(parameter.grad is None for parameter in halves.model.parameters())


def test_asking_a_function():
    margin = lambda output: output[:, 1] - output[:, 2]  # noqa: E731
    halves, _, supplies = made(targets=[margin, 3, margin])
    images = others(3)
    with torch.no_grad():
        logits = halves.head(halves.stem(images))
    expected = torch.stack([logits[0, 1] - logits[0, 2], logits[1, 3], logits[2, 1] - logits[2, 2]])
    torch.testing.assert_close(supplies.ask(images, torch.arange(3)), expected)


def test_looking_at_other_images_in_blocks():
    halves, _, supplies = made()
    images, cases = others(5), torch.tensor([2, 0, 1, 1, 0])
    found = supplies.look(images, cases)
    targets = [TARGETS[q] for q in cases]
    torch.testing.assert_close(found.activations, halves.stem(images).detach())
    expected = networks.naive_gradients(halves, images, targets, list(range(5)))
    torch.testing.assert_close(found.gradients, expected)
    torch.testing.assert_close(found.features, found.activations)
    assert found.targets.tolist() == targets
    assert found.image_index.tolist() == list(range(5))
    assert supplies.cost == Cost(forwards=5, backwards=5)


def test_no_bit_of_a_look_depends_on_the_other_rows():
    _, _, supplies = made()
    images, cases = others(5), torch.tensor([2, 0, 1, 1, 0])
    whole = supplies.look(images, cases)
    for rows in ([0, 1, 2, 3], [4], [1, 0]):
        part = supplies.look(images[rows], cases[rows])
        assert torch.equal(part.gradients, whole.gradients[rows])
        assert torch.equal(part.activations, whole.activations[rows])


LAYERS = {
    "resnet18": ("layer4", ["relu", "layer1", "layer2", "layer3", "layer4"], [32, 16, 8, 4, 2]),
    "resnet50": ("layer4", ["relu", "layer1", "layer2", "layer3", "layer4"], [32, 16, 8, 4, 2]),
    "vgg11": ("features.19", [f"features.{n}" for n in (1, 4, 9, 14, 19)], [64, 32, 16, 8, 4]),
    "squeezenet1_1": ("features", ["features.1", "features.4", "features.7", "features"], [31, 15, 7, 3]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_pyramid_is_the_last_layer_of_each_size(name):
    layer, layers, sides = LAYERS[name]
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=4).eval()
    probe = Probe(model, [layer])
    images = torch.randn(2, 3, 64, 64)
    assert pyramid(probe, images) == layers
    supplies = Supplies(images, ["a", "b"], 0, shared_look(probe, images, [1, 2]))
    assert [one.activations.shape[-1] for one in supplies.pyramid] == sides
    last = supplies.pyramid[-1]
    torch.testing.assert_close(last.activations, supplies.evidence.activations)
    torch.testing.assert_close(last.gradients, supplies.evidence.gradients)
    # The pyramid's own look and the shared one, whose parts have all been read.
    assert (supplies.cost.forwards, supplies.cost.backwards) == (2 + 2, 2 + 2)
    assert [one.activations.shape[-1] for one in supplies.pyramid] == sides
    assert (supplies.cost.forwards, supplies.cost.backwards) == (2 + 2, 2 + 2)
    supplies.begins()
    _ = supplies.pyramid[0].activations
    assert (supplies.cost.forwards, supplies.cost.backwards) == (4 + 2, 4)


def test_a_pyramid_of_one_where_the_target_layer_comes_first():
    model = torchvision.models.vgg11(num_classes=4).eval()
    assert pyramid(Probe(model, ["features.1"]), torch.randn(2, 3, 64, 64)) == ["features.1"]
    assert pyramid(Probe(model, ["features.0"]), torch.randn(2, 3, 64, 64)) == ["features.0"]


def test_the_network_as_it_is():
    halves, _, supplies = made()
    assert supplies.network.module is halves.model
    assert supplies.network.layer == "features"
    assert supplies.network.targets.tolist() == TARGETS


def test_without_a_model_there_is_nothing_to_ask():
    supplies = Supplies(others(1), ["a"], 0)
    for name in ("evidence", "head", "ask", "pyramid", "network"):
        with pytest.raises(UserError, match="there is no model"):
            getattr(supplies, name)


def test_a_rehearsal_asks_once():
    halves, _, supplies = made(rehearsal=True)
    images = others(4)
    found = supplies.ask(images, 0)
    with torch.no_grad():
        expected = halves.head(halves.stem(images))[0, 1]
    torch.testing.assert_close(found, expected.expand(4))
    looked = supplies.look(images, torch.tensor([1, 0, 0, 2]))
    assert looked.activations.shape[0] == looked.gradients.shape[0] == 4
    torch.testing.assert_close(looked.activations[3], looked.activations[0])


def test_budgets_change_no_result_and_must_be_something():
    halves = networks.gap()
    halves.model.float()
    images = halves.images(2).float()
    made = [
        gb.explain(halves.model, images, [1, 2], ["grad_cam"], "features", max_memory=memory) for memory in (1e-9, None)
    ]
    assert torch.equal(made[0]["grad_cam"], made[1]["grad_cam"])
    with pytest.raises(UserError, match="max_memory must be a number of GiB above 0, got 0"):
        gb.explain(halves.model, images, [1, 2], ["grad_cam"], "features", max_memory=0)


def test_what_a_method_asks_of_the_network_is_read_off_its_parameters():
    spec = catalogue.spec("method", "grad_cam")
    assert catalogue.method("grad_cam", spec).passes == "one look"
    center = catalogue.method("center", catalogue.spec("method", "center"))
    assert (center.passes, center.sees) == ("nothing of the network", False)


def test_each_method_is_charged_for_the_forward_pass_that_they_share():
    _, _, supplies = made()
    labels = ("saliency", "guided_backprop", "deconvnet", "guided_grad_cam", "grad_cam", "center")
    chosen = [catalogue.method(label, catalogue.spec("method", label)) for label in labels]
    _, costs = heatmaps_of(chosen, supplies)
    for label in ("saliency", "guided_backprop", "deconvnet", "grad_cam"):
        assert (costs[label].forwards, costs[label].head_forwards, costs[label].backwards) == (2, 0, 3), label
    assert (costs["guided_grad_cam"].forwards, costs["guided_grad_cam"].backwards) == (4, 6)  # a look and its pixels
    assert costs["center"].forwards == 0


def test_a_rehearsal_runs_one_row_of_the_head():
    _, _, supplies = made(record=True, rehearsal=True)
    activations = supplies.evidence.activations
    found = supplies.head(activations, torch.arange(3))
    torch.testing.assert_close(found, supplies.head(activations[:1], 0).expand(3))
    assert supplies.head.without_channels(0).shape == (activations.shape[1],)
