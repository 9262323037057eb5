"""Gradients at the input under named rules: against autograd, against hooks on modules, however an activation runs."""

import gc
import weakref

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradcam_bench import pixels
from gradcam_bench.errors import UserError
from gradcam_bench.ledger import Cost
from gradcam_bench.probe import Probe


def Pixels(model, *given, score="logit", layers=(), **more):
    return pixels.Pixels(Probe(model, layers, score), *given, **more)


RULES = ("plain", "guided", "deconv")
NETWORKS = {
    "gap": networks.gap,
    "in place": networks.in_place,
    "vgg11": networks.vgg11,
    "resnet18": networks.resnet18,
    "mobilenet_v2": networks.mobilenet_v2,
    "squeezenet1_1": networks.squeezenet1_1,
}


def by_hooks(model, images, targets, rule):
    """One image at a time, by a backward hook on each activation module, nothing in place."""
    plain = networks._without_in_place(model)

    def hook(_module, found, gradient):
        given = found[0] if rule == "guided" else gradient[0]
        return None if rule == "plain" else (given.clamp(min=0),)

    for module in plain.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.register_full_backward_hook(hook)
    found = []
    for image, target in zip(images, targets):
        x = image[None].clone().requires_grad_()
        found.append(torch.autograd.grad(plain(x)[:, target].sum(), x)[0])
    return torch.cat(found)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "in place"])
def test_hooks_on_modules_give_the_same(name, rule):
    halves = NETWORKS[name]()
    images, targets = halves.images(2), [2, 0]
    found = Pixels(halves.model, images, targets)(rule)
    assert found.abs().max() > 0
    torch.testing.assert_close(found, by_hooks(halves.model, images, targets, rule), rtol=1e-4, atol=1e-6)


FORMS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": torch.Tensor.relu,
    "Tensor.relu_": torch.Tensor.relu_,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(0),
    "torch.clamp": lambda x: torch.clamp(x, min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "threshold": nn.Threshold(0, 0),
    "threshold in place": lambda x: F.threshold(x, 0, 0, True),
    "leaky_relu without a leak": lambda x: F.leaky_relu(x, 0.0),
    "leaky_relu_": lambda x: F.leaky_relu_(x, 0.0),
    "in place, what it returns left alone": lambda x: (x.relu_(), x)[1],
    "in place, on a view": lambda x: x.view(len(x), 6, -1).relu_().view_as(x),
    "in place, on a view, and seen in the whole": lambda x: (x.view(len(x), -1).relu_(), x)[1],
}


class Acting(nn.Module):
    """The same activation twice, between linear maps."""

    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.fc = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.act = act

    def forward(self, images):
        return self.fc(self.act(self.second(self.act(self.first(images)))).mean((2, 3)))


def acting(act):
    return Acting(act).double().eval()


IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
TARGETS = [1, 3, 0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_however_a_relu_runs(form, rule):
    expected = by_hooks(acting(nn.ReLU()), IMAGES, TARGETS, rule)
    torch.testing.assert_close(Pixels(acting(FORMS[form]), IMAGES, TARGETS)(rule), expected)
    assert not torch.equal(expected, by_hooks(acting(nn.ReLU()), IMAGES, TARGETS, "plain")) or rule == "plain"


SMOOTH = {
    "relu6": (nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6),
    "hardtanh": (nn.Hardtanh(-0.1, 0.2), lambda x: F.hardtanh_(x, -0.1, 0.2)),
    "leaky_relu": (nn.LeakyReLU(), nn.LeakyReLU(inplace=True), F.leaky_relu),
    "elu": (nn.ELU(), nn.ELU(inplace=True), F.elu),
    "selu": (nn.SELU(), F.selu_),
    "silu": (nn.SiLU(), nn.SiLU(inplace=True), F.silu),
    "gelu": (nn.GELU(), F.gelu),
    "hardswish": (nn.Hardswish(), nn.Hardswish(inplace=True), F.hardswish),
    "mish": (nn.Mish(), nn.Mish(inplace=True)),
    "softplus": (nn.Softplus(), F.softplus),
    "prelu": (nn.PReLU(), lambda x: F.prelu(x, torch.full((1,), 0.25, dtype=x.dtype))),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_other_activations_by_the_same_formulas(name):
    """f'(x) relu(g) and relu(g), with f' by autograd: the chain written out."""
    first, *others = SMOOTH[name]
    model = acting(first)
    x1 = model.first(IMAGES).detach()
    x2 = model.second(model.act(x1.clone())).detach()

    def slope(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model.act(x.clone()).sum(), x)[0].detach()

    g2 = (model.fc.weight[TARGETS] / x2[0, 0].numel())[:, :, None, None].expand_as(x2).detach()
    chain = {"plain": lambda f, g: f * g, "guided": lambda f, g: f * g.relu(), "deconv": lambda f, g: g.relu()}
    for rule, step in chain.items():
        g1 = F.conv_transpose2d(step(slope(x2), g2), model.second.weight)
        expected = F.conv_transpose2d(step(slope(x1), g1), model.first.weight, stride=2, output_padding=1)
        for act in (first, *others):
            found = Pixels(acting(act), IMAGES, TARGETS)(rule)
            torch.testing.assert_close(found, expected.detach())


def test_gates_keep_their_derivative():
    gated = acting(lambda x: x * torch.sigmoid(x) + torch.tanh(x) + F.hardsigmoid(x) + x.softmax(1))
    with pytest.raises(UserError, match=r"^guided_backprop does not apply: no activation function .* Acting$"):
        Pixels(gated, IMAGES, TARGETS)("guided")
    with pytest.raises(UserError, match=r"^deconvnet does not apply"):
        Pixels(gated, IMAGES, TARGETS)("deconv")
    assert Pixels(gated, IMAGES, TARGETS)().abs().max() > 0


def test_clamping_elsewhere_is_no_rectifier():
    clamped = acting(lambda x: x.clamp(min=0.1).clamp(max=2.0))
    with pytest.raises(UserError, match="no activation function"):
        Pixels(clamped, IMAGES, TARGETS)("guided")


def test_by_hand():
    """One pixel x = 2, weights 1 and -1 to two ReLUs, (3, -5) to the score: only the first runs, with derivative 3;
    the other's gradient -5 is negative, so neither rule lets it through. Weights (-3, 5) at x = 2: guided 0, as the
    second is shut, deconv -5, as it asks not."""

    class Net(nn.Module):
        def __init__(self, top):
            super().__init__()
            self.low, self.top = nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 1, bias=False)
            self.low.weight.data = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]).reshape(2, 3, 1, 1)
            self.top.weight.data = torch.tensor([top])

        def forward(self, x):
            return self.top(self.low(x).relu().flatten(1))

    image = torch.tensor([2.0, 0, 0]).reshape(1, 3, 1, 1)
    for top, expected in (((3.0, -5.0), (3, 3, 3)), ((-3.0, 5.0), (-3, 0, -5))):
        pixels = Pixels(Net(top), image, [0])
        assert [float(pixels(rule)[0, 0]) for rule in RULES] == list(expected)


@pytest.mark.parametrize("rule", RULES)
def test_several_cases_of_an_image(rule):
    model, index, targets = acting(nn.ReLU()), torch.tensor([2, 0, 2, 2]), [1, 0, 3, 1]
    found = Pixels(model, IMAGES, targets, index)(rule)
    torch.testing.assert_close(found, by_hooks(model, IMAGES[index], targets, rule))


@pytest.mark.parametrize("rule", RULES)
def test_other_images(rule):
    model, targets = acting(nn.ReLU()), [1, 0, 3]
    cost = Cost()
    asked = Pixels(model, IMAGES, targets, cost=cost)
    others = torch.randn(pixels.LARGEST["cpu"] + 3, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()
    cases = torch.arange(len(others)) % 3
    expected = by_hooks(model, others, [targets[q] for q in cases], rule)
    torch.testing.assert_close(asked(rule, others, cases), expected)
    torch.testing.assert_close(asked(rule, others[:2], 2), by_hooks(model, others[:2], [3, 3], rule))
    assert (cost.forwards, cost.backwards) == (len(others) + 2, len(others) + 2)
    assert asked(rule, others[:0], 0).shape == (0, 3, 16, 16)


def test_all_rules_share_one_forward_pass():
    model, cost, seen = acting(nn.ReLU()), Cost(), []
    model.register_forward_hook(lambda *_: seen.append(1))
    pixels = Pixels(model, IMAGES, [1, 2, 3, 0], torch.tensor([0, 0, 1, 2]), cost=cost)
    first = {rule: pixels(rule) for rule in RULES}
    assert (len(seen), cost.forwards, cost.backwards) == (1, 3, 12)
    for rule in reversed(RULES):  # no rule leaves anything behind for the next
        assert torch.equal(pixels(rule), first[rule])
    assert len(seen) == 1


@pytest.mark.parametrize("score", ["softmax", "exp", "log_sum_exp"])
def test_other_scores(score):
    model = acting(nn.ReLU())
    x = IMAGES.clone().requires_grad_()
    values = {"softmax": lambda s: s.softmax(1), "exp": torch.exp, "log_sum_exp": lambda s: s}[score](model(x))
    expected = torch.autograd.grad(values[range(3), TARGETS].sum(), x)[0]
    torch.testing.assert_close(Pixels(model, IMAGES, TARGETS, score=score)(), expected)


def test_a_function_of_the_output():
    model = acting(nn.ReLU())
    x = IMAGES.clone().requires_grad_()
    expected = torch.autograd.grad((model(x)[:, 0] - model(x)[:, 1]).sum(), x)[0]
    contrast = lambda output: output[:, 0] - output[:, 1]  # noqa: E731
    pixels = Pixels(model, IMAGES, [contrast] * 3)
    torch.testing.assert_close(pixels(), expected)
    torch.testing.assert_close(pixels("plain", IMAGES[1:], 0), expected[1:])


def test_at_a_layer():
    """Also just before an in-place ReLU, and in front of a layer that is called twice."""
    for halves in (networks.gap(), networks.in_place(), networks.vgg11(18), networks.twice(0), networks.twice(1)):
        images = halves.images(3)
        expected = networks.naive_gradients(halves, images, TARGETS, range(3))
        found = Pixels(halves.model, images, TARGETS)(layer=halves.layer)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    pixels = Pixels(halves.model, images, TARGETS)
    for wrong, sentence in (("block", "say which, as block@0"), ("block@2", "called 2 times"), ("nowhere", "unknown")):
        with pytest.raises(UserError, match=sentence):
            pixels(layer=wrong)


def test_positions_and_channels_last_and_bfloat16():
    halves = NETWORKS["mobilenet_v2"]()
    images = halves.images(2)
    expected = Pixels(halves.model, images, [1, 2])("guided")
    model = halves.model.to(memory_format=torch.channels_last)
    found = Pixels(model, images.contiguous(memory_format=torch.channels_last), [1, 2])("guided")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    model = networks.gap().model.bfloat16()
    assert Pixels(model, IMAGES.bfloat16(), TARGETS)("guided").dtype == torch.bfloat16
    positions = networks.Positions().double()
    x = IMAGES.clone().requires_grad_()
    expected = torch.autograd.grad(positions(x).mean((2, 3))[range(3), TARGETS].sum(), x)[0]
    torch.testing.assert_close(Pixels(positions, IMAGES, TARGETS)(), expected)


def test_within_inference_mode():
    model, expected = acting(nn.ReLU()), by_hooks(acting(nn.ReLU()), IMAGES, TARGETS, "guided")
    with torch.inference_mode():
        torch.testing.assert_close(Pixels(model, IMAGES.clone(), TARGETS)("guided"), expected)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.norm, self.drop = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()
        self.fails = False

    def forward(self, x):
        torch.rand(1)
        x = self.drop(self.norm(self.low(x)).relu())
        if self.fails:
            raise RuntimeError("no")
        return x.mean((2, 3))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(fails):
    model = Failing().double().train()
    model.drop.eval()
    model.low.weight.requires_grad_(False)
    model.low.bias.grad = torch.ones_like(model.low.bias)
    model.fails = fails
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    pixels = Pixels(model, IMAGES, TARGETS)
    for rule in RULES:
        if fails:
            with pytest.raises(RuntimeError, match="no"):
                pixels(rule)
        else:
            pixels(rule)
    assert torch.equal(torch.get_rng_state(), random)
    assert (model.training, model.norm.training, model.drop.training) == (True, True, False)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert model.low.weight.grad is None
    assert model.low.bias.grad.sum() == 4
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert not IMAGES.requires_grad


def test_a_rule_that_fails_leaves_no_hook_behind():
    from gradcam_bench.rules import Rule

    def bad(_call, _gradient):
        raise UserError("bad")

    pixels = Pixels(acting(nn.ReLU()), IMAGES, TARGETS)
    plain = pixels()
    for at in ("before", "instead"):
        for kind in ("activation", "weighted"):
            with pytest.raises(UserError, match="bad"):
                pixels(Rule("bad", "bad", **{at: {kind: bad, "activation": bad}}))
    assert torch.equal(pixels(), plain)


@pytest.mark.parametrize("closed", [True, False])
def test_the_graph_is_freed(closed):
    gc.disable()  # by the count of references alone
    try:
        pixels = Pixels(networks.resnet18().model, torch.randn(1, 3, 64, 64), [1])
        for rule in RULES:
            pixels(rule)
        parts = [weakref.ref(pixels._own.scores), *(weakref.ref(call) for call in pixels._own.tape.calls)]
        assert len(parts) > 60
        pixels.close() if closed else pixels.__dict__.clear()
        assert all(part() is None for part in parts)
    finally:
        gc.enable()


def test_cases_that_do_not_fit():
    model = acting(nn.ReLU())
    with pytest.raises(UserError, match="target class 4: the model has classes 0 to 3"):
        Pixels(model, IMAGES, [0, 4, 1])()
    with pytest.raises(UserError, match="unknown backward rule 'guidde': did you mean 'guided'"):
        Pixels(model, IMAGES, TARGETS)("guidde")
    assert Pixels(model, IMAGES, [], torch.tensor([], dtype=torch.int64))().shape == (0, 3, 16, 16)
