"""What is minimised: binary cross-entropy with sampled negatives, or cross-entropy over the whole catalogue.

Both are means over the real positions of a batch, or one part's share of that; padding is never computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sasrec.config import LossConfig
from sasrec.data.batches import TrainingBatch
from sasrec.models import SequenceModel

# Logits held at a time by the full cross-entropy: 16 MB in fp32, which stays near the CPU's cache.
_LOGITS_AT_ONCE = 2**22


def training_loss(model: SequenceModel, batch: TrainingBatch, config: LossConfig) -> Tensor:
    """The mean loss of a batch, a scalar; of a part of one, its share: sum / positions of the whole batch."""
    items_BL, positions_BL = model.to_device(batch.items_BL), model.to_device(batch.positions_BL)
    times_BL = model.times_of(batch)
    real_P, targets_P = model.to_device(batch.real_P), model.to_device(batch.targets_P)
    if config.loss == "ce":
        states_PD = model(items_BL, positions_BL, times_BL).flatten(0, 1)[real_P]
        with torch.autocast(model.device.type, enabled=False):  # logits and sums need the digits
            table_VD = model.item_embedding.weight
            return full_cross_entropy(states_PD.to(table_VD.dtype), table_VD, targets_P, batch.positions)
    negatives_PN = model.to_device(batch.negatives_PN)
    # One lookup for inputs, targets and negatives: each lookup costs a dense gradient of the whole table.
    ids = torch.cat([items_BL.flatten(), targets_P, negatives_PN.flatten()])
    inputs, targets_PD, negatives = torch.split(
        model.embed(ids), [items_BL.numel(), len(targets_P), negatives_PN.numel()]
    )
    width = inputs.shape[-1]  # not -1: a part of a batch may be empty
    vectors_BLD = inputs.view(*items_BL.shape, width)
    states_PD = model.encode(vectors_BLD, positions_BL, times_BL).flatten(0, 1)[real_P].to(targets_PD.dtype)
    positive_P = (states_PD * targets_PD).sum(-1)
    negative_PN = (states_PD.unsqueeze(1) * negatives.view(*negatives_PN.shape, width)).sum(-1)
    return binary_cross_entropy(positive_P, negative_PN, negatives_PN > 0, batch.positions)


def binary_cross_entropy(positive_P: Tensor, negative_PN: Tensor, exists_PN: Tensor, positions: int) -> Tensor:
    """Sum over positions of BCE of the positive plus the sum of BCE over its negatives that exist, / positions.

    With one negative this is the loss of the papers: mean BCE of positives + mean BCE of negatives.
    """
    positive = F.softplus(-positive_P)
    negative = (F.softplus(negative_PN) * exists_PN).sum(-1)
    return (positive + negative).sum() / positions


def full_cross_entropy(
    states_PD: Tensor, item_embedding_VD: Tensor, targets_P: Tensor, positions: int | None = None
) -> Tensor:
    """Sum of the cross-entropy of each position's target among items 1..V-1 / positions (default: their mean).

    Row 0 of the table, padding, takes no part.

    Exact, in memory of a few chunks of logits, whatever P is: gradients are formed chunk by chunk in the
    forward pass, as they are known up to the scale that arrives in the backward pass. Differentiable once.
    """
    count = len(states_PD) if positions is None else positions
    loss: Tensor = _ChunkedCrossEntropy.apply(states_PD, item_embedding_VD, targets_P, count)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states_PD: Tensor, item_embedding_VD: Tensor, targets_P: Tensor, positions: int
    ) -> Tensor:
        states_PD, table_VD = states_PD.detach(), item_embedding_VD.detach()
        grad_states_PD, grad_table_VD = torch.empty_like(states_PD), torch.zeros_like(table_VD)
        total = states_PD.new_zeros(())
        chunk = max(1, _LOGITS_AT_ONCE // len(table_VD))
        for start in range(0, len(states_PD), chunk):
            part = slice(start, start + chunk)
            target_C1 = targets_P[part].unsqueeze(1) - 1
            logits_CV = states_PD[part] @ table_VD[1:].T
            at_target_C1 = logits_CV.gather(1, target_C1)
            normaliser_C1 = logits_CV.logsumexp(1, keepdim=True)
            total += (normaliser_C1 - at_target_C1).sum()
            grad_logits_CV = logits_CV.sub_(normaliser_C1).exp_()
            grad_logits_CV.scatter_add_(1, target_C1, torch.full_like(at_target_C1, -1.0))
            grad_states_PD[part] = grad_logits_CV @ table_VD[1:]
            grad_table_VD[1:].addmm_(grad_logits_CV.T, states_PD[part])
        ctx.save_for_backward(grad_states_PD, grad_table_VD)
        ctx.positions = positions
        return total / positions

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_states_PD, grad_table_VD = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.positions
        return grad_states_PD * scale, grad_table_VD * scale, None, None
