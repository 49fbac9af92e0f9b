"""What is minimised: cross-entropy over the whole catalogue, or a loss against sampled negatives (docs/losses.md).

All are means over the real positions of a batch, or one part's share of that; padding is never computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sasrec.config import LossConfig
from sasrec.data.batches import TrainingBatch
from sasrec.models import SequenceModel

# Logits held at a time: 4 MB in fp32, which stay near a CPU's cache; other devices want larger products. So few
# positions at a time that the table is read oftener than it must be cost more than they save.
_LOGITS_AT_ONCE = 2**20
_TIMES_MORE = 64
_POSITIONS_AT_LEAST = 32
# So many negatives of its own a position may have to be looked up at once, together with inputs and targets.
_FEW = 8


def training_loss(model: SequenceModel, batch: TrainingBatch, config: LossConfig) -> Tensor:
    """The mean loss of a batch, a scalar; of a part of one, its share: sum / positions of the whole batch."""
    items_BL, positions_BL = model.to_device(batch.items_BL), model.to_device(batch.positions_BL)
    times_BL = model.times_of(batch)
    real_P, targets_P = model.to_device(batch.real_P), model.to_device(batch.targets_P)
    table_VD = model.item_embedding.weight
    if config.loss == "ce":
        states_PD = model(items_BL, positions_BL, times_BL).flatten(0, 1)[real_P]
        products = _products_in(model.device.type, table_VD.dtype)
        with torch.autocast(model.device.type, enabled=False):  # sums need the digits
            states_PD = _tempered(states_PD.to(table_VD.dtype), config.temperature)
            left_out = _left_out(model, batch)
            return full_cross_entropy(
                states_PD, table_VD, targets_P, batch.positions, config.label_smoothing, left_out, products
            )
    negatives = model.to_device(batch.negatives_PN if batch.shared_N is None else batch.shared_N)
    few = batch.shared_N is not None or negatives.shape[-1] <= _FEW
    looked_up = negatives if few else negatives[:0]
    # One lookup for inputs, targets and negatives: each lookup costs a dense gradient of the whole table.
    ids = torch.cat([items_BL.flatten(), targets_P, looked_up.flatten()])
    inputs, targets_PD, vectors = torch.split(
        model.embed(ids), [items_BL.numel(), len(targets_P), looked_up.numel()]
    )
    width = inputs.shape[-1]  # not -1: a part of a batch may be empty
    vectors_BLD = inputs.view(*items_BL.shape, width)
    states_PD = model.encode(vectors_BLD, positions_BL, times_BL).flatten(0, 1)[real_P].to(targets_PD.dtype)
    with torch.autocast(model.device.type, enabled=False):
        states_PD = _tempered(states_PD, config.temperature)
        vectors = vectors.view(*negatives.shape, width) if few else table_VD
        loss_of = _sampled_loss(model, batch, config, targets_P, negatives)
        if vectors.dim() == 3:
            return loss_of(slice(None), states_PD, targets_PD, vectors)
        if negatives.dim() == 1:
            chunk = _logits_at_once(model.device) // len(negatives)
        else:  # each chunk costs a gradient of the table, and may well be as large
            chunk = max(_logits_at_once(model.device), table_VD.numel()) // (negatives.shape[1] * width)
        loss: Tensor = _InChunks.apply(  # type: ignore[no-untyped-call]
            loss_of, max(1, chunk), states_PD, targets_PD, vectors
        )
        return loss


def _logits_at_once(device: torch.device) -> int:
    return _LOGITS_AT_ONCE * (1 if device.type == "cpu" else _TIMES_MORE)


def _products_in(device: str, full: torch.dtype) -> torch.dtype:
    """What scores of the whole catalogue are multiplied in: they are most of the work. Not in fp16, whose smallest
    probabilities would vanish from the gradients."""
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if half else full


def _tempered(states_PD: Tensor, temperature: float) -> Tensor:
    """Scores are linear in the states, so this divides them all."""
    return states_PD if temperature == 1 else states_PD / temperature


_LossOf = Callable[[slice, Tensor, Tensor, Tensor], Tensor]


def _sampled_loss(
    model: SequenceModel, batch: TrainingBatch, config: LossConfig, targets_P: Tensor, negatives: Tensor
) -> _LossOf:
    """The loss of a slice of the positions, from their states, the embeddings of their targets, and those of the
    negatives: (N, D) shared, (C, N, D) of each position, or the table (V, D) to look them up in."""
    shared, count = negatives.dim() == 1, negatives.shape[-1]
    drawable = model.num_items - (0 if batch.unknown_U is None else len(batch.unknown_U))
    beta = gbce_beta(count, drawable, config.gbce_t) if config.loss == "gbce" else 1.0
    log_expected = None
    if config.loss == "softmax" and config.logq:
        log_q_V = model.to_device(torch.as_tensor(batch.log_q_V).to(model.item_embedding.weight.dtype))
        log_expected = log_q_V[negatives] + math.log(count)
    row_P = own_BN = None
    if shared and batch.own_BK is not None:
        row_P = model.to_device(batch.real_P // batch.items_BL.shape[1])
        own_BN = _own_among(model.to_device(batch.own_BK), negatives)

    def loss_of(part: slice, states_CD: Tensor, targets_CD: Tensor, vectors: Tensor) -> Tensor:
        ids = negatives if shared else negatives[part]
        if shared:
            negative_CN = states_CD @ vectors.T
        else:
            vectors_CND = vectors if vectors.dim() == 3 else F.embedding(ids, vectors)
            negative_CN = (states_CD.unsqueeze(1) * vectors_CND).sum(-1)
        positive_C = (states_CD * targets_CD).sum(-1)
        counts_CN = ids > 0
        if shared or not config.skip_own_items:  # else the draws know the user, whose items include the target
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


class _InChunks(torch.autograd.Function):
    """The sum of `loss_of` over slices of the positions, in memory of one slice: gradients are formed with the
    values, as they are known up to the scale that arrives in the backward pass. Differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, loss_of: _LossOf, chunk: int, states_PD: Tensor, targets_PD: Tensor, vectors_XD: Tensor
    ) -> Tensor:
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
        return None, None, *(grad * grad_outputs[0] for grad in ctx.saved_tensors)


class LeftOut(NamedTuple):
    """Items, from 1, that are no candidates of a softmax; a position's target always is one."""

    own_BK: Tensor
    """Of the positions of each row; K may be 0."""
    row_P: Tensor
    """Which row is a position's."""
    unknown_U: Tensor
    """Of all positions; U may be 0."""

    def fill(self, logits_CV: Tensor, part: slice) -> None:
        """Set theirs to -inf; column 0 is item 1."""
        logits_CV.scatter_(1, self.own_BK[self.row_P[part]] - 1, -torch.inf)
        logits_CV.index_fill_(1, self.unknown_U - 1, -torch.inf)


def _left_out(model: SequenceModel, batch: TrainingBatch) -> LeftOut | None:
    if batch.own_BK is None and batch.unknown_U is None:
        return None
    own_BK = batch.items_BL[:, :0] if batch.own_BK is None else batch.own_BK
    unknown_U = batch.targets_P[:0] if batch.unknown_U is None else batch.unknown_U
    row_P = batch.real_P // batch.items_BL.shape[1]
    return LeftOut(model.to_device(own_BK), model.to_device(row_P), model.to_device(unknown_U))


def full_cross_entropy(
    states_PD: Tensor,
    item_embedding_VD: Tensor,
    targets_P: Tensor,
    positions: int | None = None,
    label_smoothing: float = 0.0,
    left_out: LeftOut | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """Sum of the cross-entropy of each position's target among items 1..V-1 / positions (default: their mean).

    With `label_smoothing` that share of the target's probability is spread evenly over them, the target too.
    Row 0 of the table, padding, takes no part, nor does what is `left_out`. `products`: what factors and results
    of the three matrix products are rounded to, by default nothing less precise than all else.

    Exact, in memory of a few chunks of logits, whatever P is: gradients are formed chunk by chunk in the
    forward pass, as they are known up to the scale that arrives in the backward pass. Differentiable once.
    """
    count = len(states_PD) if positions is None else positions
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        states_PD, item_embedding_VD, targets_P, count, label_smoothing, left_out, products
    )
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states_PD: Tensor,
        item_embedding_VD: Tensor,
        targets_P: Tensor,
        positions: int,
        smoothing: float,
        left_out: LeftOut | None,
        products: torch.dtype | None,
    ) -> Tensor:
        states_PD, table_VD = states_PD.detach(), item_embedding_VD.detach()
        items_VD = table_VD[1:].to(products)
        grad_states_PD, grad_table_VD = torch.empty_like(states_PD), torch.zeros_like(table_VD)
        total = states_PD.new_zeros(())
        chunk = max(_POSITIONS_AT_LEAST, _logits_at_once(table_VD.device) // len(table_VD))
        for start in range(0, len(states_PD), chunk):
            part = slice(start, start + chunk)
            target_C1 = targets_P[part].unsqueeze(1) - 1
            states_CD = states_PD[part].to(products)
            logits_CV = (states_CD @ items_VD.T).to(table_VD.dtype)
            at_target_C1 = logits_CV.gather(1, target_C1)
            if left_out is not None:
                left_out.fill(logits_CV, part)
                logits_CV.scatter_(1, target_C1, at_target_C1)
            normaliser_C1 = logits_CV.logsumexp(1, keepdim=True)
            total += (normaliser_C1 - at_target_C1).sum()
            if smoothing > 0:
                mean_C1, even = _evenly(logits_CV, left_out is not None)
                total += smoothing * (at_target_C1 - mean_C1).sum()
            grad_logits_CV = logits_CV.sub_(normaliser_C1).exp_()
            if smoothing > 0:
                grad_logits_CV.sub_(even, alpha=smoothing)
            grad_logits_CV.scatter_add_(1, target_C1, torch.full_like(at_target_C1, smoothing - 1.0))
            factor_CV = grad_logits_CV.to(products)
            grad_states_PD[part] = factor_CV @ items_VD
            if factor_CV.dtype == grad_table_VD.dtype:
                grad_table_VD[1:].addmm_(factor_CV.T, states_CD)
            else:
                grad_table_VD[1:].add_(factor_CV.T @ states_CD)
        ctx.save_for_backward(grad_states_PD, grad_table_VD)
        ctx.positions = positions
        return total / positions

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_states_PD, grad_table_VD = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.positions
        return grad_states_PD * scale, grad_table_VD * scale, None, None, None, None, None


def _evenly(logits_CV: Tensor, some_left_out: bool) -> tuple[Tensor, Tensor | float]:
    """The mean logit of each position's candidates, (C, 1), and the share of each of them."""
    if not some_left_out:
        return logits_CV.mean(1, keepdim=True), 1 / logits_CV.shape[1]
    even_CV = torch.gt(logits_CV, -torch.inf, out=torch.empty_like(logits_CV))  # booleans are slow to sum
    even_CV.div_(even_CV.sum(1, keepdim=True))
    finite_CV = logits_CV.clamp(min=torch.finfo(logits_CV.dtype).min)
    return finite_CV.mul_(even_CV).sum(1, keepdim=True), even_CV
