"""What pytorch-grad-cam's factorisation and components do with a batch, a channel's minimum and a NaN, and who is right
by which equation (seen with grad-cam 1.5.7 and scikit-learn 1.9.1)."""

import networks
import numpy as np
import peers
import perturbing
import pytest
import torch
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from pytorch_grad_cam.utils.svd_on_activations import (
    get_2d_projection,
    get_2d_projection_kernel,
    get_2d_projection_with_sign_correction,
)

from gradcam_bench.methods import factors, principal

pytestmark = pytest.mark.parity

SAME, APART = 1e-4, 5e-3
RANK_ONE = torch.tensor([[[1.0, 2.0]], [[2.0, 4.0]]], dtype=torch.float64)[None]  # A = (1, 2)^T (1, 2)


def peaked(maps):
    """[K,h,w] with maximum 1 each, which is what both sides draw."""
    return maps / maps.amax((1, 2), keepdim=True)


def best_matches(maps, others):
    """[K]: how far each map is from the nearest of the others; factors come in no order."""
    return torch.stack([(one - others).abs().amax((1, 2)).min() for one in maps])


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
def test_pytorch_grad_cam_factorises_a_batch_together_so_that_a_map_depends_on_the_other_images():
    """Collins et al. factorise a set of images on purpose, to find what they share; a heatmap of one image is asked of
    it alone here. Ours are the same whatever else is in the batch."""
    a = networks.some_evidence(0, 2, 6, 5, 5).activations.abs()
    together, alone = (torch.from_numpy(dff(x.numpy().copy(), 3)[1][0]).double() for x in (a, a[:1]))
    assert best_matches(peaked(alone), peaked(together)).max() > APART

    def ours(x):
        evidence = networks.evidence_of(x, x, targets=torch.zeros(len(x), dtype=torch.int64))
        head = perturbing.Head(lambda a: a.mean((2, 3)), [0] * len(x), 99)
        return factors.deep_feature_factorization(evidence, head, factors=3)[0]

    torch.testing.assert_close(ours(a), ours(a[:1]))


def test_pytorch_grad_cam_subtracts_each_channels_minimum_and_the_paper_factorises_what_is_not_negative_as_it_is():
    """Eq. 2, A = W H with nothing negative: of an A of rank one H is (1, 2) up to a factor. Less their minima 1 and 2
    its channels are (0, 1) and (0, 2), and the first place has no part in them."""
    concepts, maps = dff(RANK_ONE.numpy().copy(), 1)
    assert peers.apart(peaked(torch.from_numpy(maps[0])), torch.tensor([[[0.0, 1.0]]])) < SAME
    features, places = factors._factors(RANK_ONE[0].flatten(1), 1, 200)
    assert peers.apart(places, torch.tensor([[0.5, 1.0]])) < SAME
    assert peers.apart(features @ places, RANK_ONE[0].flatten(1)) < SAME
    assert peers.apart(torch.from_numpy(concepts @ maps[0].reshape(1, 2)), RANK_ONE[0].flatten(1)) > APART


def test_pytorch_grad_cam_asks_about_concepts_of_no_certain_length():
    """W H = (2 W)(H / 2): the head's answer to W depends on how the solver left them. Ours are the features at the
    strongest place of each factor, (2, 4) here; where a channel may be negative both are shifted alike."""
    concepts, maps = dff(RANK_ONE.numpy().copy(), 1)
    shifted = concepts - RANK_ONE[0].flatten(1).amin(1, keepdim=True).numpy()
    assert abs(maps.max() - 1) > APART
    np.testing.assert_allclose(shifted * maps.max(), [[1.0], [2.0]], atol=SAME)
    features, _ = factors._factors(RANK_ONE[0].flatten(1), 1, 200)
    assert peers.apart(features, torch.tensor([[2.0], [4.0]])) < SAME
    below = RANK_ONE[0].flatten(1) - torch.tensor([[2.0], [3.0]])  # each begins at -1
    features, _ = factors._factors(below, 1, 200)
    assert peers.apart(features, torch.tensor([[0.0], [1.0]])) < SAME  # the second place's


PROJECTIONS = {
    "kpca_cam": (get_2d_projection_kernel, lambda e: principal.kpca_cam(e)),
    "eigen_cam_centered": (get_2d_projection, lambda e: principal.eigen_cam(e, center=True)),
    "seg_eigen_cam": (get_2d_projection_with_sign_correction, lambda e: principal.seg_eigen_cam(e)),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_pytorch_grad_cam_makes_a_zero_of_a_nan_and_ours_shows_it(name):
    """A network that has overflowed has no component; a map that looks like any other hides it. Other images keep
    theirs."""
    theirs, ours = PROJECTIONS[name]
    a = networks.some_evidence(1, 2, 4, 3, 3).activations
    evidence = networks.evidence_of(a, torch.ones_like(a))
    whole = ours(evidence)
    broken = a.clone()
    broken[0, 1, 2, 2] = torch.nan
    assert np.isfinite(theirs(broken.numpy())).all()
    found = ours(networks.evidence_of(broken, torch.ones_like(a)))
    assert found[0].isnan().all()
    assert torch.equal(found[1], whole[1])
