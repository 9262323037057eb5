"""Nothing is left behind: after many images as after a few, and where the network fails in the middle."""

import gc
import os
from pathlib import Path

import networks
import pytest
import torch
from quick import method

from gradcam_bench import UserError, catalogue
from gradcam_bench.explain import explain_batch
from gradcam_bench.probe import Probe

LABELS = catalogue.names("method")
MEGABYTES = 8  # what an allocator may keep between 500 images and 2,000


def run(label, halves, images, passes):
    """`passes` batches of four images, one case each, as a run has them: one probe, one method."""
    probe, network, made = Probe(halves.model, [halves.layer]), networks.network(halves), method(label)
    batch = networks.batch(images, [(0,), (1,), (2,), (3,)])
    for _ in range(passes):
        explain_batch(batch, network, probe, [made], networks.view())


def small(label="grad_cam"):
    halves = networks.suited(label)
    halves.model.float()
    return halves, halves.images(4).float()


def tensors():
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def state(model):
    """All that a caller could notice of a model and of torch."""
    return {
        "hooks": [[len(v) for k, v in vars(m).items() if k.endswith("hooks")] for m in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad is None for parameter in model.parameters()],
        "values": [value.tolist() for value in model.state_dict().values()],
        "random": torch.get_rng_state().tolist(),
        "grad_mode": torch.is_grad_enabled(),
        "inplace": [getattr(module, "inplace", None) for module in model.modules()],
    }


@pytest.mark.parametrize("label", LABELS)
def test_forty_images_leave_nothing(label):
    halves, images = small(label)
    next(halves.model.children()).train()  # a part of it, as one that is being tuned
    list(halves.model.parameters())[-1].requires_grad_(False)
    run(label, halves, images, 1)  # what is kept once, such as a Gaussian
    before, alive = state(halves.model), tensors()
    run(label, halves, images, 10)
    assert state(halves.model) == before
    assert tensors() <= alive


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("label", [label for label in LABELS if not method(label).control])
def test_a_network_that_fails_in_the_middle(label, nth):
    """It fails in its n-th forward pass, where a method asks for so many, at the target layer."""
    halves, images = small(label)
    halves.model.train()
    left = nth

    def fail(*_):
        nonlocal left
        left -= 1
        if left == 0:
            raise RuntimeError("the network gave up")

    handle = halves.model.get_submodule(halves.layer).register_forward_hook(fail)
    before = state(halves.model)
    said = ""
    try:
        run(label, halves, images, 1)
    except UserError as error:
        said = str(error)
    assert ("the network gave up" in said) == (left <= 0)
    assert left <= 0 or nth > 1 or not method(label).sees
    assert state(halves.model) == before
    handle.remove()


def test_what_is_left_is_seen():
    """The counts above can tell: a tensor that is kept, a hook, a mode, a gradient."""
    halves, images = small()
    before, alive = state(halves.model), tensors()
    kept = [images + 1]
    assert tensors() == alive + len(kept)
    halves.model.fc.register_forward_hook(lambda *_: None)
    halves.model.stem.train()
    halves.model.fc.bias.grad = torch.zeros(4)
    found = state(halves.model)
    assert {name for name in before if found[name] != before[name]} == {"hooks", "training", "grad"}


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here to read the memory from")
@pytest.mark.parametrize("label", LABELS)
def test_two_thousand_images_take_no_more_memory_than_five_hundred(label):
    halves, images = small(label)
    run(label, halves, images, 125)
    before = resident()
    run(label, halves, images, 375)
    assert resident() - before < MEGABYTES * 2**20
