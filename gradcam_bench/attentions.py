"""Attention as evidence: the weights of a transformer's blocks, and the gradients of cases' scores at them.

A method gets them for some cases at a time and says what they mean for each token; what it says becomes maps on the
grid of patches. Graphs hold a network's every activation, so images go through in blocks that fit the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees

from gradcam_bench.attending import Plan, Watching, plan
from gradcam_bench.cases import Score, case_scores, one_each, ranks_of, scores_in, unique_functions
from gradcam_bench.errors import UserError
from gradcam_bench.ledger import Cost
from gradcam_bench.machine import default_budget
from gradcam_bench.probe import Probe

LARGEST = {"cpu": 8, "cuda": 64}  # images at once beyond which nothing is gained
NO_BLOCKS = "the attention of this network lies in no list of blocks that have one each"
NO_TOKENS = "the blocks of this network do not give tokens [B,N,C]"
Look = Callable[[Tensor, list[int], Tensor], Tensor]  # images, cases, whose image in them each case is -> [n,N]


@dataclass(frozen=True)
class Attended:
    """Attention of n cases, one tensor a block in order of execution. weights [n,heads,N,N]: of every token (row) to
    every other (column). gradients likewise: of each case's score, of the last block alone where no more was asked.
    reads [n,N]: the tokens that the score is read from, in equal parts which add up to 1: the class token, or all that
    are averaged; zeros where it depends on none. A pooling by attention comes last, as M queries [n,heads,M,N]; then
    reads is [n,M].
    """

    weights: list[Tensor]
    gradients: list[Tensor]
    reads: Tensor


class Attentions:
    """Attention of Q cases in images [B,3,H,W] as fed to the probe's model.

    targets: Q classes or callables of the output, image_index [Q] (default: one an image). cost: what passes are added
    to. budget: bytes that a pass may take. label: the method that asks, which a refusal names.
    """

    def __init__(
        self,
        probe: Probe,
        images: Tensor,
        targets: Sequence[int | Score],
        image_index: Tensor | None = None,
        cost: Cost | None = None,
        budget: int | None = None,
        label: str = "a method on attention",
    ) -> None:
        self._probe, self._images, self._targets, self._label = probe, images, list(targets), label
        index = torch.arange(len(images)) if image_index is None else image_index
        self._index = torch.as_tensor(index, device=images.device, dtype=torch.int64)
        self._cost = Cost() if cost is None else cost
        self._budget = default_budget(images.device) if budget is None else budget

    def maps(self, relevance: Callable[[Attended], Tensor], gradients: bool = True) -> Tensor:
        """[Q,h,w]: what relevance(attended) says of tokens [n,N], those of patches. gradients: of all blocks."""

        made = self._plan()
        first = 0 if gradients else made.count - 1

        def look(images: Tensor, cases: list[int], rows: Tensor) -> Tensor:
            with Watching(first) as seen:
                output = self._probe.model(images)
            found = self._gradients(output, cases, rows, len(images), seen.weights[first:])
            reads = (found[-1] != 0).any(3).any(1)  # [n,N]
            reads = (reads / reads.sum(1, keepdim=True).clamp(min=1)).to(found[-1].dtype)
            return relevance(Attended([weights.detach()[rows] for weights in seen.weights], found, reads))

        return self._each(made, look)

    def layer_maps(self, relevance: Callable[[list[Tensor]], Tensor], layers: int | None = None) -> Tensor:
        """[Q,h,w]: what relevance says of gradients, a tensor [n,heads,N,N] a block, of scores of each block's own.

        That is the score that the rest of the network gives where every token is the mean of those that the block
        gives; with a pooling by attention, where they are the block's, and then the gradients are at the pooling's
        weights [n,heads,M,N]. What a block is given counts as fixed. layers: only so many, from the last.
        """
        made = self._plan()
        blocks = [block for block in made.blocks if block is not None]
        if len(set(blocks)) != len(made.blocks):
            raise self._refusal(NO_BLOCKS)
        chosen = blocks if layers is None else blocks[-layers:]
        first = made.count - (1 if made.pooled else len(chosen))

        def look(images: Tensor, cases: list[int], rows: Tensor) -> Tensor:
            with _side_by_side(chosen, len(images), made, self._refusal(NO_TOKENS)), Watching(first) as seen:
                output = self._probe.model(images)
            return relevance(self._gradients(output, cases, rows, len(images), seen.weights[first:], len(chosen)))

        return self._each(made, look)

    def _plan(self) -> Plan:
        found = plan(self._probe, self._images)
        if isinstance(found, str):
            raise self._refusal(found)
        return found

    def _refusal(self, why: str) -> UserError:
        return UserError(f"{self._label} does not apply: {why}")

    def _each(self, made: Plan, look: Look) -> Tensor:
        """[Q,h,w] of looks at some images at a time, always as many: no number depends on what else there is."""
        wanted, most = self._index.unique(), LARGEST.get(self._images.device.type, 8)
        block = max(min(most, len(self._images), self._budget // made.bytes), 1)
        found = torch.zeros((len(self._targets), *made.size), device=self._images.device)
        for part in wanted.split(block):
            fed = self._images[torch.cat([part, part[-1:].expand(block - len(part))])]
            cases = torch.isin(self._index, part).nonzero()[:, 0]
            rows = torch.searchsorted(part, self._index[cases])
            with self._probe.as_found(), torch.inference_mode(False), torch.enable_grad():
                seen = look(fed.clone(), cases.tolist(), rows)
            found[cases] = seen[:, made.prefix :].unflatten(1, made.size).detach().to(found.dtype)
        self._cost.forwards += len(wanted)
        self._cost.backwards += len(self._targets)
        return found

    def _gradients(
        self, output: Any, cases: list[int], rows: Tensor, images: int, nodes: Sequence[Tensor], copies: int = 1
    ) -> list[Tensor]:
        """Of each case's score at each node, [n,...]: one backward pass for each rank of case. copies: how many rows an
        image has in the output, image after image; a node that has as many is taken apart."""
        targets, scores = [self._targets[q] for q in cases], scores_in(output)
        functions = {id(t): one_each(t(output), images * copies) for t in unique_functions(targets)}
        pieces = sum(len(node) // images for node in nodes)
        found: list[Tensor] = [nodes[0].new_zeros(0)] * pieces
        ranks = ranks_of(rows)
        for rank in range(max(ranks) + 1):
            mine = [n for n, r in enumerate(ranks) if r == rank]
            asked = torch.cat([rows[mine] + copy * images for copy in range(copies)])
            wanted = [targets[n] for n in mine] * copies
            total = case_scores(self._probe.score, scores, functions, wanted, asked).sum()
            if not total.requires_grad:
                raise self._refusal("the score does not depend on attention")
            grads = torch.autograd.grad(total, list(nodes), retain_graph=True, materialize_grads=True)
            for n, grad in enumerate(part for whole in grads for part in whole.split(images)):
                if not rank:
                    found[n] = grad.new_zeros((len(cases), *grad.shape[1:]))
                found[n][mine] = grad[rows[mine]]
        return found


@contextmanager
def _side_by_side(blocks: Sequence[nn.Module], images: int, made: Plan, refusal: UserError) -> Iterator[None]:
    """Inside, what follows the last of the blocks sees the tokens of each of them, one after another in the batch
    [L*B,N,C] (or [N,L*B,C]), or as many times their mean; no block depends on what came before it."""
    given: list[Tensor] = []
    count = made.size[0] * made.size[1] + made.prefix

    def cut(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        return trees.tree_map_only(Tensor, Tensor.detach, (args, kwargs))

    def collect(module: nn.Module, _inputs: Any, output: Any) -> Any:
        tokens = output[0] if isinstance(output, tuple) else output
        if not isinstance(tokens, Tensor) or tokens.shape[:2] not in ((images, count), (count, images)):
            raise refusal
        axis = 1 if tokens.shape[:2] == (images, count) else 0
        given.append(tokens.detach() if made.pooled else tokens.mean(axis, keepdim=True).expand_as(tokens))
        if module is not blocks[-1]:
            return None
        together = torch.cat(given, 1 - axis)
        return (together, *output[1:]) if isinstance(output, tuple) else together

    handles = [block.register_forward_pre_hook(cut, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(collect) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
