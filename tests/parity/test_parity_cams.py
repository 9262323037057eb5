"""Later CAMs against pytorch-grad-cam, torchcam and scikit-learn: equal where both compute the same equation, and where
they do not, which one each side computes (seen with grad-cam 1.5.7, torchcam 0.5.0 and scikit-learn 1.9.1)."""

import networks
import numpy as np
import peers
import perturbing
import pytest
import pytorch_grad_cam
import slow_cams
import torch
import torchcam.methods
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from sklearn.decomposition import NMF, KernelPCA

from gradcam_bench.methods import activation, contrast, factors, gradient, plus_plus, principal, second_order
from gradcam_bench.probe import Probe

pytestmark = pytest.mark.parity

SAME, APART = 1e-4, 5e-3
CASES = peers.CASES
HEADS = [name for name in CASES if name != "resnet18, layer3"]  # what follows that is most of a network


def given(name):
    halves, images, targets = CASES[name]()
    return halves, images, targets, perturbing.supplied(halves, images, targets)


def at_input(maps, images):
    return peers.scaled_at_input(maps.relu(), images.shape[-2:])


def pytorch_grad_cam_maps(name, halves, images, targets, kind=ClassifierOutputTarget, **options):
    """After its ReLU, in [0, 1], [Q,H,W]."""
    layer = halves.model.get_submodule(halves.layer)
    with getattr(pytorch_grad_cam, name)(model=halves.model, target_layers=[layer], **options) as made:
        return torch.from_numpy(made(images, [kind(target) for target in targets]))


UTILITIES = {"rest": ClassifierOutputReST, "score": ClassifierOutputTarget}


@pytest.mark.parametrize("utility", UTILITIES)
@pytest.mark.parametrize("name", peers.params(HEADS))
def test_shapley_cam(name, utility):
    halves, images, targets, made = given(name)
    ours = second_order.shapley_cam(made.evidence, made.head, utility)
    theirs = pytorch_grad_cam_maps("ShapleyCAM", halves, images, targets, UTILITIES[utility])
    assert ours.amax((1, 2)).max() > 0
    assert peers.apart(at_input(ours, images), theirs) < SAME


@pytest.mark.parametrize("name", peers.params(HEADS))
def test_finer_cam_with_equal_weights_is_torchcams(name):
    halves, images, targets, made = given(name)
    ours = contrast.finer_cam(made.evidence, made.head)
    layer = halves.model.get_submodule(halves.layer)
    with torchcam.methods.FinerCAM(halves.model, layer, input_shape=images.shape[1:]) as cam:
        theirs = cam(targets, halves.model(images), normalized=False)[0].detach()
    assert peers.apart(peers.scaled(ours.relu()), peers.scaled(theirs)) < SAME


@pytest.mark.parametrize("name", peers.params(HEADS))
def test_finer_cam_with_weights_of_probability_is_pytorch_grad_cams(name):
    """Image by image: it takes one class for a whole batch, and nobody's target where targets are given."""
    halves, images, targets, made = given(name)
    ours = at_input(contrast.finer_cam(made.evidence, made.head, 1.0, 3, "softmax"), images)
    plain = at_input(contrast.finer_cam(made.evidence, made.head, 1.0, 3, "mean"), images)
    layer, apart = halves.model.get_submodule(halves.layer), []
    for q, target in enumerate(targets):
        with pytorch_grad_cam.FinerCAM(halves.model, [layer]) as cam:
            theirs = torch.from_numpy(cam(images[q : q + 1], target_idx=target))
        assert peers.apart(ours[q : q + 1], theirs) < SAME
        apart.append(peers.apart(plain[q : q + 1], theirs))
    assert max(apart) > SAME or not name.startswith("trained")  # two definitions of one name


@pytest.mark.parametrize("name", peers.params(CASES))
def test_seg_eigen_cam(name):
    halves, images, targets, made = given(name)
    ours = principal.seg_eigen_cam(made.evidence)
    assert peers.apart(at_input(ours, images), peers.grad_cam("SegEigenCAM", halves, images, targets)) < SAME


COMPONENTS = {"EigenGradCAM": principal.eigen_grad_cam, "KPCA_CAM": principal.kpca_cam}


@pytest.mark.parametrize("theirs", COMPONENTS)
@pytest.mark.parametrize("name", peers.params(n for n in CASES if n not in ("vgg11", "trained squeezenet1_1")))
def test_components_up_to_their_sign(name, theirs):
    halves, images, targets, made = given(name)
    ours = COMPONENTS[theirs](made.evidence)
    found = peers.grad_cam(theirs, halves, images, targets)
    for one, other in zip(ours, found):
        signs = [peers.scaled_at_input(sign.relu()[None], images.shape[-2:])[0] for sign in (one, -one)]
        assert min(peers.apart(f, other) for f in signs) < 10 * SAME


def test_pytorch_grad_cams_eigen_grad_cam_has_no_rule_for_its_sign():
    """The order and the sign of channels change no principal component, but the solver's sign."""
    generator, flips = torch.Generator().manual_seed(0), 0
    for _ in range(20):
        a, g = (torch.randn(1, 6, 4, 4, generator=generator) for _ in range(2))
        order = torch.randperm(6, generator=generator)
        signs = torch.randint(0, 2, (1, 6, 1, 1), generator=generator) * 2.0 - 1
        pairs = [(a, g), ((signs * a)[:, order], g[:, order])]
        ours = [principal.eigen_grad_cam(networks.evidence_of(*pair))[0] for pair in pairs]
        theirs = [torch.from_numpy(get_2d_projection((x * y).numpy()))[0] for x, y in pairs]
        assert peers.apart(*ours) < SAME
        assert min(peers.apart(theirs[0], sign * theirs[1]) for sign in (1, -1)) < SAME
        flips += peers.apart(*theirs) > SAME
    assert 0 < flips < 20


def test_scikit_learns_kernel_pca_turns_the_largest_entry_positive_and_we_agree_with_the_energy():
    """Of points where few are strong and most are weak the two rules differ."""
    turned = 0
    for seed in range(20):
        a = networks.some_evidence(seed, 1, 4, 3, 4).activations
        points = a[0].flatten(1).T.numpy()
        theirs = KernelPCA(1, kernel="sigmoid").fit_transform(points - points.mean(0)).reshape(3, 4)
        ours = principal.kpca_cam(networks.evidence_of(a, a))[0].numpy()
        assert min(np.abs(ours - sign * theirs).max() for sign in (1, -1)) < 1e-6
        assert (ours * a[0].square().sum(0).numpy()).sum() >= 0
        turned += np.abs(ours - theirs).max() > 1e-6
    assert 0 < turned < 20


@pytest.mark.parametrize("name", ["gap", "resnet18, layer3", "squeezenet1_1", "trained mobilenet_v2"])
def test_pytorch_grad_cams_fem_weighs_activations_and_the_papers_weighs_binary_maps(name):
    """Theirs: sum_k mean(B_k) A_k; the paper, its authors' code and xplique: sum_k mean(A_k) B_k."""
    halves, images, targets, made = given(name)
    evidence = made.evidence
    paper = peers.paper(slow_cams.fem, evidence)
    theirs = peers.grad_cam("FEM", halves, images, targets)
    assert peers.apart(activation.fem(evidence), paper) < SAME * paper.max()
    assert peers.apart(at_input(paper, images), theirs) > APART
    a = evidence.features
    above = a > a.mean((2, 3), keepdim=True) + 2 * a.std((2, 3), correction=0, keepdim=True)
    cause = (above.float().mean((2, 3), keepdim=True) * a).sum(1)
    assert peers.apart(at_input(cause, images), theirs) < SAME


class FixedNoise:
    """In the place of torchcam's distribution: the noise that our generators draw."""

    def __init__(self, noise):
        self.noise = list(noise)

    def sample(self, _size):
        return self.noise.pop(0)


@pytest.mark.parametrize("name", ["gap", "vgg11", "resnet18, layer3", "trained squeezenet1_1"])
def test_torchcams_smooth_grad_cam_pp(name):
    """Where the paper has D1 as the numerator and in relu(D1), it has D2 and the last sample's gradient; where the
    paper (and Grad-CAM++) has D3_ij sum_ab A_ab, it has sum_ab D3_ab A_ab; the activations that are weighted are the
    last noisy image's; and 1e-8 is added."""
    halves, images, targets, made = given(name)
    samples, sigma = 2, 0.3

    def generators():
        return [torch.Generator().manual_seed(q) for q in range(len(images))]

    drawn = [torch.randn((samples, *images.shape[1:]), generator=generator) for generator in generators()]
    noise = [sigma * torch.stack([one[n] for one in drawn]) for n in range(samples)]
    looks = [Probe(halves.model, [halves.layer]).look(images + n, targets)[halves.layer] for n in noise]
    layer = halves.model.get_submodule(halves.layer)
    with torchcam.methods.SmoothGradCAMpp(halves.model, layer, samples, sigma, input_shape=images.shape[1:]) as cam:
        cam._distrib = FixedNoise(noise)
        theirs = cam(targets, halves.model(images), normalized=False)[0].detach()

    def ours(numerator):
        arguments = made.evidence, made.images, made.look, generators(), samples, sigma, numerator
        return plus_plus.smooth_grad_cam_pp(*arguments).relu()

    features, grads = made.evidence.features.double(), torch.stack([one.gradients.double() for one in looks])
    for numerator in ("first", "second"):
        paper = [
            slow_cams.smooth_grad_cam_pp(a.numpy(), g.numpy(), numerator)
            for a, g in zip(features, grads.transpose(0, 1))
        ]
        assert peers.apart(peers.scaled(ours(numerator)), peers.scaled(torch.from_numpy(np.stack(paper)).relu())) < SAME
    assert peers.apart(peers.scaled(ours("first")), peers.scaled(theirs)) > APART
    second, third = grads.square().mean(0), grads.pow(3).mean(0)
    below = 2 * second + (third * features).sum((2, 3), keepdim=True) + 1e-8
    weights = (second / below * grads[-1].relu()).sum((2, 3))
    cause = torch.einsum("qc,qchw->qhw", weights, looks[-1].features.double()).relu()
    assert peers.apart(peers.scaled(cause), peers.scaled(theirs)) < SAME


PYRAMID = ["layer2", "layer3", "layer4"]


def several_layers(build=networks.resnet18):
    halves, images, targets = peers.case(build)
    looks = Probe(halves.model, PYRAMID).look(images, targets)
    return halves, images, targets, [looks[layer] for layer in PYRAMID]


def test_torchcam_scales_every_stage_of_layer_cam_and_the_paper_the_shallow_ones():
    halves, images, targets, looks = several_layers()
    layers = [halves.model.get_submodule(layer) for layer in PYRAMID]
    with torchcam.methods.LayerCAM(halves.model, layers, input_shape=images.shape[1:]) as cam:
        maps = cam(targets, halves.model(images))
        theirs = cam.fuse_cams([one.detach() for one in maps])
    ours = gradient.layer_cam_fused(looks)
    slow = [
        slow_cams.layer_cam_fused(
            [(one.features[q].double().numpy(), one.gradients[q].double().numpy()) for one in looks]
        )
        for q in range(3)
    ]
    assert peers.apart(ours, torch.from_numpy(np.stack(slow))) < SAME
    assert peers.apart(ours, theirs) > APART
    fused = None  # every stage, and min-max where we divide by the maximum
    for one in looks:
        scaled = (2 * peers.scaled(gradient.layer_cam(one).relu())).tanh()[:, None]
        scaled = torch.nn.functional.interpolate(scaled, ours.shape[-2:], mode="bilinear")[:, 0]
        fused = scaled if fused is None else torch.maximum(fused, scaled)
    assert peers.apart(fused, theirs) < SAME


def test_refine_cam_is_pytorch_grad_cams_but_for_its_grad_cam_pp():
    """The same product; its Grad-CAM++ adds 1e-6 to the coefficients' denominator (test_parity_divergences.py)."""
    halves, images, targets, looks = several_layers()
    with torch.no_grad():
        halves.model.fc.weight *= 1e4  # gradients beside which 1e-6 is nothing
    looks = [Probe(halves.model, PYRAMID).look(images, targets)[layer] for layer in PYRAMID]
    ours = gradient.refine_cam(looks, (3, 64, 64))
    layers = [halves.model.get_submodule(layer) for layer in PYRAMID]
    made = pytorch_grad_cam.RefineCAM(halves.model, layers)
    theirs = torch.from_numpy(made(images, [ClassifierOutputTarget(target) for target in targets]))
    assert peers.apart(peers.scaled(ours), theirs) < 10 * SAME
    for cam in made.base_cam_per_layer:
        cam.activations_and_grads.release()


def test_torchcam_multiplies_on_the_finest_grid():
    _, _, _, looks = several_layers()
    maps = [gradient.grad_cam_pp(one).relu() for one in looks]
    theirs = torchcam.methods.RefineCAM.fuse_cams([one.clone() for one in maps])
    ours = peers.scaled(gradient.refine_cam(looks, (3, *theirs.shape[-2:])))
    assert theirs.shape[-2:] == (8, 8)
    # one step apart: an enlarged map is brought to [0, 1] once more, as pytorch-grad-cam does
    again = [torch.nn.functional.interpolate(peers.scaled(one)[:, None], (8, 8), mode="bilinear")[:, 0] for one in maps]
    assert peers.apart(peers.scaled(torch.stack(again).prod(0)), theirs) < SAME
    assert peers.apart(peers.scaled(torch.stack([peers.scaled(one) for one in again]).prod(0)), ours) < SAME


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("name", ["gap", "squeezenet1_1", "trained mobilenet_v2"])
def test_scikit_learns_factorisation_from_the_same_start(name):
    matrix = given(name)[3].evidence.activations[0].double().relu().flatten(1)
    left, right = (part.numpy() for part in factors.start(matrix, 5))
    model = NMF(5, init="custom", solver="mu", tol=0, max_iter=20)
    expected = model.fit_transform(matrix.numpy(), W=left.copy(), H=right.copy())
    found = factors.factorize(matrix, 5, 20)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6 * expected.max())
    np.testing.assert_allclose(found[1].numpy(), model.components_, atol=1e-6 * model.components_.max())


def test_scikit_learns_start():
    from sklearn.decomposition._nmf import _initialize_nmf

    matrix = given("gap")[3].evidence.activations[0].double().flatten(1)
    expected = _initialize_nmf(matrix.numpy(), 4, "nndsvda", random_state=0)
    for found, other in zip(factors.start(matrix, 4), expected):
        np.testing.assert_allclose(found.numpy(), other, atol=1e-6 * other.max())


def test_pytorch_grad_cams_factors_depend_on_their_random_start():
    """Ours ask the same of the activations (its error is as small), but begin where the singular vectors say."""
    a = given("squeezenet1_1")[3].evidence.activations[:1].double()
    concepts, maps = dff(a.numpy().copy(), n_components=3)
    matrix = a[0].flatten(1)
    shift = matrix.amin(1, keepdim=True)
    theirs = torch.from_numpy(concepts).double() - shift
    error = (theirs @ torch.from_numpy(maps[0]).double().flatten(1) - (matrix - shift)).norm()
    left, right = factors.factorize(matrix - shift, 3, 500)
    assert float((left @ right - (matrix - shift)).norm()) < 1.1 * float(error)
