"""Which part of each history is for training, validation and test.

Leave-one-out, as in the papers: a user's last event is the test target, the one before it the validation
target, and all before those are for training. Users with fewer than three events are only trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sasrec.data.dataset import Dataset

SplitName: TypeAlias = Literal["valid", "test"]
MIN_EVENTS = 3


@dataclass(frozen=True, eq=False)
class Histories:
    """Views into one flat array of items: history r is items[starts[r]:ends[r]], oldest first."""

    items: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64] | None
    """(events,) personal times (data/intervals.py), or None where no model asks for them."""
    starts: npt.NDArray[np.int64]
    """(rows,)"""
    ends: npt.NDArray[np.int64]
    """(rows,) exclusive"""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return self.ends - self.starts

    def flat(self) -> npt.NDArray[np.int64]:
        """(events,) where the events of all rows are in `items`, row after row."""
        lengths: npt.NDArray[np.int64] = self.lengths
        shift = self.starts - (np.cumsum(lengths) - lengths)
        found: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
        return found


@dataclass(frozen=True, eq=False)
class EvaluationSplit:
    """Users with a target, what the model may see of them, and the item it should find."""

    name: SplitName
    users: npt.NDArray[np.int64]
    """(rows,) user numbers."""
    histories: Histories
    """(rows,) every event before the target; at test this includes the validation item."""
    targets: npt.NDArray[np.int64]
    """(rows,) item numbers."""
    users_skipped: int
    """Users with too few events to have a target."""


def training_ends(data: Dataset) -> npt.NDArray[np.int64]:
    """(users,) where the training part of each user ends, exclusive."""
    starts, ends = data.offsets[:-1], data.offsets[1:]
    return np.where(ends - starts >= MIN_EVENTS, ends - 2, ends)


def training_histories(data: Dataset, times: npt.NDArray[np.int64] | None = None) -> Histories:
    """(users,) the training part of every user, in order of user number; `times` as in Histories."""
    return Histories(data.items, times, data.offsets[:-1], training_ends(data))


def evaluation_split(
    data: Dataset, name: SplitName, times: npt.NDArray[np.int64] | None = None
) -> EvaluationSplit:
    """The users with at least three events, with their last (test) or last but one (valid) event as target."""
    starts, ends = data.offsets[:-1], data.offsets[1:]
    users = np.flatnonzero(ends - starts >= MIN_EVENTS)
    target_at = ends[users] - (1 if name == "test" else 2)
    return EvaluationSplit(
        name=name,
        users=users,
        histories=Histories(data.items, times, starts[users], target_at),
        targets=data.items[target_at].astype(np.int64),
        users_skipped=data.num_users - len(users),
    )
