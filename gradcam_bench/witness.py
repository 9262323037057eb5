"""The network as one image's metrics may question it: what it answers when pixels change, and how it then explains.

Every answer is computed in blocks of one size, the last one filled up, so that a number depends on no other image, on
no other method, and not on how the run was cut into batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Witness:
    """One image and its network.

    image: [3,H,W] float32 as it was fed (normalised), on the network's device. block: how many images go at once.
    answer: [block,3,H,W] -> logits [block,K]. probabilities: logits [N,K] -> [N,K] in [0, 1], the network's own
    activation. explainer: see `explain`. names: each unit's case id. seed: the view's. black, white: these colours
    [3,1,1] after the network's normalisation.
    """

    image: Tensor
    block: int
    answer: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    explainer: Callable[[Tensor, Sequence[int]], list[Tensor]]
    names: Sequence[str]
    seed: int
    black: Tensor
    white: Tensor

    @cached_property
    def logits(self) -> Tensor:
        """[K] float32 on the CPU, of the image itself."""
        return self.outputs(self.image[None])[0]

    def outputs(self, images: Tensor | Iterable[Tensor]) -> Tensor:
        """Logits [N,K] float32 on the CPU for images [N,3,H,W], or for stacks [n,3,H,W] of any lengths, in their order.

        Stacks are taken one by one, each copied before the next is asked for, so a generator needs no more memory than
        a block and its own stack, which it may use again."""
        buffer = torch.empty(
            (self.block, *self.image.shape), device=self.image.device, memory_format=torch.channels_last
        )
        filled, found = 0, []
        for stack in [images] if isinstance(images, Tensor) else images:
            start = 0
            while start < len(stack):
                part = stack[start : start + self.block - filled]
                buffer[filled : filled + len(part)] = part
                start, filled = start + len(part), filled + len(part)
                if filled == self.block:
                    found.append(self.answer(buffer).float().cpu())
                    filled = 0
        if filled:
            buffer[filled:] = buffer[filled - 1]
            found.append(self.answer(buffer)[:filled].float().cpu())
        return torch.cat(found) if found else self.logits.new_empty(0, len(self.logits))

    def explain(self, images: Tensor, units: Sequence[int]) -> list[Tensor]:
        """Heatmaps [h,w] of images [N,3,H,W], signed, float32, on the CPU: of image n by the method and for the class
        of unit units[n]. A method that draws draws what it drew for the unit's own heatmap."""
        return self.explainer(images, units)

    def generator(self, name: str, unit: int) -> torch.Generator:
        """Draws that depend on the seed, the name and the unit's case alone: all methods of a case get the same."""
        state = hashlib.sha256(f"{self.seed}/{name}/{self.names[unit]}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)
