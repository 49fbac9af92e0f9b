"""Give other events the item numbers of a catalogue, so that a trained model can read them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.items import Items, shown
from sasrec.errors import DataError, SasrecWarning, amount


def onto(catalogue: Items, new: Dataset, *, everybody: bool = False) -> Dataset:
    """Return the events of `new` with the item numbers of `catalogue`, in the same order.

    Events of items that the catalogue lacks are left out, and so are users without any other event unless
    `everybody` keeps them; a warning counts both. Which file an event came from is forgotten. Cost: one join of
    the two catalogues.

    Raises: DataError if no item of `new` is in the catalogue, unless `everybody` is set. Remedy: write the ids as
    in the data of the run.
    """
    number_V = _numbers(catalogue, new) if everybody else known_numbers(catalogue, new)
    items = number_V[new.items]
    known_E = items > 0
    user_E = np.repeat(np.arange(new.num_users), np.diff(new.offsets))
    lengths = np.bincount(user_E[known_E], minlength=new.num_users)
    known_users = np.flatnonzero(lengths)
    users = np.arange(new.num_users) if everybody else known_users
    if left_out := int((~known_E).sum()):
        unknown = int(np.count_nonzero(number_V[1:] == 0))
        nobody = new.num_users - len(known_users)
        note = ""
        if nobody:
            only = f"{amount(nobody, 'user')} with only such events"
            note = f"; there {'is' if nobody == 1 else 'are'} {only}" if everybody else f". This leaves out {only}"
        warnings.warn(
            f"{left_out:,} of {new.num_events:,} events are left out, because the run does not know their "
            f"{amount(unknown, 'item')}{note}",
            SasrecWarning,
            stacklevel=2,
        )
    return replace(
        new,
        items=items[known_E],
        times=None if new.times is None else np.asarray(new.times)[known_E],
        offsets=np.concatenate([[0], np.cumsum(lengths[users])]).astype(np.int64),
        user_ids=new.user_ids.gather(users),
        catalogue=catalogue,
        parts=None,
    )


def known_numbers(catalogue: Items, new: Dataset) -> npt.NDArray[np.int32]:
    """Return (V,): the number in `catalogue` of each item number of `new`; 0 for items that the catalogue lacks.

    Raises: DataError if it lacks all. Remedy: write the ids as in the data of the run.
    """
    number_V = _numbers(catalogue, new)
    if not number_V.any():
        raise DataError(
            f"no item of {new.name!r} is known to the run: an item is {shown(new.catalogue.ids[0])} there and "
            f"{shown(catalogue.ids[0])} in the run. Give events of the run's items, written with the same ids."
        )
    return number_V


def _numbers(catalogue: Items, new: Dataset) -> npt.NDArray[np.int32]:
    number_of = new.catalogue.ids.cast(pl.String).replace_strict(
        catalogue.ids.cast(pl.String), pl.int_range(1, len(catalogue) + 1, eager=True), default=0
    )
    return np.append(0, number_of.to_numpy()).astype(np.int32)
