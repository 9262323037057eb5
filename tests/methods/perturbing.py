"""What a method that perturbs is supplied with, made of plain functions: no hooks, nothing shared, nothing chunked."""

from types import SimpleNamespace

import networks
import torch


class Ask:
    """ask(images, cases) -> scores, ask.outputs(images) -> logits: of a function of images. `block` as small as wished.
    `asked` counts the images."""

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
    """The same for features; all at once where channels are taken away."""

    def __init__(self, f, targets, features):
        super().__init__(lambda a, *_: f(a), targets, 10**9)
        self.features = features

    def outputs(self, activations, cases=0):
        return super().outputs(activations)

    def without_channels(self, case):
        features = self.features[case]
        channels = torch.eye(len(features), dtype=torch.bool)
        return self(features.where(~channels[:, :, None, None], 0.0), case)


def supplied(halves, images, targets, image_index=None, block=3):
    """evidence, images (one a case), ask, head, generators of Q cases on a network with written-out halves."""
    index = torch.arange(len(targets)) if image_index is None else torch.tensor(image_index)
    activations, targets = halves.stem(images.clone()).detach(), torch.tensor(targets)
    gradients = networks.naive_gradients(halves, images, targets.tolist(), index.tolist())
    evidence = evidence_of(halves.head, activations, gradients, index, targets)
    return SimpleNamespace(
        evidence=evidence,
        images=images[index],
        ask=Ask(lambda x: halves.head(halves.stem(x.clone())), targets, block),
        head=Head(halves.head, targets, evidence.features),
        generators=[torch.Generator().manual_seed(n) for n in range(len(index))],
        pyramid=[evidence],
    )


def evidence_of(head, activations, gradients, index, targets):
    with torch.no_grad():
        logits = head(activations)
    return networks.evidence_of(
        activations,
        gradients,
        logits=logits,
        image_index=index,
        targets=targets,
        scores=logits[index, targets],
    )


def toy(activations, f, images, targets=(0,), gradients=None, block=3):
    """One layer's activations [Q,C,h,w] made up by hand, a function f of images [Q,3,H,W] for the network."""
    gradients = torch.ones_like(activations) if gradients is None else gradients
    targets, index = torch.tensor(targets), torch.arange(len(images))
    scores = f(images)[index, targets]
    evidence = networks.evidence_of(activations, gradients, image_index=index, targets=targets, scores=scores)
    return evidence, images, Ask(f, targets, block)
