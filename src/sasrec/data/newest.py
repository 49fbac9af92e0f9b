"""Find the events that are new since a run, and hold out the newest of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.dataset import Dataset

_HELD_OUT = 0.1  # of the new events


def new_events(old: Dataset, data: Dataset) -> npt.NDArray[np.bool_]:
    """Return (events,): true for the events of `data` that `old` lacks.

    Events are equal if user, item and, where both have them, time are. Of equal events, as many are new as `data`
    has more than `old`. `data` has the catalogue of `old`, extended, so the items of both have the same numbers.
    """
    timed = old.times is not None and data.times is not None
    user_of = data.user_ids.cast(pl.String).replace_strict(
        old.user_ids.cast(pl.String), pl.int_range(old.num_users, eager=True), default=-1
    )
    before = _frame(old, np.arange(old.num_users), timed=timed)
    now = _frame(data, user_of.to_numpy(), timed=timed).with_row_index("event")
    known = now.join(before, on=before.columns, how="semi")["event"].to_numpy()
    new_E = np.ones(data.num_events, bool)
    new_E[known] = False
    return new_E


def held_out(data: Dataset, new_E: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return (events,): true for the newest of the new events, which a comparison holds out.

    With times, these are about the last tenth. Without, or if all new events have one time, they are the last new
    event of each user.
    """
    new = np.flatnonzero(new_E)
    if data.times is not None:
        times = np.asarray(data.times)[new]
        late = times >= np.sort(times)[int((1 - _HELD_OUT) * len(new))]
        if not late.all():
            return _only(data, new[late])
    users = np.searchsorted(data.offsets, new, side="right")
    return _only(data, new[np.append(np.diff(users) > 0, True)])


def drift(old: Dataset, data: Dataset, new_E: npt.NDArray[np.bool_]) -> float:
    """Return how far the popularity of items has moved, from 0 to 1.

    This is the total variation distance of the shares of items in the events of `old` and in the new events: the
    share of the new events that went to other items than the old shares predict.
    """
    counts = [np.bincount(items, minlength=data.num_items + 1) for items in (old.items, data.items[new_E])]
    before, now = (each / each.sum() for each in counts)
    return float(np.abs(before - now).sum() / 2)


def _only(data: Dataset, events: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    chosen_E = np.zeros(data.num_events, bool)
    chosen_E[events] = True
    return chosen_E


def _frame(data: Dataset, users: npt.NDArray[np.int64], *, timed: bool) -> pl.DataFrame:
    """Return user, item[, time] and the number of each event among its equals."""
    columns = {"user": np.repeat(users, np.diff(data.offsets)), "item": np.asarray(data.items)}
    frame = pl.DataFrame(columns | ({"time": np.asarray(data.times)} if timed else {}))
    # A user whom `old` lacks has the number -1, which `old` never has, so that all of them can share it.
    return frame.with_columns(again=pl.int_range(pl.len()).over(frame.columns))
