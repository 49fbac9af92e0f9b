"""All items that a user takes in a period as targets of one list: a row for each user, not for each target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sasrec.config.split_rule import split_rule
from sasrec.data.baskets import basket_starts
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories, exclusive_counts
from sasrec.data.parts import TEST, VALID
from sasrec.data.splits import EvaluationSplit, Split, events_before, new_to_user
from sasrec.errors import EvaluationError


@dataclass(frozen=True, eq=False)
class Period:
    """The users who have a target in the period of validation or of test."""

    part: EvaluationSplit
    """A row for each user, with the history before the period. Its `targets` are not those of the period."""
    relevant: Histories
    """(rows,) the items that each user takes in the period: known, each once, and not in the history unless items
    come again."""


def refuse_single_targets(split: Split) -> None:
    """Raise EvaluationError under leave-one-out, where no period has several targets of a user."""
    if split.other_file is None and split_rule(split.how).last == 1:
        raise EvaluationError(
            "under leave-one-out each user has one target, so `whole_period` has nothing to add. Train with a "
            "temporal split or last-N, or measure on a file of later events with `test`."
        )


def period_of(data: Dataset, split: Split, part: EvaluationSplit) -> Period:
    """Return the period of `part`, the validation or test part of `split`.

    Under a temporal split, the period has all events between its two moments, under last-N the last N events of
    each user (before those, for validation), and with files the events of the file. The history ends before all
    of them, also before those that do not count, such as an item that the user had before.
    """
    users, events = part.users, part.events
    if split.boundaries is not None:
        users, events = _between(data, split, part)
    begin_U = _begins(data, split, part)
    # Histories omit unknown items, so an event's place among the known events is its index.
    index = exclusive_counts(split.known_V[data.items])
    returning = index[begin_U[users]] > index[data.offsets[users]]
    users, first, row_E = np.unique(users[returning], return_index=True, return_inverse=True)
    events = events[returning]
    keys = np.unique(row_E * (data.num_items + 1) + data.items[events])
    row_E, item_E = np.divmod(keys, data.num_items + 1)
    ends = np.searchsorted(row_E, np.arange(len(users)), side="right")
    starts = np.concatenate([np.zeros(min(1, len(users)), np.int64), ends[:-1]])
    histories = replace(part.histories, starts=index[data.offsets[users]], ends=index[begin_U[users]])
    rows = replace(
        part,
        users=users,
        events=events[first],
        histories=histories,
        targets=data.items[events[first]].astype(np.int64),
        skipped={"no target in the period": data.num_users - len(users)},
    )
    return Period(rows, Histories(item_E.astype(np.int32), None, starts, ends))


def _between(
    data: Dataset, split: Split, part: EvaluationSplit
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return users and events of the period of a temporal split that count, both (events,)."""
    assert data.times is not None, "a temporal split needs times"
    begin, end = _moments(split, part)
    counts_E = split.known_V[data.items] & (data.times >= begin)
    if end is not None:
        counts_E &= data.times < end
    if not split.repeats:
        counts_E &= new_to_user(data)
    events = np.flatnonzero(counts_E)
    return np.searchsorted(data.offsets, events, side="right") - 1, events


def _begins(data: Dataset, split: Split, part: EvaluationSplit) -> npt.NDArray[np.int64]:
    """Return the index of each user's first event of the period, (users,), also if it does not count.

    With baskets, it is the first event of that event's basket. Ignore the values of users without a target.
    """
    starts, ends = data.offsets[:-1], data.offsets[1:]
    begins: npt.NDArray[np.int64]
    if split.boundaries is not None:
        begins = starts + events_before(data, _moments(split, part)[0])
    elif data.parts is not None:
        own = VALID if part.name == "valid" else TEST
        events = np.append(np.flatnonzero(data.parts == own), len(data.parts))
        begins = np.minimum(ends, events[np.searchsorted(events, starts)])
    else:
        begins = np.maximum(starts, ends - split_rule(split.how).last * (2 if part.name == "valid" else 1))
    if split.basket_starts is None or split.boundaries is not None:
        return begins
    assert data.times is not None, "baskets need times"
    first_E: npt.NDArray[np.int64] = basket_starts(data.times, starts)
    return first_E[np.minimum(begins, len(first_E) - 1)]


def _moments(split: Split, part: EvaluationSplit) -> tuple[int, int | None]:
    """Return when the period begins, and when it ends; in microseconds, None for the end of the data."""
    assert split.boundaries is not None
    return split.boundaries if part.name == "valid" else (split.boundaries[1], None)
