"""The training loss of a batch: full cross-entropy, or a loss against sampled negatives.

A loss is the mean over the real positions of a batch. A part of a batch gives its share of this mean: its sum
divided by the positions of the whole batch. The losses of all parts therefore add up to the loss of the batch.
docs/explanation/losses.md explains the losses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sasrec.batches.loader import DeviceTrainingBatch
from sasrec.config.settings import LossConfig
from sasrec.errors import ConfigError
from sasrec.losses.full import full_cross_entropy, left_out_of, logits_at_once, products_in
from sasrec.losses.sampled import InChunks, sampled_loss
from sasrec.models import SequenceModel
from sasrec.models.own import LossFunction

# Up to this many negatives per position are looked up in one call, together with inputs and targets.
_FEW = 8


def training_loss(model: SequenceModel, batch: DeviceTrainingBatch, config: LossConfig) -> Tensor:
    """Return the mean loss of a batch, or for a part of a batch its share of this mean: a scalar with gradient."""
    items_BL, positions_BL, ticks_BL, real_P = batch.items_BL, batch.positions_BL, batch.ticks_BL, batch.real_P
    targets_P = batch.targets_P
    table_VD = model.item_embedding.weight
    if batch.negatives is None:
        states_PD = model(items_BL, positions_BL, ticks_BL).flatten(0, 1)[real_P]
        products = products_in(model.device.type, table_VD.dtype)
        with torch.autocast(model.device.type, enabled=False):  # half precision is too coarse for sums over items
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
    width = inputs.shape[-1]  # -1 is ambiguous if a part of a batch is empty
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
        else:  # each chunk costs a gradient of the whole table, so let a chunk be as large as the table
            chunk = max(logits_at_once(model.device), table_VD.numel()) // (negatives.shape[1] * width)
        loss: Tensor = InChunks.apply(  # type: ignore[no-untyped-call]
            loss_of, max(1, chunk), states_PD, targets_PD, vectors
        )
        return loss


def own_loss(loss_function: LossFunction, model: SequenceModel, batch: DeviceTrainingBatch) -> Tensor:
    """Return the loss of a batch, or the share of its part, by a function of the caller: a scalar with gradient.

    Raises: ConfigError if the function returns something else. Remedy: return a scalar tensor.
    """
    loss = loss_function(model, batch)
    constant = isinstance(loss, Tensor) and torch.is_grad_enabled() and not loss.requires_grad
    if not isinstance(loss, Tensor) or loss.dim() or constant:
        found = "a constant" if constant else f"{type(loss).__name__} {getattr(loss, 'shape', loss)}"
        raise ConfigError(f"`loss_function` must return a scalar tensor with gradient, not {found}. Return a sum.")
    return loss


def squares(model: SequenceModel, tables: Literal["items", "all"]) -> Tensor:
    """Return the sum of the squares of the item embeddings, or of all embedding tables: a scalar with gradient.

    `l2_emb` times this sum is the L2 penalty. TiSASRec's authors penalise all five tables in this way.
    """
    penalised = [model.item_embedding.weight] if tables == "items" else model.embedding_tables()
    return torch.stack([table.square().sum() for table in penalised]).sum()


def _tempered(states_PD: Tensor, temperature: float) -> Tensor:
    """Divide the states by the temperature. Scores are linear in the states, so this divides all scores."""
    return states_PD if temperature == 1 else states_PD / temperature
