"""Later CAMs against their papers' formulas: by hand on small grids, and by slow loops on grids of both signs."""

import math

import networks
import numpy as np
import perturbing
import pytest
import slow_cams
import torch

from gradcam_bench.errors import UserError
from gradcam_bench.methods import (
    activation,
    contrast,
    factors,
    gradient,
    paths,
    plus_plus,
    principal,
    second_order,
    variants,
)

ROOMS = (plus_plus, variants, principal, activation)
A = [[[1, 2], [3, 4]], [[-1, 0], [2, -3]]]
G = [[[1, -1], [2, 2]], [[-4, 0], [0, 0]]]
BY_HAND = {
    # alpha_1 = 1/12 where G = 1, 1/22 where G = 2; w_1 = (1/12 + 2 * 2/22) / (1/12 + 2/22) = 35/23; w_2 = 0
    "grad_cam_pp_code": [[35 / 23, 70 / 23], [105 / 23, 140 / 23]],
    "counterfactual_grad_cam": [[-2, -2], [-1, -7]],
    "grad_cam_gmp": [[2, 4], [6, 8]],  # a = (2, 0)
    "grad_cam_abs": [[0.5, 3], [6.5, 3]],  # a = (3/2, 1)
}


def method(name):
    return next(getattr(room, name) for room in ROOMS if hasattr(room, name))


def tensor(values):
    return torch.tensor([values], dtype=torch.float64)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(float(expected.abs().max()), 1e-30))


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    found = method(name)(networks.evidence_of(tensor(A), tensor(G)))
    close(found, tensor(BY_HAND[name]).double())


@pytest.mark.parametrize("formula", slow_cams.MORE, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("seed", "height", "width"), [(0, 2, 3), (1, 3, 2), (2, 3, 3), (3, 4, 4)])
def test_against_loops(formula, seed, height, width):
    evidence = networks.some_evidence(seed, cases=4, height=height, width=width)
    index = torch.tensor([2, 0, 2, 1])
    shared = networks.evidence_of(evidence.activations[:3], evidence.gradients, image_index=index)
    found = method(formula.__name__)(shared)
    slow = [formula(shared.activations[b].numpy(), g) for b, g in zip(index, shared.gradients.numpy())]
    np.testing.assert_allclose(found.numpy(), np.stack(slow), rtol=0, atol=1e-6 * np.abs(slow).max())


def test_grad_cam_pp_codes_factor_exp_of_the_score_is_common_to_the_map():
    evidence = networks.some_evidence(0)
    found = plus_plus.grad_cam_pp_code(evidence)[0].numpy()
    slow = slow_cams.grad_cam_pp_code(evidence.activations[0].numpy(), evidence.gradients[0].numpy(), s=2.5)
    np.testing.assert_allclose(math.exp(2.5) * found, slow, rtol=1e-9)


def test_grad_cam_pp_code_has_the_weights_of_places_and_not_their_sum():
    """Twice as many places with the same gradient: the closed form's weight doubles, the code's stays."""
    a, g = torch.ones(1, 1, 1, 2).double(), torch.ones(1, 1, 1, 2).double()
    assert plus_plus.grad_cam_pp_code(networks.evidence_of(a, g)).tolist() == [[[1, 1]]]
    close(gradient.grad_cam_pp(networks.evidence_of(a, g)), tensor([[0.5, 0.5]]))  # 2 places, alpha = 1 / (2 + 2)
    none = networks.evidence_of(a, -g)
    assert plus_plus.grad_cam_pp_code(none).tolist() == [[[0, 0]]]


def test_grad_cam_pp_code_puts_1_for_a_denominator_of_0():
    """G = 1, sum A = -2: alpha = G^2 = 1 at the first place; at the second (G = 3) 1 / (2 - 6)."""
    found = plus_plus.grad_cam_pp_code(networks.evidence_of(tensor([[[-1.0, -1.0]]]), tensor([[[1.0, 3.0]]])))
    weight = (1 - 3 / 4) / (1 - 1 / 4)
    close(found, tensor([[-weight, -weight]]))


def line(*values):
    return torch.tensor(values, dtype=torch.float64)


CHANNELS = line(1, -2)[None, :, None, None]


@pytest.mark.parametrize(
    ("places", "center", "expected"),
    [
        ((3, 4), False, (3, 4)),
        ((-3, 4), False, (-3, 4)),  # the energy (9, 16) has a product of 37 with it
        ((-3, -4), False, (3, 4)),
        ((3, 1), True, (1, -1)),
    ],
)
def test_eigen_grad_cam_of_rank_one_by_hand(places, center, expected):
    """G A = (1, -2) x places: the map is places, or what is left of them without their mean, times sqrt 5."""
    products = CHANNELS * line(*places)[None, None, None]
    evidence = networks.evidence_of(2 * products, torch.full_like(products, 0.5))
    close(principal.eigen_grad_cam(evidence, center=center), math.sqrt(5) * line(*expected)[None, None], 1e-6)


def test_seg_eigen_cams_sign_is_its_largest_magnitudes():
    """Places (10, 0, 9, 9) less their mean of 7: the energy keeps (3, -7, 2, 2), eq. 13 turns it."""
    products = CHANNELS * line(10, 0, 9, 9)[None, None, None]
    evidence = networks.evidence_of(products, -torch.ones_like(products))
    expected = math.sqrt(5) * line(-3, 7, -2, -2)[None, None]
    close(principal.seg_eigen_cam(evidence), expected, 1e-6)
    close(principal.eigen_cam(evidence, center=True), -expected, 1e-6)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "linear"])
@pytest.mark.parametrize("gamma", [None, 0.7])
def test_kpca_cam_against_its_definition(kernel, gamma):
    evidence = networks.some_evidence(3, cases=3, channels=5, height=3, width=4)
    found = principal.kpca_cam(evidence, kernel, gamma)
    slow = [slow_cams.kpca_cam(a, kernel=kernel, gamma=gamma) for a in evidence.activations.numpy()]
    np.testing.assert_allclose(found.numpy(), np.stack(slow), rtol=0, atol=1e-6 * np.abs(slow).max())


def test_kpca_cam_of_a_linear_kernel_is_the_centered_eigen_cam():
    evidence = networks.some_evidence(4, channels=5, height=3, width=4)
    close(principal.kpca_cam(evidence, "linear"), principal.eigen_cam(evidence, center=True), 1e-6)


@pytest.mark.parametrize("name", ["kpca_cam", "eigen_grad_cam", "fem", "eigen_cam"])
def test_the_order_and_the_sign_of_channels_are_no_matter(name):
    """What LAPACK's sign would depend on. (FEM knows the sign: negative channels stand out downwards.)"""
    evidence = networks.some_evidence(0, channels=6, height=4, width=4)
    order, signs = torch.tensor([3, 1, 5, 0, 2, 4]), line(1, -1, -1, 1, -1, 1)[None, :, None, None]
    signs = signs if name != "fem" else signs.abs()
    changed = networks.evidence_of((signs * evidence.activations)[:, order], evidence.gradients[:, order])
    close(method(name)(changed), method(name)(evidence), 1e-6)


@pytest.mark.parametrize("name", ["kpca_cam", "eigen_grad_cam", "seg_eigen_cam"])
def test_components_of_what_is_not_finite_spare_the_others(name):
    evidence = networks.some_evidence(0, cases=3)
    clean = method(name)(evidence)
    evidence.activations[1, 0, 0, 0] = torch.nan
    found = method(name)(evidence)
    assert not found[1].isfinite().any()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


def test_fem_by_hand():
    """Means 1, 2; deviations sqrt 5, 0: one place of the first stands out, and a constant has none."""
    a = torch.tensor([[[[0.0, 0, 0], [0, 0, 6]], [[2, 2, 2], [2, 2, 2]]]])
    evidence = networks.evidence_of(a, a)
    assert activation.fem(evidence).tolist() == [[[0, 0, 0], [0, 0, 1]]]
    assert not activation.fem(evidence, deviations=2.5).any()


def test_fem_with_two_deviations_says_nothing_of_grids_of_five_places():
    """No value of n lies further than sqrt(n - 1) deviations from their mean."""
    spike = torch.zeros(1, 1, 1, 5)
    spike[..., 0] = 1
    assert not activation.fem(networks.evidence_of(spike, spike)).any()


def stages():
    """Two cases, grids of 4 x 4, 2 x 2 and 1 x 2; activations >= 0 and gradients of both signs."""
    made = [networks.some_evidence(seed, 2, 3, *size) for seed, size in enumerate([(4, 4), (2, 2), (1, 2)])]
    return [networks.evidence_of(one.activations.abs(), one.gradients) for one in made]


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.5}, {"deep": 1}, {"deep": 3}, {"deep": 0}])
def test_layer_cam_fused_against_loops(settings):
    pyramid = stages()
    found = gradient.layer_cam_fused(pyramid, **settings)
    for case in range(2):
        pairs = [(one.activations[case].numpy(), one.gradients[case].numpy()) for one in pyramid]
        slow = slow_cams.layer_cam_fused(pairs, **settings)
        np.testing.assert_allclose(found[case].numpy(), slow, atol=1e-6)


def test_layer_cam_fused_by_hand():
    """The first stage (1, 2) / 2 through tanh 2x, the second 4 / 4 as it is on both of its places' halves."""
    shallow = networks.evidence_of(tensor([[[1.0, 2.0]]]), tensor([[[1.0, 1.0]]]))
    deep = networks.evidence_of(tensor([[[4.0]]]), tensor([[[1.0]]]))
    nothing = networks.evidence_of(tensor([[[4.0]]]), tensor([[[-1.0]]]))
    close(gradient.layer_cam_fused([shallow, nothing], deep=1), tensor([[math.tanh(1), math.tanh(2)]]))
    close(gradient.layer_cam_fused([shallow, deep], deep=1), tensor([[1.0, 1.0]]))
    close(gradient.layer_cam_fused([shallow], deep=1), tensor([[0.5, 1.0]]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_refine_cam_against_loops(count):
    pyramid = stages()
    found = gradient.refine_cam(pyramid, (2, 8, 8), stages=count)
    for case in range(2):
        pairs = [(one.activations[case].numpy(), one.gradients[case].numpy()) for one in pyramid[-count:]]
        np.testing.assert_allclose(found[case].numpy(), slow_cams.refine_cam(pairs, (8, 8)), atol=1e-6)


@pytest.mark.parametrize("method", [gradient.layer_cam_fused, lambda stages: gradient.refine_cam(stages, (2, 8, 8))])
def test_what_is_not_finite_is_not_hidden_by_fusing(method):
    pyramid = stages()
    clean = method(pyramid)
    pyramid[1].activations[0, 0, 0, 0] = torch.nan
    found = method(pyramid)
    assert found[0].isnan().any()
    assert torch.equal(found[1], clean[1])


def fixed_look(activations, gradients):
    """look(images, cases) of one case, whatever the images: the first N of [n,C,h,w]."""
    return lambda images, cases: networks.evidence_of(activations[: len(images)], gradients[: len(images)])


def test_smooth_grad_cam_pp_by_hand():
    """One channel A = (1, 2), gradients (1, 0) and (3, 0): D = (2, 5, 14), alpha = D1 / (2 D2 + 3 D3) at the first
    place, 0 / 0 at the second; w = 2 * 2 / 52, or 2 * 5 / 52 with D2 above."""
    evidence = networks.evidence_of(tensor([[[1.0, 2.0]]]), tensor([[[9.0, 9.0]]]))
    look = fixed_look(torch.zeros(2, 1, 1, 2).double(), line(1, 0, 3, 0).reshape(2, 1, 1, 2))
    given = evidence, torch.zeros(1, 3, 4, 4), look, [torch.Generator()]
    for numerator, weight in (("first", 4 / 52), ("second", 10 / 52)):
        found = plus_plus.smooth_grad_cam_pp(*given, samples=2, numerator=numerator)
        close(found, tensor([[weight, 2 * weight]]))


def test_integrated_grad_cam_by_hand():
    """A = (0, 1), (1, 1), (2, 5) at t = 0, 1/2, 1; gradient means 1, 1, -1: relu(1, 0) and relu(-2, -4), their mean.
    The released code takes t = 0 and 1/2 and subtracts nothing: (0, 1) and (1, 1)."""
    activations = line(0, 1, 1, 1, 2, 5).reshape(3, 1, 1, 2)
    gradients = line(0, 2, 1, 1, -1, -1).reshape(3, 1, 1, 2)
    images = torch.zeros(1, 3, 4, 4).double()
    look = fixed_look(activations, gradients)
    close(paths.integrated_grad_cam(images, look, networks.black(images), steps=2), tensor([[0.5, 0.0]]))
    close(
        paths.integrated_grad_cam(images, look, networks.black(images), steps=2, baseline="zero", released=True),
        tensor([[0.5, 1.0]]),
    )


def seen(steps, **settings):
    """The images that integrated_grad_cam looks at, of one of ones."""
    found = []

    def look(images, cases):
        found.append(images)
        return networks.evidence_of(torch.ones(len(images), 1, 2, 2), torch.ones(len(images), 1, 2, 2))

    images = torch.ones(1, 3, 2, 2)
    paths.integrated_grad_cam(images, look, networks.black(images), steps, **settings)
    return found[0][:, :, 0, 0]


def test_the_way_from_the_baseline_to_the_image():
    along = torch.tensor([0, 0.25, 0.5, 0.75, 1])[:, None]
    close(seen(4, baseline="zero"), along.expand(-1, 3))
    close(seen(4, baseline="zero", released=True), along[:-1].expand(-1, 3))
    black = torch.tensor(networks.BLACK)
    close(seen(4), black + along * (1 - black), 1e-6)


def logits_of(*rows):
    """A head of one linear map of the channels' means: logits = rows @ means."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return lambda activations: activations.mean((2, 3)) @ matrix.T


def supplied(head, features, target=0):
    """Evidence and head of one case."""
    with torch.no_grad():
        logits = head(features)
    targets = torch.tensor([target])
    evidence = networks.evidence_of(features, torch.zeros_like(features), logits=logits, targets=targets)
    return evidence, perturbing.Head(lambda a: head(a), [target])


FEATURES = tensor([[[2.0, 0.0]], [[0.0, 4.0]]])  # means 1 and 2
LINEAR = logits_of((1, 2), (2, 1), (0, 2.75), (3, -4), (9, 9))  # logits 5, 4, 5.5, -5, 27: nearest to 5: 5.5, 4, -5


def test_finer_cam_by_hand():
    """d = rows 2, 1, 3, mean (5/3, -1/12): row 0 less 3/5 of it is (0, 2.05), over the grid's two places."""
    evidence, head = supplied(LINEAR, FEATURES)
    close(contrast.finer_cam(evidence, head), tensor([[0.0, 4 * 2.05 / 2]]))
    one = contrast.finer_cam(evidence, head, gamma=1.0, references=1)  # (1, 2) - (0, 2.75)
    close(one, tensor([[2 * 1 / 2, 4 * -0.75 / 2]]))


def test_finer_cam_weighs_by_probability_and_differentiates_that_too():
    """Two references: sum_d p_d (y_c - y_d) / sum_d p_d, p = softmax: the quotient rule by hand."""
    evidence, head = supplied(LINEAR, FEATURES)
    found = contrast.finer_cam(evidence, head, 1.0, 2, "softmax")
    rows, y = line(1, 2, 0, 2.75, 2, 1).reshape(3, 2), line(5, 5.5, 4)
    p = y[1:].exp() / y[1:].exp().sum()  # the other classes' share cancels
    apart, slopes = y[0] - y[1:], rows[0] - rows[1:]
    dp = p[:, None] * (rows[1:] - (p[:, None] * rows[1:]).sum(0))
    weights = ((p[:, None] * slopes).sum(0) + (dp * apart[:, None]).sum(0)) / 2
    close(found, tensor([[float(2 * weights[0]), float(4 * weights[1])]]))


def test_finer_cam_weighs_classes_of_no_probability():
    """Logits of thousands: the references' probabilities are 0 in any precision, their shares are not."""
    large = logits_of((1000, 2000), (2000, 1000), (0, 2750), (3000, -4000), (9000, 9000))
    found = contrast.finer_cam(*supplied(large, FEATURES), 1.0, 2, "softmax")
    close(found, 1000 * tensor([[2 * 1 / 2, 4 * -0.75 / 2]]), 1e-6)  # the nearest has a share of 1


def test_finer_cam_takes_as_many_classes_as_there_are():
    evidence, head = supplied(logits_of((1, 2), (0, 1)), FEATURES)
    expected = contrast.finer_cam(evidence, head, references=1)
    assert torch.equal(contrast.finer_cam(evidence, head, references=3), expected)
    with pytest.raises(UserError, match=r"^finer_cam does not apply: there is no other class"):
        contrast.finer_cam(*supplied(logits_of((1, 2)), FEATURES))


def test_shapley_cam_by_hand():
    """u = (sum A)^2, sum A = 6: G = 12, H A = 2 * 6 everywhere, w = 12 - 6; its own score and no ReST."""
    evidence, head = supplied(lambda a: torch.stack([a.sum((1, 2, 3)) ** 2, a.sum((1, 2, 3))], 1), FEATURES)
    close(second_order.shapley_cam(evidence, head, utility="score"), 6 * FEATURES.sum(1))


def test_shapley_cam_of_rest_by_hand():
    """Logits (m, 0), m the mean of one channel at 2 places: u = m + log p, du/dm = 2 - p, u'' = -p (1 - p)."""
    features = tensor([[[1.0, 3.0]]])
    evidence, head = supplied(logits_of((1,), (0,)), features)
    p = 1 / (1 + math.exp(-2))
    weight = ((2 - p) - 0.5 * -p * (1 - p) * 2) / 2
    close(second_order.shapley_cam(evidence, head), weight * features.sum(1))


def test_grad_cam_pp_numeric_by_hand():
    """Y = S^3, S = sum c A = -1: D1 = 3 c, D2 = -6 s c, D3 = 6 s^2 c with s = sum c = -1: alpha is the same at all
    places of a channel, so w is the mean of its positive D1: 3 * 3/2, and 0."""
    c = tensor([[[1.0, 2.0]], [[-4.0, 0.0]]])
    features = tensor([[[1.0, 3.0]], [[2.0, 7.0]]])
    evidence, head = supplied(lambda a: ((a * c).sum((1, 2, 3)) ** 3)[:, None], features)
    found = second_order.grad_cam_pp_numeric(evidence, head, output="score")
    close(found, 3 * 1.5 * features[:, 0])


def test_grad_cam_pp_numeric_of_logits_on_a_linear_head_is_nought_by_nought():
    evidence, head = supplied(LINEAR, FEATURES)
    assert second_order.grad_cam_pp_numeric(evidence, head, output="score").isnan().all()
    assert second_order.grad_cam_pp_numeric(evidence, head).isfinite().all()


def test_deep_feature_factorization_by_hand():
    """Two parts that share nothing: channels 0 and 1 on the left (1, 2 and 2, 4), channel 2 on the right (0, 3)."""
    features = tensor([[[1.0, 2.0, 0, 0]], [[2.0, 4.0, 0, 0]], [[0, 0, 0, 3.0]]])
    head = logits_of((1, 1, 0), (0, 0, 1))
    for target, expected in ((0, (0.5, 1, 0, 0)), (1, (0, 0, 0, 1))):
        evidence, asked = supplied(head, features, target)
        found = factors.deep_feature_factorization(evidence, asked, factors=2, iterations=400)
        torch.testing.assert_close(found, line(*expected)[None, None], rtol=0, atol=1e-4)


def test_factors_are_those_of_the_multiplicative_updates():
    matrix = networks.some_evidence(0, channels=6, height=3, width=4).activations[0].abs().flatten(1)
    left, right = (part.numpy() for part in factors.start(matrix, 3))
    m, before = matrix.numpy(), np.linalg.norm(matrix.numpy() - left @ right)
    for _ in range(50):
        above, below = m @ right.T, left @ right @ right.T
        for place in np.ndindex(*left.shape):
            left[place] *= above[place] / below[place]
        above, below = left.T @ m, left.T @ left @ right
        for place in np.ndindex(*right.shape):
            right[place] *= above[place] / below[place]
    found = factors.factorize(matrix, 3, 50)
    np.testing.assert_allclose(found[0].numpy(), left, rtol=1e-9)
    np.testing.assert_allclose(found[1].numpy(), right, rtol=1e-9)
    assert np.linalg.norm(m - left @ right) < before


def test_the_start_of_a_matrix_of_rank_one_is_the_matrix():
    matrix = line(1, 2, 3)[:, None] * line(2, 5)[None]
    left, right = factors.start(matrix, 1)
    close(left @ right, matrix)


def test_factors_of_signed_activations_begin_at_zero_and_are_shown_shifted_back():
    """Channel 0 is -1 on the left and 2 on the right: shifted (0, 3). The head sees 2 again."""
    features = tensor([[[-1.0, 2.0]], [[4.0, 0.0]]])
    shown = []

    def head(activations):
        shown.append(activations[:, :, 0, 0])
        return activations.mean((2, 3))

    evidence, asked = supplied(head, features, 0)
    found = factors.deep_feature_factorization(evidence, asked, factors=2, iterations=400)
    torch.testing.assert_close(found, tensor([[0.0, 1.0]]), rtol=0, atol=1e-3)
    concepts = shown[-1][shown[-1][:, 0].argsort()]
    torch.testing.assert_close(concepts, line(-1, 4, 2, 0).reshape(2, 2), rtol=0, atol=1e-2)


def test_factors_of_what_is_not_finite_are_nan_and_of_nothing_nothing():
    for value in (torch.nan, 0.0):
        evidence, head = supplied(logits_of((1, 1), (0, 1)), torch.full((1, 2, 1, 3), value).double())
        found = factors.deep_feature_factorization(evidence, head)
        assert found.shape == (1, 1, 3)
        assert found.isnan().all() if value else not found.any()


NEED_A_CLASS = {
    "finer_cam": contrast.finer_cam,
    "shapley_cam": second_order.shapley_cam,
    "grad_cam_pp_numeric": second_order.grad_cam_pp_numeric,
    "deep_feature_factorization": factors.deep_feature_factorization,
}


@pytest.mark.parametrize("name", NEED_A_CLASS)
def test_a_function_as_target_is_refused_in_a_sentence(name):
    evidence, head = supplied(LINEAR, FEATURES)
    evidence.targets[0] = -1
    with pytest.raises(UserError, match=f"^{name} does not apply: its target must be a class"):
        NEED_A_CLASS[name](evidence, head)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e, h: contrast.finer_cam(e, h, weighting="sofmax"), "did you mean 'softmax'"),
        (lambda e, h: second_order.shapley_cam(e, h, utility="rst"), "did you mean 'rest'"),
        (lambda e, h: second_order.grad_cam_pp_numeric(e, h, output="scor"), "did you mean 'score'"),
        (lambda e, h: principal.kpca_cam(e, kernel="rbff"), "did you mean 'rbf'"),
        (lambda e, h: plus_plus.smooth_grad_cam_pp(e, e.features, h, [], numerator="frst"), "did you mean 'first'"),
        (lambda e, h: paths.integrated_grad_cam(e.features, h, h, baseline="blak"), "did you mean 'black'"),
        (lambda e, h: variants.grad_cam_backward(e, h, rule="guide"), "did you mean 'guided'"),
    ],
)
def test_a_misspelt_setting_is_named(call, words):
    with pytest.raises(UserError, match=words):
        call(*supplied(LINEAR, FEATURES))


def test_shapley_cam_place_by_place_by_hand():
    """u = (sum A)^2, sum A = 6: G - H A / 2 = 6 everywhere; of 6 A only what is positive counts."""
    features = tensor([[[1.0, -2.0]], [[3.0, 4.0]]])
    evidence, head = supplied(lambda a: a.sum((1, 2, 3))[:, None] ** 2, features)
    close(
        second_order.shapley_cam(evidence, head, "score", True), 6 * torch.tensor([[[4.0, 4.0]]], dtype=torch.float64)
    )
