"""The network from a layer on: the same numbers as the whole, for other activations, on many shapes of network."""

import networks
import pytest
import timm
import torch
import torchvision
from networks import Halves

from gradcam_bench.errors import UserError
from gradcam_bench.head import Head, _first_linear
from gradcam_bench.ledger import Cost
from gradcam_bench.probe import Probe
from gradcam_bench.resume import route

HALVES = {
    "gap": networks.gap,
    "in place": networks.in_place,
    "twice, first": lambda: networks.twice(0),
    "twice, second": lambda: networks.twice(1),
    "vgg11": networks.vgg11,
    "vgg11, before an in-place ReLU": lambda: networks.vgg11(18),
    "resnet18": networks.resnet18,
    "resnet18, layer3": lambda: networks.resnet18("layer3"),
    "densenet121": networks.densenet121,
    "mobilenet_v2": networks.mobilenet_v2,
    "squeezenet1_1": networks.squeezenet1_1,
}
WHOLE = {  # target layers inside blocks, whose skip connections the head reads
    "resnet18": "layer4.1.conv2",
    "mobilenet_v2": "features.16.conv.1",
    "shufflenet_v2_x0_5": "stage4.1.branch2",
    "densenet121": "features.denseblock4.denselayer3",
    "regnet_y_400mf": "trunk_output.block4.block4-2.f.b",
}


def head(model, layer, images, targets, image_index=None, score="logit", budget=2**30):
    probe = Probe(model, [layer], score)
    evidence = probe.look(images, targets, image_index, record=True)[layer]
    return Head(probe, evidence, targets, Cost(), budget), evidence


def made(name):
    halves = HALVES[name]()
    halves.model.float()
    return halves, halves.images(3).float()


@pytest.mark.parametrize("name", HALVES)
def test_the_head_is_what_comes_after_the_layer(name):
    halves, images = made(name)
    before = [vars(module).get("forward") for module in halves.model.modules()]
    found, evidence = head(halves.model, halves.layer, images, [1, 3, 2])
    others = torch.rand_like(evidence.activations)
    with torch.no_grad():
        expected = halves.head(others.clone())
    torch.testing.assert_close(found.outputs(others, torch.arange(3)), expected)
    torch.testing.assert_close(found(others, torch.arange(3)), expected[torch.arange(3), [1, 3, 2]])
    torch.testing.assert_close(found(others, 1), expected[:, 3])
    torch.testing.assert_close(found(evidence.activations, torch.arange(3)), evidence.scores)
    assert [vars(module).get("forward") for module in halves.model.modules()] == before


@pytest.mark.parametrize("name", WHOLE)
def test_the_head_reads_the_images_own_skip_connections(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=5).eval()
    networks.settle_batch_norm(model)
    images = torch.randn(3, 3, 64, 64)
    found, evidence = head(model, WHOLE[name], images, [1, 3, 2])
    torch.testing.assert_close(found.outputs(evidence.activations, torch.arange(3)), evidence.logits)
    one = found.outputs(evidence.activations[[2, 2]], 2)
    torch.testing.assert_close(one, evidence.logits[[2, 2]])
    assert not torch.allclose(found.outputs(evidence.activations[[2]], 0), evidence.logits[[2]], rtol=1e-3)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_tokens_keep_their_class_token(name):
    torch.manual_seed(0)
    depth = {"depths": (1, 1, 1, 2)} if "swin" in name else {"depth": 3}
    model = timm.create_model(name, num_classes=5, **depth).eval()
    layer = "layers.3.blocks.1.norm1" if "swin" in name else "blocks.2.norm1"
    images = torch.randn(2, 3, 224, 224)
    found, evidence = head(model, layer, images, [1, 3])
    torch.testing.assert_close(found.outputs(evidence.activations, torch.arange(2)), evidence.logits)
    activations = evidence.activations.clone().requires_grad_()
    grads = torch.autograd.grad(found(activations, torch.arange(2)).sum(), activations)[0]
    torch.testing.assert_close(grads, evidence.gradients)


def test_gradients_of_the_head_are_the_evidences_also_the_second():
    halves, images = made("in place")
    index = torch.tensor([0, 1, 1])
    found, evidence = head(halves.model, halves.layer, images, [1, 3, 2], index)
    activations = evidence.features.clone().requires_grad_()
    first = torch.autograd.grad(found(activations, torch.arange(3)).sum(), activations, create_graph=True)[0]
    torch.testing.assert_close(first.detach(), evidence.gradients)
    second = torch.autograd.grad(first.sum(), activations)[0]
    plain = evidence.features.clone().requires_grad_()
    scores = halves.head(plain)[torch.arange(3), [1, 3, 2]]
    once = torch.autograd.grad(scores.sum(), plain, create_graph=True)[0]
    torch.testing.assert_close(second, torch.autograd.grad(once.sum(), plain)[0])


@pytest.mark.parametrize("score", ["logit", "softmax", "log_softmax", "sigmoid", "exp"])
def test_scores_are_of_the_probes_kind(score):
    halves, images = made("gap")
    found, evidence = head(halves.model, halves.layer, images, [1, 3, 2], score=score)
    logits = halves.head(evidence.activations).detach()
    kinds = {
        "logit": logits,
        "softmax": logits.softmax(1),
        "log_softmax": logits.log_softmax(1),
        "sigmoid": logits.sigmoid(),
        "exp": logits.exp(),
    }
    expected = kinds[score][torch.arange(3), [1, 3, 2]]
    torch.testing.assert_close(found(evidence.activations, torch.arange(3)), expected)
    torch.testing.assert_close(evidence.scores, expected)


def test_functions_as_targets():
    halves, images = made("gap")
    margin = lambda output: output[:, 1] - output[:, 2]  # noqa: E731
    found, evidence = head(halves.model, halves.layer, images, [margin, 3, margin])
    logits = halves.head(evidence.activations).detach()
    expected = torch.stack([logits[0, 1] - logits[0, 2], logits[1, 3], logits[2, 1] - logits[2, 2]])
    torch.testing.assert_close(found(evidence.activations, torch.arange(3)), expected)


SHORT = {"gap": True, "vgg11": True, "resnet18": True, "mobilenet_v2": True, "in place": False, "squeezenet1_1": False}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("budget", [1, 2**30])
def test_without_channels_is_zeroing_them_one_by_one(name, budget):
    halves, images = made(name)
    found, evidence = head(halves.model, halves.layer, images, [1, 3, 2], budget=budget)
    for case in (0, 2) if budget > 1 else (1,):
        channels = list(range(0, evidence.activations.shape[1], 1 if budget > 1 else 7))
        expected = []
        for k in channels:
            masked = evidence.activations[case : case + 1].clone()
            masked[:, k] = 0
            expected.append(halves.head(masked).detach()[0, [1, 3, 2][case]])
        scale = float(torch.stack(expected).abs().max())
        given = found.without_channels(case)[channels]
        torch.testing.assert_close(given, torch.stack(expected), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", SHORT)
def test_the_short_way_is_taken_where_channels_stay_apart(name):
    """A square before the linear map leaves zeros zero and channels apart too; what mixes channels does not."""
    halves, images = made(name)
    probe = Probe(halves.model, [halves.layer])
    evidence = probe.look(images, [1, 3, 2], record=True)[halves.layer]
    with torch.no_grad():
        way = _first_linear(probe, evidence.rest)
    assert (way is not None) == (SHORT[name] or name == "in place")


def test_what_mixes_channels_before_the_linear_map_takes_the_long_way():
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.norm, self.fc = torch.nn.Conv2d(3, 6, 3), torch.nn.LayerNorm(6), torch.nn.Linear(6, 4)

        def forward(self, images):
            return self.fc(self.norm(self.features(images).mean((2, 3))))

    torch.manual_seed(0)
    model = Mixed().eval()
    halves = Halves(model, "features", model.features, lambda a: model.fc(model.norm(a.mean((2, 3)))))
    images = halves.images(2)
    found, evidence = head(model, "features", images, [1, 3])
    with torch.no_grad():
        assert _first_linear(found._probe, evidence.rest) is None
    masked = evidence.activations[[1]].clone()
    masked[:, 4] = 0
    torch.testing.assert_close(found.without_channels(1)[4], halves.head(masked)[0, 3].detach())


def test_backward_passes_are_counted():
    halves, images = made("in place")
    found, evidence = head(halves.model, halves.layer, images, [1, 3, 2])
    activations = evidence.activations.clone().requires_grad_()
    (first,) = torch.autograd.grad(found(activations, torch.arange(3)).sum(), activations, create_graph=True)
    assert found._cost == Cost(head_forwards=3, backwards=3)
    torch.autograd.grad(first.sum(), activations)
    assert found._cost == Cost(head_forwards=3, backwards=6)


def test_costs_are_counted_and_the_model_left_also_after_an_error():
    halves, images = made("resnet18")
    halves.model.train()
    found, evidence = head(halves.model, halves.layer, images, [1, 3, 2])
    found(evidence.activations, torch.arange(3))
    found.without_channels(0)
    assert found._cost == Cost(head_forwards=3 + evidence.activations.shape[1])
    with pytest.raises(RuntimeError):
        found(evidence.activations[:, :-1], torch.arange(3))
    assert halves.model.training
    assert all(parameter.requires_grad for parameter in halves.model.parameters())
    assert not any("forward" in vars(module) for module in halves.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in halves.model.modules())


def test_a_layer_the_scores_do_not_read_is_refused():
    class Idle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.idle, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2)

        def forward(self, images):
            self.idle(images)
            return self.fc(self.read(images).mean((2, 3)))

    model = Idle().eval()
    with pytest.raises(UserError, match="do not depend"):
        route(model, model.idle, torch.randn(2, 3, 8, 8))
    with pytest.raises(UserError, match="took no part"):
        route(model, model.idle, torch.randn(2, 3, 8, 8), call=1)
