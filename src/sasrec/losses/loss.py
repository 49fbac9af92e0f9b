"""The training loss of a batch: full cross-entropy, or a loss against sampled negatives (docs/losses.md).

A loss is the mean over the real positions of a batch. Of a part of a batch it is that part's share of the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sasrec.batches.loader import DeviceTrainingBatch
from sasrec.config.settings import LossConfig
from sasrec.losses.full import full_cross_entropy, left_out_of, logits_at_once, products_in
from sasrec.losses.sampled import InChunks, sampled_loss
from sasrec.models import SequenceModel

# So many negatives of its own a position may have to be looked up at once, together with inputs and targets.
_FEW = 8


def training_loss(model: SequenceModel, batch: DeviceTrainingBatch, config: LossConfig) -> Tensor:
    """The mean loss of a batch, a scalar; of a part of one, its share: sum / positions of the whole batch."""
    items_BL, positions_BL, ticks_BL, real_P = batch.items_BL, batch.positions_BL, batch.ticks_BL, batch.real_P
    targets_P = batch.targets_P
    table_VD = model.item_embedding.weight
    if batch.negatives is None:
        states_PD = model(items_BL, positions_BL, ticks_BL).flatten(0, 1)[real_P]
        products = products_in(model.device.type, table_VD.dtype)
        with torch.autocast(model.device.type, enabled=False):  # sums need the digits
            states_PD = _tempered(states_PD.to(table_VD.dtype), config.temperature)
            left_out = left_out_of(batch)
            return full_cross_entropy(
                states_PD, table_VD, targets_P, batch.positions, config.label_smoothing, left_out, products
            )
    negatives = batch.negatives
    few = negatives.dim() == 1 or negatives.shape[-1] <= _FEW
    looked_up = negatives if few else negatives[:0]
    # One lookup for inputs, targets and negatives: each lookup costs a dense gradient of the whole table.
    ids = torch.cat([items_BL.flatten(), targets_P, looked_up.flatten()])
    inputs, targets_PD, vectors = torch.split(
        model.embed(ids), [items_BL.numel(), len(targets_P), looked_up.numel()]
    )
    width = inputs.shape[-1]  # not -1: a part of a batch may be empty
    vectors_BLD = inputs.view(*items_BL.shape, width)
    states_PD = model.encode(vectors_BLD, positions_BL, ticks_BL).flatten(0, 1)[real_P].to(targets_PD.dtype)
    with torch.autocast(model.device.type, enabled=False):
        states_PD = _tempered(states_PD, config.temperature)
        vectors = vectors.view(*negatives.shape, width) if few else table_VD
        loss_of = sampled_loss(model, batch, config, negatives)
        if vectors.dim() == 3:
            return loss_of(slice(None), states_PD, targets_PD, vectors)
        if negatives.dim() == 1:
            chunk = logits_at_once(model.device) // len(negatives)
        else:  # each chunk costs a gradient of the table, and may well be as large
            chunk = max(logits_at_once(model.device), table_VD.numel()) // (negatives.shape[1] * width)
        loss: Tensor = InChunks.apply(  # type: ignore[no-untyped-call]
            loss_of, max(1, chunk), states_PD, targets_PD, vectors
        )
        return loss


def _tempered(states_PD: Tensor, temperature: float) -> Tensor:
    """Scores are linear in the states, so this divides them all."""
    return states_PD if temperature == 1 else states_PD / temperature
