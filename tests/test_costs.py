"""What heatmaps cost: each method's passes and seconds, as if it were alone, whatever else is in the run."""

import time
from functools import cache

import networks
import pytest
from quick import method

from gradcam_bench import catalogue
from gradcam_bench.explain import heatmaps_of
from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look

LABELS = catalogue.names("method")
CHANNELS, CELLS, PIXELS = 5, 64, 1024  # of the small network's target layer, and of its input

ONE = (1, 0, 0)  # activations are read, gradients are not
BOTH = (1, 0, 1)
PASSES = {  # of a heatmap on the small network: whole, head's, backward
    **dict.fromkeys(("center", "constant", "edges", "input_intensity", "noise"), (0, 0, 0)),
    **dict.fromkeys(("cam", "eigen_cam", "eigen_cam_centered", "kpca_cam", "fem", "foreground"), ONE),
    **dict.fromkeys(("grad_cam", "grad_cam_no_relu", "grad_cam_gmp", "grad_cam_abs", "counterfactual_grad_cam"), BOTH),
    **dict.fromkeys(("grad_cam_pp", "grad_cam_pp_code", "x_grad_cam", "hires_cam", "elementwise_grad_cam"), BOTH),
    **dict.fromkeys(("layer_cam", "layer_cam_code", "eigen_grad_cam", "seg_eigen_cam"), BOTH),
    **dict.fromkeys(("layer_cam_fused", "refine_cam"), BOTH),  # one look at all layers
    "ablation_cam": (1, CHANNELS, 0),
    **dict.fromkeys(("recipro_cam", "recipro_cam_gaussian"), (1, CELLS, 0)),
    "deep_feature_factorization": (1, 5, 0),
    **dict.fromkeys(("finer_cam", "finer_cam_weighted", "shapley_cam_logit"), (1, 1, 1)),
    **dict.fromkeys(("shapley_cam", "shapley_cam_code"), (1, 1, 2)),  # gradient, Hessian times activations
    "grad_cam_pp_numeric": (1, 1, 3),
    **dict.fromkeys(("saliency", "input_x_gradient", "deconvnet", "guided_backprop", "full_grad"), BOTH),
    **dict.fromkeys(
        ("lrp_epsilon", "lrp_gamma", "lrp_alpha1_beta0", "lrp_epsilon_plus", "lrp_epsilon_gamma_box"), BOTH
    ),
    **dict.fromkeys(("excitation_backprop", "excitation_backprop_code"), BOTH),
    **dict.fromkeys(("contrastive_excitation_backprop", "contrastive_excitation_backprop_code"), (1, 0, 2)),
    **dict.fromkeys(("grad_cam_guided_relu", "grad_cam_deconv_relu", "relevance_cam"), (2, 0, 1)),  # and activations
    "guided_grad_cam": (2, 0, 2),
    **dict.fromkeys(("smooth_grad", "var_grad", "integrated_gradients", "integrated_gradients_zero"), (50, 0, 50)),
    "integrated_grad_cam": (51, 0, 51),
    "integrated_grad_cam_code": (50, 0, 50),
    **dict.fromkeys(("smooth_grad_cam_pp", "smooth_grad_cam_pp_second"), (5, 0, 4)),
    **dict.fromkeys(("score_cam", "score_cam_code", "score_cam_softmax"), (1 + CHANNELS, 0, 0)),
    **dict.fromkeys(("is_cam", "is_cam_code"), (1 + 10 * CHANNELS, 0, 0)),
    **dict.fromkeys(("ss_cam", "ss_cam_code"), (1 + 35 * CHANNELS, 0, 0)),
    "rise": (200, 0, 0),
    "rise_8000": (400, 0, 0),
    "opti_cam": (1 + 11, 0, 11),
    "extremal_perturbation": (20 * 4, 0, 20 * 4),
    **dict.fromkeys(("attention_rollout", "generic_attention", "le_grad", "le_grad_code"), BOTH),
    **dict.fromkeys(("external_captum_layer_grad_cam", "external_grad_cam_grad_cam_pp"), BOTH),
    **{f"external_torchcam_{name}": BOTH for name in ("grad_cam", "grad_cam_pp", "layer_cam")},
    "external_torchcam_smooth_grad_cam_pp": (1 + 4, 0, 4),
    "external_grad_cam_score_cam": (1 + CHANNELS, 0, 0),
    "external_captum_feature_ablation": (1 + 49, 0, 0),
    "external_captum_gradient_shap": (20, 0, 20),
    "external_captum_shapley_sampling": (1 + 5 * 49, 0, 0),
    "external_captum_deep_lift": (2 + 2, 0, 2),  # image and baseline, and again to check the sum
}


def costs(labels, model_of=networks.suited):
    """{label: Cost} of methods in this order, of one heatmap each; all on one network."""
    halves = model_of(labels[0])
    halves.model.float()
    images = halves.images(2)
    probe = Probe(halves.model, [halves.layer])
    for _ in range(2):  # once to find its way
        looked = shared_look(probe, images, [1, 3], record=True, black=networks.BLACK)
    found = heatmaps_of([method(label) for label in labels], Supplies(images, ["a", "b"], 0, looked))[1]
    return {label: cost.per(2) for label, cost in found.items()}


def passes(cost):
    return cost.forwards, cost.head_forwards, cost.backwards


@cache
def in_company(backwards):
    """{label: passes} of all methods in one run: one a network, as few apply to another than the common one."""
    found = {}
    for kind in range(3):
        labels = [one for one in LABELS if (one == "foreground") + 2 * ("attentions" in method(one).takes) == kind]
        found |= {label: passes(cost) for label, cost in costs(labels[::-1] if backwards else labels).items()}
    return found


@pytest.mark.parametrize("label", LABELS)
def test_a_method_costs_the_same_alone_first_and_last(label):
    alone = passes(costs([label])[label])
    assert alone == in_company(False)[label] == in_company(True)[label]
    if label in PASSES:
        assert alone == PASSES[label]
    else:  # what depends on how many channels vary, or how often the score fell
        assert alone[0] > CHANNELS or label.startswith("group_cam")
    assert any(alone) != method(label).control


def test_what_the_table_of_passes_leaves_out():
    poly = ("poly_cam", "poly_cam_code", "poly_cam_minus", "poly_cam_plus")
    assert {*LABELS} - {*PASSES} == {"group_cam", "group_cam_code", "occlusion", "opti_cam_code", *poly}
    assert {label: in_company(False)[label][1:] for label in poly} == dict.fromkeys(poly, (0, 0))  # features alone


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for the passes of `timed` networks."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def timed(clock):
    """A network whose forward pass takes a second, and its backward pass two."""
    halves = networks.gap()
    forward = halves.model.forward

    def passes_time(seconds):
        clock[0] += seconds

    def slow(images):
        passes_time(1)
        output = forward(images)
        if output.requires_grad:
            output.register_hook(lambda _: passes_time(2))
        return output

    halves.model.forward = slow
    return halves


SECONDS = {  # of a batch of two: of the look, the look at several layers, and the passes to the pixels
    **{"eigen_cam": 1, "grad_cam": 3, "hires_cam": 3, "layer_cam_fused": 3, "refine_cam": 3},
    **{"saliency": 3, "deconvnet": 3, "contrastive_excitation_backprop": 5, "guided_grad_cam": 3 + 3, "noise": 0},
    "poly_cam_plus": 1 + 4 + 1,  # the look, the masked images of two layers and cases, and a dry run for their blocks
}


@pytest.mark.parametrize("order", [1, -1])
def test_the_seconds_of_a_shared_pass_are_each_users(order, clock):
    """The second to ask pays what the first paid, and who reads no gradients pays for no backward pass."""
    found = costs([*SECONDS][::order], lambda _: timed(clock))
    assert {label: cost.seconds * 2 for label, cost in found.items()} == SECONDS
