"""Methods of other libraries equal what the library gives when it is asked directly, and leave the network alone."""

import sys
import warnings
from types import SimpleNamespace

import captum.attr
import networks
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import gradcam_bench as gb
from gradcam_bench import catalogue
from gradcam_bench.errors import UserError
from gradcam_bench.methods import external
from gradcam_bench.supplies import Supplies

LABELS = [label for label in catalogue.names("method") if label.startswith("external_")]
TARGETS = [1, 3, 0]


def case(build=networks.gap):
    halves = build()
    halves.model.float()
    for module in halves.model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return halves, halves.images(3).float()


def explain(label, halves, images, targets=TARGETS, **more):
    made = catalogue.method(label, {**catalogue.spec("method", label), **more})
    return gb.explain(halves.model, images, targets, [made], halves.layer)[label]


def by_captum(halves, images, make, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeepLift says that it hooks activations
        maps = [
            make(halves.model).attribute(image[None].clone(), target=target, **options).sum(1).detach()
            for image, target in zip(images, TARGETS)
        ]
    return torch.cat(maps)


def squares(side):
    index = torch.arange(32) // side
    return (index[:, None] * 10 + index).unique(return_inverse=True)[1][None, None]


CAPTUM = {
    "external_captum_deep_lift": lambda h, x: by_captum(
        h, x, captum.attr.DeepLift, baselines=torch.zeros(1, 3, 32, 32)
    ),
    "external_captum_feature_ablation": lambda h, x: by_captum(
        h, x, captum.attr.FeatureAblation, feature_mask=squares(16)
    ),
    "external_captum_layer_grad_cam": lambda h, x: by_captum(
        h, x, lambda model: captum.attr.LayerGradCam(model, model.features)
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("label", CAPTUM)
def test_captum(label):
    halves, images = case()
    found, expected = explain(label, halves, images), CAPTUM[label](halves, images)
    assert expected.amin() < 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().amax()))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["GradientShap", "ShapleyValueSampling"])
def test_captums_random_methods_draw_from_the_cases_own_seed(name):
    """The expected numbers: the library under the seed that the case's generator gives."""
    label = f"external_captum_{'gradient_shap' if name == 'GradientShap' else 'shapley_value_sampling'}"
    halves, images = case()
    found = explain(label, halves, images, **({} if name == "GradientShap" else {"patch": 8}))
    options = {"n_samples": 16, "stdevs": 0.1, "baselines": torch.zeros(1, 3, 32, 32)}
    if name != "GradientShap":
        options = {"n_samples": 8, "feature_mask": squares(8)}
    generators = Supplies(images, [f"{b}#{t}" for b, t in enumerate(TARGETS)], 0).generators(label)
    for image, target, generator, one in zip(images, TARGETS, generators, found):
        seed = int(torch.randint(2**31, (), generator=generator))
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        made = getattr(captum.attr, name)(halves.model)
        expected = made.attribute(image[None].clone(), target=target, **options).sum(1)[0].detach()
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().amax()))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("label", "name"), [("grad_cam_pp", "GradCAMPlusPlus"), ("score_cam", "ScoreCAM"), ("grad_cam_pp", "LayerCAM")]
)
def test_pytorch_grad_cam(label, name, capsys):
    halves, images = case()
    found = explain(f"external_grad_cam_{label}", halves, images, name=name)
    assert capsys.readouterr().err == ""
    with getattr(pytorch_grad_cam, name)(halves.model, [halves.model.features]) as made:
        expected = made(images.clone(), [ClassifierOutputTarget(target) for target in TARGETS])
    assert expected.max() > 0.9
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["GradCAMpp", "ScoreCAM", "XGradCAM"])
def test_torchcam(name):
    halves, images = case()
    found = explain("external_torchcam_grad_cam_pp", halves, images, name=name)
    with getattr(torchcam.methods, name)(halves.model, "features", input_shape=(3, 32, 32)) as made:
        for image, target, one in zip(images, TARGETS, found):
            scores = halves.model(image[None].clone().requires_grad_())
            expected = made([target], scores, normalized=False)[0][0].detach()
            torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().amax()))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_pytorch_grad_cam_is_told_how_tokens_lie(name):
    torch.manual_seed(0)
    if name == "vit":
        model = torchvision.models.VisionTransformer(32, 8, 2, 2, 12, 20, num_classes=5)
        torch.nn.init.normal_(model.heads.head.weight)
        layer, size = "encoder.layers.encoder_layer_1.ln_1", (4, 4)
    else:
        model = torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=5)
        layer, size = "features.3.0.norm1", (4, 4)
    images = torch.randn(2, 3, 32, 32)
    halves = networks.Halves(model.eval(), layer, None, None)

    def reshape(native):
        tokens = native[:, 1:].unflatten(1, size) if name == "vit" else native
        return tokens.permute(0, 3, 1, 2)

    found = explain("external_grad_cam_grad_cam_pp", halves, images, [1, 2], name="HiResCAM")
    place = model.get_submodule(layer)
    with pytorch_grad_cam.HiResCAM(model, [place], reshape_transform=reshape) as made:
        expected = made(images.clone(), [ClassifierOutputTarget(1), ClassifierOutputTarget(2)])
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-4)


def state(model):
    hooks = [[len(getattr(m, name)) for name in ("_forward_hooks", "_backward_hooks")] for m in model.modules()]
    flags = [(m.training, getattr(m, "inplace", None)) for m in model.modules()]
    values = [(p.requires_grad, p.grad is None, p.detach().clone()) for p in model.parameters()]
    return hooks, flags, values, torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002


def same(before, after):
    assert before[:2] == after[:2]
    for (learns, bare, value), (learned, still, kept) in zip(before[2], after[2]):
        assert (learns, bare) == (learned, still)
        assert torch.equal(value, kept)
    assert torch.equal(before[3], after[3])
    assert (before[4] == after[4]).all()


@pytest.mark.parametrize("label", LABELS)
def test_the_network_is_left_as_it_was(label):
    halves = networks.gap()
    model = halves.model.float().train()
    model.fc.weight.requires_grad_(False)
    assert any(getattr(module, "inplace", False) for module in model.modules())
    before = state(model)
    explain(label, halves, halves.images(2).float(), [1, 2])
    same(before, state(model))


@pytest.mark.parametrize("label", LABELS)
def test_the_network_is_left_as_it_was_after_an_error(label, monkeypatch):
    """The second pass fails, in the middle of the library's work."""
    halves = networks.gap()
    model = halves.model.float()
    images, before, calls = halves.images(2).float(), state(model), []
    real = type(model).forward

    def failing(self, given):
        calls.append(1)
        output = real(self, given)
        if len(calls) > 1:
            raise ZeroDivisionError("mine")
        return output

    monkeypatch.setattr(type(model), "forward", failing)
    with pytest.raises(UserError, match=f"method {label} failed: ZeroDivisionError: mine"):
        explain(label, halves, images, [1, 2])
    monkeypatch.undo()
    same(before, state(model))


@pytest.mark.parametrize("label", LABELS)
def test_a_missing_package_is_named(label, monkeypatch):
    for module in list(sys.modules):
        if module.startswith(("captum", "pytorch_grad_cam", "torchcam")):
            monkeypatch.setitem(sys.modules, module, None)
    halves, images = case()
    package = {"captum": "captum", "grad_cam": "grad-cam", "torchcam": "torchcam"}
    needed = next(name for key, name in package.items() if label.startswith(f"external_{key}"))
    install = r"pip install 'gradcam-bench\[external\]'"
    with pytest.raises(UserError, match=f" needs the package {needed}: {install}"):
        explain(label, halves, images)


WRONG = {
    "external_captum_deep_lift": "unknown class of captum.attr 'DeepLifts': did you mean 'DeepLift'",
    "external_grad_cam_score_cam": "unknown class of pytorch_grad_cam 'ScoreCAMs': did you mean 'ScoreCAM'",
    "external_torchcam_grad_cam_pp": "unknown class of torchcam.methods 'GradCAMpps': did you mean 'GradCAMpp'",
}


@pytest.mark.parametrize("label", WRONG)
def test_an_unknown_class_is_named(label):
    halves, images = case()
    name = catalogue.spec("method", label)["name"]
    with pytest.raises(UserError, match=WRONG[label]):
        explain(label, halves, images, name=f"{name}s")


@pytest.mark.parametrize("label", LABELS)
def test_a_function_as_target_is_refused(label):
    halves, images = case()
    with pytest.raises(UserError, match="does not apply: its target must be a class"):
        explain(label, halves, images, [lambda output: output[:, 0]] * 3)


def test_what_gives_no_map_is_refused():
    halves, images = case()
    asked = SimpleNamespace(module=halves.model, layer="fc", targets=torch.tensor(TARGETS))
    with pytest.raises(
        UserError, match=r"LayerGradientXActivation does not apply: of layer fc it gives \[1, 4\], no map"
    ):
        external.captum(asked, images, "LayerGradientXActivation")
