"""Sinkhorn-Knopp: from logits to an (almost) doubly stochastic matrix, with an exact backward that keeps no graph.

Layout (S, S, ...): the small axes first, so that every operation runs along long contiguous rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CLAMP = 30.0  # exp(±30) stays far inside fp32; larger gaps would be zero after normalisation anyway


def sinkhorn_knopp(logits: Tensor, max_iter: int = 20) -> Tensor:
    """(S, S, ...) logits -> matrices [row, column] whose rows sum to 1, and columns nearly.

    exp, then `max_iter` times: columns, then rows (Xie et al. 2025, eq. 8 and 9). Rows are exact; the error of the
    columns grows with the range of the logits: 2e-4 at a standard deviation of 1, 5e-2 at 3, after 20 rounds.
    """
    shifted = (logits - logits.amax(dim=(0, 1), keepdim=True)).clamp(min=-2 * _CLAMP)
    matrices: Tensor = _Normalise.apply((shifted + _CLAMP).exp(), max_iter)  # type: ignore[no-untyped-call]
    return matrices


class _Normalise(torch.autograd.Function):
    """Alternating division by column and row sums.

    Backward replays the divisions in reverse from the sums, which are all that is kept besides the result: for
    m' = m / s the gradient is (g - sum(g m')) / s, and m is m' s.
    """

    @staticmethod
    def forward(ctx: Any, positive: Tensor, max_iter: int) -> Tensor:
        matrices, sums = positive, []
        for _ in range(max_iter):
            for axis in (0, 1):
                total = matrices.sum(axis, keepdim=True)
                matrices = matrices / total
                sums.append(total)
        ctx.save_for_backward(matrices, *sums)
        return matrices

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        matrices, *sums = ctx.saved_tensors
        gradient = grad_outputs[0]
        for step in range(len(sums) - 1, -1, -1):
            total, axis = sums[step], step % 2
            gradient = (gradient - (gradient * matrices).sum(axis, keepdim=True)) / total
            matrices = matrices * total
        return gradient, None
