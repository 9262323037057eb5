"""Methods that mask the image by the layer's own channels: by hand, against a slow second version, identities."""

import math
from dataclasses import replace

import networks
import perturbing
import pytest
import slow_perturbations as slow
import torch

from gradcam_bench import heatmaps
from gradcam_bench.errors import UserError
from gradcam_bench.methods import optimised, poly, score

NETWORKS = {"gap": networks.gap, "gap, signed": lambda: networks.gap(signed=True), "in place": networks.in_place}
INDEX = (1, 0, 1)


def supplied(name, **changes):
    halves = NETWORKS[name]()
    given = perturbing.supplied(halves, halves.images(2), (1, 2, 0), INDEX, **changes)
    return halves, given


def cases(halves, given):
    """(network, image, activations, class) of each case."""
    evidence = given.evidence
    return [
        (lambda x: halves.head(halves.stem(x.clone())), image, a, int(c))
        for image, a, c in zip(given.images, evidence.features, evidence.targets)
    ]


def close(found, expected, relative=1e-6):
    assert expected.abs().max() > 0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=relative * float(expected.abs().max()))


def ln(*values):
    return [math.log(value) for value in values]


CHANNELS = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]], [[5.0, 5.0], [5.0, 5.0]]]])
IMAGE = torch.zeros(1, 3, 2, 2)
IMAGE[0, 0] = torch.tensor([[math.log(3), 0.0], [7.0, 7.0]])


def brightness(images):
    """Logits (sum of the red channel, 0)."""
    red = images[:, 0].sum((1, 2))
    return torch.stack([red, torch.zeros_like(red)], 1)


def test_score_cam_by_hand():
    """The first mask leaves a red of 0, the second one of ln 3, the third is constant: weights 1/4 and 3/4."""
    evidence, images, ask = perturbing.toy(CHANNELS, brightness, IMAGE)
    expected = torch.tensor([[[1.5, 0.25], [0.0, 0.0]]])
    close(score.score_cam(evidence, images, ask), expected)
    assert ask.asked == 2


def test_score_cams_code_by_hand():
    """Probabilities e^0 / (e^0 + 1) = 1/2 and 3 / (3 + 1) = 3/4."""
    close(
        score.score_cam(*perturbing.toy(CHANNELS, brightness, IMAGE), weight="probability"),
        torch.tensor([[[1.5, 0.5], [0.0, 0.0]]]),
    )


def test_is_cam_by_hand():
    """Two steps show the masked image at 1/2 and 3/2; a score of 4 times the squared red is 4 (1/4 + 9/4) / 2 = 5 times
    the squared red on average: ln 3 where the red is sqrt(ln 3 / 5)."""
    image = IMAGE * math.sqrt(math.log(3) / 5) / math.log(3)
    toy = perturbing.toy(CHANNELS, lambda images: 4 * brightness(images).square(), image)
    close(score.is_cam(*toy, steps=2), torch.tensor([[[1.5, 0.25], [0.0, 0.0]]]))
    assert toy[2].asked == 4


def test_ss_cam_by_hand():
    """Without noise it is Score-CAM; noise on a mask moves a linear score by the noise times the image."""
    toy = perturbing.toy(CHANNELS, brightness, IMAGE)
    still = score.ss_cam(*toy, [torch.Generator().manual_seed(0)], samples=2, sigma=0.0)
    close(still, torch.tensor([[[1.5, 0.25], [0.0, 0.0]]]))
    generator = torch.Generator().manual_seed(3)
    noise = torch.stack([torch.randn(2, 2, generator=generator) for _ in range(4)])
    moved = (0.1 * noise * IMAGE[0, 0]).sum((1, 2)).reshape(2, 2).mean(1)
    alpha = (torch.tensor(ln(1, 3)) + moved).softmax(0)
    expected = torch.tensor([[[2 * alpha[1], alpha[0]], [0.0, 0.0]]])
    close(score.ss_cam(*toy, [torch.Generator().manual_seed(3)], samples=2, sigma=0.1), expected)


def test_group_cam_by_hand():
    """Two groups of two channels. The first sums to 4 1 / 0 2, whose 70th percentile is 2.2: its mask is the first
    pixel. The second is negative everywhere, so constant after the ReLU. The network sees no blurred pixel, and in the
    first one a logit of ln 3: the probability rises from 1/2 to 3/4."""
    a = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]], [[1.0] * 2] * 2]])
    g = torch.tensor([1.0, 1.0, -1.0, -1.0])[None, :, None, None].expand_as(a)
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0, 0, 0] = 1.0

    def sharp(images):
        seen = (images[:, 0, 0, 0] > 0.9) * math.log(3)
        return torch.stack([seen, torch.zeros_like(seen)], 1)

    found = score.group_cam(*perturbing.toy(a, sharp, image, gradients=g), groups=2)
    close(found, torch.tensor([[[0.25, 0.0], [0.0, 0.0]]]))


def test_opti_cam_by_hand():
    """Equal weights show pixels 1 and 2 alike: 2 - 1 = 1. The gradient of the score in (u1, u2) is (+, -), Adam's first
    step is 0.1 each way, and the second pixel is then shown by exp(-0.2): 2 - 0.82 > 1."""
    a = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]])
    image = torch.zeros(1, 3, 1, 3)
    image[0, 0, 0] = torch.tensor([2.0, -1.0, 5.0])
    toy = perturbing.toy(a, brightness, image)
    close(optimised.opti_cam(*toy, networks.black(image), steps=0), torch.tensor([[[0.5, 0.5, 0.0]]]))
    share = 1 / (1 + math.exp(-0.2))
    close(optimised.opti_cam(*toy, networks.black(image), steps=1), torch.tensor([[[share, 1 - share, 0.0]]]))
    image[0, 0, 0, 1] = 1.0  # now the step makes it worse, 2 + 0.82 < 3, and the start stays the best
    close(optimised.opti_cam(*toy, networks.black(image), steps=1), torch.tensor([[[0.5, 0.5, 0.0]]]))


@pytest.mark.parametrize(
    ("variant", "weights"), [("plus", (0.5, 0.75)), ("minus", (0, 0.25)), ("plus_minus", (0.5, 1))]
)
def test_poly_cam_by_hand(variant, weights):
    """p(X) = 3/4, under the masks 1/2 and 3/4, under what they leave 3/4 and 1/2. A second layer as fine as the first
    sharpens nothing: LNorm makes of its map 1 where it is not 0."""
    image = IMAGE.clone()
    image[0, 0, 1] = 0.0
    evidence, images, ask = perturbing.toy(CHANNELS, brightness, image)
    coarse = torch.tensor([[[2 * weights[1], weights[0]], [0.0, 0.0]]])
    close(poly.poly_cam(images, ask, [evidence], variant), coarse)
    only_second, _, _ = perturbing.toy(CHANNELS[:, 1:], brightness, image)
    first_pixel = coarse * torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    close(poly.poly_cam(images, ask, [only_second, evidence], variant), first_pixel)


AGAINST_LOOPS = {  # ours of what is supplied; the slow one of a case and its generator
    "score_cam": (lambda g: score.score_cam(g.evidence, g.images, g.ask), lambda c, _: slow.score_cam(*c)),
    "score_cam, corners": (
        lambda g: score.score_cam(g.evidence, g.images, g.ask, kernel="bilinear_corners"),
        lambda c, _: slow.score_cam(*c, corners=True),
    ),
    "score_cam, scaled first": (
        lambda g: score.score_cam(g.evidence, g.images, g.ask, order="scale_first"),
        lambda c, _: slow.score_cam(*c, scale_first=True),
    ),
    "score_cam_code": (
        lambda g: score.score_cam(g.evidence, g.images, g.ask, weight="probability"),
        lambda c, _: slow.score_cam_code(*c),
    ),
    "is_cam": (lambda g: score.is_cam(g.evidence, g.images, g.ask, 3), lambda c, _: slow.is_cam(*c, 3)),
    "is_cam_code": (
        lambda g: score.is_cam(g.evidence, g.images, g.ask, weight="probability"),
        lambda c, _: slow.is_cam(*c, score=slow.probability),
    ),
    "ss_cam": (
        lambda g: score.ss_cam(g.evidence, g.images, g.ask, g.generators("ss"), samples=4),
        lambda c, generator: slow.ss_cam(*c, generator, 4, 2.0),
    ),
    "ss_cam_code": (
        lambda g: score.ss_cam(g.evidence, g.images, g.ask, g.generators("ss"), 4, 2.0, "input", "probability"),
        lambda c, generator: slow.ss_cam(*c, generator, 4, 2.0, slow.probability),
    ),
    "opti_cam": (
        lambda g: optimised.opti_cam(g.evidence, g.images, g.ask, g.black, steps=6),
        lambda c, _: slow.opti_cam(*c, steps=6),
    ),
    "opti_cam_code": (
        lambda g: optimised.opti_cam(g.evidence, g.images, g.ask, g.black, steps=25, released=True),
        lambda c, _: slow.opti_cam(*c, steps=25, released=True),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", AGAINST_LOOPS)
@pytest.mark.parametrize("block", [3, 64])
def test_against_loops(method, name, block):
    halves, given = supplied(name, block=block)
    ours, slow_one = AGAINST_LOOPS[method]
    expected = [slow_one(case, generator) for case, generator in zip(cases(halves, given), given.generators("ss"))]
    close(ours(given), torch.stack(expected), 1e-4)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("groups", [2, 32])
@pytest.mark.parametrize("released", [False, True])
def test_group_cam_enlarged_is_the_authors_at_the_inputs_size(name, groups, released):
    halves, given = supplied(name)
    found = score.group_cam(given.evidence, given.images, given.ask, groups, released=released)
    expected = [
        slow.group_cam(f, x, a, g, c, groups, released=released)
        for (f, x, a, c), g in zip(cases(halves, given), given.evidence.gradients)
    ]
    close(heatmaps.resize(found, (32, 32)), torch.stack(expected), 1e-5)


@pytest.mark.parametrize("variant", poly.VARIANTS)
@pytest.mark.parametrize("released", [False, True])
def test_poly_cam_against_loops(variant, released):
    halves, given = supplied("gap")
    fine = halves.model.stem(given.images).detach()
    found = poly.poly_cam(given.images, given.ask, given.pyramid, variant, released)
    expected = [
        slow.poly_cam(f, x, [first, a], c, variant, released) for (f, x, a, c), first in zip(cases(halves, given), fine)
    ]
    assert found.shape == (3, 16, 16)
    close(found, torch.stack(expected), 1e-5)


def test_equal_scores_make_score_cam_the_mean_of_the_channels():
    channels = torch.rand(1, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    toy = perturbing.toy(channels, lambda images: torch.full((len(images), 4), 5.0), torch.ones(1, 3, 6, 8))
    for found in (
        score.score_cam(*toy),
        score.is_cam(*toy),
        score.ss_cam(*toy, [torch.Generator()], 2),
        score.score_cam(*toy, weight="probability") * 4 / 5,
    ):
        close(found, channels.mean(1))


def test_the_baseline_cancels_in_score_cam_and_another_one_would_too():
    """Adding a number to every score, as a baseline does, changes nothing."""
    plain = score.score_cam(*perturbing.toy(CHANNELS, brightness, IMAGE))
    close(score.score_cam(*perturbing.toy(CHANNELS, lambda images: brightness(images) - 3.7, IMAGE)), plain)


def test_a_dead_channel_costs_nothing_and_changes_a_map_by_a_factor_alone():
    _, given = supplied("gap")
    evidence, dead = given.evidence, torch.zeros_like(given.evidence.activations[:, :2])
    wider = replace(evidence, activations=torch.cat([evidence.activations, dead], 1))
    plain = score.score_cam(evidence, given.images, given.ask)
    before, found = given.cost.forwards, score.score_cam(wider, given.images, given.ask)
    assert torch.equal(found, plain)
    assert before == 2 + 5 * 3  # the look at two images, and the channels of three cases
    assert given.cost.forwards == 2 + 2 * 5 * 3


@pytest.mark.parametrize("name", NETWORKS)
def test_opti_cams_score_never_ends_below_where_it_began(name):
    _, given = supplied(name)

    def scores(maps):
        masks = heatmaps.normalize(heatmaps.resize(maps, (32, 32)), "minmax")
        return [float(given.ask((m * x)[None], q)) for q, (m, x) in enumerate(zip(masks, given.images))]

    for rate in (0.1, 5.0):
        start = scores(given.evidence.features.relu().mean(1))
        end = scores(optimised.opti_cam(given.evidence, given.images, given.ask, given.black, 20, rate))
        assert all(b >= a - 1e-6 for a, b in zip(start, end))
        assert end > start


def test_poly_cam_of_one_layer_is_the_layers_own_map():
    _, given = supplied("gap")
    plus = poly.poly_cam(given.images, given.ask, [given.evidence], "plus")
    close(plus, score.score_cam(given.evidence, given.images, given.ask, weight="probability", order="scale_first"))


def test_all_channels_constant_make_a_map_of_zeros():
    flat = torch.ones(1, 3, 2, 2)
    evidence, images, ask = perturbing.toy(flat, brightness, IMAGE)
    for found in (
        score.score_cam(evidence, images, ask),
        score.is_cam(evidence, images, ask),
        score.group_cam(evidence, images, ask),
        poly.poly_cam(images, ask, [evidence]),
    ):
        assert torch.equal(found, torch.zeros(1, 2, 2))


def test_a_target_that_is_a_function_has_no_probability():
    evidence, images, ask = perturbing.toy(CHANNELS, brightness, IMAGE)
    evidence.targets[:] = -1
    for label, made in (
        ("score_cam_code", lambda: score.score_cam(evidence, images, ask, weight="probability")),
        ("group_cam", lambda: score.group_cam(evidence, images, ask)),
        ("poly_cam", lambda: poly.poly_cam(images, ask, [evidence])),
    ):
        with pytest.raises(UserError, match=f"^{label} does not apply: "):
            made()


def test_unknown_settings_are_named():
    evidence, images, ask = perturbing.toy(CHANNELS, brightness, IMAGE)
    for made in (
        lambda: score.score_cam(evidence, images, ask, weight="softmx"),
        lambda: score.score_cam(evidence, images, ask, order="scale_frst"),
        lambda: score.ss_cam(evidence, images, ask, [], noise="masks"),
        lambda: poly.poly_cam(images, ask, [evidence], "plus_minis"),
    ):
        with pytest.raises(UserError, match="did you mean"):
            made()
