"""From a batch to heatmaps: cases and their ids, padding, controls without a model, and the dry run's refusals."""

import math
from dataclasses import replace

import networks
import pytest
import quick
import torch
import torchvision
from torch import nn

import gradcam_bench as gb
from gradcam_bench import catalogue
from gradcam_bench.answers import Case
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_batch
from gradcam_bench.methods import controls
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.probe import Probe
from gradcam_bench.rehearsal import check
from gradcam_bench.witnesses import witness_of

CLASSES = [(1, 3), (2,), (), (0, 1, 2), (1,)]


def methods(*labels):
    return [quick.method(label) for label in labels]


def explain(halves, images, classes, *labels, pad_to=0, **view):
    network = networks.network(halves)
    probe = Probe(halves.model, [halves.layer])
    batch = networks.batch(images, classes)
    return explain_batch(batch, network, probe, methods(*labels), networks.view(**view), pad_to)


def single(halves):
    halves.model.float()
    return halves


NETWORKS = {
    "gap": lambda: single(networks.gap()),
    "vgg11": networks.vgg11,
    "resnet18": networks.resnet18,
    "mobilenet_v2": networks.mobilenet_v2,
}


def labels_for(name):
    """Every method that applies; on all but the smallest network those that need few passes."""
    labels = [label for label in catalogue.names("method") if "attentions" not in quick.method(label).takes]
    labels = [label for label in labels if label != "foreground" and (name != "vgg11" or label != "cam")]
    return labels if name == "gap" else quick.few_passes(labels)


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_no_bit(name):
    """A smaller last batch, padded to the full size, gives the bits that its images have in a full batch."""
    halves = NETWORKS[name]()
    labels = labels_for(name)
    images = halves.images(5).float()
    cases, whole, _ = explain(halves, images, CLASSES, *labels, pad_to=5)
    for count in (4, 2, 1):
        part, maps, _ = explain(halves, images[:count], CLASSES[:count], *labels, pad_to=5)
        assert [said(case) for case in part] == [said(case) for case in cases[: len(part)]]
        for label in labels:
            assert torch.equal(maps[label], whole[label][: len(part)]), (label, count)


def said(case):
    return case.id, case.logit, case.probability, case.rank, case.predicted


@pytest.mark.parametrize("name", NETWORKS)
def test_one_case_an_image_gives_the_same_bits_padded_or_not(name):
    """With one case each, activations are taken as they are; padded, they are picked by index: both the same."""
    halves = NETWORKS[name]()
    labels = labels_for(name)
    images, classes = halves.images(4).float(), [(1,), (0,), (2,), (3,)]
    _, whole, _ = explain(halves, images, classes, *labels)
    _, part, _ = explain(halves, images[:3], classes[:3], *labels, pad_to=4)
    for label in labels:
        assert torch.equal(part[label], whole[label][:3]), label


def test_cases_say_what_the_model_says():
    halves = networks.gap()
    images = halves.images(5)
    logits = halves.head(halves.stem(images)).detach()
    cases, *_ = explain(halves, images, CLASSES, "grad_cam")
    asked = [(b, c) for b, classes in enumerate(CLASSES) for c in classes]
    assert [case.id for case in cases] == [f"image{b}#{c}" for b, c in asked]
    for case, (b, c) in zip(cases, asked):
        assert case.logit == pytest.approx(logits[b, c].item(), rel=1e-5)
        assert case.probability == pytest.approx((logits[b].exp() / logits[b].exp().sum())[c].item(), rel=1e-5)
        assert case.rank == sum(logits[b].tolist()[k] > logits[b, c] for k in range(4))
        assert case.predicted == logits[b].tolist().index(max(logits[b].tolist()))


@pytest.mark.parametrize(("target", "each"), [("predicted", 1), ("top5", 4)])
def test_cases_chosen_by_the_model(target, each):
    halves = networks.gap()
    images = halves.images(3)
    for pad_to in (0, 6):
        cases, maps, _ = explain(halves, images, [(0,)] * 3, "grad_cam", target=target, pad_to=pad_to)
        assert [case.rank for case in cases] == list(range(each)) * 3
        assert len(maps["grad_cam"]) == 3 * each


def test_a_class_that_the_model_does_not_have():
    with pytest.raises(UserError, match="class 9 is asked for, and the model has 4 classes"):
        explain(networks.gap(), networks.gap().images(2), [(1,), (9,)], "grad_cam")


def test_the_view_says_what_is_differentiated():
    halves = networks.gap()
    images = halves.images(1)
    network = networks.network(halves)
    batch = networks.batch(images, [(1,)])
    found = {}
    for score in ("logit", "exp"):
        probe = Probe(halves.model, ["features"], score)
        found[score] = explain_batch(batch, network, probe, methods("grad_cam"), networks.view(score=score))[1]
    logit = halves.head(halves.stem(images))[0, 1].item()
    expected = found["logit"]["grad_cam"] * math.exp(logit)
    torch.testing.assert_close(found["exp"]["grad_cam"], expected, rtol=1e-4, atol=1e-7)


def without_model(batch, *labels, seed=0):
    return explain_batch(batch, None, None, methods(*labels), networks.view(seed=seed))


def test_controls_need_no_model():
    images = torch.randn(3, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    batch = networks.batch(images, [(1, 3), (), (2,)])
    cases, maps, _ = without_model(batch, "center", "noise")
    assert [case.id for case in cases] == ["image0#1", "image0#3", "image2#2"]
    assert {(case.logit, case.rank, case.predicted) for case in cases} == {(None, None, None)}
    assert maps["center"].shape == maps["noise"].shape == (3, 6, 9)
    assert torch.equal(maps["center"], controls.center((3, 6, 9)))
    with pytest.raises(UserError, match="grad_cam needs a model"):
        without_model(batch, "center", "grad_cam")


def test_noise_depends_on_seed_label_and_case_alone():
    images = torch.randn(3, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    batch = networks.batch(images, [(1, 3), (), (2,)])
    plain = without_model(batch, "noise")[1]["noise"]
    assert len({one.sum().item() for one in plain}) == 3
    torch.manual_seed(99)
    assert torch.equal(without_model(batch, "center", "noise")[1]["noise"], plain)
    assert not torch.equal(without_model(batch, "noise", seed=1)[1]["noise"], plain)
    last = type(batch)(torch.zeros(1, 3, 6, 9), batch.samples[2:])
    assert torch.equal(without_model(last, "noise")[1]["noise"], plain[2:])
    renamed = catalogue.method("other", catalogue.spec("method", "noise"))
    found = explain_batch(batch, None, None, [renamed], networks.view())[1]["other"]
    assert not torch.equal(found, plain)
    halves = single(networks.gap())
    images = halves.images(1).float()
    with_model = explain(halves, images, [(1,)], "noise")[1]["noise"]
    assert torch.equal(with_model, without_model(networks.batch(images, [(1,)]), "noise")[1]["noise"])


def test_noise_is_what_it_was():
    """Stored runs are compared with new ones: the numbers behind (seed, label, case) may not move."""
    batch = networks.batch(torch.zeros(1, 3, 1, 2), [(7,)])
    found = without_model(batch, "noise")[1]["noise"]
    assert found.flatten().tolist() == pytest.approx(NOISE, abs=0)


NOISE = [0.7410367131233215, 0.42481279373168945]


# The dry run


def dry_run(halves, *labels, layer=None, size=None):
    network = networks.network(halves)
    return check(network, Probe(halves.model, [layer or halves.layer]), methods(*labels), size or halves.size)


def test_the_dry_run_passes_what_can_be_explained():
    halves = networks.resnet18()
    before = {name: value.clone() for name, value in halves.model.state_dict().items()}
    assert dry_run(halves, *quick.few_passes(catalogue.names("method"))) == {}
    assert all(torch.equal(value, before[name]) for name, value in halves.model.state_dict().items())


@pytest.mark.parametrize("halves", [networks.vgg11, networks.squeezenet1_1])
def test_cam_is_refused_and_the_others_go_on(halves):
    refused = dry_run(halves(), *quick.few_passes(catalogue.names("method")), "generic_attention")
    assert set(refused) == {"cam", "generic_attention"}
    for label, sentence in refused.items():
        assert sentence.startswith(f"{label} does not apply: ")


def test_nothing_left_to_do_is_an_error():
    with pytest.raises(UserError, match="cam does not apply"):
        dry_run(networks.vgg11(), "cam")


def test_a_layer_that_is_no_grid_is_refused_with_those_that_would_do():
    with pytest.raises(UserError) as caught:
        dry_run(networks.resnet18(), "grad_cam", layer="fc")
    assert "gives no grid" in str(caught.value)
    assert "layers of tiny that would do: layer4, layer4.1," in str(caught.value)
    assert "avgpool" not in str(caught.value)  # its grid has one cell


class Dead(networks.Gap):
    """Its score does not depend on `stem`'s values, or its gradient there is zero."""

    def forward(self, images):
        return self.fc(self.features(self.stem(images) * 0).mean((2, 3)))


def test_a_layer_whose_gradient_is_zero_is_refused():
    torch.manual_seed(0)
    model = Dead().eval()
    halves = networks.Halves(model, "stem", model.stem, model.fc)
    with pytest.raises(
        UserError, match=r"layer stem: .*gradient is zero everywhere; layers of tiny that would do: fea"
    ):
        dry_run(halves, "grad_cam")


def test_the_candidates_leave_the_model_as_it_was():
    """A network that comes in training mode: listing its layers may not move its running statistics."""
    model = networks.Gap()
    model.train()
    halves = networks.Halves(model, "fc", model.stem, model.fc)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(UserError, match="would do: features"):
        dry_run(halves, "grad_cam")
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_fails_on_the_input_is_named():
    class Picky(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.conv, self.error = nn.Conv2d(3, 4, 3), error

        def forward(self, images):
            raise self.error("these pixels do not fit")

    for error in (RuntimeError, ValueError, AssertionError):
        model = Picky(error)
        halves = networks.Halves(model, "conv", model.conv, model.conv)
        with pytest.raises(UserError, match="tiny fails on a 32x32 input: these pixels do not fit"):
            dry_run(halves, "grad_cam")


def test_a_transformer_fed_the_wrong_size_is_named():
    with torch.device("meta"):
        model = torchvision.models.vit_b_32(num_classes=3)
    model.conv_proj.to_empty(device="cpu")
    halves = networks.Halves(model, "conv_proj", model.conv_proj, model.heads)
    with pytest.raises(UserError, match="tiny fails on a 64x64 input: Wrong image"):
        dry_run(halves, "grad_cam", size=64)


def test_positives_are_the_classes_above_one_half():
    halves = single(networks.gap())
    images = halves.images(4).float()
    network = replace(networks.network(halves), activation="sigmoid")
    batch = networks.batch(images, [(0,)] * 4)
    probe = Probe(halves.model, [halves.layer])
    cases, maps, _ = explain_batch(batch, network, probe, methods("grad_cam"), networks.view(target="positives"), 6)
    with torch.no_grad():
        logits = halves.head(halves.stem(images))
    expected = [f"image{b}#{c}" for b in range(4) for c in range(4) if logits[b, c] > 0]
    assert 0 < len(expected) < 16
    assert [case.id for case in cases] == expected
    assert len(maps["grad_cam"]) == len(expected)


def test_probabilities_are_the_networks_own():
    """A multi-label network's are sigmoids: of the image under each mask, and of the features of each place alone."""
    halves = single(networks.gap())
    images, labels = halves.images(1).float(), ("recipro_cam", "score_cam_code")
    network = replace(networks.network(halves), activation="sigmoid")
    probe, batch = Probe(halves.model, [halves.layer]), networks.batch(images, [(1,)])
    maps = explain_batch(batch, network, probe, methods(*labels), networks.view()).maps
    a = halves.stem(images).detach()[0]
    places = torch.eye(a[0].numel()).reshape(-1, 1, *a.shape[1:])
    with torch.no_grad():
        alone = halves.head(places * a.flatten(1).T[:, :, None, None])[:, 1].sigmoid()
        total = torch.zeros(a.shape[1:])
        for one in a:
            if one.max() > one.min():
                mask = nn.functional.interpolate(one[None, None], images.shape[2:], mode="bilinear")[0, 0]
                shown = (mask - mask.min()) / (mask.max() - mask.min()) * images
                total += halves.model(shown)[0, 1].sigmoid() * one
    torch.testing.assert_close(maps["recipro_cam"][0].flatten(), alone)
    torch.testing.assert_close(maps["score_cam_code"][0], total)
    assert check(network, probe, methods(*labels), 32) == {}


@pytest.mark.parametrize("label", ["integrated_gradients", "integrated_grad_cam", "opti_cam_code"])
@pytest.mark.parametrize("way", ["run", "witness", "python"])
def test_black_is_that_of_the_networks_own_normalisation(label, way):
    """On a way from black to black nothing ever changes: with mean and deviation 0.5 that is an image of -1."""
    halves = networks.gap()
    images, seen = -torch.ones(1, 3, 32, 32), []
    halves.model.float().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    recipe = Preprocessing("warp", 32, None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network, probe = replace(networks.network(halves), preprocessing=recipe), Probe(halves.model, ["features"])
    chosen, batch = catalogue.method(label, catalogue.spec("method", label)), networks.batch(images, [(1,)])
    view = networks.view()
    if way == "run":
        found = explain_batch(batch, network, probe, [chosen], view).maps[label]
    elif way == "witness":
        case = Case(batch.samples[0], 1)
        found = witness_of(network, probe, view, [(case, chosen)]).explain(images, [0])[0]
    else:
        half = (0.5, 0.5, 0.5)
        found = gb.explain(halves.model, images, [1], [label], "features", mean=half, std=half)[label]
    assert all((one == -1).all() for one in seen)
    assert len(seen) > 1
    assert label == "opti_cam_code" or not found.any()


def test_a_witness_answers_by_the_networks_own_probabilities():
    """Of a network whose classes have a sigmoid each, what is asked again is what the run had."""
    halves = single(networks.gap())
    network, probe = replace(networks.network(halves), activation="sigmoid"), Probe(halves.model, ["features"])
    (chosen,), batch = methods("score_cam_code"), networks.batch(halves.images(1), [(1,)])
    expected = explain_batch(batch, network, probe, [chosen], networks.view()).maps["score_cam_code"]
    asked = witness_of(network, probe, networks.view(), [(Case(batch.samples[0], 1), chosen)])
    torch.testing.assert_close(asked.explain(batch.images, [0])[0], expected[0])
