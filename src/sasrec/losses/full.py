"""Cross-entropy over the whole catalogue; only one chunk of the logits is in memory at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sasrec.batches.loader import DeviceTrainingBatch

# Logits in one chunk: 4 MB in fp32, about the size of a CPU cache.
_LOGITS_AT_ONCE = 2**20
# Accelerators need larger matrix products to be busy.
_ACCELERATOR_FACTOR = 64
# Each chunk reads the whole item table, so a chunk of very few positions would spend most of its time on reading.
_POSITIONS_AT_LEAST = 32


def logits_at_once(device: torch.device) -> int:
    """Return how many logits one chunk of a loss may contain on this device."""
    return _LOGITS_AT_ONCE * (1 if device.type == "cpu" else _ACCELERATOR_FACTOR)


def products_in(device: str, full: torch.dtype) -> torch.dtype:
    """Return the data type for the matrix products of the full softmax.

    This type is bfloat16 under bfloat16 autocast, else `full`.
    These products are most of the work. fp16 is never used, because small probabilities would underflow to zero
    in the gradients.
    """
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if half else full


class LeftOut(NamedTuple):
    """Items that the softmax excludes from its candidates. The target of a position is never excluded."""

    own_BK: Tensor
    """(B, K) the K items to exclude at every position of a row: the user's training items. K may be 0."""
    row_P: Tensor
    """(P,) for each position, the number of its row in `own_BK`."""
    unknown_U: Tensor
    """Item numbers of unknown items (no training event), to exclude at every position; U may be 0."""

    def fill(self, logits_CV: Tensor, part: slice) -> None:
        """Set the logits of excluded items to -inf, in place. `part`: the positions of the rows of `logits_CV`.

        `logits_CV` has no column for padding, so column 0 is item 1.
        """
        logits_CV.scatter_(1, self.own_BK[self.row_P[part]] - 1, -torch.inf)
        logits_CV.index_fill_(1, self.unknown_U - 1, -torch.inf)


def left_out_of(batch: DeviceTrainingBatch) -> LeftOut | None:
    """Return the items that the softmax of a batch excludes, or None if every item is a candidate."""
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
    """Return the cross-entropy of the targets among items 1..V-1, summed over P and divided by `positions`.

    `positions` defaults to P, which gives the mean. `label_smoothing` moves that share of the target's
    probability evenly to all candidates, including the target. The candidates exclude padding (row 0) and
    `left_out`. `products` is the data type of the three matrix products, by default the type of the table.

    Memory is one chunk of logits for any P. The forward pass also computes the gradients, chunk by chunk; the
    backward pass only scales the gradients. Second derivatives are not supported.
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
        # The backward pass only multiplies by a scalar, so the gradients can be computed here, while a chunk of
        # logits exists. Otherwise the logits would have to be stored or computed twice.
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
            # The exclusion may cover the target, so restore the target's logit after it.
            if left_out is not None:
                left_out.fill(logits_CV, part)
                logits_CV.scatter_(1, target_C1, at_target_C1)
            normaliser_C1 = logits_CV.logsumexp(1, keepdim=True)
            total += (normaliser_C1 - at_target_C1).sum()
            if smoothing > 0:
                mean_C1, even = _uniform(logits_CV, left_out is not None)
                total += smoothing * (at_target_C1 - mean_C1).sum()
            # d loss / d logits = softmax - target distribution, computed in place of the logits to save memory.
            grad_logits_CV = logits_CV.sub_(normaliser_C1).exp_()
            if smoothing > 0:
                grad_logits_CV.sub_(even, alpha=smoothing)
            grad_logits_CV.scatter_add_(1, target_C1, torch.full_like(at_target_C1, smoothing - 1.0))
            factor_CV = grad_logits_CV.to(products)
            grad_states_PD[part] = factor_CV @ items_VD
            # addmm_ adds without a temporary (V, D) tensor, but requires equal data types.
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


def _uniform(logits_CV: Tensor, has_exclusions: bool) -> tuple[Tensor, Tensor | float]:
    """Return the mean logit over each position's candidates, (C, 1), and the uniform distribution over them."""
    if not has_exclusions:
        return logits_CV.mean(1, keepdim=True), 1 / logits_CV.shape[1]
    # Ones and zeros as floats, because summing booleans is slow.
    even_CV = torch.gt(logits_CV, -torch.inf, out=torch.empty_like(logits_CV))
    even_CV.div_(even_CV.sum(1, keepdim=True))
    # -inf times a weight of 0 would be NaN, so replace -inf by the smallest finite number.
    finite_CV = logits_CV.clamp(min=torch.finfo(logits_CV.dtype).min)
    return finite_CV.mul_(even_CV).sum(1, keepdim=True), even_CV
