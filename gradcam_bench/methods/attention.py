"""Heatmaps of transformers from attention: A [heads,N,N] of each block, and gradients G = dS/dA of each case's score.

All are nowhere negative and lie on the grid of patches [Q,h,w]; class, distillation and register tokens are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradcam_bench.attentions import Attended, Attentions


def attention_rollout(attentions: Attentions) -> Tensor:
    """The row of R = M_L ... M_1 that the score is read from, M = (mean over heads of A + I) / 2; whatever the class.

    Abnar and Zuidema 2020, section 3, eq. 1 and the recursion after it. The row is the class token's; where the score
    is the mean of several tokens, the mean of their rows; a pooling by attention comes last, without the I.
    """

    def relevance(seen: Attended) -> Tensor:
        mixed = [weights.mean(1) for weights in seen.weights]
        return rolled([(one + _identity(one)) / 2 if _square(one) else one for one in mixed], seen.reads)

    return attentions.maps(relevance, gradients=False)


def generic_attention(attentions: Attentions) -> Tensor:
    """The row of R that the score is read from, R <- R + M R from R = I, M = mean over heads of relu(G A).

    Chefer et al. 2021 (ICCV, generic attention-model explainability), eq. 5 and 6: self-attention; the authors' code
    for ViT does the same. The row as in `attention_rollout`, but for what it has of I: nothing on patches where a class
    token is read, the same on all where they are averaged. A pooling by attention reads others' rows, R <- M R.
    """

    def relevance(seen: Attended) -> Tensor:
        row, found = seen.reads, torch.zeros_like(seen.reads)
        for weights, gradients in zip(reversed(seen.weights), reversed(seen.gradients), strict=True):
            mixed = (weights * gradients).relu().mean(1)
            step = (row[:, None] @ mixed)[:, 0]
            row, found = (row + step, found + step) if _square(mixed) else (step, step)
        return found

    return attentions.maps(relevance)


def le_grad(attentions: Attentions, layers: int | None = None) -> Tensor:
    """Mean over blocks, heads and queries of relu(dS_l/dA_l), S_l what the head makes of the mean of block l's tokens.

    Bousselham et al. 2025, section 3: the mean over all tokens, the gradient within the block alone. Where the network
    pools by attention, S_l is of what the pooling makes of block l's tokens, and A_l the pooling's own (the authors'
    code leaves out the norm before the pooling). layers: only so many blocks, from the last (None: all, the paper's
    formula; the authors' code begins with the last but one).
    """

    def relevance(gradients: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.relu().mean((1, 2)) for one in gradients]).mean(0)

    return attentions.layer_maps(relevance, layers)


def rolled(blocks: Sequence[Tensor], reads: Tensor) -> Tensor:
    """reads M_L ... M_1, [n,N]; blocks M_1 ... M_L [n,N,N] in order of execution."""
    for one in reversed(blocks):
        reads = (reads[:, None] @ one)[:, 0]
    return reads


def _square(mixed: Tensor) -> bool:
    return mixed.shape[1] == mixed.shape[2]


def _identity(mixed: Tensor) -> Tensor:
    return torch.eye(mixed.shape[2], dtype=mixed.dtype, device=mixed.device)
