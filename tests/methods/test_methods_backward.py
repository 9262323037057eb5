"""Methods of input gradients and relevances: by hand, by slow loops of plain autograd, and their identities."""

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradcam_bench import catalogue, relevance
from gradcam_bench.errors import UserError
from gradcam_bench.methods import backward
from gradcam_bench.methods import relevance as methods
from gradcam_bench.pixels import Pixels
from gradcam_bench.probe import Probe

TARGETS = [1, 0, 3]


def gradient(model, images, targets):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(model(x)[range(len(images)), targets].sum(), x)[0]


def case(build=networks.gap, count=3):
    """(halves, images [3,3,H,W], pixels, evidence), double precision."""
    halves = build()
    halves.model.double()
    images, targets = halves.images(count).double(), TARGETS[:count]
    probe = Probe(halves.model, [halves.layer])
    return halves, images, Pixels(probe, images, targets), probe.look(images, targets)[halves.layer]


def generators(count=3):
    return [torch.Generator().manual_seed(n) for n in range(count)]


class Answers:
    """A stand-in for `pixels` that gives the same gradient whatever is asked."""

    def __init__(self, values):
        self.values, self.seen = torch.tensor(values).reshape(1, 3, 1, 2), []

    def __call__(self, rule="plain", images=None, cases=None):
        self.seen.append(getattr(rule, "name", rule))
        return self.values if images is None else self.values.expand_as(images)


def test_by_hand():
    """Two pixels with gradients (1, -5, 2) and (-3, 0, 1), inputs (2, 1, -1) and (1, 1, 1)."""
    answers = Answers([[1.0, -3], [-5, 0], [2, 1]])
    images = torch.tensor([[2.0, 1], [1, 1], [-1, 1]]).reshape(1, 3, 1, 2)
    assert backward.saliency(answers).flatten().tolist() == [5, 3]
    assert backward.saliency(answers, "sum_abs").flatten().tolist() == [8, 4]
    assert backward.saliency(answers, "sum").flatten().tolist() == [-2, -2]
    assert backward.input_x_gradient(answers, images).flatten().tolist() == [2 - 5 - 2, -3 + 0 + 1]
    assert backward.deconvnet(answers).flatten().tolist() == [5, 3]
    assert backward.guided_backprop(answers).flatten().tolist() == [5, 3]
    assert answers.seen[-2:] == ["deconv", "guided"]
    drawn = [torch.Generator()]
    assert backward.smooth_grad(answers, images, drawn, 4).flatten().tolist() == [8, 4]
    assert backward.var_grad(answers, images, drawn, 4).flatten().tolist() == [0, 0]
    zero = backward.integrated_gradients(answers, images, networks.black(images), 4, "zero")
    assert zero.flatten().tolist() == [-5, -2]
    with pytest.raises(UserError, match="unknown reduce 'max': did you mean 'max_abs'"):
        backward.saliency(answers, "max")
    with pytest.raises(UserError, match="unknown baseline 'zeros': did you mean 'zero'"):
        backward.integrated_gradients(answers, images, networks.black(images), baseline="zeros")


def test_guided_grad_cam_by_hand():
    """A 1x2 grid with a = 2 and activations (3, -1): the map is (6, -2), and only its positive part multiplies."""
    answers = Answers([[1.0, -3], [-5, 0], [2, 1]])
    evidence = networks.evidence_of(torch.tensor([[[[3.0, -1]]]]), torch.tensor([[[[1.0, 3]]]]))
    assert backward.guided_grad_cam(evidence, answers).flatten().tolist() == [30, 0]
    assert answers.seen == ["guided"]


@pytest.mark.parametrize("build", [networks.gap, networks.vgg11, networks.resnet18])
def test_guided_grad_cam_against_its_two_parts(build):
    _, images, pixels, evidence = case(build)
    cam = (evidence.gradients.mean((2, 3), keepdim=True) * evidence.features).sum(1, keepdim=True).relu()
    cam = F.interpolate(cam, size=images.shape[2:], mode="bilinear")
    expected = (cam * pixels("guided")).abs().amax(1)
    torch.testing.assert_close(backward.guided_grad_cam(evidence, pixels), expected)


def test_smooth_and_var_grad_against_loops():
    halves, images, pixels, _ = case()
    smooth = backward.smooth_grad(pixels, images, generators(), samples=11, sigma=0.3)
    var = backward.var_grad(pixels, images, generators(), samples=11, sigma=0.3)
    for q, drawn in enumerate(generators()):
        noise = torch.randn((11, *images[q].shape), generator=drawn)
        spread = 0.3 * (images[q].max() - images[q].min())
        found = [gradient(halves.model, (images[q] + spread * one)[None], [TARGETS[q]])[0] for one in noise]
        mean = sum(found) / 11
        torch.testing.assert_close(smooth[q], mean.abs().sum(0))
        torch.testing.assert_close(var[q], (sum((one - mean) ** 2 for one in found) / 11).sum(0))


def test_smooth_grad_without_noise_is_the_gradient():
    _, images, pixels, _ = case()
    found = backward.smooth_grad(pixels, images, generators(), samples=3, sigma=0.0)
    torch.testing.assert_close(found, pixels().abs().sum(1))
    assert backward.var_grad(pixels, images, generators(), samples=3, sigma=0.0).abs().max() < 1e-20


@pytest.mark.parametrize("baseline", ["black", "zero"])
def test_integrated_gradients(baseline):
    """Against loops, and complete: S(x) - S(x') in the limit of many steps."""
    halves, images, pixels, _ = case()
    colour = torch.zeros(3) if baseline == "zero" else torch.tensor(networks.BLACK)
    start = colour.double().reshape(3, 1, 1).expand_as(images[0])
    found = backward.integrated_gradients(pixels, images, networks.black(images), 5, baseline)
    for q, image in enumerate(images):
        total = sum(
            gradient(halves.model, (start + k / 5 * (image - start))[None], [TARGETS[q]])[0] for k in range(1, 6)
        )
        torch.testing.assert_close(found[q], ((image - start) * total / 5).sum(0), rtol=1e-4, atol=1e-7)
    fine = backward.integrated_gradients(pixels, images, networks.black(images), 300, baseline).sum((1, 2))
    with torch.no_grad():
        change = halves.model(images) - halves.model(start[None])
    scale = float(change.abs().max())
    torch.testing.assert_close(fine, change[range(3), TARGETS], rtol=0, atol=0.02 * scale)


def test_integrated_gradients_of_a_linear_network_are_complete_in_one_step():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)).double()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    pixels = Pixels(Probe(model, []), images, TARGETS)
    found = backward.integrated_gradients(pixels, images, networks.black(images), 1, "zero").sum((1, 2))
    torch.testing.assert_close(found, (model(images) - model(0 * images))[range(3), TARGETS].detach())


def test_input_x_gradient_is_the_logit_without_biases():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 4, bias=False)
    ).double()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    found = backward.input_x_gradient(Pixels(Probe(model, []), images, TARGETS), images)
    torch.testing.assert_close(found.sum((1, 2)), model(images)[range(3), TARGETS].detach())


def test_guided_deconv_and_plain_agree_where_everything_is_positive():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    for parameter in model.parameters():
        parameter.data.abs_()
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = Pixels(Probe(model, []), images, TARGETS)
    for method in (backward.guided_backprop, backward.deconvnet):
        torch.testing.assert_close(method(pixels), backward.saliency(pixels))


class Biased(nn.Module):
    """One pixel and weights of 1: z = x + b1, a = relu(z), batch norm 2 a + 3 (after its own mean), logit sum + b2."""

    def __init__(self):
        super().__init__()
        self.low, self.norm, self.top = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 1)
        self.low.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).reshape(2, 3, 1, 1)
        self.low.bias.data = torch.tensor([1.0, -5])
        self.norm.weight.data, self.norm.bias.data = torch.tensor([2.0, 2]), torch.tensor([5.0, 4])
        self.norm.running_mean, self.norm.running_var = torch.tensor([1.0, 1]), torch.ones(2) - self.norm.eps
        self.top.weight.data, self.top.bias.data = torch.tensor([[1.0, -1]]), torch.tensor([7.0])

    def forward(self, x):
        return self.top(self.norm(self.low(x).relu()).mean((2, 3)))


def test_full_grad_by_hand():
    """x = (2, 3, 0): gradients (2, 0, 0) as the second unit is shut; b1 adds 2 * 1 and 0; the batch norm's bias is
    (5 - 2, 4 - 2), with gradients (1, -1): 3 and -2; b2 adds 7. All in all 4 + 2 + 1 + 7 = 14, the logit."""
    image = torch.tensor([2.0, 3, 0]).reshape(1, 3, 1, 1)
    model = Biased().eval()
    pixels = Pixels(Probe(model, []), image, [0])
    gradients, layers = pixels.biases(lambda values: values)
    assert gradients.flatten().tolist() == pytest.approx([2, 0, 0])
    assert [layer.flatten().tolist() for layer in layers] == [pytest.approx([2, 0]), pytest.approx([3, -2]), [7]]
    assert float(model(image).detach()) == pytest.approx(14)
    # psi: (4, 0, 0) -> (1, 0, 0), (2, 0) -> (1, 0), (3, -2) -> (1, 0): one each; b2 has no place
    assert backward.full_grad(pixels, image).flatten().tolist() == pytest.approx([3])


@pytest.mark.parametrize(
    "build", [networks.gap, networks.vgg11, networks.resnet18, networks.mobilenet_v2, networks.squeezenet1_1]
)
def test_full_gradients_are_complete(build):
    """x dS/dx and all b dS/db add up to the logit where activations are piecewise linear: Srinivas and Fleuret 2019,
    proposition 1. ReLU6 adds constants of its own where it saturates, which these images do not reach."""
    halves, images, pixels, _ = case(build)
    gradients, layers = pixels.biases(lambda values: values)
    total = (images * gradients).sum((1, 2, 3)) + sum(layer.flatten(1).sum(1) for layer in layers)
    torch.testing.assert_close(total, halves.model(images)[range(3), TARGETS].detach())


@pytest.mark.parametrize("build", [networks.gap, networks.vgg11, networks.resnet18])
def test_full_grad_against_hooks(build):
    """Each layer's b dS/db by a hook on its output, resized channel by channel as the paper writes it."""
    halves, images, pixels, _ = case(build)
    found, plain = backward.full_grad(pixels, images), networks._without_in_place(halves.model)
    outputs = []
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda module, _inputs, output: outputs.append((module, output)))
    for q in range(3):
        outputs.clear()
        x = images[q : q + 1].clone().requires_grad_()
        score = plain(x)[0, TARGETS[q]]
        grads = torch.autograd.grad(score, [x, *(output for _, output in outputs)])
        parts = [x.detach() * grads[0]]
        for (module, _), grad in zip(outputs, grads[1:]):
            bias = module.bias
            if isinstance(module, nn.BatchNorm2d):
                bias = module.bias - module.running_mean * module.weight / (module.running_var + module.eps).sqrt()
            parts += [] if bias is None else [bias.reshape(1, -1, 1, 1).detach() * grad]
        expected = 0
        for part in parts:
            part = part.abs()
            part = (part - part.min()) / (part.max() - part.min())
            expected = expected + F.interpolate(part, images.shape[2:], mode="bilinear", align_corners=True).sum(1)
        torch.testing.assert_close(found[q], expected[0])


@pytest.mark.parametrize("build", [networks.gap, networks.vgg11, networks.resnet18])
def test_excitation_backprop_and_its_contrast(build):
    _, _, pixels, _ = case(build)
    layer = pixels.at_stride(16)
    own = methods.excitation_backprop(pixels)
    dual = pixels(relevance.excitation(dual=True), layer=layer).sum(1)
    assert own.min() >= 0
    torch.testing.assert_close(own.sum((1, 2)), torch.ones(3).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(methods.contrastive_excitation_backprop(pixels), own - dual)
    assert (own - dual).min() < 0
    named = methods.excitation_backprop(pixels, layer=layer)
    assert torch.equal(named, own)


def test_contrast_of_a_pooled_network_by_hand():
    """Over global average pooling: P_kij = w_k+ A_kij / sum, the dual's with (-w)+."""
    halves, _, pixels, evidence = case()
    a = evidence.features
    for q, target in enumerate(TARGETS):
        w = halves.model.fc.weight[target].detach()[:, None, None]
        maps = [(sign * w).clamp(min=0) * a[q] for sign in (1, -1)]
        own, dual = (one.sum(0) / one.sum() for one in maps)
        torch.testing.assert_close(methods.excitation_backprop(pixels, "features")[q], own)
        torch.testing.assert_close(methods.contrastive_excitation_backprop(pixels, "features")[q], own - dual)


def test_the_contrast_is_the_same_wherever_the_difference_is_taken():
    """As the authors' code has it: the difference at the target layer, brought down to the stem: x W+^T (d / W+ x)."""
    halves, images, pixels, evidence = case()
    stem = halves.model.stem(images).detach().requires_grad_()
    total = F.conv2d(stem, halves.model.features[0].weight.detach().relu(), None, 2, 1)
    weights = halves.model.fc.weight[TARGETS].detach()[:, :, None, None]
    own, dual = ((sign * weights).relu() * evidence.features for sign in (1, -1))
    difference = own / own.sum((1, 2, 3), keepdim=True) - dual / dual.sum((1, 2, 3), keepdim=True)
    (down,) = torch.autograd.grad(total, stem, difference / total.detach().where(total > 0, torch.inf))
    found = methods.contrastive_excitation_backprop(pixels, "stem.3")
    torch.testing.assert_close(found, (stem.detach() * down).sum(1))


class Skipping(nn.Module):
    """x + W x, the first operand (2, 1, 0), the second (-1, 1, 0)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        self.fc = nn.Linear(3, 1)
        self.first.weight.data = torch.eye(3).reshape(3, 3, 1, 1)
        self.second.weight.data = torch.tensor([[0, -1.0, 0], [0.5, 0, 0], [0, 0, 0]]).reshape(3, 3, 1, 1)
        self.fc.weight.data = torch.ones(1, 3)

    def forward(self, images):
        x = self.first(images).relu()
        return self.fc((x + self.second(x)).relu().flatten(1))


def test_excitation_at_residual_sums_by_hand():
    """P = (1/3, 2/3, 0) at the sum (1, 2, 0). By positive parts x_0 gets 1/3 and x_1 half of 2/3; the branch hands its
    1/3 to x_0. By signed parts x_0 gets 2/1 of 1/3, and the branch's -1/3 has no positive weight to go by: lost."""
    pixels = Pixels(Probe(Skipping(), ["second"]), torch.tensor([2.0, 1.0, 0.0]).reshape(1, 3, 1, 1), [0])
    for sums, expected in (("positive", [2 / 3, 1 / 3, 0]), ("signed", [1, 1 / 3, 0])):
        found = pixels(relevance.excitation(sums=sums)).flatten()
        torch.testing.assert_close(found, torch.tensor(expected))
    with pytest.raises(UserError, match="did you mean 'signed'"):
        methods.excitation_backprop(pixels, "second", sums="sined")


WHERE = {  # module read by default at stride 16 and at stride 8, for 64x64 images
    "vgg11": (networks.vgg11, "features.15", "features.10"),
    "resnet18": (networks.resnet18, "layer3", "layer2"),
    "squeezenet1_1": (networks.squeezenet1_1, "features.5", "features.5"),
}


@pytest.mark.parametrize("name", WHERE)
def test_where_excitation_backprop_is_read(name):
    build, sixteenth, eighth = WHERE[name]
    _, _, pixels, _ = case(build)
    assert pixels.at_stride(16).startswith(sixteenth) or name == "squeezenet1_1"
    assert pixels.at_stride(8).startswith(eighth) or name == "squeezenet1_1"
    own = pixels(relevance.excitation(), layer=pixels.at_stride(8)).flatten(1).sum(1)
    torch.testing.assert_close(own, torch.ones(3).double(), rtol=1e-3, atol=0)  # all paths pass there


@pytest.mark.slow
def test_a_layer_inside_a_block_is_passed_over():
    """In a ResNet-50 the last 14x14 map is inside layer4's first block, which its shortcut goes around."""
    import torchvision

    model = torchvision.models.resnet50(num_classes=4).eval()
    assert Pixels(Probe(model, []), torch.randn(1, 3, 64, 64), [1]).at_stride(16).startswith("layer3")


@pytest.mark.parametrize("label", [label for label in catalogue.names("method") if label.startswith("lrp_")])
def test_lrp_labels(label):
    _, _, pixels, _ = case()
    made = catalogue.method(label, catalogue.spec("method", label))
    epsilon = made.parameters.get("epsilon", 1e-6)
    expected = pixels(relevance.composite(label.removeprefix("lrp_"), epsilon)).sum(1)
    assert torch.equal(made.function(pixels=pixels), expected)


def test_relevance_cam_of_a_pooled_network_by_hand():
    """R_kij = A_kij w_k+ / (sum of those + b+) for the class, less 1/4 of the like for each other class."""
    halves, _, pixels, evidence = case()
    fc, a = halves.model.fc, evidence.features
    for q, target in enumerate(TARGETS):
        shares = 0
        for c in range(4):
            pooled = a[q].mean((1, 2)) * fc.weight[c].clamp(min=0)
            shares = shares + (1 if c == target else -1 / 4) * pooled / (pooled.sum() + fc.bias[c].clamp(min=0))
        expected = (shares[:, None, None] * a[q]).sum(0).detach()
        torch.testing.assert_close(methods.relevance_cam(evidence, pixels)[q], expected)


def test_refusals_begin_with_the_label():
    model = networks.Tokens().double()
    images = torch.randn(1, 3, 32, 32).double()
    probe = Probe(model, ["blocks.1"])
    pixels, evidence = Pixels(probe, images, [0]), probe.look(images, [0])["blocks.1"]
    every = {
        "guided_backprop": lambda: backward.guided_backprop(pixels),
        "guided_grad_cam": lambda: backward.guided_grad_cam(evidence, pixels),
        "deconvnet": lambda: backward.deconvnet(pixels),
        "excitation_backprop": lambda: methods.excitation_backprop(pixels, "patches"),
        "contrastive_excitation_backprop": lambda: methods.contrastive_excitation_backprop(pixels, "patches"),
        "lrp_gamma": lambda: methods.lrp(pixels, "gamma"),
        "relevance_cam": lambda: methods.relevance_cam(evidence, pixels),
    }
    for label, ask in every.items():
        with pytest.raises(UserError, match=f"^{label} does not apply"):
            ask()
    assert backward.saliency(pixels).max() > 0


HEAVY = {
    "resnet50": {},
    "vgg16": {},
    "densenet121": {},
    "efficientnet_b0": {"excitation_backprop": "activations that a linear is given are not all >= 0"},
    "vit_b_16": {
        "excitation_backprop": "it has no rule for NativeLayerNorm, which VisionTransformer contains",
        "lrp_epsilon_plus": "it has no rule for NativeLayerNorm, which VisionTransformer contains",
        "relevance_cam": "it has no rule for NativeLayerNorm, which VisionTransformer contains",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_large_networks(name):
    """Every method either says something or says in a sentence why not."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    networks.settle_batch_norm(model) if name != "vit_b_16" else nn.init.normal_(model.heads.head.weight)
    layer = {"resnet50": "layer4", "vit_b_16": "encoder.layers.encoder_layer_11.ln_1"}.get(name, "features")
    images = torch.randn(1, 3, 224, 224)
    probe = Probe(model, [layer])
    evidence, pixels = probe.look(images, [3])[layer], Pixels(probe, images, [3])
    asks = {
        "saliency": lambda: backward.saliency(pixels),
        "guided_backprop": lambda: backward.guided_backprop(pixels),
        "deconvnet": lambda: backward.deconvnet(pixels),
        "guided_grad_cam": lambda: backward.guided_grad_cam(evidence, pixels, "sum_abs") + 1e-30,
        "full_grad": lambda: backward.full_grad(pixels, images),
        "excitation_backprop": lambda: methods.excitation_backprop(pixels),
        "lrp_epsilon_plus": lambda: methods.lrp(pixels),
        "relevance_cam": lambda: methods.relevance_cam(evidence, pixels),
    }
    for label, ask in asks.items():
        if label in HEAVY[name]:
            with pytest.raises(UserError) as caught:
                ask()
            assert str(caught.value) == f"{label} does not apply: {HEAVY[name][label]}"
        else:
            found = ask()
            assert found.isfinite().all()
            assert found.abs().max() > 0
    if name == "vgg16":  # each activation is a module of its own
        plain = networks._without_in_place(model)
        for module in plain.modules():
            if isinstance(module, nn.ReLU):
                module.register_full_backward_hook(lambda _module, found, _gradient: (found[0].clamp(min=0),))
        x = images.clone().requires_grad_()
        theirs = torch.autograd.grad(plain(x)[0, 3], x)[0]
        torch.testing.assert_close(pixels("guided"), theirs, rtol=0, atol=1e-3 * float(theirs.abs().max()))
    if name == "resnet50":
        own = pixels(relevance.excitation(), layer="layer3").sum()
        assert float(own) == pytest.approx(1, rel=1e-2)
