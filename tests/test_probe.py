"""A look equals plain autograd, costs no more graph than it must, and leaves the model exactly as it found it."""

import gc
import weakref

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradcam_bench.candidates import candidates
from gradcam_bench.errors import UserError
from gradcam_bench.probe import Probe

HALVES = {
    "gap": networks.gap,
    "gap, signed": lambda: networks.gap(signed=True),
    "functional in-place relu after the layer": networks.in_place,
    "called twice, first": lambda: networks.twice(0),
    "called twice, second": lambda: networks.twice(1),
    "vgg11, last relu": networks.vgg11,
    "vgg11, before an in-place relu": lambda: networks.vgg11(18),
    "vgg11, inside": lambda: networks.vgg11(10),
    "resnet18, layer4": networks.resnet18,
    "resnet18, layer3": lambda: networks.resnet18("layer3"),
    "densenet121": networks.densenet121,
    "mobilenet_v2": networks.mobilenet_v2,
    "squeezenet1_1": networks.squeezenet1_1,
}


def same(found, expected):
    """Equal up to rounding: relative to the largest value, 1e-12 in double and 1e-5 in single precision."""
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    slack = 1e-12 if expected.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found, expected, rtol=0, atol=slack * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", HALVES)
def test_a_look_equals_plain_autograd(name):
    halves = HALVES[name]()
    images = halves.images(2)
    targets, image_index = [1, 3, 1, 0], [1, 0, 0, 1]
    before = images.clone()
    evidence = Probe(halves.model, [halves.layer]).look(images, targets, torch.tensor(image_index))[halves.layer]
    with torch.no_grad():
        activations = halves.stem(images.clone())
        same(evidence.activations, activations)
        same(evidence.logits, halves.head(activations.clone()))
    same(evidence.features, activations[image_index])
    same(evidence.gradients, networks.naive_gradients(halves, images, targets, image_index))
    assert evidence.image_index.tolist() == image_index
    assert evidence.targets.tolist() == targets
    assert torch.equal(images, before)
    assert not any(t.requires_grad for t in (evidence.logits, evidence.activations, evidence.gradients))


@pytest.mark.parametrize("layers", [("stem.2", "features"), ("features", "stem.2"), ("stem", "features.0", "features")])
def test_several_layers_equal_one_at_a_time(layers):
    halves = networks.gap(signed=True)
    images = halves.images(3)
    together = Probe(halves.model, layers).look(images, [0, 1, 2])
    assert tuple(together) == layers
    for layer in layers:
        alone = Probe(halves.model, [layer]).look(images, [0, 1, 2])[layer]
        same(together[layer].gradients, alone.gradients)
        same(together[layer].activations, alone.activations)
        assert torch.equal(together[layer].logits, alone.logits)


def test_two_layers_of_a_net_with_in_place_relus():
    halves = networks.vgg11(18)
    images = halves.images(1)
    together = Probe(halves.model, ["features.19", "features.18"]).look(images, [3])
    same(together["features.18"].gradients, networks.naive_gradients(halves, images, [3], [0]))
    expected = networks.naive_gradients(networks.vgg11(19), images, [3], [0])
    same(together["features.19"].gradients, expected)


def test_two_calls_of_one_module_in_one_look():
    images = networks.twice(0).images(2)
    together = Probe(networks.twice(0).model, ["block@1", "block@0"]).look(images, [2, 3])
    for call in (0, 1):
        expected = networks.naive_gradients(networks.twice(call), images, [2, 3], [0, 1])
        same(together[f"block@{call}"].gradients, expected)


def test_cases_repeated_unsorted_and_an_image_without_any():
    halves = networks.gap()
    images = halves.images(4)
    targets, image_index = [3, 0, 3, 3, 1, 2], [3, 0, 3, 0, 3, 1]  # class 3 twice on image 3, nothing on image 2
    evidence = Probe(halves.model, ["features"]).look(images, targets, torch.tensor(image_index))["features"]
    same(evidence.gradients, networks.naive_gradients(halves, images, targets, image_index))
    assert torch.equal(evidence.gradients[0], evidence.gradients[2])
    assert evidence.activations.shape[0] == 4


@pytest.mark.parametrize("kind", [list, torch.tensor, tuple])
def test_targets_and_index_as_lists_or_tensors(kind):
    halves = networks.gap()
    images = halves.images(2)
    evidence = Probe(halves.model, ["features"]).look(images, kind([2, 1]), kind([1, 0]))["features"]
    same(evidence.gradients, networks.naive_gradients(halves, images, [2, 1], [1, 0]))


def test_no_case_at_all():
    halves = networks.gap()
    evidence = Probe(halves.model, ["features"]).look(halves.images(2), [], [])["features"]
    assert evidence.gradients.shape == (0, 5, 8, 8)
    assert evidence.features.shape == (0, 5, 8, 8)
    assert evidence.targets.dtype == torch.int64
    assert evidence.activations.shape == (2, 5, 8, 8)


def test_targets_chosen_from_the_logits():
    halves = networks.gap()
    images = halves.images(3)

    def two_best(logits):
        assert not logits.requires_grad
        return logits.topk(2).indices.flatten(), torch.arange(3).repeat_interleave(2)

    evidence = Probe(halves.model, ["features"]).look(images, two_best)["features"]
    best = evidence.logits.topk(2).indices.flatten().tolist()
    assert evidence.targets.tolist() == best
    same(evidence.gradients, networks.naive_gradients(halves, images, best, [0, 0, 1, 1, 2, 2]))


@pytest.mark.parametrize(
    "function",
    [
        lambda out: out[:, 1] - out[:, 2],
        lambda out: out.square().sum(1),
        lambda out: -(out.softmax(1) * out.log_softmax(1)).sum(1),
        lambda out: out.amax(1).detach() + out[:, 0],
    ],
    ids=["difference", "square", "entropy", "partly detached"],
)
def test_any_differentiable_function_of_the_output_is_a_target(function):
    halves = networks.gap()
    images = halves.images(2)
    targets, image_index = [function, 1, function, function], [1, 1, 0, 1]
    evidence = Probe(halves.model, ["features"]).look(images, targets, image_index)["features"]
    same(evidence.gradients, networks.naive_gradients(halves, images, targets, image_index))
    assert evidence.targets.tolist() == [-1, 1, -1, -1]


class Several(nn.Module):
    """Returns a tuple, a dict or an object with `.logits`."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = networks.gap().model, kind

    def forward(self, images):
        logits = self.net(images)
        if self.kind == "tuple":
            return logits, logits.square()
        return {"a": logits} if self.kind == "dict" else type("Output", (), {"logits": logits})()


def test_models_whose_output_is_no_tensor():
    halves = networks.gap()
    images = halves.images(2)
    for kind in ("tuple", "object"):
        evidence = Probe(Several(kind), ["net.features"]).look(images, [2, 0])["net.features"]
        same(evidence.gradients, networks.naive_gradients(halves, images, [2, 0], [0, 1]))
        assert evidence.logits.shape == (2, 4)
    targets = [lambda out: out["a"][:, 2] ** 2] * 2
    evidence = Probe(Several("dict"), ["net.features"]).look(images, targets)["net.features"]
    same(evidence.gradients, networks.naive_gradients(halves, images, [lambda out: out[:, 2] ** 2] * 2, [0, 1]))
    assert evidence.logits.numel() == 0
    second = Probe(Several("tuple"), ["net.features"]).look(images, [lambda out: out[1][:, 2]] * 2)["net.features"]
    same(second.gradients, evidence.gradients)
    with pytest.raises(UserError, match="no scores"):
        Probe(Several("dict"), ["net.features"]).look(images, [0, 0])


def test_score_functions():
    halves = networks.gap()
    images, targets, image_index = halves.images(2), [1, 3, 0], [0, 1, 1]
    for score, function in {
        "logit": lambda out, t: out[:, t],
        "softmax": lambda out, t: out[:, t].exp() / out.exp().sum(1),
        "exp": lambda out, t: out[:, t].exp(),
    }.items():
        evidence = Probe(halves.model, ["features"], score).look(images, targets, image_index)["features"]
        plain = [lambda out, t=t, f=function: f(out, t) for t in targets]
        same(evidence.gradients, networks.naive_gradients(halves, images, plain, image_index))


# Grids of other layouts, scores at several positions


@pytest.mark.parametrize("prefix", [1, 2, 5])
@pytest.mark.parametrize("block", [0, 1])
def test_a_token_sequence_is_a_grid_whatever_its_prefix_and_the_images_shape(prefix, block):
    torch.manual_seed(0)
    model, layer = networks.Tokens(prefix).double().eval(), f"blocks.{block}.norm1"
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    evidence = Probe(model, [layer]).look(images, [1, 3])[layer]
    found = networks.hooked_gradients(model, layer, images, [1, 3])
    for mine, native in zip((evidence.activations, evidence.gradients), found):
        assert mine.shape == (2, 6, 4, 6)
        for row in range(4):
            for column in range(6):
                same(mine[:, :, row, column], native[:, prefix + 6 * row + column])


def test_tokens_are_refused_where_no_convolution_says_their_grid():
    class Unfolded(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(48), nn.Linear(48, 4)

        def forward(self, images):
            return self.fc(self.norm(F.unfold(images, 4, stride=4).transpose(1, 2)).mean(1))

    assert "layer norm gives no grid: its output is (2, 64, 48)" in refusal(
        [0, 1], model=Unfolded().double(), layers=["norm"]
    )


def test_a_channels_last_map_is_a_grid():
    torch.manual_seed(0)
    model = networks.ChannelsLast().double().eval()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    together = Probe(model, ["patches", "norm1", "norm"]).look(images, [1, 3])
    for layer, order in (("patches", (0, 1, 2, 3)), ("norm1", (0, 3, 1, 2)), ("norm", (0, 3, 1, 2))):
        activations, gradients = networks.hooked_gradients(model, layer, images, [1, 3])
        same(together[layer].activations, activations.permute(order))
        same(together[layer].gradients, gradients.permute(order))
        assert together[layer].gradients.shape == (2, 6, 4, 6)


def test_layers_that_would_do_have_a_grid_and_a_gradient_there():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 48)
    tokens = candidates(networks.Tokens(), images)
    assert tokens == ["blocks.1.qkv", "blocks.1.norm1", "blocks.0", "blocks.0.qkv", "blocks.0.norm1", "patches"]
    assert candidates(networks.Tokens(), images, among=2) == ["blocks.1.qkv"]  # after blocks.1, no
    assert candidates(networks.twice(0).model.float(), images) == ["stem"]  # block is called twice


def test_scores_at_several_positions():
    """scores s_p = w . A_p + b at P positions. d mean(s) / dA_p = w / P; d log sum exp(s) / dA_p = w softmax(s)_p."""
    torch.manual_seed(0)
    model = networks.Positions().double().eval()
    images = torch.randn(2, 3, 32, 40, dtype=torch.float64)
    targets, image_index = [2, 0, 1], [0, 1, 1]
    scores = model(images).detach()  # [2,4,4,5]
    weight = model.fc.weight.detach()[targets]  # [3,5,1,1]
    asked = scores[image_index, targets]  # [3,4,5]
    mean = asked.mean((1, 2))[:, None, None, None]
    logits = scores.mean((2, 3))
    probability = logits.softmax(1)
    others = torch.einsum("bk,kc->bc", probability, model.fc.weight.detach()[:, :, 0, 0])[image_index]
    expected = {
        "logit": weight.expand(-1, -1, 4, 5) / 20,
        "exp": mean.exp() * weight.expand(-1, -1, 4, 5) / 20,
        "softmax": probability[image_index, targets][:, None, None, None]
        * (weight - others[:, :, None, None]).expand(-1, -1, 4, 5)
        / 20,
        "log_sum_exp": weight * asked.flatten(1).softmax(1).reshape(3, 1, 4, 5),
    }
    for score, gradients in expected.items():
        evidence = Probe(model, ["features"], score).look(images, targets, image_index)["features"]
        same(evidence.logits, logits)
        same(evidence.gradients, gradients)
    same(Probe(model, ["features"]).forward(images), logits)


def test_at_one_position_log_sum_exp_is_the_logit():
    halves = networks.gap()
    images = halves.images(2)
    logit, other = (Probe(halves.model, ["features"], score).look(images, [1, 2]) for score in ("logit", "log_sum_exp"))
    assert torch.equal(logit["features"].gradients, other["features"].gradients)


def test_a_score_that_overflows_elsewhere_does_not_spoil_a_case():
    """exp of image 1's score for class 0 is infinite, but nobody asks for it."""
    halves = networks.gap()
    halves.model.float()
    images = halves.images(2)
    with torch.no_grad():
        low, high = halves.model(images)[:, 0].tolist()
        halves.model.fc.weight[0] *= 1000 / (high - low)
        halves.model.fc.bias[0] += 1 - halves.model(images)[0, 0]
        assert halves.model(images)[1, 0] > 100
    evidence = Probe(halves.model, ["features"], "exp").look(images, [0, 1])["features"]
    assert evidence.gradients.isfinite().all()


def test_grids_of_other_precisions():
    halves = networks.gap()
    images = halves.images(2)
    exact = Probe(halves.model, ["features"]).look(images, [0, 1])["features"].gradients
    halves.model.to(torch.bfloat16)
    evidence = Probe(halves.model, ["features"]).look(images.bfloat16(), [0, 1])["features"]
    assert evidence.gradients.dtype == evidence.activations.dtype == torch.bfloat16
    torch.testing.assert_close(evidence.gradients.double(), exact, rtol=0.02, atol=1e-4)


def test_forward_gives_the_logits_alone():
    halves = networks.gap()
    images = halves.images(2)
    halves.model.train()
    logits = Probe(halves.model, ["features"]).forward(images)
    assert halves.model.training
    halves.model.eval()
    same(logits, halves.head(halves.stem(images)).detach())


# What a look refuses


def refusal(*args, model=None, layers=("features",), **kwargs):
    with pytest.raises(UserError) as caught:
        Probe(model or networks.gap().model, layers).look(networks.gap().images(2), *args, **kwargs)
    return str(caught.value)


def test_a_module_called_twice_must_be_named_by_call():
    model = networks.twice(0).model
    assert "block@0 or block@1" in refusal([0, 0], model=model, layers=["block"])
    assert "block@2" in refusal([0, 0], model=model, layers=["block@2"])
    assert "stem@x" in refusal([0, 0], model=model, layers=["stem@x"])
    once = Probe(model, ["stem@0"]).look(networks.gap().images(2), [0, 0])["stem@0"]
    assert once.gradients.any()


def test_a_layer_that_does_not_exist_names_the_nearest():
    assert "did you mean 'features'?" in refusal([0, 0], layers=["feature"])


def test_a_layer_that_is_no_grid():
    assert "(2, 4)" in refusal([0, 0], layers=["fc"])
    assert "tuple" in refusal([0, 0], model=Several("tuple"), layers=[""])


def test_a_layer_without_gradient():
    class Detached(networks.Gap):
        def forward(self, images):
            aside = self.stem(images)
            return self.fc(self.features(aside.detach()).mean((2, 3)))

    model = Detached().double()
    assert "does not depend on layer stem" in refusal([0, 0], model=model, layers=["stem"])
    assert "does not depend on layer stem" in refusal([0, 0], model=model, layers=["stem", "features"])
    assert "does not depend" in refusal([lambda out: out[:, 0].detach()] * 2)


def test_a_layer_that_is_never_reached():
    class Unused(networks.Gap):
        def __init__(self):
            super().__init__()
            self.spare = nn.Conv2d(3, 3, 1)

    assert "spare took no part" in refusal([0, 0], model=Unused().double(), layers=["features", "spare"])


def test_lengths_that_do_not_fit_name_both():
    assert "3 targets for 2 images" in refusal([0, 1, 2])
    assert "3 targets but 2 entries in image_index" in refusal([0, 1, 2], [0, 1])
    assert "image_index spans 0 to 2 but there are 2 images" in refusal([0, 1], [0, 2])
    assert "image_index spans -1 to 0" in refusal([0, 1], [0, -1])


def test_classes_out_of_range():
    assert "target class 4: the model has classes 0 to 3" in refusal([0, 4])
    assert "target class -1" in refusal([-1, 0])


def test_a_target_function_must_give_one_number_an_image():
    for function in (lambda out: out[:, 0].sum(), lambda out: out, lambda out: 1.0):
        assert "one number an image" in refusal([function, 0])


# What a look leaves behind


class Restless(nn.Module):
    """Mixed modes, frozen and unfrozen parameters, batch norm, random numbers at every forward pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = networks.Gap()
        self.norm = nn.BatchNorm2d(3)
        self.fails = False

    def forward(self, images):
        noisy = F.dropout(self.norm(images), 0.5, training=True)
        output = self.net(noisy)
        if self.fails:
            raise RuntimeError("the model itself failed")
        return output


def restless():
    model = Restless()
    model.net.features.eval()
    model.net.stem[1].eval()
    model.net.stem[0].weight.requires_grad_(False)
    model.norm.bias.requires_grad_(False)
    model.net.fc.weight.grad = torch.full_like(model.net.fc.weight, 7.0)
    model.net.features.register_forward_hook(lambda *_: None)
    return model


def state(model):
    """Everything a look might have changed."""
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "hooks": {
            (name, kind): tuple(getattr(module, kind))
            for name, module in model.named_modules()
            for kind in vars(module)
            if kind.endswith("_hooks")
        },
        "random": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_same_state(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if not isinstance(value, dict):
            assert torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value, key
            continue
        assert found[key].keys() == value.keys(), key
        for name, item in value.items():
            equal = torch.equal(found[key][name], item) if isinstance(item, torch.Tensor) else found[key][name] == item
            assert equal, (key, name)


def fails(_output):
    raise ZeroDivisionError("the target failed")


@pytest.mark.parametrize(
    ("layers", "targets", "raises"),
    [
        (["net.features"], [0, 1], None),
        (["net.stem", "net.features"], [0, 1], None),
        (["net.features"], lambda logits: (logits.argmax(1), torch.arange(2)), None),
        (["net.features"], [0, fails], ZeroDivisionError),
        (["net.features"], fails, ZeroDivisionError),
        (["net.features"], [0, 99], UserError),
        (["net.features"], [0, 1, 2], UserError),
        (["net.fc"], [0, 1], UserError),
        (["net.features"], "model", RuntimeError),
    ],
)
def test_the_model_is_left_as_it_was_found(layers, targets, raises):
    model = restless()
    model.fails = targets == "model"
    probe = Probe(model, layers)
    images = torch.randn(2, 3, 32, 32).requires_grad_()
    before = state(model)
    if raises is None:
        probe.look(images, targets)
    else:
        with pytest.raises(raises):
            probe.look(images, [0, 1] if targets == "model" else targets)
    assert_same_state(state(model), before)
    assert images.grad is None
    if raises is not RuntimeError:
        probe.forward(images)
        assert_same_state(state(model), before)


def test_looks_repeat_though_the_model_draws_random_numbers():
    probe = Probe(restless(), ["net.features"])
    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(3)
    first = probe.look(images, [0, 1])["net.features"]
    again = probe.look(images, [0, 1])["net.features"]
    assert torch.equal(first.gradients, again.gradients)
    assert torch.equal(first.logits, again.logits)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_look_works_where_gradients_are_off(mode):
    halves = networks.gap()
    images = halves.images(2)
    expected = networks.naive_gradients(halves, images, [0, 1], [0, 1])
    with mode():
        made = halves.images(2)
        for fed in (images, made):
            same(Probe(halves.model, ["features"]).look(fed, [0, 1])["features"].gradients, expected)
        assert not torch.is_grad_enabled()


# What a look costs


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("the stem was differentiated")


class Guarded(nn.Module):
    """`NoWayBack` between the stem and the layer; `early` is a layer before it."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = networks.Gap(), []
        self.early = nn.Identity()

    def forward(self, images):
        x = NoWayBack.apply(self.early(self.net.stem(images)))
        self.seen.append(x.requires_grad)
        return self.net.fc(self.net.features(x).mean((2, 3)))


def test_nothing_below_the_first_target_layer_is_differentiated():
    model = Guarded()
    images = torch.randn(2, 3, 32, 32)
    Probe(model, ["net.features"]).look(images.requires_grad_(), [0, 1])
    assert model.seen == [False]  # there is no graph at all
    with pytest.raises(AssertionError, match="the stem was differentiated"):
        Probe(model, ["early"]).look(images, [0, 1])  # the guard does guard


def test_one_forward_and_one_backward_for_each_rank_of_case():
    halves = networks.gap()
    passes = {"forward": 0, "backward": 0}

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            passes["forward"] += 1
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            passes["backward"] += 1
            return grad

    linear = halves.model.fc.forward
    halves.model.fc.forward = lambda x: Count.apply(linear(x))
    Probe(halves.model, ["stem", "features"]).look(halves.images(3), [0, 1, 2, 3, 0], [0, 1, 2, 0, 0])
    assert passes == {"forward": 1, "backward": 3}


def test_nothing_of_the_look_outlives_its_evidence():
    halves = networks.gap()
    alive = []

    def watch(_module, _inputs, output):
        alive.append(weakref.ref(output.untyped_storage()))
        alive.append(weakref.ref(output))

    for module in halves.model.modules():
        module.register_forward_hook(watch)
    gc.disable()  # reference cycles would keep whole batches until the collector comes by
    try:
        probe = Probe(halves.model, ["stem", "features"])
        evidence = probe.look(halves.images(2), [0, 1])
        assert len(alive) > 10
        assert sum(ref() is not None for ref in alive[1::2]) == 0
        del evidence
        assert not [ref() for ref in alive if ref() is not None]
        with pytest.raises(UserError):
            probe.look(halves.images(2), [0, 99])
    finally:
        gc.enable()
