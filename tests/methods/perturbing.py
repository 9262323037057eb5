"""What a method that perturbs is supplied with: the real thing, or made by hand of plain functions."""

import networks
import torch

from gradcam_bench.probe import Probe
from gradcam_bench.supplies import Supplies, shared_look


class Ask:
    """ask(images, cases) -> scores, ask.outputs(images) -> logits: of a function of images. `block` as small as wished.
    `asked` counts the images."""

    rehearsal, activation = False, "softmax"

    def __init__(self, f, targets, block=3):
        self.f, self.targets, self.block, self.asked = f, torch.as_tensor(targets), block, 0

    def outputs(self, images):
        assert len(images) <= self.block or images.requires_grad
        self.asked += len(images)
        with torch.set_grad_enabled(images.requires_grad):
            return self.f(images)

    def __call__(self, images, cases):
        asked = self.targets[cases].expand(len(images))
        return self.outputs(images)[torch.arange(len(images)), asked]


class Head(Ask):
    """The same for features."""

    def outputs(self, activations, cases=0):
        return super().outputs(activations)


def supplied(halves, images, targets, image_index=None, block=3):
    """The real supplies of Q cases."""
    index = torch.arange(len(targets)) if image_index is None else torch.tensor(image_index)
    looked = shared_look(Probe(halves.model, [halves.layer]), images, targets, index, record=True, black=networks.BLACK)
    made = Supplies(images[index], [str(q) for q in range(len(targets))], 0, looked)
    made.ask.block = block
    return made


def toy(activations, f, images, targets=(0,), gradients=None, block=3):
    """One layer's activations [Q,C,h,w] made up by hand, a function f of images [Q,3,H,W] for the network."""
    gradients = torch.ones_like(activations) if gradients is None else gradients
    targets, index = torch.tensor(targets), torch.arange(len(images))
    evidence = networks.evidence_of(activations, gradients, image_index=index, targets=targets)
    return evidence, images, Ask(f, targets, block)
