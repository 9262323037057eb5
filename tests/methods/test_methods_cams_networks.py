"""Later CAMs on networks: against plain autograd over the two halves written out, and the identities between them."""

from types import SimpleNamespace

import networks
import numpy as np
import perturbing
import pytest
import slow_cams
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from gradcam_bench.errors import UserError
from gradcam_bench.ledger import Cost
from gradcam_bench.methods import contrast, factors, gradient, paths, plus_plus, second_order, variants
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

NETWORKS = {
    "gap": networks.gap,
    "gap, signed": lambda: networks.gap(signed=True),
    "in place": networks.in_place,
    "twice": lambda: networks.twice(0),
}
INDEX, TARGETS = (1, 0, 1), (1, 2, 0)


def supplied(name, **changes):
    halves = NETWORKS[name]()
    return halves, perturbing.supplied(halves, halves.images(2), TARGETS, INDEX, **changes)


def close(found, expected, relative=1e-9):
    assert expected.abs().max() > 0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=relative * float(expected.abs().max()))


def loss_at(given, function):
    """For each case: activations [1,C,h,w] that require grad, function(activations, class), the class."""
    for a, target in zip(given.evidence.features, TARGETS):
        leaf = a[None].detach().clone().requires_grad_()
        yield leaf, function(leaf, target), target


def grad(value, leaf, **options):
    return torch.autograd.grad(value, leaf, **options)[0]


def weighed(weights, leaf):
    return torch.einsum("qc,qchw->qhw", weights.detach(), leaf.detach())


@pytest.mark.parametrize("weighting", ["mean", "softmax"])
@pytest.mark.parametrize("name", NETWORKS)
def test_finer_cam(name, weighting):
    halves, given = supplied(name)
    found = contrast.finer_cam(given.evidence, given.head, 0.7, 2, weighting)

    def value(leaf, target):
        logits = halves.head(leaf)[0]
        order = sorted(range(4), key=lambda k: abs(float((logits[k] - logits[target]).detach())))
        assert order[0] == target
        total, weights = 0, 0
        for d in order[1:3]:
            weight = logits.softmax(0)[d] if weighting == "softmax" else 0.5
            total, weights = total + weight * (logits[target] - 0.7 * logits[d]), weights + weight
        return total / weights

    slow = [weighed(grad(y, leaf).mean((2, 3)), leaf) for leaf, y, _ in loss_at(given, value)]
    close(found, torch.cat(slow))


@pytest.mark.parametrize("utility", ["rest", "score"])
@pytest.mark.parametrize("name", ["in place", "twice"])
def test_shapley_cam_by_the_whole_hessian(name, utility):
    halves, given = supplied(name)
    found = second_order.shapley_cam(given.evidence, given.head, utility)
    slow = []
    for leaf, _, target in loss_at(given, lambda leaf, target: None):

        def value(flat, target=target, shape=leaf.shape):
            logits = halves.head(flat.reshape(shape))[0]
            cross_entropy = F.cross_entropy(logits[None], torch.tensor([target]))
            return logits[target] - cross_entropy if utility == "rest" else logits[target]

        flat = leaf.detach().flatten()
        hessian = torch.autograd.functional.hessian(value, flat)
        first = torch.autograd.functional.jacobian(value, flat)
        slow.append(weighed((first - 0.5 * hessian @ flat).reshape(leaf.shape).mean((2, 3)), leaf))
    close(found, torch.cat(slow))


@pytest.mark.parametrize(("name", "output"), [("gap", "probability"), ("twice", "probability"), ("twice", "score")])
def test_grad_cam_pp_numeric_by_the_whole_hessian(name, output):
    halves, given = supplied(name)
    found = second_order.grad_cam_pp_numeric(given.evidence, given.head, output)[:1]
    slow = []
    for leaf, _, target in [next(loss_at(given, lambda leaf, target: None))]:

        def value(flat, target=target, shape=leaf.shape):
            logits = halves.head(flat.reshape(shape))[0]
            return (logits.softmax(0) if output == "probability" else logits)[target]

        def rows(flat, value=value):
            return torch.autograd.functional.hessian(value, flat, create_graph=True).sum(0)

        flat = leaf.detach().flatten()
        first = torch.autograd.functional.jacobian(value, flat).reshape(leaf.shape)[0]
        second = rows(flat).detach().reshape(leaf.shape)[0]
        again = flat.clone().requires_grad_()
        third = grad(rows(again).sum(), again).reshape(leaf.shape)[0]
        weights = []
        for k in range(len(first)):
            total, above, below = leaf[0, k].detach().sum(), 0.0, 0.0
            for i, j in slow_cams.places(first):
                if first[k, i, j] > 0:
                    alpha = second[k, i, j] / (2 * second[k, i, j] + total * third[k, i, j])
                    above, below = above + alpha * first[k, i, j], below + alpha
            weights.append(above / below if below else torch.zeros(()).double())
        slow.append(weighed(torch.stack(weights)[None], leaf))
    close(found, torch.cat(slow), 1e-6)


def test_grad_cam_pp_numeric_of_logits_on_relus_alone_is_nan():
    """No second derivative: eq. 10 is 0 / 0 at every place with a positive gradient. The softmax has one."""
    halves = networks.vgg11()
    given = perturbing.supplied(halves, halves.images(2), [3, 5])
    assert second_order.grad_cam_pp_numeric(given.evidence, given.head, "score").isnan().all()
    found = second_order.grad_cam_pp_numeric(given.evidence, given.head)
    assert found.isfinite().all()
    assert found.amax((1, 2)).min() > 0


@pytest.mark.parametrize("numerator", ["first", "second"])
@pytest.mark.parametrize("name", NETWORKS)
def test_smooth_grad_cam_pp(name, numerator):
    halves, given = supplied(name)
    generators = [torch.Generator().manual_seed(q) for q in range(3)]
    found = plus_plus.smooth_grad_cam_pp(
        given.evidence, given.images, given.look, generators, samples=3, sigma=0.2, numerator=numerator
    )
    slow = []
    for q, (image, target) in enumerate(zip(given.images, TARGETS)):
        noise = torch.randn((3, *image.shape), generator=torch.Generator().manual_seed(q)).to(image)
        noisy = networks.naive_gradients(halves, image + 0.2 * noise, [target] * 3, [0, 1, 2])
        activations = halves.stem(image[None])[0].detach()
        slow.append(slow_cams.smooth_grad_cam_pp(activations.numpy(), noisy.numpy(), numerator))
    close(found, torch.from_numpy(np.stack(slow)))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_integrated_grad_cam(name, released):
    halves, given = supplied(name)
    found = paths.integrated_grad_cam(given.images, given.look, given.black, 4, "zero", released)
    slow = []
    for image, target in zip(given.images, TARGETS):
        total, base = 0, halves.stem(image[None] * 0)[0].detach()
        for t in range(4) if released else range(1, 5):
            step = (image * t / 4)[None]
            g = networks.naive_gradients(halves, step, [target], [0])[0]
            a = halves.stem(step)[0].detach()
            total = (
                total + torch.from_numpy(slow_cams.grad_cam((a if released else a - base).numpy(), g.numpy())).relu()
            )
        slow.append(total / 4)
    close(found, torch.stack(slow))


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(context, x, rule):
        context.save_for_backward(x)
        context.rule = rule
        return x.relu()

    @staticmethod
    def backward(context, g):
        (x,) = context.saved_tensors
        return g.relu() if context.rule == "deconv" else g.relu() * (x > 0), None


class _Other(nn.Module):
    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, x):
        return _Rectified.apply(x, self.rule)


@pytest.mark.parametrize("rule", ["guided", "deconv"])
@pytest.mark.parametrize("layer", [10, 13, 18, 19])
def test_grad_cam_under_other_relus(layer, rule):
    """Layer 18 is a convolution just before an in-place ReLU, the others are ReLUs, which are not passed themselves."""
    halves = networks.vgg11(layer)
    images, targets = halves.images(2), [3, 5]
    evidence = Probe(halves.model, [halves.layer]).look(images, targets)[halves.layer]
    supplies = Supplies(images, ["0", "1"], 0, shared_look(Probe(halves.model, [halves.layer]), images, targets))
    found = variants.grad_cam_backward(evidence, supplies.pixels, rule)
    parts = [part for whole in halves.head for part in (whole if isinstance(whole, nn.Sequential) else [whole])]
    head = nn.Sequential(*(_Other(rule) if isinstance(part, nn.ReLU) else part for part in parts))
    leaf = halves.stem(images).detach().requires_grad_()
    g = grad(head(leaf)[[0, 1], targets].sum(), leaf)
    close(found, weighed(g.mean((2, 3)), leaf), 1e-5)
    assert (found - gradient.grad_cam(evidence)).abs().max() > 0.01 * found.abs().max()


@pytest.mark.parametrize("rule", ["guided", "deconv"])
def test_where_no_relu_follows_the_layer_the_rules_make_no_difference(rule):
    halves = networks.resnet18()
    given = perturbing.supplied(halves, halves.images(2), [1, 2])
    close(variants.grad_cam_backward(given.evidence, given.pixels, rule), gradient.grad_cam(given.evidence), 1e-5)


def test_other_relus_are_refused_for_tokens_and_for_networks_without_any():
    made = perturbing.supplied(tokens("blocks.1.norm1"), torch.randn(1, 3, 32, 32), [1])
    with pytest.raises(UserError, match=r"^grad_cam_deconv_relu does not apply: no activation function"):
        variants.grad_cam_backward(made.evidence, made.pixels, "deconv")
    vit = small_vit()
    made = perturbing.supplied(vit, vit.images(1), [1])
    with pytest.raises(UserError, match=r"^grad_cam_guided_relu does not apply: layer .* gives no feature maps"):
        variants.grad_cam_backward(made.evidence, made.pixels, "guided")


def tokens(layer):
    torch.manual_seed(0)
    return networks.Halves(networks.Tokens().eval(), layer, None, None)


def small_vit():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4).eval()
    nn.init.normal_(model.heads.head.weight)
    return networks.Halves(model, "encoder.layers.encoder_layer_1.ln_1", None, None)


def test_attention_is_differentiated_twice():
    """Fused attention kernels cannot be; what is computed is the Hessian of a finite difference of gradients."""
    halves = small_vit()
    halves.model.double()
    given = perturbing.supplied(halves, halves.images(1).double(), [1])
    found = second_order.shapley_cam(given.evidence, given.head, "score")
    a, step = given.evidence.features, 1e-5

    def slope(scale):
        leaf = (scale * a).clone().requires_grad_()
        return grad(given.head(leaf, 0).sum(), leaf)

    product = (slope(1 + step) - slope(1 - step)) / (2 * step)  # H A
    close(found, weighed((slope(1) - product / 2).mean((2, 3)), a), 1e-6)


IDENTITIES = {
    "finer_cam, gamma 0": lambda given: contrast.finer_cam(given.evidence, given.head, gamma=0.0),
    "counterfactual_grad_cam, negated": lambda given: -variants.counterfactual_grad_cam(given.evidence),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("identity", IDENTITIES)
def test_it_is_grad_cam(name, identity):
    _, given = supplied(name)
    close(IDENTITIES[identity](given), gradient.grad_cam(given.evidence))


@pytest.mark.parametrize("name", ["gap", "gap, signed"])
def test_on_a_gap_network_it_is_grad_cam(name):
    """Gradients are the same everywhere, and the head is linear: its Hessian is zero."""
    _, given = supplied(name)
    cam = gradient.grad_cam(given.evidence)
    close(second_order.shapley_cam(given.evidence, given.head, "score"), cam)
    close(variants.grad_cam_gmp(given.evidence), cam)
    assert (second_order.shapley_cam(given.evidence, given.head) - cam).abs().max() > 1e-3 * cam.abs().max()


def test_on_a_gap_network_the_gradient_of_rest_is_that_of_its_logits_weighted():
    """d/dy_c (y_c + log p_c) = 1 + 1 - p_c, and -p_d for the others: Grad-CAM of each class in these shares, less half
    of the Hessian's part, which is P A with P = -(diag p - p p^T) in the space of logits."""
    halves, given = supplied("gap")
    found = second_order.shapley_cam(given.evidence, given.head)
    weight = halves.model.fc.weight.detach()
    slow = []
    for q, (b, c) in enumerate(zip(INDEX, TARGETS)):
        p, a = given.evidence.logits[b].softmax(0), given.evidence.features[q]
        shares = torch.eye(4).double()[c] * 2 - p
        bent = -(torch.diag(p) - torch.outer(p, p)) @ (weight @ a.mean((1, 2)))
        slow.append(torch.einsum("k,khw->hw", (shares - bent / 2) @ weight / a[0].numel(), a))
    close(found, torch.stack(slow))


@pytest.mark.parametrize("name", NETWORKS)
def test_without_noise_smooth_grad_cam_pp_is_the_formula_of_the_image_itself(name):
    _, given = supplied(name)
    evidence = given.evidence

    def smooth(numerator):
        generators = [torch.Generator() for _ in TARGETS]
        settings = {"samples": 2, "sigma": 0.0, "numerator": numerator}
        return plus_plus.smooth_grad_cam_pp(evidence, given.images, given.look, generators, **settings)

    close(smooth("second"), gradient.grad_cam_pp(evidence))
    below = 2 + evidence.features.sum((2, 3), keepdim=True) * evidence.gradients  # alpha D1 = 1 / (2 + sum A G)
    weights = ((evidence.gradients > 0) / below.where(below != 0, torch.inf)).sum((2, 3))
    close(smooth("first"), torch.einsum("qc,qchw->qhw", weights, evidence.features))


def test_integrated_grad_cam_of_one_step_is_grad_cam_of_what_the_baseline_has_not():
    halves, given = supplied("in place")
    found = paths.integrated_grad_cam(given.images, given.look, given.black, 1, "zero")
    base = halves.stem(given.images * 0).detach()
    less = SimpleNamespace(features=given.evidence.features - base, gradients=given.evidence.gradients)
    close(found, gradient.grad_cam(less).relu())


def test_integrated_grad_cam_of_an_image_of_the_baseline_is_zero():
    _, given = supplied("in place")
    assert not paths.integrated_grad_cam(given.images * 0, given.look, given.black, 3, "zero").any()


def test_magnitudes_make_no_difference_where_no_gradient_is_negative():
    halves = networks.gap(signed=True)
    with torch.no_grad():
        halves.model.fc.weight.abs_()
    evidence = perturbing.supplied(halves, halves.images(2), [1, 2]).evidence
    close(variants.grad_cam_abs(evidence), gradient.grad_cam(evidence))


def pyramid_of(halves, count=2):
    images = halves.images(count)
    looked = shared_look(Probe(halves.model, [halves.layer]), images, list(range(count)))
    return Supplies(images, [str(q) for q in range(count)], 0, looked)


def test_stages_fused_on_a_network():
    """resnet18's five grids: the stem's and layer1 to layer3 lie before layer4's 2 x 2."""
    halves = networks.resnet18()
    supplies = pyramid_of(halves)
    layers = ["relu", "layer1", "layer2", "layer3", "layer4"]
    looks = Probe(halves.model, layers).look(supplies.images, [0, 1])
    found = gradient.layer_cam_fused(supplies.pyramid)
    refined = gradient.refine_cam(supplies.pyramid, supplies.shape)
    for case in range(2):
        pairs = [
            [looks[layer].activations[case].double().numpy(), looks[layer].gradients[case].double().numpy()]
            for layer in layers
        ]
        np.testing.assert_allclose(found[case], slow_cams.layer_cam_fused(pairs), atol=1e-4)
        np.testing.assert_allclose(refined[case], slow_cams.refine_cam(pairs[1:], (64, 64)), atol=1e-4)
    assert found.shape == (2, 32, 32)
    assert found.amax((1, 2)).tolist() == [1, 1]


def test_one_stage_is_layer_cam_and_grad_cam_pp():
    _, given = supplied("gap")
    layer_cam, pp = gradient.layer_cam(given.evidence).relu(), gradient.grad_cam_pp(given.evidence).relu()
    close(gradient.layer_cam_fused([given.evidence]), layer_cam / layer_cam.amax((1, 2), keepdim=True))
    low, high = pp.amin((1, 2), keepdim=True), pp.amax((1, 2), keepdim=True)
    close(gradient.refine_cam([given.evidence], (3, 8, 8)), (pp - low) / (high - low), 1e-6)


def test_factors_of_a_network_add_up_to_its_activations():
    _, given = supplied("gap")
    matrix = given.evidence.activations[0].flatten(1)
    left, right = factors.factorize(matrix, 5, 2000)
    assert float((left @ right - matrix).norm() / matrix.norm()) < 0.02
    assert left.min() >= 0 <= right.min()


def test_what_they_cost():
    """A case: Shapley-CAM one pass of the head and two back, the numeric ++ three; and the look's forward pass."""
    _, given = supplied("in place")
    for call, backwards in (
        (second_order.shapley_cam, 2),
        (second_order.grad_cam_pp_numeric, 3),
        (contrast.finer_cam, 1),
    ):
        given.begins()
        before = Cost(**vars(given.cost))
        call(given.evidence, given.head)
        spent = given.cost - before
        assert (spent.forwards, spent.head_forwards, spent.backwards) == (2, 3, 3 * backwards)  # two images' look


@pytest.mark.parametrize("method", [second_order.shapley_cam, second_order.grad_cam_pp_numeric, contrast.finer_cam])
def test_the_model_is_left_as_found(method):
    halves, given = supplied("gap")
    halves.model.train()
    method(given.evidence, given.head)
    assert all(module.training for module in halves.model.modules())
    assert all(p.requires_grad and p.grad is None for p in halves.model.parameters())
