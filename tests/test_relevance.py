"""Relevance rules: against explicit matrices, and what they conserve."""

import copy

import networks
import pytest
import torch
from test_pixels import FORMS, IMAGES, TARGETS, Pixels, acting
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gradcam_bench import relevance
from gradcam_bench.errors import UserError

COMPOSITES = ("epsilon", "gamma", "alpha1_beta0", "epsilon_plus", "epsilon_gamma_box")


class TwoLayers(nn.Module):
    """A 1x1 image through [4,3] and [2,4]."""

    def __init__(self, biases=True):
        super().__init__()
        torch.manual_seed(3)
        self.low, self.top = nn.Conv2d(3, 4, 1, bias=biases), nn.Linear(4, 2, bias=biases)

    def forward(self, x):
        return self.top(self.low(x).relu().flatten(1))


def two_layers(image, biases=True):
    """The network, an image, and W1 [4,3], b1, W2 [2,4], b2, x [3], h [4] as matrices."""
    model = TwoLayers(biases).double().eval()
    x = torch.tensor(image).double()
    w1, w2 = model.low.weight.detach().flatten(1), model.top.weight.detach()
    b1, b2 = (
        layer.bias.detach() if biases else torch.zeros(len(layer.weight)).double() for layer in (model.low, model.top)
    )
    return model, x.reshape(1, 3, 1, 1), w1, b1, w2, b2, x, (w1 @ x + b1).relu()


def handed_on(parts, bias, shares, epsilon=0.0):
    """R_in by loops: each output j hands its share to input i in proportion to part[j][i] / (sum of parts + bias)."""
    found = torch.zeros(parts.shape[1]).double()
    totals = parts.sum(1) + bias
    size = float(totals.square().mean().sqrt())
    for j, share in enumerate(shares):
        total = totals[j] + epsilon * size * (1 if totals[j] >= 0 else -1)
        if total != 0:
            for i in range(parts.shape[1]):
                found[i] += parts[j, i] / total * share
    return found


def plus(w, x):
    return torch.stack([torch.stack([(w[j, i] * x[i]).clamp(min=0) for i in range(len(x))]) for j in range(len(w))])


def favour(w, x, bias, gamma=0.25):
    """Contributions of the sign of their sum count 1 + gamma times: parts [j][i], bias [j]."""
    parts, biases = w * x, bias.clone()
    for j in range(len(w)):
        sign = 1 if parts[j].sum() + bias[j] >= 0 else -1
        parts[j] = torch.where(parts[j] * sign > 0, (1 + gamma) * parts[j], parts[j])
        biases[j] = (1 + gamma) * bias[j] if bias[j] * sign > 0 else bias[j]
    return parts, biases, 1e-6


def slow(name, target, w1, b1, w2, b2, x, h, epsilon=1e-6):
    """Both layers, as matrices."""
    logits = w2 @ h + b2
    shares = torch.zeros(2).double()
    shares[target] = logits[target]
    box = w1 * x - x.min() * w1.clamp(min=0) - x.max() * w1.clamp(max=0)
    layers = {
        "epsilon": ((w2 * h, b2, epsilon), (w1 * x, b1, epsilon)),
        "gamma": (favour(w2, h, b2), (box, 0.0, 0.0)),
        "alpha1_beta0": ((plus(w2, h), b2.clamp(min=0), 0.0), (plus(w1, x), b1.clamp(min=0), 0.0)),
        "epsilon_plus": ((w2 * h, b2, epsilon), (plus(w1, x), b1.clamp(min=0), 0.0)),
        "epsilon_gamma_box": ((w2 * h, b2, epsilon), (box, 0.0, 0.0)),
    }
    (top, top_bias, top_epsilon), (low, low_bias, low_epsilon) = layers[name]
    return handed_on(low, low_bias, handed_on(top, top_bias, shares, top_epsilon), low_epsilon)


@pytest.mark.parametrize("image", [[0.5, -1.0, 2.0], [0.3, 0.9, 0.4]])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_against_matrices(name, image):
    model, images, *matrices = two_layers(image)
    for target in (0, 1):
        found = Pixels(model, images, [target])(relevance.composite(name))
        torch.testing.assert_close(found.flatten(), slow(name, target, *matrices))
    coarse = Pixels(model, images, [1])(relevance.composite("epsilon", epsilon=0.25))
    torch.testing.assert_close(coarse.flatten(), slow("epsilon", 1, *matrices, epsilon=0.25))


@pytest.mark.parametrize("dual", [False, True])
def test_excitation_against_matrices(dual):
    """P_i = sum_j P_j x_i w_ij+ / sum_i x_i w_ij+, biases left out; the dual unit's top weights are negated."""
    model, images, w1, _, w2, _, x, h = two_layers([0.3, 0.9, 0.4])
    for target in (0, 1):
        top = (-w2 if dual else w2)[target : target + 1]
        middle = handed_on(plus(top, h), 0.0, torch.ones(1))
        pixels = Pixels(model, images, [target])
        rule = relevance.excitation(dual=dual)
        torch.testing.assert_close(pixels(rule, layer="low").flatten(), middle)
        found = pixels(rule).flatten()
        torch.testing.assert_close(found, handed_on(plus(w1, x), 0.0, middle))
        assert float(found.sum()) == pytest.approx(float(middle[(plus(w1, x).sum(1) > 0)].sum()))


def test_excitation_by_hand():
    """Weights 1, 3 and -5 from activations 2, 2 and 1: shares 2/8, 6/8 and none; negated, all goes to the third."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(3, 1))
    model[0].weight.data = torch.eye(3).reshape(3, 3, 1, 1)
    model[3].weight.data = torch.tensor([[1.0, 3.0, -5.0]])
    pixels = Pixels(model, torch.tensor([2.0, 2.0, 1.0]).reshape(1, 3, 1, 1), [0])
    assert pixels(relevance.excitation()).flatten().tolist() == [0.25, 0.75, 0]
    assert pixels(relevance.excitation(dual=True)).flatten().tolist() == [0, 0, 1]


NETWORKS = {
    "vgg11": (networks.vgg11, ["features.5", "features.10", "features.19", "classifier.1"]),
    "resnet18": (networks.resnet18, ["maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"]),
    "squeezenet1_1": (networks.squeezenet1_1, ["features.2", "features.5", "features.12"]),
    "densenet121": (networks.densenet121, ["features.pool0"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_sum_to_one_at_every_layer(name):
    build, layers = NETWORKS[name]
    halves = build()
    pixels = Pixels(halves.model.double(), halves.images(2).double(), [1, 2])
    for dual in (False, True):
        for layer in layers:
            found = pixels(relevance.excitation(dual=dual), layer=layer)
            assert found.min() >= 0
            torch.testing.assert_close(found.flatten(1).sum(1), torch.ones(2).double(), rtol=1e-3, atol=0)


def without_biases(halves):
    model = copy.deepcopy(halves.model).double()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    return model


@pytest.mark.parametrize("build", [networks.gap, networks.vgg11, networks.resnet18, networks.squeezenet1_1])
def test_epsilon_without_biases_is_input_times_gradient(build):
    halves = build()
    model, images = without_biases(halves), halves.images(2).double()
    pixels = Pixels(model, images, [1, 2])
    found = pixels(relevance.composite("epsilon", epsilon=0.0))
    expected = images * pixels()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    logits = model(images)[range(2), [1, 2]].detach()
    torch.testing.assert_close(found.sum((1, 2, 3)), logits, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("build", [networks.gap, networks.vgg11, networks.resnet18])
def test_without_biases_relevance_sums_to_the_logit(build, name):
    halves = build()
    model, images = without_biases(halves), halves.images(2).double()
    found = Pixels(model, images, [1, 2])(relevance.composite(name, epsilon=1e-12))
    logits = model(images)[range(2), [1, 2]].detach()
    torch.testing.assert_close(found.sum((1, 2, 3)), logits, rtol=2e-3, atol=1e-9)


class Normed(nn.Module):
    """Convolutions with batch norms of both signs after them, a residual sum, a linear map with one too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.fc1, self.norm3, self.fc2 = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)
        for norm in (self.norm1, self.norm2, self.norm3):
            for value in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(value)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x):
        x = self.norm1(self.conv1(x)).relu()
        x = (x + self.norm2(self.conv2(x))).relu().mean((2, 3))
        return self.fc2(self.norm3(self.fc1(x)).relu())


@pytest.mark.parametrize("name", [*COMPOSITES, "excitation"])
def test_a_batch_norm_is_part_of_the_linear_map_before_it(name):
    rule = relevance.excitation() if name == "excitation" else relevance.composite(name)
    model = Normed().double().eval()
    fused = copy.deepcopy(model)
    for conv, norm in (("conv1", "norm1"), ("conv2", "norm2"), ("fc1", "norm3")):
        merge = fuse_conv_bn_eval if conv != "fc1" else nn.utils.fusion.fuse_linear_bn_eval
        setattr(fused, conv, merge(getattr(model, conv), getattr(model, norm)))
        setattr(fused, norm, nn.Identity())
    images = IMAGES.abs()
    torch.testing.assert_close(Pixels(model, images, TARGETS)(rule), Pixels(fused, images, TARGETS)(rule))


def test_a_batch_norm_of_its_own_is_a_linear_map():
    """After a ReLU: y = s x + t, so R_in = R s x / (s x + t)."""
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(nn.ReLU(), norm, nn.Flatten(), nn.Linear(3, 2, bias=False)).eval()
    norm.weight.data, norm.bias.data = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 1.0, 0.0])
    norm.running_var.fill_(1 - norm.eps)
    model[3].weight.data = torch.tensor([[1.0, 2.0, 3.0], [0, 0, 0]])
    pixels = Pixels(model, torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1), [0])
    found = pixels(relevance.composite("epsilon", epsilon=0.0)).flatten()
    # y = (1.5, -3, 12), shares of the logit: 1.5, -6, 36; s x = (1, -4, 12)
    torch.testing.assert_close(found, torch.tensor([1.0, -8.0, 36.0]), rtol=1e-4, atol=0)


RULES = [relevance.excitation(), *(relevance.composite(name) for name in COMPOSITES)]


def test_what_else_is_done_in_place_to_a_view_is_refused():
    """What it was hides in a node that says no more than that a part was overwritten."""
    for act in (lambda x: (x[:, :2].mul_(2), x)[1], lambda x: (x[:, :2].relu_(), x[:, 1:3].sub_(1), x)[2]):
        assert "it has no rule for CopySlices" in refusal(acting(act), IMAGES[:1], relevance.excitation())


def test_a_relu_in_place_on_a_part():
    def part(x):
        x[:, :2].relu_()
        return x

    model = acting(lambda x: torch.cat([x[:, :2].relu(), x[:, 2:]], 1))
    for rule in RULES[1:]:
        expected = Pixels(model, IMAGES, TARGETS)(rule)
        torch.testing.assert_close(Pixels(acting(part), IMAGES, TARGETS)(rule), expected)


@pytest.mark.parametrize("form", FORMS)
def test_however_a_relu_runs(form):
    for rule in RULES:
        expected = Pixels(acting(nn.ReLU()), IMAGES.abs(), TARGETS)(rule)
        torch.testing.assert_close(Pixels(acting(FORMS[form]), IMAGES.abs(), TARGETS)(rule), expected)


SUMS = {
    "+": lambda x, y: x + y,
    "+=": lambda x, y: x.__iadd__(y),
    "add": torch.add,
    "add_": lambda x, y: (x.add_(y), x)[1],
    "then in place": lambda x, y: (x + y).relu_(),
}


class Summing(nn.Module):
    def __init__(self, add):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.fc, self.add = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, 4), add

    def forward(self, x):
        x = self.first(x).relu()
        return self.fc(self.add(self.second(x), x).relu().mean((2, 3)))


@pytest.mark.parametrize("form", SUMS)
def test_however_a_sum_runs(form):
    """And by hand: z = a + b hands R a / z and R b / z."""
    model = Summing(SUMS[form]).double()
    for rule in RULES:
        expected = Pixels(Summing(torch.add).double(), IMAGES.abs(), TARGETS)(rule)
        torch.testing.assert_close(Pixels(model, IMAGES.abs(), TARGETS)(rule), expected)
    x = model.first(IMAGES).relu().detach()
    a = model.second(x).detach()
    pixels = Pixels(model, IMAGES, TARGETS)
    rule = relevance.composite("epsilon", epsilon=0.0)
    share = x / (a + x) * pixels(rule, layer="second") * ((a + x) / a)
    w = model.second.weight.detach()
    back = F.conv_transpose2d(pixels(rule, layer="second") / a, w)
    found = pixels(rule, layer="first")
    kept = (a + x).abs() > 1e-3
    kept &= a.abs() > 1e-3
    difference = (found - (x * back + share)).abs() / found.abs().max()
    assert difference[kept].max() < 1e-3
    assert kept.float().mean() > 0.9


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, constant):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.gate, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, 4, bias=False)
        self.constant = constant

    def forward(self, x):
        x = self.first(x).relu()
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        gate = gate.detach() if self.constant else gate
        return self.fc((x * gate).mean((2, 3)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.method)
def test_a_gate_leaves_relevance_to_the_signal(rule):
    found = Pixels(Gated(False).double(), IMAGES.abs(), TARGETS)(rule)
    torch.testing.assert_close(found, Pixels(Gated(True).double(), IMAGES.abs(), TARGETS)(rule))


def test_one_forward_pass_for_gradients_and_relevances():
    model, seen = acting(nn.ReLU()), []
    model.register_forward_hook(lambda *_: seen.append(1))
    pixels = Pixels(model, IMAGES.abs(), [1, 2, 0], torch.tensor([0, 0, 2]))
    first = [pixels(rule) for rule in ("plain", *RULES, "guided")]
    again = [pixels(rule) for rule in ("plain", *RULES, "guided")]
    assert len(seen) == 1
    assert all(torch.equal(one, other) for one, other in zip(first, again))
    alone = [Pixels(model, IMAGES.abs()[[0, 0, 2]], [1, 2, 0])(rule) for rule in ("plain", *RULES, "guided")]
    for one, other in zip(first, alone):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.method)
def test_channels_last(rule):
    """There the global average pool is two of autograd's nodes."""
    halves = networks.resnet18()
    model, images = halves.model.double(), halves.images(2).double()
    expected = Pixels(model, images, [1, 2])(rule, layer="layer2")
    model = model.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(Pixels(model, images, [1, 2])(rule, layer="layer2"), expected)


def test_a_network_that_scores_positions():
    """Each position starts with its part: the same as the mean of the positions' own relevances."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3, 8), nn.ReLU(), nn.Conv2d(5, 4, 1)).double()
    whole = Pixels(model, IMAGES, TARGETS)(relevance.composite("epsilon"))
    logits = model(IMAGES).detach()
    assert logits.shape[2:] == (2, 2)
    pooled = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = Pixels(pooled, IMAGES, TARGETS)(relevance.composite("epsilon", epsilon=0.0))
    torch.testing.assert_close(whole, x, rtol=1e-3, atol=1e-5 * float(x.abs().max()))


def refusal(model, images, rule, targets=(0,)):
    with pytest.raises(UserError) as caught:
        Pixels(model, images, list(targets))(rule)
    return str(caught.value)


def test_networks_that_have_no_rules_are_refused():
    images = torch.randn(1, 3, 32, 32)
    for model in (networks.Tokens(), networks.ChannelsLast()):
        for rule in RULES:
            sentence = refusal(model, images, rule)
            assert sentence.startswith(f"{rule.method} does not apply: it has no rule for ")
            assert type(model).__name__ in sentence


def test_negative_activations_are_refused_by_excitation():
    for act in (nn.SiLU(), nn.GELU(), nn.Identity(), nn.LeakyReLU()):
        sentence = refusal(acting(act), IMAGES[:1].abs(), relevance.excitation())
        assert sentence == "excitation_backprop does not apply: activations that a linear is given are not all >= 0"
    for act in (nn.ReLU6(), nn.Softplus()):
        assert Pixels(acting(act), IMAGES[:1].abs(), [0])(relevance.excitation()).sum() > 0


def test_a_function_of_the_output_is_refused():
    sentence = refusal(acting(nn.ReLU()), IMAGES[:1], relevance.composite("gamma"), [lambda output: output[:, 0]])
    assert sentence == "lrp_gamma does not apply: its target must be a class, not a function of the output"


def test_a_value_that_is_lost_is_refused():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            x = self.low(x)
            y = x + 1
            x.mul_(2)
            return self.fc((x + y).mean((2, 3)))

    model = Overwriting()
    Pixels(model, IMAGES[:1].float(), [0])()
    assert "overwritten in place" in refusal(model, IMAGES[:1].float(), relevance.composite("epsilon"))


@pytest.mark.parametrize("seed", range(3))
def test_gamma_of_inputs_and_outputs_of_both_signs(seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(3, 4), nn.Linear(4, 2)).double()
    x = torch.randn(3, generator=generator).double()
    w1, b1, w2, b2 = (parameter.detach() for parameter in model.parameters())
    h = w1 @ x + b1
    shares = torch.zeros(2).double()
    shares[1] = (w2 @ h + b2)[1]
    parts, bias, epsilon = favour(w2, h, b2)
    middle = handed_on(parts, bias, shares, epsilon)
    parts, bias, epsilon = favour(w1, x, b1)
    expected = handed_on(parts, bias, middle, epsilon)
    linear = relevance.partial(relevance.signed, gamma=0.25, stable=relevance.stabilised(1e-6))
    rule = relevance.propagation("lrp_gamma", linear, linear, linear)
    found = Pixels(model, x.reshape(1, 3, 1, 1), [1])(rule)
    torch.testing.assert_close(found.flatten(), expected)


def test_unknown_composite():
    with pytest.raises(UserError, match="unknown composite 'epsilon_pls': did you mean 'epsilon_plus'"):
        relevance.composite("epsilon_pls")
