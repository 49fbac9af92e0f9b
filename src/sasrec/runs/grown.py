"""Give a model of more items the weights of a run: vectors of known items are copied, new ones estimated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from sasrec.checkpoint.store import Checkpoint
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.errors import CheckpointError
from sasrec.models import SequenceModel

_TABLE = "item_embedding.weight"
_RARE = 0.1  # of the known items, those with the fewest events


def put_grown_weights(
    found: Checkpoint,
    model: SequenceModel,
    catalogue: Items,
    known_V: npt.NDArray[np.bool_],
    histories: Histories,
    counts_V: npt.NDArray[np.int64],
) -> dict[str, int]:
    """Copy the weights of a checkpoint into a model of the extended `catalogue`.

    A new item gets the mean vector of the known items that stand next to it in the histories; without such
    neighbours, that of the known items of its group; else that of the rarest tenth of the known items.

    `known_V`: (V,) true for items whose vectors the checkpoint has learned; V counts the extended catalogue.
    `counts_V`: (V,) events of each item before. Returns how many new items began in each of these ways.

    Raises: CheckpointError if another tensor than the item table has other shapes. Remedy: train a new run.
    """
    wanted = model.state_dict()
    for name, tensor in found.weights.items():
        if name != _TABLE and tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{found.path} cannot take new items, because its tensor {name} has a row for each item too. "
                "Train a new run on all events."
            )
    vectors_VD, ways = _vectors(found.weights[_TABLE].float(), catalogue, known_V, histories, counts_V)
    model.load_state_dict({**found.weights, _TABLE: vectors_VD})
    return ways


def mean_cosine(found: Checkpoint, model: SequenceModel, known_V: npt.NDArray[np.bool_]) -> float:
    """Return the mean cosine of the vectors of known items in a checkpoint and in a model refreshed from it."""
    known = torch.from_numpy(np.flatnonzero(known_V))
    before, now = found.weights[_TABLE][known], model.item_embedding.weight.detach().cpu()[known]
    return float(torch.nn.functional.cosine_similarity(before.float(), now.float()).mean())


def _vectors(
    old_VD: Tensor,
    catalogue: Items,
    known_V: npt.NDArray[np.bool_],
    histories: Histories,
    counts_V: npt.NDArray[np.int64],
) -> tuple[Tensor, dict[str, int]]:
    """Return the vectors of all items, (V, D), and how many new ones are of neighbours, groups and rare items."""
    grown_VD = torch.zeros(len(known_V), old_VD.shape[1])
    grown_VD[: len(old_VD)] = old_VD
    known = np.flatnonzero(known_V)
    rare = known[np.argsort(counts_V[known], kind="stable")][: max(1, int(_RARE * len(known)))]
    left_V = ~known_V
    left_V[0] = False
    grown_VD[torch.from_numpy(left_V)] = old_VD[torch.from_numpy(rare)].mean(0)
    new_P, like_P = _next_to(histories, known_V)
    group_V = _groups(catalogue)
    ways = {}
    for name, (mean_KD, count_K), key_V in (
        ("neighbours", _means(new_P, old_VD[torch.from_numpy(like_P)], len(known_V)), np.arange(len(known_V))),
        ("group", _means(group_V[known], old_VD[torch.from_numpy(known)], len(known_V)), group_V),
    ):
        chosen_V = left_V & (count_K[key_V] > 0) & (key_V > 0)
        grown_VD[torch.from_numpy(chosen_V)] = mean_KD[torch.from_numpy(key_V[chosen_V])]
        left_V &= ~chosen_V
        ways[name] = int(chosen_V.sum())
    return grown_VD, ways | {"rare": int(left_V.sum())}


def _means(key_P: npt.NDArray[np.int64], vectors_PD: Tensor, keys: int) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Return the mean vector of each key, (K, D), and how many vectors have it, (K,)."""
    count_K = np.bincount(key_P, minlength=keys)
    sums_KD = torch.zeros(keys, vectors_PD.shape[1]).index_add_(0, torch.from_numpy(key_P), vectors_PD)
    return sums_KD / torch.from_numpy(count_K).clamp(min=1)[:, None], count_K


def _next_to(
    histories: Histories, known_V: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs (P,), (P,) of a new and a known item that are consecutive in a history, in either order."""
    items = histories.items[histories.flat()].astype(np.int64)
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    together = row[1:] == row[:-1]
    first, second = items[:-1][together], items[1:][together]
    new, other = np.concatenate([first, second]), np.concatenate([second, first])
    pairs = ~known_V[new] & known_V[other]
    return new[pairs], other[pairs]


def _groups(catalogue: Items) -> npt.NDArray[np.int64]:
    """Return (V,) a number from 1 for the group of each item; 0 for items without a group."""
    if catalogue.groups is None:
        return np.zeros(len(catalogue) + 1, np.int64)
    numbers = catalogue.groups.cast(pl.String).rank("dense").fill_null(0)
    return np.append(0, numbers.to_numpy()).astype(np.int64)
