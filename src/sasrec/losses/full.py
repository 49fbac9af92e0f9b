"""Cross-entropy over the whole catalogue, in memory of a few chunks of logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sasrec.batches.loader import DeviceTrainingBatch

# Logits held at a time: 4 MB in fp32, which stay near a CPU's cache; other devices want larger products. So few
# positions at a time that the table is read oftener than it must be cost more than they save.
_LOGITS_AT_ONCE = 2**20
_TIMES_MORE = 64
_POSITIONS_AT_LEAST = 32


def logits_at_once(device: torch.device) -> int:
    """How many logits a loss holds in memory at a time."""
    return _LOGITS_AT_ONCE * (1 if device.type == "cpu" else _TIMES_MORE)


def products_in(device: str, full: torch.dtype) -> torch.dtype:
    """What scores of the whole catalogue are multiplied in: they are most of the work. Not in fp16, whose smallest
    probabilities would vanish from the gradients."""
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if half else full


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


def left_out_of(batch: DeviceTrainingBatch) -> LeftOut | None:
    """The items that the softmax of a batch leaves out, or None if it leaves out none."""
    own_BK, unknown_U = batch.own_BK, batch.run.unknown_U
    if own_BK is None and unknown_U is None:
        return None
    return LeftOut(
        batch.items_BL[:, :0] if own_BK is None else own_BK,
        batch.row_P,
        batch.targets_P[:0] if unknown_U is None else unknown_U,
    )


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
        chunk = max(_POSITIONS_AT_LEAST, logits_at_once(table_VD.device) // len(table_VD))
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
        # In place: the table's gradient is as large as the table, and nobody else reads these.
        return grad_states_PD.mul_(scale), grad_table_VD.mul_(scale), None, None, None, None, None


def _evenly(logits_CV: Tensor, some_left_out: bool) -> tuple[Tensor, Tensor | float]:
    """The mean logit of each position's candidates, (C, 1), and the share of each of them."""
    if not some_left_out:
        return logits_CV.mean(1, keepdim=True), 1 / logits_CV.shape[1]
    even_CV = torch.gt(logits_CV, -torch.inf, out=torch.empty_like(logits_CV))  # booleans are slow to sum
    even_CV.div_(even_CV.sum(1, keepdim=True))
    finite_CV = logits_CV.clamp(min=torch.finfo(logits_CV.dtype).min)
    return finite_CV.mul_(even_CV).sum(1, keepdim=True), even_CV
