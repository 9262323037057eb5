"""Each method against its paper's formula: by hand on a 2x2 grid, and by slow loops on grids of both signs."""

import networks
import numpy as np
import pytest
import slow_cams
import torch

from gradcam_bench.errors import UserError
from gradcam_bench.methods import activation, controls, gradient, principal
from gradcam_bench.probe import Probe

# Two channels on a 2x2 grid, values and gradients of both signs, so that every misplaced ReLU or mean shows.
A = [[[1, 2], [3, 4]], [[-1, 0], [2, -3]]]
G = [[[1, -1], [2, 2]], [[-4, 0], [0, 0]]]
BY_HAND = {
    "grad_cam": [[2, 2], [1, 7]],  # a = (1, -1): A_1 - A_2
    "hires_cam": [[1 + 4, -2], [6, 8]],
    "layer_cam": [[1, 0], [6, 8]],
    "elementwise_grad_cam": [[1 + 4, 0], [6, 8]],
    "x_grad_cam": [[3.3, 2.6], [-0.1, 11.2]],  # w = (13 / 10, 4 / -2)
    # alpha_1 = 1 / (2 + 10 G): 1/12 where G = 1, 1/22 where G = 2; w_1 = 1/12 + 2 * 2/22 = 35/132; w_2 = 0
    "grad_cam_pp": [[35 / 132, 70 / 132], [105 / 132, 140 / 132]],
}


def tensor(values):
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    found = getattr(gradient, name)(networks.evidence_of(tensor(A), tensor(G)))
    torch.testing.assert_close(found, tensor(BY_HAND[name]), rtol=0, atol=1e-12)
    slow = getattr(slow_cams, name)(np.array(A, float), np.array(G, float))
    np.testing.assert_allclose(slow, BY_HAND[name], atol=1e-12)


def test_cam_by_hand():
    """Weights (2, -1), bias 5, means of A: (2.5, -0.5). The bias is in the logit and not in the map."""
    head = torch.tensor([[9.0, 9.0], [2.0, -1.0]]).double(), torch.tensor([0.0, 5.0]).double()
    logits = torch.tensor([[9 * 2.5 - 9 * 0.5, 2 * 2.5 + 0.5 + 5]]).double()
    evidence = networks.evidence_of(tensor(A), tensor(G), head=head, logits=logits, targets=torch.tensor([1]))
    torch.testing.assert_close(activation.cam(evidence), tensor([[3, 4], [4, 11]]).double())


@pytest.mark.parametrize("formula", slow_cams.GRADIENT, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("seed", "height", "width"), [(0, 2, 2), (1, 2, 3), (2, 3, 2), (3, 1, 1), (4, 3, 3)])
def test_gradient_methods_against_loops(formula, seed, height, width):
    evidence = networks.some_evidence(seed, height=height, width=width)
    found = getattr(gradient, formula.__name__)(evidence)
    slow = [formula(a, g) for a, g in zip(evidence.activations.numpy(), evidence.gradients.numpy())]
    np.testing.assert_allclose(found.numpy(), np.stack(slow), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("formula", slow_cams.GRADIENT, ids=lambda f: f.__name__)
def test_each_case_uses_its_own_image(formula):
    evidence = networks.some_evidence(5, cases=4)
    index = [2, 0, 2, 1]
    shared = networks.evidence_of(evidence.activations[:3], evidence.gradients, image_index=torch.tensor(index))
    found = getattr(gradient, formula.__name__)(shared).numpy()
    for q, b in enumerate(index):
        slow = formula(shared.activations[b].numpy(), shared.gradients[q].numpy())
        np.testing.assert_allclose(found[q], slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("formula", slow_cams.GRADIENT, ids=lambda f: f.__name__)
def test_a_case_has_the_same_bits_wherever_it_stands(formula):
    """Runs that are sharded or resumed put a case beside others."""
    method = getattr(gradient, formula.__name__)
    for layout in (torch.contiguous_format, torch.channels_last):
        evidence = networks.some_evidence(0, cases=7, channels=512, height=4, width=3)
        activations = evidence.activations.float().to(memory_format=layout)
        gradients = evidence.gradients.float()
        together = method(networks.evidence_of(activations, gradients))
        for n in range(7):
            alone = networks.evidence_of(activations[n : n + 1].clone(), gradients[n : n + 1].clone())
            assert torch.equal(method(alone)[0], together[n])
        index = torch.tensor([5, 2, 3])
        picked = networks.evidence_of(activations, gradients[index], image_index=index)
        assert torch.equal(method(picked), together[index])


def test_grad_cam_pp_coefficients_are_the_derivatives_of_exp():
    """Eq. 5 and 11 on Y = exp(S), S from global average pooling and a linear map: alpha from numeric second and third
    derivatives of Y, w_k = sum alpha relu(dY/dA). The closed form leaves out the factor exp(S) alone."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([1.5, -0.7, 0.4], dtype=torch.float64)
    values = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    flat = values.flatten().requires_grad_()

    def score(flat):
        return (weights * flat.reshape(3, 2, 2).mean((1, 2))).sum() + 0.3

    out, slow = score(flat), np.zeros((2, 2))
    first = torch.autograd.grad(out.exp(), flat, create_graph=True)[0]
    alpha, positive = torch.zeros(12).double(), first.detach().relu()
    for n in range(12):
        second = torch.autograd.grad(first[n], flat, create_graph=True)[0][n]
        third = torch.autograd.grad(second, flat, retain_graph=True)[0][n]
        total = values.detach()[n // 4].sum()
        alpha[n] = (second / (2 * second + total * third)).detach()
    for k in range(3):
        w = sum(float(alpha[n] * positive[n]) for n in range(4 * k, 4 * k + 4))
        slow += w * values.detach()[k].numpy()
    gradients = torch.autograd.grad(score(flat), flat)[0].reshape(1, 3, 2, 2)
    found = gradient.grad_cam_pp(networks.evidence_of(values.detach()[None], gradients))[0]
    np.testing.assert_allclose(out.detach().exp().item() * found.numpy(), slow, rtol=1e-12)
    closed = slow_cams.grad_cam_pp(values.detach().numpy(), gradients[0].numpy())
    np.testing.assert_allclose(found.numpy(), closed, rtol=1e-12)


def test_grad_cam_pp_of_tiny_gradients_is_exact():
    """Gradients of 1e-30: their squares are no float32, the coefficients are 1/2 all the same."""
    a = torch.tensor([[[[1.0, 2.0]], [[3.0, 1.0]]]])
    g = torch.tensor([[[[1e-30, 1e-30]], [[0.0, 2e-30]]]])
    found = gradient.grad_cam_pp(networks.evidence_of(a, g))
    torch.testing.assert_close(found, torch.tensor([[[4e-30, 3e-30]]]), rtol=1e-6, atol=0)


def test_denominators_that_are_zero_give_zero_weights():
    a = torch.tensor([[[[1.0, -1.0]], [[2.0, 2.0]], [[-1.0, -1.0]]]])
    g = torch.tensor([[[[5.0, 5.0]], [[1.0, 3.0]], [[1.0, 0.0]]]])
    found = gradient.x_grad_cam(networks.evidence_of(a, g))
    torch.testing.assert_close(found, torch.tensor([[[4.0 - 0.5, 4.0 - 0.5]]]))
    pp = gradient.grad_cam_pp(networks.evidence_of(a, g))  # channel 3: 2 G^2 - 2 G^3 = 0 at G = 1
    weights = [5 * 2 / 2, 1 / 6 + 3 / 14, 0]
    expected = [weights[0] + 2 * weights[1], -weights[0] + 2 * weights[1]]
    torch.testing.assert_close(pp, torch.tensor([[expected]]))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 3, 3), (2, 3, 4), (30, 2, 3), (1, 2, 2)])
@pytest.mark.parametrize("rectified", [False, True])
def test_eigen_cam_against_the_singular_value_decomposition(center, shape, rectified):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
        a = a.relu() if rectified else a
        found = principal.eigen_cam(networks.evidence_of(a, torch.zeros_like(a)), center=center).numpy()
        slow = np.stack([slow_cams.eigen_cam(one, center=center) for one in a.numpy()])
        np.testing.assert_allclose(found, slow, atol=2e-6 * np.abs(slow).max())
        if rectified and not center:
            assert found.min() > -1e-6  # Perron and Frobenius


@pytest.mark.parametrize("center", [False, True])
def test_the_sign_of_eigen_cam_depends_on_the_picture_alone(center):
    a = networks.some_evidence(0, channels=6, height=3, width=3).activations

    def maps(activations):
        return principal.eigen_cam(networks.evidence_of(activations, torch.zeros_like(activations)), center=center)

    def close(found, expected):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)

    plain = maps(a)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    close(maps(torch.einsum("kl,qlhw->qkhw", rotation, a)), plain)
    close(maps(-a), plain)
    close(maps(a[:, torch.tensor([3, 1, 5, 0, 2, 4])]), plain)
    close(maps(2 * a), 2 * plain)
    close(maps(a.flip(3)), plain.flip(2))
    close(maps(a.transpose(2, 3)), plain.transpose(1, 2))


def test_eigen_cam_knows_no_class():
    evidence = networks.some_evidence(0, cases=3)
    index = torch.tensor([1, 1, 0])
    shared = networks.evidence_of(
        evidence.activations[:2], evidence.gradients, image_index=index, targets=torch.tensor([0, 5, 2])
    )
    found = principal.eigen_cam(shared)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_eigen_cam_of_an_image_that_is_not_finite_spares_the_others():
    evidence = networks.some_evidence(0, cases=3)
    clean = principal.eigen_cam(evidence)
    for bad in (float("nan"), float("inf")):
        evidence.activations[1, 0, 0, 0] = bad
        found = principal.eigen_cam(evidence)
        assert not found[1].isfinite().any()
        assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 9), (9, 6), (5, 8), (1, 1)])
def test_center(height, width):
    found = controls.center((2, height, width))
    assert found.shape == (2, height, width)
    for i in range(height):
        for j in range(width):
            r2 = (i - height // 2) ** 2 + (j - width // 2) ** 2
            expected = np.exp(-r2 / (2 * (0.5 * min(height, width)) ** 2))
            assert found[1, i, j].item() == pytest.approx(expected, rel=1e-6)
    assert (found[0] == found[0].max()).nonzero().tolist() == [[height // 2, width // 2]]


def test_the_centers_sigma_moves_no_order():
    shape = (1, 8, 11)
    narrow, wide = controls.center(shape, sigma=0.3).flatten(), controls.center(shape, sigma=1.0).flatten()
    assert torch.equal(narrow.argsort(stable=True), wide.argsort(stable=True))


def test_noise_is_what_its_generator_says():
    made = [torch.Generator().manual_seed(seed) for seed in (7, 8, 7)]
    found = controls.noise((3, 4, 5), made)
    assert found.shape == (3, 4, 5)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], torch.rand(4, 5, generator=torch.Generator().manual_seed(8)))
    assert controls.noise((0, 4, 5), []).shape == (0, 4, 5)


def test_cam_refuses_a_function_as_target():
    halves = networks.gap()
    evidence = Probe(halves.model, ["features"]).look(halves.images(1), [lambda out: out[:, 0]])["features"]
    with pytest.raises(UserError, match="cam does not apply"):
        activation.cam(evidence)


def test_an_image_that_is_not_finite_makes_no_refusal_of_cam():
    halves = networks.gap()
    images = halves.images(2)
    images[1] = torch.nan
    evidence = Probe(halves.model, ["features"]).look(images, [0, 1])["features"]
    assert activation.cam(evidence).isfinite().flatten(1).all(1).tolist() == [True, False]
