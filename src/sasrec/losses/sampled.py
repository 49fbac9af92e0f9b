"""Losses that compare the target with sampled negatives: BCE, gBCE and sampled softmax.

docs/explanation/losses.md explains them.
"""

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
    """Return a function that computes the loss of one slice: C of the P real positions of `batch`.

    The loss of `batch` is the sum over all slices. `negatives` contains item numbers: (N,) if all P positions
    share one set of N negatives, else (P, N), with 0 for an absent negative.

    The returned function takes the slice (a Python slice of the P positions), the states (C, D), the target
    embeddings (C, D) and the negative vectors. Shared negative vectors are (N, D). Otherwise they are (C, N, D),
    or the caller passes the item table (V, D), in which the function looks them up.
    """
    run, targets_P = batch.run, batch.targets_P
    shared, count, may_hit_target = negatives.dim() == 1, negatives.shape[-1], run.plan.may_hit_target
    drawable = model.num_items - (0 if run.unknown_U is None else len(run.unknown_U))
    beta = gbce_beta(count, drawable, config.gbce_t) if config.loss == "gbce" else 1.0
    # logQ correction (sampled softmax): subtract the log of the expected number of draws of each negative.
    log_expected = None
    if run.log_q_V is not None:
        log_expected = run.log_q_V[negatives] + math.log(count)
    row_P = own_BN = None
    if batch.own_BK is not None:
        row_P, own_BN = batch.row_P, _is_own_item(batch.own_BK, negatives)

    # Within `loss_of`, counts_CN marks the negatives that take part in the loss.
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


def _is_own_item(own_BK: Tensor, ids_N: Tensor) -> Tensor:
    """Return (B, N) booleans: whether the row's own items contain each of the item numbers `ids_N`."""
    # Comparing all pairs would take (B, K, N) memory; a lookup among the sorted ids takes (B, N). Equal ids share
    # the first place of their id. All shapes are known beforehand, so a GPU does not wait for the host.
    sorted_N = ids_N.sort().values
    place_N = torch.searchsorted(sorted_N, ids_N)
    place_BK = torch.searchsorted(sorted_N, own_BK).clamp(max=len(sorted_N) - 1)
    absent_BK = sorted_N[place_BK] != own_BK
    is_own_BN = torch.zeros(len(own_BK), len(sorted_N) + 1, dtype=torch.bool, device=ids_N.device)
    # Own items that are absent from `ids_N` write into the extra last column, which is never read.
    is_own_BN.scatter_(1, place_BK.masked_fill_(absent_BK, len(sorted_N)), True)
    return is_own_BN[:, place_N]


def binary_cross_entropy(
    positive_P: Tensor, negative_PN: Tensor, exists_PN: Tensor, positions: int, beta: float = 1.0
) -> Tensor:
    """Return beta × BCE of the positive plus BCE of its negatives, summed over P and divided by `positions`.

    `positions`: the number of positions in the whole batch, of which these P may be a part. Negatives where
    `exists_PN` is False are ignored. With one negative and beta 1 this is the loss of Kang & McAuley (2018). gBCE
    uses beta below 1.
    """
    positive = F.softplus(-positive_P) if beta == 1 else beta * F.softplus(-positive_P)
    negative = (F.softplus(negative_PN) * exists_PN).sum(-1)
    return (positive + negative).sum() / positions


def gbce_beta(num_negatives: int, num_items: int, t: float) -> float:
    """Return the exponent beta of the positive's probability in gBCE (Petrov & Macdonald 2023, gSASRec).

    beta = 1 - t·(1 - alpha), where t is the paper's calibration parameter from 0 to 1 (setting gbce_t), and alpha
    is the share of all possible negatives that is sampled, at most 1. The paper writes this formula as
    alpha·(t·(1 - 1/alpha) + 1/alpha).
    """
    return 1 - t * (1 - min(1.0, num_negatives / max(1, num_items - 1)))


def sampled_softmax(positive_P: Tensor, negative_PN: Tensor, exists_PN: Tensor, positions: int) -> Tensor:
    """Return each positive's cross-entropy among itself and its negatives, summed over P, divided by `positions`.

    `positions`: the number of positions in the whole batch, of which these P may be a part. Negatives where
    `exists_PN` is False are ignored.
    """
    # A finite stand-in for -inf: for a position without negatives, logsumexp of -inf alone has NaN gradients.
    lowest = torch.finfo(negative_PN.dtype).min / 2
    normaliser_P = negative_PN.masked_fill(~exists_PN, lowest).logsumexp(1).logaddexp(positive_P)
    return (normaliser_P - positive_P).sum() / positions


class InChunks(torch.autograd.Function):
    """Sum the loss function `loss_of` over slices of at most `chunk` positions.

    Only one slice at a time needs memory for intermediate results. The forward pass also computes the gradients;
    the backward pass only scales the gradients. Second derivatives are not supported.
    """

    @staticmethod
    def forward(
        ctx: Any, loss_of: _LossOf, chunk: int, states_PD: Tensor, targets_PD: Tensor, vectors_XD: Tensor
    ) -> Tensor:
        """Return the sum of `loss_of` over all slices of at most `chunk` positions, a scalar.

        `vectors_XD`: the vectors of shared negatives (N, D), or the item table (V, D).
        """
        states_PD, targets_PD = states_PD.detach(), targets_PD.detach()
        vectors_XD = vectors_XD.detach().requires_grad_()
        grads = torch.empty_like(states_PD), torch.empty_like(targets_PD), torch.zeros_like(vectors_XD)
        total = states_PD.new_zeros(())
        for start in range(0, len(states_PD), chunk):
            part = slice(start, start + chunk)
            leaves = states_PD[part].requires_grad_(), targets_PD[part].requires_grad_(), vectors_XD
            with torch.enable_grad():  # autograd is off inside the forward pass of a Function
                loss = loss_of(part, *leaves)
            grads[0][part], grads[1][part], vectors_grad = torch.autograd.grad(loss, leaves)
            grads[2].add_(vectors_grad)  # all slices share the vectors, so their gradients add up
            total += loss.detach()
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients from the forward pass by the incoming gradient."""
        # In place, because the table's gradient is as large as the table and nothing else reads these tensors.
        return None, None, *(grad.mul_(grad_outputs[0]) for grad in ctx.saved_tensors)
