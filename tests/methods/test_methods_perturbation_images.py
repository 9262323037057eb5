"""Methods that take away parts of the image or of the layer: by hand, against slow second versions, identities."""

import math
from dataclasses import replace

import networks
import perturbing
import pytest
import slow_perturbations as slow
import torch
from torch.nn import functional as F

from gradcam_bench import perturb
from gradcam_bench.errors import UserError
from gradcam_bench.methods import ablation, gradient, masking, optimised, poly, score

NETWORKS = {"gap": networks.gap, "gap, signed": lambda: networks.gap(signed=True), "in place": networks.in_place}
GAPS = ("gap", "gap, signed")


def supplied(name, **changes):
    halves = NETWORKS[name]()
    return halves, perturbing.supplied(halves, halves.images(2), (1, 2, 0), (1, 0, 1), **changes)


def close(found, expected, relative=1e-6):
    assert expected.abs().max() > 0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=relative * float(expected.abs().max()))


def red(images):
    """Logits (sum of the red channel, 0)."""
    total = images[:, 0].sum((1, 2))
    return torch.stack([total, torch.zeros_like(total)], 1)


def picture(values):
    values = torch.tensor(values)
    return torch.stack([values, torch.zeros_like(values), torch.zeros_like(values)])[None]


def test_ablation_cam_by_hand():
    """y = 4; without the channels 1, 4 and 6: weights 3/4, 0 and -1/2."""
    a = torch.tensor([[[[4.0, 8.0]], [[100.0, 100.0]], [[2.0, -2.0]]]])
    evidence = replace(networks.evidence_of(a, a), scores=torch.tensor([4.0]))
    head = perturbing.Head(None, [0])
    head.without_channels = lambda case: torch.tensor([1.0, 4.0, 6.0])
    close(ablation.ablation_cam(evidence, head), torch.tensor([[[2.0, 7.0]]]))
    head.without_channels = lambda case: torch.tensor([1.0, 1.0, 1.0])
    silent = replace(evidence, scores=torch.tensor([0.0]))
    assert torch.equal(ablation.ablation_cam(silent, head), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_ablation_cam_against_loops(name):
    halves, given = supplied(name)
    expected = [
        slow.ablation_cam(halves.head, a, int(c)) for a, c in zip(given.evidence.features, given.evidence.targets)
    ]
    close(ablation.ablation_cam(given.evidence, given.head), torch.stack(expected))


@pytest.mark.parametrize("name", GAPS)
def test_ablation_cam_on_a_gap_network_has_a_closed_form(name):
    """w_k = W_ck GAP(A_k) / y."""
    halves, given = supplied(name)
    features, fc = given.evidence.features, halves.model.fc
    weights = fc.weight.detach()[given.evidence.targets] * features.mean((2, 3)) / given.evidence.scores[:, None]
    close(ablation.ablation_cam(given.evidence, given.head), (weights[:, :, None, None] * features).sum(1))


def test_recipro_cam_by_hand():
    """Features (1, 3) at two places, the score their mean times 2 ln 2: logits ln 2 and 3 ln 2, against 0."""
    a = torch.tensor([[[[1.0, 3.0]]]])

    def head(activations):
        mean = activations.mean((1, 2, 3)) * 2 * math.log(2)
        return torch.stack([mean, torch.zeros_like(mean)], 1)

    evidence, given = networks.evidence_of(a, a), perturbing.Head(head, [0], 99)
    close(ablation.recipro_cam(evidence, given), torch.tensor([[[2 / 3, 8 / 9]]]))
    # Spread by (1/4, 1/8) in a row of two, a feature v has the sum 3/8 v.
    spread = torch.tensor([[[3 / 8 * math.log(2), 9 / 8 * math.log(2)]]])
    close(ablation.recipro_cam(evidence, given, gaussian=True), spread.sigmoid())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("gaussian", [False, True])
def test_recipro_cam_against_loops(name, gaussian):
    halves, given = supplied(name)
    expected = [
        slow.recipro_cam(halves.head, a, int(c), gaussian)
        for a, c in zip(given.evidence.features, given.evidence.targets)
    ]
    close(ablation.recipro_cam(given.evidence, given.head, gaussian), torch.stack(expected))


@pytest.mark.parametrize("name", GAPS)
def test_recipro_cam_on_a_gap_network_has_a_closed_form(name):
    """The softmax of every class's CAM / hw plus its bias."""
    halves, given = supplied(name)
    fc, features = halves.model.fc, given.evidence.features
    cams = torch.einsum("kc,qchw->qkhw", fc.weight.detach(), features) / features[0, 0].numel()
    probabilities = (cams + fc.bias.detach()[:, None, None]).softmax(1)
    close(ablation.recipro_cam(given.evidence, given.head), probabilities[torch.arange(3), given.evidence.targets])


def test_occlusion_by_hand():
    """A 2 x 2 square on 3 x 3 pixels at 4 places hides reds of 12, 16, 24 and 28; the middle sees all, corners one."""
    image = picture([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    _, images, ask = perturbing.toy(image[:, :1], red, image)
    found = masking.occlusion(images, ask, patch=2 / 3, stride=1 / 3)
    expected = [[12.0, 14.0, 16.0], [18.0, 20.0, 22.0], [24.0, 26.0, 28.0]]
    close(found, torch.tensor([expected]))
    assert ask.asked == 5
    assert torch.equal(images, image)


def test_occlusion_with_the_images_own_mean_moves_no_sum():
    image = picture([[1.0, 2.0], [3.0, 6.0]])
    _, images, ask = perturbing.toy(image[:, :1], red, image)
    found = masking.occlusion(images, ask, patch=0.5, stride=0.5, fill="own_mean")
    close(found, image[:, 0] - 3)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("side", "step"), [(8, 5), (6, 1), (3, 3), (32, 7)])
def test_occlusion_against_loops(name, side, step):
    halves, given = supplied(name, block=7)
    found = masking.occlusion(given.images, given.ask, side / 32, step / 32)
    expected = [
        slow.occlusion(lambda x: halves.head(halves.stem(x.clone())), x, int(c), side, step)
        for x, c in zip(given.images, given.evidence.targets)
    ]
    close(found, torch.stack(expected), 1e-5)


def test_a_patch_that_covers_the_image_leaves_the_empty_images_score():
    _, given = supplied("gap")
    found = masking.occlusion(given.images, given.ask, patch=1.0)
    empty = given.ask(torch.zeros_like(given.images), torch.arange(3))
    close(found, (given.evidence.scores - empty)[:, None, None].expand(-1, 32, 32))


def test_occlusion_pixel_by_pixel_of_a_linear_score_is_what_each_pixel_adds():
    image = torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    _, images, ask = perturbing.toy(image[:, :1], red, image)
    close(masking.occlusion(images, ask, patch=0.2, stride=0.2), image[:, 0], 1e-5)


def test_rise_with_masks_of_ones_is_the_probability_everywhere():
    _, given = supplied("gap")
    found = masking.rise(given.images, given.ask, given.evidence, given.generators("rise"), masks=5, keep=1.0)
    shown = given.ask.outputs(given.images).softmax(1)[torch.arange(3), given.evidence.targets]
    close(found, shown[:, None, None].expand(-1, 32, 32), 1e-5)


def test_rise_by_hand():
    """One cell, kept or not: a mask is 1 or 0 everywhere. p = 3/4 where the picture is seen, 1/2 where it is not, which
    adds nothing: 3/4 times the share of the masks that are 1, over 1/4."""
    image = picture([[math.log(3), 0.0], [0.0, 0.0]])
    evidence, images, ask = perturbing.toy(image[:, :1], red, image)
    kept = (torch.rand(8, 1, 1, generator=torch.Generator().manual_seed(0)) < 0.25).float().mean()
    assert 0 < kept < 1
    generators = [torch.Generator().manual_seed(0)]
    found = masking.rise(images, ask, evidence, generators, masks=8, cells=1, keep=0.25)
    close(found, (3 / 4 * kept / 0.25).expand(1, 2, 2))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("block", [3, 50])
def test_rise_against_loops(name, block):
    halves, given = supplied(name, block=block)
    found = masking.rise(given.images, given.ask, given.evidence, given.generators("rise"), 20, 5, 0.3)
    expected = [
        slow.rise(lambda x: halves.head(halves.stem(x.clone())), x, int(c), generator, 20, 5, 0.3)
        for x, c, generator in zip(given.images, given.evidence.targets, given.generators("rise"))
    ]
    close(found, torch.stack(expected), 1e-5)


def test_rises_masks_have_the_mean_that_it_divides_by():
    image = torch.zeros(3, 30, 44)
    blocks = masking._random_masks(4000, 7, 0.5, image, torch.Generator().manual_seed(0), 512)
    masks = torch.cat(list(blocks))
    assert masks.shape == (4000, 30, 44)
    assert masks.min() == 0
    assert masks.max() == 1
    assert masks.mean(0).sub(0.5).abs().max() < 0.05


def test_extremal_perturbation_without_a_step_is_the_smooth_maximum_of_ones():
    """A kernel so narrow that it is 1 at its own point alone, but reaches the 24 about it (one lattice step beyond
    sigma, rounded up), whose zeros count with weight 1 each: m = e^20 / (e^20 + 24). Two areas, two masks."""
    images = torch.zeros(1, 3, 35, 35)
    found = optimised.extremal_perturbation(
        images, perturbing.Ask(red, [0]), [0.1, 0.2], 0, sigma=0.01, step=7 / 35, smooth=0.0
    )
    assert found.shape == (1, 35, 35)
    close(found[:, 3:-3, 3:-3], torch.tensor(2 * math.exp(20) / (math.exp(20) + 24)).expand(1, 29, 29))
    assert found[:, 0].max() < 1.2  # halfway to the margin, whose points are 0


def test_extremal_perturbation_shows_every_other_image_mirrored():
    seen = []

    def note(images):
        seen.append(images.detach())
        return red(images)

    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        optimised.extremal_perturbation(image, perturbing.Ask(note, [0], 9), [0.1], 2, smooth=0.0)
    mirrored, plain = (one[0] for one in seen)
    assert (mirrored.flip(2) - image[0]).abs().max() < 0.5  # masks begin all but open
    assert (plain - image[0]).abs().max() < 0.5
    assert (mirrored - image[0]).abs().max() > 1


def test_extremal_perturbation_finds_what_the_score_is_made_of():
    """The score is the red of a small square, which blurring spreads: the mask of about that area lies there. Mirrored
    images score the same; the area is a share of 38 x 38 pixels, the image with its margin."""
    image = torch.zeros(1, 3, 32, 32)
    image[0, 0, 4:12, 18:26] = 1.0

    def square(images):
        made = 40 * (images + images.flip(3))[:, 0, 4:12, 18:26].mean((1, 2))
        return torch.stack([made, torch.zeros_like(made)], 1)

    _, images, ask = perturbing.toy(image[:, :1], square, image)
    found = optimised.extremal_perturbation(images, ask, [0.1], steps=600, smooth=0.0)[0]
    assert 0.13 < found.mean() < 0.15  # 0.1 (38 / 32)^2
    assert found[5:11, 19:25].mean() > 0.9
    assert found[:, :12].mean() < 0.05
    assert found[18:].mean() < 0.05


def test_extremal_perturbations_blur_is_linear_between_its_levels():
    image = torch.randn(3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    levels = optimised._blurred(image, 4.0)
    assert torch.equal(levels[0], image)
    close(levels[7], perturb.blur(image, 4.0, 16, "zero"))
    masks = torch.tensor([1.0, 0.0, 4.5 / 7], dtype=torch.float64)[:, None, None].expand(3, 9, 9)
    shown = optimised._perturbed(levels, masks)
    close(shown, torch.stack([levels[0], levels[7], (levels[2] + levels[3]) / 2]))


def test_areas_must_be_shares():
    with pytest.raises(UserError, match="areas"):
        optimised.extremal_perturbation(torch.zeros(1, 3, 4, 4), None, [1.5])


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_a_mask_keeps_something(keep):
    evidence, images, ask = perturbing.toy(picture([[1.0]])[:, :1], red, picture([[1.0]]))
    with pytest.raises(UserError, match=r"rise\.keep"):
        masking.rise(images, ask, evidence, [torch.Generator()], keep=keep)


def test_a_target_that_is_a_function_has_no_probability():
    _, given = supplied("gap")
    given.evidence.targets[:] = -1
    with pytest.raises(UserError, match=r"^rise does not apply"):
        masking.rise(given.images, given.ask, given.evidence, given.generators("rise"))
    with pytest.raises(UserError, match=r"^recipro_cam does not apply"):
        ablation.recipro_cam(given.evidence, given.head)


@pytest.mark.parametrize("name", GAPS)
def test_small_ablations_are_grad_cams(name):
    """A head that is linear in each channel: y - y_k = W_ck GAP(A_k) is the gradient's mean times the channel's sum."""
    _, given = supplied(name)
    evidence = given.evidence
    weights = evidence.gradients.mean((2, 3)) * evidence.features.sum((2, 3)) / evidence.scores[:, None]
    close(ablation.ablation_cam(evidence, given.head), torch.einsum("qc,qchw->qhw", weights, evidence.features))
    assert gradient.grad_cam(evidence).shape == evidence.features[:, 0].shape


def test_blur_against_a_convolution():
    images = torch.randn(2, 3, 12, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    close(perturb.blur(images, 2.0, 5), torch.stack([slow.blurred(image, 2.0, 5) for image in images]))
    steps = torch.arange(-5.0, 6.0, dtype=torch.float64)
    kernel = torch.exp(-(steps**2) / 8)
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(3, 1, 11, 11)
    close(perturb.blur(images, 2.0, 5, "zero"), F.conv2d(images, kernel, padding=5, groups=3))
    constant = torch.full((1, 3, 4, 6), 7.0)
    close(perturb.blur(constant, 50.0, 25), constant)  # mirrored many times over
    assert torch.equal(perturb.blur(images, 0.0), images)


def test_fills():
    image = picture([[1.0, 2.0], [3.0, 6.0]])[0]
    assert torch.equal(perturb.fill(image, "mean"), torch.zeros(3, 2, 2))
    assert torch.equal(perturb.fill(image, "own_mean")[0], torch.full((2, 2), 3.0))
    assert torch.equal(perturb.fill(image, "blur", 2.0), perturb.blur(image, 2.0))
    for wrong in (lambda: perturb.fill(image, "blurr"), lambda: perturb.blur(image, 1.0, border="zeros")):
        with pytest.raises(UserError, match="did you mean"):
            wrong()


def test_masked_uses_its_buffer_again():
    image = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1))
    plain, filled = perturb.Masked(image, 4), perturb.Masked(image, 4, torch.ones_like(image))
    first = plain(masks)
    close(first, masks[:, None] * image)
    close(filled(masks), masks[:, None] * image + 1 - masks[:, None])
    assert plain(masks[:1]).data_ptr() == first.data_ptr()
    assert first.is_contiguous(memory_format=torch.channels_last)


REHEARSED = {
    "score_cam": lambda g: score.score_cam(g.evidence, g.images, g.ask),
    "is_cam": lambda g: score.is_cam(g.evidence, g.images, g.ask),
    "ss_cam": lambda g: score.ss_cam(g.evidence, g.images, g.ask, g.generators("ss")),
    "group_cam": lambda g: score.group_cam(g.evidence, g.images, g.ask),
    "poly_cam": lambda g: poly.poly_cam(g.images, g.ask, g.pyramid),
    "opti_cam": lambda g: optimised.opti_cam(g.evidence, g.images, g.ask, g.black),
    "extremal_perturbation": lambda g: optimised.extremal_perturbation(g.images, g.ask),
    "rise": lambda g: masking.rise(g.images, g.ask, g.evidence, g.generators("rise")),
}


@pytest.mark.parametrize("label", REHEARSED)
def test_a_rehearsal_asks_for_a_dozen_images_at_most_and_gives_a_map_all_the_same(label):
    _, given = supplied("gap")
    given.ask.rehearsal = True
    found, before = REHEARSED[label](given), given.cost.forwards
    assert found.shape[0] == 3
    assert found.ndim == 3
    assert before <= 3 * 12
