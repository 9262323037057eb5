"""Asking the network about other images: scores of a case's target for images that somebody changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradcam_bench.cases import Score, case_scores, one_each, scores_in, unique_functions
from gradcam_bench.ledger import Cost
from gradcam_bench.probe import Probe

LARGEST = {"cpu": 16, "cuda": 256}  # images at once beyond which nothing is gained
ROOM = 3  # what a pass holds at once, in the largest inputs and outputs of its modules


class Ask:
    """ask(images [N,3,H,W], cases) -> scores [N]; see `__call__`. block: how many images fit `budget` bytes at once,
    the same for all images of one size. rehearsal: one image stands for all, to see whether a method works at all.
    activation: what makes probabilities of the logits, see `cases.probabilities`."""

    def __init__(
        self,
        probe: Probe,
        example: Tensor,
        targets: Sequence[int | Score],
        cost: Cost,
        budget: int,
        rehearsal: bool = False,
        activation: str = "softmax",
    ) -> None:
        self._probe, self._targets, self._cost, self.rehearsal = probe, list(targets), cost, rehearsal
        self.activation = activation
        self._like = next(probe.model.parameters())
        most = LARGEST.get(example.device.type, 16)
        self.block = max(min(budget // max(ROOM * _bytes_of_one(probe, example), 1), most), 1)
        self._rehearsed: Any = None

    def __call__(self, images: Tensor, cases: Tensor | int) -> Tensor:
        """Scores [N] of the targets of cases (one for all, or [N]) when the network sees images [N,3,H,W].

        In blocks and without a graph, or in one piece where the images require grad.
        """
        index = [cases] * len(images) if isinstance(cases, int) else cases.tolist()
        scores, start = [], 0
        for output, count in self._outputs(images):
            targets = [self._targets[q] for q in index[start : start + count]]
            functions = {id(t): one_each(t(output), count) for t in unique_functions(targets)}
            rows = torch.arange(count, device=images.device)
            scores.append(case_scores(self._probe.score, scores_in(output), functions, targets, rows))
            start += count
        return torch.cat(scores)

    def outputs(self, images: Tensor) -> Tensor:
        """Logits [N,K] for images [N,3,H,W] (means over positions where the model scores several)."""
        return torch.cat([scores_in(output).mean(2) for output, _ in self._outputs(images)])

    def _outputs(self, images: Tensor) -> Iterator[tuple[Any, int]]:
        differentiable = images.requires_grad
        block = len(images) if differentiable else self.block
        self._cost.forwards += len(images)
        if differentiable:
            images.register_hook(self._went_back)
        for part in images.split(max(block, 1)):
            if self.rehearsal:
                yield self._rehearse(part), len(part)
                continue
            with self._probe.as_found(), torch.set_grad_enabled(differentiable):
                fed = part.to(self._like.device, self._like.dtype, memory_format=torch.channels_last)
                yield self._probe.model(fed), len(part)

    def _went_back(self, gradients: Tensor) -> None:
        """Each backward pass that reaches the images is counted."""
        self._cost.backwards += len(gradients)

    def _rehearse(self, images: Tensor) -> Tensor:
        """Logits [N,K] of one image that was asked first, in the place of all."""
        if self._rehearsed is None:
            with self._probe.as_found(), torch.no_grad():
                output = self._probe.model(images[:1].to(self._like, memory_format=torch.channels_last))
                self._rehearsed = scores_in(output).mean(2)
        return self._rehearsed.expand(len(images), -1) + 0 * images.float().mean((1, 2, 3))[:, None]


def _bytes_of_one(probe: Probe, example: Tensor) -> int:
    """What the largest module of the network reads and writes for one image [1,3,H,W], in bytes; found once a size."""
    size = example.shape[1:]
    if size not in probe.sizes:
        largest = [example.numel() * example.element_size()]

        def note(_module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
            largest[0] = max(largest[0], sum(t.numel() * t.element_size() for t in tensors))

        hooks = [module.register_forward_hook(note) for module in probe.model.modules()]
        try:
            probe.forward(example[:1])
        finally:
            for hook in hooks:
                hook.remove()
        probe.sizes[size] = largest[0]
    return probe.sizes[size]
