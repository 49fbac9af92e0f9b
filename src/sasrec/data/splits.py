"""Split a data set into a training part, validation and test targets, and the history before each target.

Leave-one-out follows the papers: the last event of a user is the test target, the event before it is the
validation target, and the model trains on all earlier events. `last-N` takes N targets instead of one.
`temporal` cuts the events of all users at the same two moments, so the model learns nothing from the time after a
target. docs/evaluation.md compares the splits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sasrec.config.choices import SplitName as SplitName
from sasrec.config.split_rule import EPOCH, split_rule
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories, exclusive_counts
from sasrec.errors import DataError


@dataclass(frozen=True)
class TrainingPart:
    """The rule by which the training part of a history ends. Checkpoints contain it, so serving needs no split."""

    held_out: int = 0
    """Number of last events of a user that are held out. A user with fewer events keeps all for training."""
    until: int | None = None
    """The first moment that is held out, in microseconds since 1970 UTC (temporal only)."""

    def ends(self, times: npt.NDArray[np.int64] | None, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(users,) the index after the last training event of user u, who owns offsets[u]:offsets[u + 1]."""
        starts, ends = offsets[:-1], offsets[1:]
        if self.until is None:
            return np.where(ends - starts > self.held_out, ends - self.held_out, ends)
        assert times is not None, "a temporal split was made of data with times"
        before = exclusive_counts(times < self.until)
        return starts + before[ends] - before[starts]


@dataclass(frozen=True, eq=False)
class EvaluationSplit:
    """Targets with the history before each. A row is one target; the rows of a user are in order of time."""

    name: SplitName
    users: npt.NDArray[np.int64]
    """(rows,) user numbers, ascending."""
    events: npt.NDArray[np.int64]
    """(rows,) the index of the target among the events of the data set. No two rows have the same target."""
    histories: Histories
    """(rows,) the user's events of known items before the target. At test they include validation targets."""
    targets: npt.NDArray[np.int64]
    """(rows,) item numbers."""
    known_V: npt.NDArray[np.bool_]
    """As in Split."""
    skipped: dict[str, int]
    """The number of users without a row, by reason. Each user counts once."""
    events_left_out: int
    """Number of events that the histories leave out, because their items are not known."""
    repeats_left_out: int
    """Number of events that are not targets because the user saw the item before; lists omit seen items."""

    @property
    def why_skipped(self) -> str:
        """The reasons why users have no row, with the number of users, as text."""
        reasons = [f"{reason}: {users:,}" for reason, users in self.skipped.items() if users]
        return "; ".join(reasons) or "the data has no users"


@dataclass(frozen=True, eq=False)
class Split:
    """The training part of a data set, and its validation and test targets."""

    how: str
    """The value of the setting `split`."""
    training: Histories
    """(users,) the training part of every user, in order of user number; some may be empty."""
    valid: EvaluationSplit
    test: EvaluationSplit
    known_V: npt.NDArray[np.bool_]
    """Which items are known: candidates, and possible negatives. Under a temporal split these are the items that
    occur in training. Otherwise all items are known, as in published results. Padding is never known."""
    training_part: TrainingPart
    """The rule by which the training part of a history ends."""
    event_times: npt.NDArray[np.int64] | None
    """The time of each event in `training.items`, in microseconds since 1970 UTC; None for data without times."""
    boundaries: tuple[int, int] | None
    """When validation and test begin, in microseconds since 1970 UTC; None unless temporal."""


# The users and events of the targets, and the number of users without a target by reason.
_Rows: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, int]]


def split_events(data: Dataset, how: str = "leave-one-out") -> Split:
    """Split the data by the rule `how`, the setting `split`.

    Raises: ConfigError for a malformed rule; DataError with the remedy if the rule leaves nothing to train
    on or to measure on.
    """
    rule = split_rule(how)
    starts, ends = data.offsets[:-1], data.offsets[1:]
    boundaries: tuple[int, int] | None = None
    if rule.boundaries:
        if data.times is None:
            raise DataError(
                f"split {how} needs times, and this data has none. "
                "Name the column of times (--time_column), or use --split leave-one-out"
            )
        boundaries = _boundaries(data.times, rule.boundaries, how)
        part = TrainingPart(until=boundaries[0])
        known_V = np.zeros(data.num_items + 1, bool)
        known_V[data.items[data.times < boundaries[0]]] = True
        valid = _first_from(data, boundaries[0], boundaries[1], known_V)
        test = _first_from(data, boundaries[1], None, known_V)
    else:
        long = ends - starts > 2 * rule.last
        if rule.last > 1 and not long.any():
            raise DataError(
                f"split {how} needs users with at least {2 * rule.last + 1} events, and the longest history has "
                f"{int((ends - starts).max(initial=0))}. Use a smaller N in last-N"
            )
        part = TrainingPart(held_out=2 * rule.last)
        known_V = np.arange(data.num_items + 1) > 0
        valid, test = _last(data, long, rule.last, 2 * rule.last), _last(data, long, rule.last, rule.last)
    views = _views(data, known_V)
    new_E = _new_to_user(data)
    return Split(
        how=how,
        training=views(starts, part.ends(data.times, data.offsets)),
        valid=_evaluation_split("valid", data, valid, new_E, known_V, views),
        test=_evaluation_split("test", data, test, new_E, known_V, views),
        known_V=known_V,
        training_part=part,
        event_times=None if data.times is None else data.times[known_V[data.items]],
        boundaries=boundaries,
    )


def iso(microseconds: int) -> str:
    """A moment as ISO 8601 text, in UTC."""
    return (EPOCH + timedelta(microseconds=int(microseconds))).isoformat()


def _evaluation_split(
    name: SplitName,
    data: Dataset,
    rows: _Rows,
    new_E: npt.NDArray[np.bool_],
    known_V: npt.NDArray[np.bool_],
    views: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Histories],
) -> EvaluationSplit:
    every_user, every_event, skipped = rows
    new = new_E[every_event]
    users, events = every_user[new], every_event[new]
    had = len(np.unique(every_user)) - len(np.unique(users))
    histories = views(data.offsets[users], events)
    return EvaluationSplit(
        name=name,
        users=users,
        events=events,
        histories=histories,
        targets=data.items[events].astype(np.int64),
        known_V=known_V,
        skipped=skipped | {"the user has had the target before": had},
        events_left_out=int((events - data.offsets[users] - histories.lengths).sum()),
        repeats_left_out=len(every_event) - len(events),
    )


def _new_to_user(data: Dataset) -> npt.NDArray[np.bool_]:
    """(events,) True for the first event of a user with an item."""
    user_E = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    _, first = np.unique(user_E * (data.num_items + 1) + data.items, return_index=True)
    new_E = np.zeros(data.num_events, bool)
    new_E[first] = True
    return new_E


def _views(
    data: Dataset, known_V: npt.NDArray[np.bool_]
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Histories]:
    """A function from ranges of events to histories of their known items."""
    if known_V[1:].all():
        return lambda starts, ends: Histories(data.items, None, starts, ends)
    kept = known_V[data.items]
    place = exclusive_counts(kept)
    items = data.items[kept]
    return lambda starts, ends: Histories(items, None, place[starts], place[ends])


def _last(data: Dataset, long: npt.NDArray[np.bool_], last: int, back: int) -> _Rows:
    """`last` targets of each user with enough events, from the event `back` before the end of the history on."""
    users = np.flatnonzero(long)
    events = (data.offsets[users + 1] - back)[:, None] + np.arange(last)
    skipped = {f"fewer than {2 * last + 1} events": int((~long).sum())}
    return np.repeat(users, last), events.ravel(), skipped


def _first_from(data: Dataset, begin: int, end: int | None, known_V: npt.NDArray[np.bool_]) -> _Rows:
    """Each user's first event in [begin, end), if the user and the item occurred earlier."""
    starts = data.offsets[:-1]
    events = starts + _events_before(data, begin)
    limit = data.offsets[1:] if end is None else starts + _events_before(data, end)
    known_before = exclusive_counts(known_V[data.items])
    target_known = np.zeros(data.num_users, bool)
    inside = events < limit
    target_known[inside] = known_V[data.items[events[inside]]]
    kept = np.ones(data.num_users, bool)
    skipped = {}
    for reason, met in (
        ("no event in this period", inside),
        ("new user: no event before this period", events > starts),
        ("the target's item is not in training", target_known),
        ("no item of the history is in training", known_before[events] > known_before[starts]),
    ):
        skipped[reason] = int((kept & ~met).sum())
        kept &= met
    users = np.flatnonzero(kept)
    return users, events[users], skipped


def _events_before(data: Dataset, moment: int) -> npt.NDArray[np.int64]:
    """(users,) the number of events of each user before a moment, which are the user's first events."""
    assert data.times is not None
    before = exclusive_counts(data.times < moment)
    return before[data.offsets[1:]] - before[data.offsets[:-1]]


def _boundaries(times: npt.NDArray[np.int64], asked: tuple[int | float, ...], how: str) -> tuple[int, int]:
    """The moments at which validation and test begin.

    A fraction becomes the moment with about that share of the events before it. Without a moment for validation,
    validation gets about as many events as test; equal times are never divided.
    """
    ordered = np.sort(times)
    total = len(ordered)
    given = [moment if isinstance(moment, int) else _with_before(ordered, moment * total, how) for moment in asked]
    test = given[-1]
    at_test = int(np.searchsorted(ordered, test))
    valid = given[0]
    if len(given) == 1 and 0 < at_test < total:
        if 2 * at_test <= total:
            raise DataError(
                f"split {how}: only {at_test} of {total} events lie before {iso(test)}, which leaves none "
                "for training if validation is as large as test. Use a later moment, or give both (temporal:T1,T2)"
            )
        valid = _with_before(ordered[:at_test], 2 * at_test - total, how)
    at_valid = int(np.searchsorted(ordered, valid))
    if not 0 < at_valid < at_test < total:
        raise DataError(
            f"split {how}: {at_valid} events lie before validation, {at_test - at_valid} in it, {total - at_test} "
            f"in test, and none may be empty. The times go from {iso(ordered[0])} to {iso(ordered[-1])}. "
            "Use other moments, or a fraction such as temporal:0.9"
        )
    return valid, test


def _with_before(ordered: npt.NDArray[np.int64], before: float, how: str) -> int:
    """The moment whose number of earlier events is nearest to `before`. It divides no equal times."""
    places = np.flatnonzero(np.diff(ordered)) + 1
    if not len(places):
        raise DataError(
            f"split {how}: the {len(ordered)} events to divide all have the same time. "
            "Use a later moment, give both (temporal:T1,T2), or use --split leave-one-out"
        )
    return int(ordered[places[np.argmin(np.abs(places - before))]])
