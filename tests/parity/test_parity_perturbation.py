"""Methods that perturb against pytorch-grad-cam, torchcam and captum: equal where both compute the same equation, and
where they do not, which one each side computes (seen with grad-cam 1.5.7, torchcam 0.5.0 and captum 0.9.0)."""

import networks
import peers
import perturbing
import pytest
import slow_perturbations as slow
import torch
from captum.attr import Occlusion

from gradcam_bench import heatmaps
from gradcam_bench.methods import ablation, masking, score

pytestmark = pytest.mark.parity

SAME, APART = 1e-4, 5e-3
SMALL = {"gap": networks.gap, "gap, signed": lambda: networks.gap(signed=True)}
LARGE = {"squeezenet1_1": networks.squeezenet1_1, "mobilenet_v2": networks.mobilenet_v2}
NETWORKS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
TARGETS = (1, 0, 3)


def case(name):
    halves, images, targets = peers.case({**SMALL, **LARGE}[name], targets=TARGETS)
    return halves, images, targets, perturbing.supplied(halves, images, targets, block=16)


def score_cam(given, **settings):
    return score.score_cam(given.evidence, given.images, given.ask, **settings).relu()


def paper(halves, given, **settings):
    """Algorithm 1 with its baseline, in loops."""
    whole = lambda x: halves.head(halves.stem(x.clone()))  # noqa: E731
    maps = [
        slow.score_cam(whole, x, a, c, **settings) for x, a, c in zip(given.images, given.evidence.features, TARGETS)
    ]
    return torch.stack(maps).relu()


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_grad_cams_score_cam_is_score_cam_softmax(name):
    """No baseline, which cancels; masks enlarged with their corners aligned; 1e-8 in the min-max."""
    halves, images, targets, given = case(name)
    ours = peers.scaled_at_input(score_cam(given, kernel="bilinear_corners"), images.shape[-2:])
    assert peers.apart(ours, peers.grad_cam("ScoreCAM", halves, images, targets)) < SAME


@pytest.mark.parametrize("name", SMALL)
def test_pytorch_grad_cams_score_cam_aligns_the_corners_and_the_authors_do_not(name):
    halves, images, targets, given = case(name)
    theirs = peers.grad_cam("ScoreCAM", halves, images, targets)
    ours, algorithm = score_cam(given), paper(halves, given)
    assert peers.apart(peers.scaled(ours), peers.scaled(algorithm)) < SAME
    exact = peers.apart(peers.scaled_at_input(algorithm, images.shape[-2:]), theirs)
    cause = peers.scaled_at_input(paper(halves, given, corners=True), images.shape[-2:])
    assert peers.apart(cause, theirs) < SAME < exact


@pytest.mark.parametrize("name", NETWORKS)
def test_torchcams_score_cam_scales_first(name):
    """Up(s(A)) for algorithm 1's s(Up(A)). Its baseline is the image itself where the paper's is 0; either cancels."""
    halves, images, targets, given = case(name)
    theirs = peers.scaled(peers.torchcam_maps("ScoreCAM", halves, images, targets))
    assert peers.apart(peers.scaled(score_cam(given, order="scale_first")), theirs) < SAME


@pytest.mark.parametrize("name", SMALL)
def test_torchcams_score_cam_is_not_algorithm_1(name):
    halves, images, targets, given = case(name)
    theirs = peers.scaled(peers.torchcam_maps("ScoreCAM", halves, images, targets))
    assert peers.apart(peers.scaled(paper(halves, given, scale_first=True)), theirs) < SAME
    assert peers.apart(peers.scaled(paper(halves, given)), theirs) > SAME


@pytest.mark.parametrize("name", SMALL)
def test_the_authors_code_weighs_by_the_probability_and_algorithm_1_by_a_softmax_over_channels(name):
    """On a network whose scores differ by several units the two maps differ visibly."""
    halves, images, targets = peers.case({**SMALL, **LARGE}[name], targets=TARGETS)
    with torch.no_grad():
        halves.model.fc.weight *= 30
    given = perturbing.supplied(halves, images, targets)
    code = score.score_cam(given.evidence, given.images, given.ask, weight="probability")
    whole = lambda x: halves.head(halves.stem(x.clone()))  # noqa: E731
    expected = [slow.score_cam_code(whole, x, a, c) for x, a, c in zip(images, given.evidence.features, TARGETS)]
    assert peers.apart(peers.scaled(code), peers.scaled(torch.stack(expected))) < SAME
    assert peers.apart(peers.scaled(code), peers.scaled(score_cam(given))) > APART


@pytest.mark.parametrize("name", SMALL)
def test_torchcams_is_cam_scales_first_too(name):
    halves, images, targets, given = case(name)
    theirs = peers.scaled(peers.torchcam_maps("ISCAM", halves, images, targets))
    ours = score.is_cam(given.evidence, given.images, given.ask, order="scale_first").relu()
    assert peers.apart(peers.scaled(ours), theirs) < SAME


@pytest.mark.parametrize("name", ["gap", pytest.param("squeezenet1_1", marks=pytest.mark.slow)])
def test_pytorch_grad_cams_ablation_cam(name):
    halves, images, targets, given = case(name)
    ours = ablation.ablation_cam(given.evidence, given.head).relu()
    theirs = peers.grad_cam("AblationCAM", halves, images, targets)
    assert ours.amax((1, 2)).max() > 0
    assert peers.apart(peers.scaled_at_input(ours, images.shape[-2:]), theirs) < SAME


def test_pytorch_grad_cam_ablates_signed_features_to_minus_ten_million_and_more():
    """Where no activation is exactly 0, a channel is not set to 0 (eq. 4) but to 1e7 below the smallest of a batch, and
    what was written before it counts: the n-th channel of a batch is set to n times 1e7 below."""
    halves, images, targets, given = case("gap, signed")
    features, size = given.evidence.features, images.shape[-2:]
    ours = ablation.ablation_cam(given.evidence, given.head)
    paper = torch.stack([slow.ablation_cam(halves.head, a, c) for a, c in zip(features, TARGETS)])
    assert peers.apart(ours, paper) < SAME
    theirs = peers.grad_cam("AblationCAM", halves, images, targets)
    assert peers.apart(peers.scaled_at_input(paper.relu(), size), theirs) > APART
    cause = []
    for a, c in zip(features, TARGETS):
        y, weights = float(slow.logit(halves.head, a, c)), []
        for k in range(len(a)):
            ablated = a.clone()
            ablated[k] = a.min() - (k + 1) * 1e7
            weights.append((y - slow.logit(halves.head, ablated, c)) / y)
        cause.append(torch.einsum("k,khw->hw", torch.stack(weights), a))
    assert peers.apart(peers.scaled_at_input(torch.stack(cause).relu(), size), theirs) < SAME


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("side", "step"), [(8, 4), (15, 8), (7, 7)])
def test_captums_occlusion(name, side, step):
    """The last patch of a row, cut off by the border, included."""
    halves, images, targets, given = case(name)
    length = images.shape[-1]
    ours = masking.occlusion(given.images, given.ask, side / length, step / length)
    made = Occlusion(halves.model)
    shapes = {"sliding_window_shapes": (3, side, side), "strides": (3, step, step)}
    theirs = made.attribute(images, target=torch.tensor(targets), perturbations_per_eval=16, **shapes).detach()
    assert torch.equal(theirs[:, 0], theirs[:, 2])
    assert peers.apart(ours, theirs[:, 0]) < SAME * float(theirs.abs().max())


def test_what_score_cams_definitions_have_in_common():
    """Each of the three keeps a map of the same channels: on equal scores all are the channels' mean."""
    channels = torch.rand(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    toy = perturbing.toy(channels, lambda x: torch.ones(len(x), 2), torch.ones(1, 3, 12, 12))
    maps = [
        score.score_cam(*toy, weight=w, kernel=k) for w, k in (("softmax", "bilinear"), ("probability", "bilinear"))
    ]
    maps.append(score.score_cam(*toy, kernel="bilinear_corners"))
    expected = heatmaps.normalize(channels.mean(1), "minmax")
    assert all(peers.apart(peers.scaled(one), expected) < 1e-5 for one in maps)
