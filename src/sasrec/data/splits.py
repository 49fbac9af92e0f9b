"""Split a data set into training events, validation targets and test targets, each target with its history.

`leave-one-out` (Kang & McAuley 2018) takes a user's last event as test target and the second-last as validation
target; all earlier events are training events. `last-N` takes N test and N validation targets per user. `temporal`
cuts the events of all users at the same two moments, so the model never learns from events later than a target.
`files` takes the events of own validation and test files as targets. `all` holds out nothing.
docs/explanation/splits-and-leaks.md compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sasrec.config.choices import SplitName as SplitName
from sasrec.config.split_rule import ALL, FILES, split_rule
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories, exclusive_counts
from sasrec.data.moments import boundaries_of
from sasrec.data.parts import TEST, TRAIN, VALID
from sasrec.data.split_by_file import targets_of_file
from sasrec.errors import ConfigError, DataError, amount


@dataclass(frozen=True)
class TrainingPart:
    """The rule that decides where the training part of a history ends. Checkpoints store it for serving."""

    held_out: int = 0
    """Number of last events to hold out per user. A user with at most this many keeps all events for training."""
    until: int | None = None
    """Start of the held-out events, in microseconds since 1970 UTC; None unless the split is temporal."""
    everything: bool = False
    """Whether the events of own validation and test files are training events too (split `all`)."""

    def ends(
        self,
        times: npt.NDArray[np.int64] | None,
        offsets: npt.NDArray[np.int64],
        parts: npt.NDArray[np.int8] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Return the exclusive end of each user's training part, (users,), as an index into the events.

        User u owns the events offsets[u]:offsets[u + 1]. Only a temporal split reads `times` (microseconds).
        With `parts` (data/parts.py), the training part ends before the user's first event of another part.
        """
        starts, ends = offsets[:-1], offsets[1:]
        if self.everything:
            return ends
        if parts is not None:
            held_out = np.append(np.flatnonzero(parts != TRAIN), len(parts))
            first: npt.NDArray[np.int64] = np.minimum(ends, held_out[np.searchsorted(held_out, starts)])
            return first
        if self.until is None:
            return np.where(ends - starts > self.held_out, ends - self.held_out, ends)
        assert times is not None, "a temporal split needs times"
        # Events of a user are in order of time, so counting the earlier ones finds the end.
        before = exclusive_counts(times < self.until)
        return starts + before[ends] - before[starts]


@dataclass(frozen=True, eq=False)
class EvaluationSplit:
    """The targets of validation or test, one per row, each with its history; rows of a user in order of time."""

    name: SplitName
    users: npt.NDArray[np.int64]
    """(rows,) user numbers, ascending."""
    events: npt.NDArray[np.int64]
    """(rows,) index of the target event in the data set; all are different."""
    histories: Histories
    """(rows,) the user's events before the target, without unknown items. Test histories include the user's
    validation targets."""
    targets: npt.NDArray[np.int64]
    """(rows,) item number of each target."""
    known_V: npt.NDArray[np.bool_]
    """(V,) true for items that are candidates; the same array as `Split.known_V`."""
    skipped: dict[str, int]
    """Maps each reason for skipping users to the number of users skipped. Each skipped user counts once."""
    events_left_out: int
    """The number of events removed from histories because the item of the event is unknown, summed over rows."""
    repeats_left_out: int
    """The number of events left out of the targets because the user had already seen the item of the event."""
    targets_left_out: dict[str, int] = field(default_factory=dict)
    """Maps each other reason for leaving out a target to the number of targets; only for the split `files`."""
    repeats: bool = False
    """Whether seen items are targets and candidates."""

    def of_users(self, count: int, seed: int) -> EvaluationSplit:
        """Return the rows of `count` users, drawn by the seed; all rows if there are not more users."""
        distinct = np.unique(self.users)
        if count >= len(distinct):
            return self
        drawn = np.random.default_rng(seed).choice(distinct, count, replace=False)
        rows = np.flatnonzero(np.isin(self.users, drawn))
        starts, ends = self.histories.starts[rows], self.histories.ends[rows]
        return replace(
            self,
            users=self.users[rows],
            events=self.events[rows],
            histories=replace(self.histories, starts=starts, ends=ends),
            targets=self.targets[rows],
        )

    @property
    def why_skipped(self) -> str:
        """One line of text: each reason for skipping users, and how many users were skipped for it."""
        reasons = [f"{reason}: {users:,}" for reason, users in self.skipped.items() if users]
        return "; ".join(reasons) or "the data set has no users"


@dataclass(frozen=True, eq=False)
class Split:
    """A data set split into the parts that training, validation and test may use."""

    how: str
    """The value of the setting `split`, such as "leave-one-out"."""
    training: Histories
    """(users,) the training part of each user, in order of user number. A temporal split can make it empty."""
    valid: EvaluationSplit
    test: EvaluationSplit
    known_V: npt.NDArray[np.bool_]
    """(V,) true for known items, which are candidates and may be drawn as negatives; false for padding.

    The splits `temporal` and `files` know the items that have a training event. Other splits know all items, as in
    the papers."""
    training_part: TrainingPart
    """The rule that decides where the training part of a history ends."""
    event_times: npt.NDArray[np.int64] | None
    """The time of each event in `training.items`, in microseconds since 1970 UTC; None for data without times.

    Under a temporal split, `event_times` and `training.items` both omit events of unknown items."""
    boundaries: tuple[int, int] | None
    """Start of validation and of test, in microseconds since 1970 UTC; None unless the split is temporal."""
    training_events: npt.NDArray[np.int64] | None = None
    """(events,) index in the data set of each event of `training.items`. None if `training` shares its items with
    the other histories, as in all splits except `files`."""
    other_file: dict[str, str] | None = None
    """The name and hash of a file whose events are the test targets, if this file is not in the run's data."""
    repeats: bool = False
    """Whether seen items are targets and candidates, because items come again in this data."""
    basket_starts: npt.NDArray[np.int64] | None = None
    """(events,) index of the first event of the basket of each event of `training.items`; None without baskets."""


# User numbers and target events, both (rows,); and the number of skipped users by reason.
_Rows: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, int]]


def split_events(data: Dataset, how: str = "leave-one-out", *, repeats: bool = False) -> Split:
    """Split a data set by the rule `how`: leave-one-out, last-N, temporal:WHEN, files, or all.

    `repeats`: a target may be an item that is in its history. Otherwise such targets are left out.

    Raises: ConfigError if `how` is malformed, or if the data has own validation or test files and `how` is not
    files, or the reverse. Remedy: use a form that the message names. DataError if no history is long enough for
    last-N, or if a temporal split finds no times or leaves a part without events. Remedy: as the message says.
    """
    rule = split_rule(how)
    check_files(data, how)
    if rule.all:
        return replace(_nothing_held_out(data), repeats=repeats)
    if rule.files:
        return split_by_parts(data, repeats=repeats)
    starts, ends = data.offsets[:-1], data.offsets[1:]
    boundaries: tuple[int, int] | None = None
    if rule.boundaries:
        if data.times is None:
            raise DataError(
                f"split {how} needs times, but the data set {data.name!r} has no times. "
                "Name the column of times with `time_column`, or use split=leave-one-out."
            )
        boundaries = boundaries_of(data.times, rule.boundaries, how)
        part = TrainingPart(until=boundaries[0])
        # An item without a training event has no trained embedding, so it cannot be a fair candidate.
        known_V = np.zeros(data.num_items + 1, bool)
        known_V[data.items[data.times < boundaries[0]]] = True
        valid = _first_from(data, boundaries[0], boundaries[1], known_V)
        test = _first_from(data, boundaries[1], None, known_V)
    else:
        long = ends - starts > 2 * rule.last
        if rule.last > 1 and not long.any():
            raise DataError(
                f"split {how} needs a user with at least {2 * rule.last + 1} events, but the longest history has "
                f"{amount(int((ends - starts).max(initial=0)), 'event')}. Use a smaller N in split=last-N."
            )
        part = TrainingPart(held_out=2 * rule.last)
        known_V = np.arange(data.num_items + 1) > 0
        valid, test = _last(data, long, rule.last, 2 * rule.last), _last(data, long, rule.last, rule.last)
    views = _views(data, known_V)
    new_E = None if repeats else new_to_user(data)
    return Split(
        how=how,
        training=views(starts, part.ends(data.times, data.offsets)),
        valid=_evaluation_split("valid", data, valid, new_E, known_V, views),
        test=_evaluation_split("test", data, test, new_E, known_V, views),
        known_V=known_V,
        training_part=part,
        event_times=None if data.times is None else data.times[known_V[data.items]],
        boundaries=boundaries,
        repeats=repeats,
    )


def check_files(data: Dataset, how: str) -> None:
    """Raise ConfigError if the split is `files` and the data has no own held-out file, or the reverse."""
    if split_rule(how).files and data.parts is None:
        raise ConfigError(
            "split=files needs data with own validation or test files. Give the files as `valid` and `test`, or "
            "use another `split`."
        )
    if data.parts is not None and not (split_rule(how).files or split_rule(how).all):
        raise ConfigError(
            f"the data has own validation or test files, so split={how} would mix their events with training. "
            "Remove `split`, or prepare the data without `valid` and `test`."
        )


def _nothing_held_out(data: Dataset) -> Split:
    """Make every event a training event, also those of own validation and test files; nothing is a target."""
    known_V = np.zeros(data.num_items + 1, bool)
    known_V[data.items] = True
    views, none = _views(data, known_V), np.zeros(0, np.int64)
    skipped = {"every event is a training event": data.num_users}
    empty = EvaluationSplit("valid", none, none, views(none, none), none, known_V, skipped, 0, 0)
    return Split(
        how=ALL,
        training=views(data.offsets[:-1], data.offsets[1:]),
        valid=empty,
        test=replace(empty, name="test"),
        known_V=known_V,
        training_part=TrainingPart(everything=True),
        event_times=data.times,
        boundaries=None,
    )


def split_by_parts(
    data: Dataset,
    known_V: npt.NDArray[np.bool_] | None = None,
    *,
    repeats: bool = False,
    new_users: bool = False,
) -> Split:
    """Split a data set by its parts (data/parts.py): the rule `files`.

    `known_V`: the items that are candidates; the default is those with a training event. `new_users`: users
    without a training event have targets too. Histories are in order of time, so a training event can follow a
    target of the same user. It is then not in the history of this target.
    """
    assert data.parts is not None, "data of the split files has parts"
    training_events = np.flatnonzero(data.parts == TRAIN)
    if known_V is None:
        known_V = np.zeros(data.num_items + 1, bool)
        known_V[data.items[training_events]] = True
    offsets = exclusive_counts(data.parts == TRAIN)[data.offsets]
    views, new_E = _views(data, known_V), None if repeats else new_to_user(data)
    parts: list[EvaluationSplit] = []
    named: list[tuple[SplitName, int]] = [("valid", VALID), ("test", TEST)]
    for name, part in named:
        users, events, skipped, left_out = targets_of_file(data, part, known_V, new_users=new_users)
        found = _evaluation_split(name, data, (users, events, skipped), new_E, known_V, views)
        parts.append(replace(found, targets_left_out=left_out))
    return Split(
        how=FILES,
        training=Histories(data.items[training_events], None, offsets[:-1], offsets[1:]),
        valid=parts[0],
        test=parts[1],
        known_V=known_V,
        training_part=TrainingPart(),
        event_times=None if data.times is None else data.times[training_events],
        boundaries=None,
        training_events=training_events,
        repeats=repeats,
    )


def _evaluation_split(
    name: SplitName,
    data: Dataset,
    rows: _Rows,
    new_E: npt.NDArray[np.bool_] | None,
    known_V: npt.NDArray[np.bool_],
    views: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Histories],
) -> EvaluationSplit:
    """Make an evaluation split of `rows`.

    `new_E`: (events,) true for the first event of a user with an item; only these become targets. None if items
    come again.
    """
    every_user, every_event, skipped = rows
    # Unless items come again, evaluation removes seen items from the candidates, so none could be found.
    new = np.ones(len(every_event), bool) if new_E is None else new_E[every_event]
    users, events = every_user[new], every_event[new]
    only_repeats = len(np.unique(every_user)) - len(np.unique(users))
    skipped = skipped if new_E is None else skipped | {"the user has had the target before": only_repeats}
    histories = views(data.offsets[users], events)
    return EvaluationSplit(
        name=name,
        users=users,
        events=events,
        histories=histories,
        targets=data.items[events].astype(np.int64),
        known_V=known_V,
        skipped=skipped,
        events_left_out=int((events - data.offsets[users] - histories.lengths).sum()),
        repeats_left_out=len(every_event) - len(events),
        repeats=new_E is None,
    )


def new_to_user(data: Dataset) -> npt.NDArray[np.bool_]:
    """Return (events,): true where an event is the first one of its user with its item."""
    user_E = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    # One integer key per (user, item) pair. np.unique returns the first index of each key.
    _, first = np.unique(user_E * (data.num_items + 1) + data.items, return_index=True)
    new_E = np.zeros(data.num_events, bool)
    new_E[first] = True
    return new_E


def _views(
    data: Dataset, known_V: npt.NDArray[np.bool_]
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], Histories]:
    """Return a function that maps event ranges (starts, ends) to histories without unknown items."""
    if known_V[1:].all():
        return lambda starts, ends: Histories(data.items, None, starts, ends)  # no copy of the events
    known_E = known_V[data.items]
    # Maps an index into all events to the index into the known events.
    known_index = exclusive_counts(known_E)
    items = data.items[known_E]
    return lambda starts, ends: Histories(items, None, known_index[starts], known_index[ends])


def _last(data: Dataset, long: npt.NDArray[np.bool_], last: int, back: int) -> _Rows:
    """Take `last` target events per user, starting `back` events before the end of the user's history.

    `long`: (users,) true for users with enough events; the other users are skipped.
    """
    users = np.flatnonzero(long)
    events = (data.offsets[users + 1] - back)[:, None] + np.arange(last)
    skipped = {f"fewer than {2 * last + 1} events": int((~long).sum())}
    return np.repeat(users, last), events.ravel(), skipped


def _first_from(data: Dataset, begin: int, end: int | None, known_V: npt.NDArray[np.bool_]) -> _Rows:
    """Take each user's first event in the period from `begin` (inclusive) to `end` (exclusive; None: no end).

    Skip users without a known item before the event, and users whose target item is unknown.
    """
    starts = data.offsets[:-1]
    events = starts + events_before(data, begin)
    limit = data.offsets[1:] if end is None else starts + events_before(data, end)
    known_before = exclusive_counts(known_V[data.items])
    target_known = np.zeros(data.num_users, bool)
    inside = events < limit
    target_known[inside] = known_V[data.items[events[inside]]]
    eligible = np.ones(data.num_users, bool)
    skipped = {}
    # Count a user only for the first condition that fails, so the counts add up to the skipped users.
    for reason, condition in (
        ("no event in this period", inside),
        ("new user: no event before this period", events > starts),
        ("the target's item is not in training", target_known),
        ("no item of the history is in training", known_before[events] > known_before[starts]),
    ):
        skipped[reason] = int((eligible & ~condition).sum())
        eligible &= condition
    users = np.flatnonzero(eligible)
    return users, events[users], skipped


def events_before(data: Dataset, moment: int) -> npt.NDArray[np.int64]:
    """Return (users,): how many events of each user are earlier than `moment`, in microseconds."""
    assert data.times is not None
    before = exclusive_counts(data.times < moment)
    return before[data.offsets[1:]] - before[data.offsets[:-1]]
