"""Choose the targets of the split `files`: all events of a validation or test file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sasrec.data.dataset import Dataset
from sasrec.data.histories import exclusive_counts
from sasrec.data.parts import PART_NAMES


def targets_of_file(
    data: Dataset, part: int, known_V: npt.NDArray[np.bool_], *, new_users: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, int], dict[str, int]]:
    """Return users and target events of a part, both (rows,); skipped users and left-out events, each by reason.

    Each event of the part is a target, except events of users without an event in an earlier file, events of
    unknown items, and events without a known item before them. A user is skipped if no event is left; the reason
    that removed the user's last event counts. `new_users`: users without an event in an earlier file have targets
    too.
    """
    assert data.parts is not None, "data of the split files has parts"
    starts, ends = data.offsets[:-1], data.offsets[1:]
    events = np.flatnonzero(data.parts == part)
    if not len(events):
        return events, events, {f"there is no {PART_NAMES[part]} file": data.num_users}, {}
    users = np.searchsorted(data.offsets, events, side="right") - 1
    earlier_parts = exclusive_counts(data.parts < part)
    known_before = exclusive_counts(known_V[data.items])
    kept = np.ones(len(events), bool)
    with_targets = _any_of_user(data, users)
    skipped, left_out = {"no event in this file": int((~with_targets).sum())}, {}
    for reason, condition in (
        (
            "new user: no event in an earlier file",
            new_users | (earlier_parts[ends[users]] > earlier_parts[starts[users]]),
        ),
        ("the target's item is not in training", known_V[data.items[events]]),
        ("no item of the history is in training", known_before[events] > known_before[starts[users]]),
    ):
        left_out[reason] = int((kept & ~condition).sum())
        kept &= condition
        remaining = _any_of_user(data, users[kept])
        skipped[reason] = int((with_targets & ~remaining).sum())
        with_targets = remaining
    return users[kept], events[kept], skipped, left_out


def _any_of_user(data: Dataset, users: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return (users,): true for the user numbers that occur in `users`."""
    found = np.zeros(data.num_users, bool)
    found[users] = True
    return found
