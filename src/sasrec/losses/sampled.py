"""Losses against sampled negatives: BCE, gBCE, sampled softmax (docs/losses.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sasrec.batches.loader import DeviceTrainingBatch
from sasrec.config.settings import LossConfig
from sasrec.models import SequenceModel

_LossOf = Callable[[slice, Tensor, Tensor, Tensor], Tensor]


def sampled_loss(
    model: SequenceModel, batch: DeviceTrainingBatch, config: LossConfig, negatives: Tensor
) -> _LossOf:
    """The loss of a slice of the positions, from their states, the embeddings of their targets, and those of the
    negatives: (N, D) shared, (C, N, D) of each position, or the table (V, D) to look them up in."""
    run, targets_P = batch.run, batch.targets_P
    shared, count, may_hit_target = negatives.dim() == 1, negatives.shape[-1], run.plan.may_hit_target
    drawable = model.num_items - (0 if run.unknown_U is None else len(run.unknown_U))
    beta = gbce_beta(count, drawable, config.gbce_t) if config.loss == "gbce" else 1.0
    log_expected = None
    if run.log_q_V is not None:
        log_expected = run.log_q_V[negatives] + math.log(count)
    row_P = own_BN = None
    if batch.own_BK is not None:
        row_P, own_BN = batch.row_P, _own_among(batch.own_BK, negatives)

    def loss_of(part: slice, states_CD: Tensor, targets_CD: Tensor, vectors: Tensor) -> Tensor:
        ids = negatives if shared else negatives[part]
        if shared:
            negative_CN = states_CD @ vectors.T
        else:
            vectors_CND = vectors if vectors.dim() == 3 else F.embedding(ids, vectors)
            negative_CN = (states_CD.unsqueeze(1) * vectors_CND).sum(-1)
        positive_C = (states_CD * targets_CD).sum(-1)
        counts_CN = ids > 0
        if may_hit_target:
            counts_CN = counts_CN & (ids != targets_P[part].unsqueeze(1))
        if row_P is not None and own_BN is not None:
            counts_CN = counts_CN & ~own_BN[row_P[part]]
        if config.loss != "softmax":
            return binary_cross_entropy(positive_C, negative_CN, counts_CN, batch.positions, beta)
        if log_expected is not None:
            negative_CN = negative_CN - (log_expected if shared else log_expected[part])
        return sampled_softmax(positive_C, negative_CN, counts_CN, batch.positions)

    return loss_of


def _own_among(own_BK: Tensor, ids_N: Tensor) -> Tensor:
    """(B, N) whether an id is among those of the row."""
    distinct_U, place_N = torch.unique(ids_N, return_inverse=True)
    place_BK = torch.searchsorted(distinct_U, own_BK).clamp(max=len(distinct_U) - 1)
    nowhere_BK = distinct_U[place_BK] != own_BK
    found_BU = torch.zeros(len(own_BK), len(distinct_U) + 1, dtype=torch.bool, device=ids_N.device)
    found_BU.scatter_(1, place_BK.masked_fill_(nowhere_BK, len(distinct_U)), True)
    return found_BU[:, place_N]


def binary_cross_entropy(
    positive_P: Tensor, negative_PN: Tensor, exists_PN: Tensor, positions: int, beta: float = 1.0
) -> Tensor:
    """Sum over positions of beta × BCE of the positive plus the BCE of its negatives that exist, / positions.

    With one negative and beta 1 this is the loss of the papers: mean BCE of positives + mean BCE of negatives.
    """
    positive = F.softplus(-positive_P) if beta == 1 else beta * F.softplus(-positive_P)
    negative = (F.softplus(negative_PN) * exists_PN).sum(-1)
    return (positive + negative).sum() / positions


def gbce_beta(num_negatives: int, num_items: int, t: float) -> float:
    """The power of the positive's probability in gBCE (Petrov & Macdonald 2023, gSASRec).

    Theirs is alpha·(t·(1 - 1/alpha) + 1/alpha), alpha the share of negatives that is sampled, here at most 1.
    """
    return 1 - t * (1 - min(1.0, num_negatives / max(1, num_items - 1)))


def sampled_softmax(positive_P: Tensor, negative_PN: Tensor, exists_PN: Tensor, positions: int) -> Tensor:
    """Sum over positions of -log of the positive's share of itself and its negatives that exist / positions."""
    none = torch.finfo(negative_PN.dtype).min / 2  # finite: a position may have no negatives at all
    normaliser_P = negative_PN.masked_fill(~exists_PN, none).logsumexp(1).logaddexp(positive_P)
    return (normaliser_P - positive_P).sum() / positions


class InChunks(torch.autograd.Function):
    """The sum of `loss_of` over slices of the positions, in memory of one slice: gradients are formed with the
    values, as they are known up to the scale that arrives in the backward pass. Differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, loss_of: _LossOf, chunk: int, states_PD: Tensor, targets_PD: Tensor, vectors_XD: Tensor
    ) -> Tensor:
        """See the class."""
        states_PD, targets_PD = states_PD.detach(), targets_PD.detach()
        vectors_XD = vectors_XD.detach().requires_grad_()
        grads = torch.empty_like(states_PD), torch.empty_like(targets_PD), torch.zeros_like(vectors_XD)
        total = states_PD.new_zeros(())
        for start in range(0, len(states_PD), chunk):
            part = slice(start, start + chunk)
            leaves = states_PD[part].requires_grad_(), targets_PD[part].requires_grad_(), vectors_XD
            with torch.enable_grad():
                loss = loss_of(part, *leaves)
            grads[0][part], grads[1][part], more = torch.autograd.grad(loss, leaves)
            grads[2].add_(more)
            total += loss.detach()
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the forward pass, scaled."""
        # In place: the table's gradient is as large as the table, and nobody else reads these.
        return None, None, *(grad.mul_(grad_outputs[0]) for grad in ctx.saved_tensors)
