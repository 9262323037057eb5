"""What every method owes, whatever it is: each file in conf/method brings its tests along."""

import networks
import pytest
import torch
import yaml
from quick import method

from gradcam_bench import catalogue
from gradcam_bench.explain import explain_batch, heatmaps_of
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

LABELS = catalogue.names("method")
CLASSES = [(1, 3), (), (0,), (2, 1)]  # of four images; the second is asked nothing
CONTROLS = ("center", "noise")  # of no side; the others follow the picture
UNPUBLISHED = ("constant", "input_intensity", "noise")  # controls that no paper proposes
FLAT = ("constant",)  # the same everywhere by definition: degenerate, and never repaired
RANDOM = (
    "external_captum_gradient_shap",
    "external_captum_shapley_sampling",
    "external_torchcam_smooth_grad_cam_pp",
    "rise",
    "rise_8000",
    "smooth_grad",
    "ss_cam",
    "ss_cam_code",
    "var_grad",
)  # their draws are not mirrored too
RANKED = ("extremal_perturbation",)  # pixels are ranked by their masks' values, so rounding errors grow
# Weights or values are small differences of probabilities: they keep few of bfloat16's 8 bits on a random network, lose
# digits of single precision too, and may all be negative, when the map is rightly zero.
STEPS = ("fem",)  # a threshold on each channel: a bit more or less moves a place across it
LINEAR = ("smooth_grad_cam_pp", "smooth_grad_cam_pp_second")  # no noise moves the gradients of this network's head
POSITIVE_DIFFERENCES = ("group_cam_code", "poly_cam_minus")
DIFFERENCES = (
    *POSITIVE_DIFFERENCES,
    *("external_captum_feature_ablation", "group_cam", "recipro_cam", "recipro_cam_gaussian"),
)
# pytorch-grad-cam goes through numpy, which has no bfloat16; captum draws other noise in it, torchcam single precision.
SINGLE = ("external_grad_cam_grad_cam_pp", "external_grad_cam_score_cam", "external_captum_gradient_shap")
SINGLE += ("external_torchcam_smooth_grad_cam_pp",)
LOOSER = {
    "group_cam": 1e-5,
    "poly_cam_minus": 1e-5,
    "opti_cam": 1e-5,
    "opti_cam_code": 1e-4,
}  # the last two: Adam divides small gradients by small
MIRRORED = [label for label in LABELS if label not in (*CONTROLS, *RANDOM, *RANKED)]


def explain(label, images=None, classes=CLASSES, order=None, halves=None, seed=0, dtype=None):
    """{case id: map} of one method on a small network."""
    halves = halves or networks.suited(label)
    halves.model.to(dtype or torch.float32)
    batch = networks.batch(halves.images(4).float() if images is None else images, classes)
    if order is not None:
        batch = type(batch)(batch.images[order], tuple(batch.samples[b] for b in order))
    network = networks.network(halves)
    view = networks.view(seed=seed)
    cases, maps, _ = explain_batch(batch, network, Probe(halves.model, [halves.layer]), [method(label)], view)
    assert list(maps) == [label]
    assert maps[label].shape[0] == len(cases)
    return {case.id: one for case, one in zip(cases, maps[label])}


def assert_close(found, expected, relative=1e-6):
    assert found.keys() == expected.keys()
    for case, one in expected.items():
        torch.testing.assert_close(found[case], one, rtol=0, atol=relative * float(one.abs().max()), msg=case)


@pytest.mark.parametrize("label", LABELS)
def test_the_file_says_what_it_must(label):
    path = catalogue.CONF / "method" / f"{label}.yaml"
    text = path.read_text()
    assert text.startswith("# @package method\n")
    assert list(yaml.safe_load(text)) == [label]
    made = method(label)
    assert made.label == label
    assert made.about
    if label in UNPUBLISHED:
        assert made.control
        assert (made.paper, made.year) == ("", None)
    else:
        assert made.paper.endswith(f" {made.year}")
    assert "\n" not in made.about
    assert made.takes
    assert method(label).key() == made.key()


def test_no_two_methods_are_stored_as_one():
    keys = [str(method(label).key()) for label in LABELS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("label", LABELS)
def test_a_finite_map_for_each_case(label):
    found = explain(label)
    assert list(found) == ["image0#1", "image0#3", "image2#0", "image3#2", "image3#1"]
    for one in found.values():
        assert one.dtype == torch.float32
        assert one.device.type == "cpu"
        assert tuple(one.shape) in ((8, 8), (16, 16), (32, 32))  # the grid's size, an earlier one's, or the input's
        assert one.isfinite().all()
        if label in FLAT:
            assert (one == 1).all()
        else:
            assert one.amax() > one.amin() or label in POSITIVE_DIFFERENCES
        assert not one.requires_grad


@pytest.mark.parametrize("label", LABELS)
def test_the_same_again(label):
    first, again = explain(label), explain(label)
    assert all(torch.equal(first[case], again[case]) for case in first)


@pytest.mark.parametrize("label", LABELS)
def test_other_images_in_the_batch_change_nothing(label):
    together = explain(label)
    assert_close(explain(label, order=[3, 1, 0, 2]), together, LOOSER.get(label, 1e-6))
    alone = {}
    for b in range(4):
        alone |= explain(label, order=[b])
    assert_close(alone, together, LOOSER.get(label, 1e-6))


@pytest.mark.parametrize("label", LABELS)
def test_other_cases_of_the_image_change_nothing(label):
    assert_close(
        {**explain(label, classes=[(1,), (), (0,), (1,)]), **explain(label, classes=[(3,), (), (), (2,)])},
        explain(label),
    )


@pytest.mark.parametrize("label", [label for label in LABELS if "images" in method(label).takes])
def test_the_input_is_left_as_it_is_however_it_lies_in_memory(label):
    """With channels last and room for one image at a time, a method's working copy could be the input itself."""
    halves = networks.suited(label)
    halves.model.float()
    images = halves.images(2)

    def made(given):
        probe = Probe(halves.model, [halves.layer])
        looked = shared_look(probe, given, [1, 3], record=True, budget=1, black=networks.BLACK)
        return heatmaps_of([method(label)], Supplies(given, ["a", "b"], 0, looked))[0][label]

    last = images.clone(memory_format=torch.channels_last)
    found = made(last)
    assert torch.equal(last, images)
    expected = made(images.clone())
    torch.testing.assert_close(found, expected, rtol=0, atol=LOOSER.get(label, 1e-5) * float(expected.abs().max()))


@pytest.mark.parametrize("label", LABELS)
def test_no_case_at_all(label):
    assert explain(label, classes=[(), (), (), ()]) == {}


@pytest.mark.parametrize("label", LABELS)
def test_the_seed_moves_random_methods_alone(label):
    first, other = explain(label), explain(label, seed=1)
    for case, one in first.items():
        assert torch.equal(one, other[case]) == (label in LINEAR or "generators" not in method(label).takes)


@pytest.mark.parametrize("label", [label for label in LABELS if label not in (*DIFFERENCES, *FLAT, *SINGLE, *STEPS)])
def test_bfloat16(label):
    found, exact = explain(label, dtype=torch.bfloat16), explain(label)
    for case, one in found.items():
        assert one.dtype == torch.float32
        assert one.isfinite().all()
        assert torch.corrcoef(torch.stack([one.flatten(), exact[case].flatten()]))[0, 1] > 0.98


SCALES = {  # how a map grows when the last linear map's weights and bias grow fourfold
    "cam": 4,
    "grad_cam": 4,
    "hires_cam": 4,
    "layer_cam": 4,
    "elementwise_grad_cam": 4,
    "x_grad_cam": 4,
    "saliency": 4,
    "input_x_gradient": 4,
    "deconvnet": 4,
    "guided_backprop": 4,
    "guided_grad_cam": 16,
    "smooth_grad": 4,
    "var_grad": 16,
    "integrated_gradients": 4,
    "integrated_gradients_zero": 4,
    "full_grad": 1,  # min-max layer by layer
    "excitation_backprop": 1,  # shares of a whole of 1
    "contrastive_excitation_backprop": 1,
    "lrp_epsilon": 4,
    "lrp_gamma": 4,
    "lrp_alpha1_beta0": 4,
    "lrp_epsilon_plus": 4,
    "lrp_epsilon_gamma_box": 4,
    "relevance_cam": 1,
    "attention_rollout": 1,
    "le_grad": 4,
    "eigen_cam": 1,
    "eigen_cam_centered": 1,
    "center": 1,
    "constant": 1,
    "edges": 1,
    "input_intensity": 1,
    "noise": 1,
}


@pytest.mark.parametrize("label", SCALES)
def test_the_scale_of_the_scores(label):
    plain, louder = explain(label), networks.suited(label)
    with torch.no_grad():
        for parameter in louder.model.fc.parameters():
            parameter.mul_(4)
    found = explain(label, halves=louder)
    assert_close(found, {case: SCALES[label] * one for case, one in plain.items()})


@pytest.mark.parametrize("label", MIRRORED)
def test_what_is_shown_follows_the_picture(label):
    """The mirrored picture on a mirrored network gives the mirrored map."""
    halves, mirrored = networks.suited(label), networks.suited(label)
    images = halves.images(4, seed=3).float()
    for module in mirrored.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.flip(3)
    for module in (*halves.model.modules(), *mirrored.model.modules()):
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.stride, module.padding = (1, 1), (1, 1)
    plain = explain(label, images, halves=halves)
    found = explain(label, images.flip(3), halves=mirrored)
    assert_close(found, {case: one.flip(1) for case, one in plain.items()}, 1e-4)
