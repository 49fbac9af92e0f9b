"""Two ways from logits to doubly stochastic matrices: Sinkhorn-Knopp, nearly, and Birkhoff's theorem, exactly."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

_CLAMP = 30.0  # exp(±30) stays far inside fp32; larger gaps would be zero after normalisation anyway


def sinkhorn_knopp(logits: Tensor, max_iter: int = 20) -> Tensor:
    """(..., S, S) logits -> matrices [row, column] whose rows sum to 1, and columns nearly.

    exp, then `max_iter` times: columns, then rows (Xie et al. 2025, eq. 8 and 9). Rows are exact; the error of the
    columns grows with the range of the logits: 2e-4 at a standard deviation of 1, 5e-2 at 3, after 20 rounds.
    """
    shifted = (logits - logits.amax(dim=(-2, -1), keepdim=True)).clamp(min=-2 * _CLAMP)
    matrices: Tensor = _Normalise.apply((shifted + _CLAMP).flatten(0, -3), max_iter)  # type: ignore[no-untyped-call]
    return matrices.view(logits.shape)


def birkhoff(logits: Tensor, permutations: Tensor) -> Tensor:
    """(..., S!) logits -> (..., S, S): the mean of all permutation matrices, weighted by softmax.

    Every doubly stochastic matrix is such a mean (Birkhoff 1946; for residuals arXiv 2601.05732), so rows and
    columns sum to 1 whatever the logits. `permutations` is (S!, S, S), from `permutation_matrices`.
    """
    return torch.einsum("...p,pst->...st", logits.softmax(-1), permutations)


def permutation_matrices(size: int) -> Tensor:
    """(size!, size, size), the identity first."""
    return torch.stack([torch.eye(size)[list(order)] for order in itertools.permutations(range(size))])


class _Normalise(torch.autograd.Function):
    """exp of (N, S, S), then alternating division by column and row sums; exact backward without a graph.

    Inside, the small axes stand first, so that every operation runs along long contiguous rows.
    Backward replays the divisions in reverse from their sums, which are all that is kept besides the result. With
    a = the gradient with respect to log m, a division by row sums is undone by a -= m rowsum(a), m *= sums. After
    that rowsum(a) is zero, as rows of m sum to 1, and so is half of the sums that would have to be taken.
    """

    @staticmethod
    def forward(ctx: Any, logits_NSS: Tensor, max_iter: int) -> Tensor:
        m_SSN = logits_NSS.permute(1, 2, 0).exp().contiguous()
        sums_RSN = m_SSN.new_empty(2 * max_iter, *m_SSN.shape[1:])
        for columns_SN, rows_SN in zip(sums_RSN[0::2], sums_RSN[1::2], strict=True):
            torch.sum(m_SSN, 0, out=columns_SN)
            m_SSN.div_(columns_SN)
            torch.sum(m_SSN, 1, out=rows_SN)
            m_SSN.div_(rows_SN.unsqueeze(1))
        ctx.save_for_backward(m_SSN, sums_RSN)
        return m_SSN.permute(2, 0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        m_SSN, sums_RSN = ctx.saved_tensors
        a_SSN = (grad_outputs[0].permute(1, 2, 0) * m_SSN).contiguous()
        m_SSN, change_SSN = m_SSN.clone(), torch.empty_like(m_SSN)
        total_SN, across_SN = a_SSN.sum(1), a_SSN.sum(0)
        for axis, sums_SN in zip(itertools.cycle((1, 0)), sums_RSN.flip(0)):
            torch.mul(m_SSN, total_SN.unsqueeze(axis), out=change_SSN)
            a_SSN.sub_(change_SSN)
            total_SN, across_SN = across_SN - change_SSN.sum(1 - axis), 0
            m_SSN.mul_(sums_SN.unsqueeze(axis))
        return a_SSN.permute(2, 0, 1), None
