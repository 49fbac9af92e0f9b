"""No split leaks: what is trained on, shown and drawn is checked against the events themselves.

Every history says which events it holds: where a model would get personal times, these tests get event numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sasrec.batches import ticks
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.negatives import NegativePlan
from sasrec.batches.ticks import with_ticks
from sasrec.config.settings import LossConfig, ModelConfig
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.data.moments import iso
from sasrec.data.splits import EvaluationSplit, Split, split_events
from sasrec.errors import DataError
from sasrec.evaluation.target_ranks import sampled_negatives

SECOND = 10**6
KINDS = (
    "leave-one-out",
    "last-1",
    "last-2",
    "last-5",
    "temporal:0.8",
    "temporal:0.97",
    "temporal:0.3,0.6",
    "dates",
)


def random_data(random: np.random.Generator, users: int, items: int, longest: int, moments: int) -> Dataset:
    """A fifth of the users has one event; times tie where there are few moments; new items come up in time."""
    lengths = np.where(random.random(users) < 0.2, 1, random.integers(1, longest + 1, users))
    user = np.repeat(np.arange(users), lengths)
    times = random.integers(0, moments, len(user))
    times = times[np.lexsort((times, user))]
    there = 1 + items * (0.2 + 0.8 * times / moments)
    return Dataset(
        items=np.minimum(items, 1 + there * random.random(len(user)) ** 2).astype(np.int32),
        times=times * SECOND,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        user_ids=pl.Series(np.arange(users)),
        catalogue=Items(pl.Series(np.arange(1, items + 1))),
    )


def how_of(kind: str, data: Dataset, random: np.random.Generator) -> str:
    """Dates at times of events, so that the boundary itself is tried."""
    if kind != "dates":
        return kind
    distinct = np.unique(data.times)
    if len(distinct) < 3:
        raise DataError("no two boundaries")
    first, second = np.sort(random.choice(distinct[1:], 2, replace=False))
    return f"temporal:{iso(first)},{iso(second)}"


# The others' boundaries depend on all times.
FIXED = [kind for kind in KINDS if not kind.startswith("temporal:0")]


def split_of(data: Dataset, how: str) -> Split:
    """With event numbers for personal times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticks, "user_ticks", lambda data, *_: np.arange(data.num_events))
        return with_ticks(split_events(data, how), data, ModelConfig(time=True))


def contents(histories: Histories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, event and item of everything in the histories."""
    lengths = histories.lengths
    assert (lengths >= 0).all()
    row = np.repeat(np.arange(len(lengths)), lengths)
    at = np.arange(len(row)) + (histories.starts - np.cumsum(lengths) + lengths)[row]
    return row, histories.ticks[at], histories.items[at]


def training_leaks(data: Dataset, split: Split) -> dict[str, int]:
    user_of = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    row, event, item = contents(split.training)
    first_target = np.full(data.num_users, data.num_events)
    for part in (split.valid, split.test):
        np.minimum.at(first_target, part.users, part.events)
    leaks = {
        "an event of somebody else is trained on": (user_of[event] != row).sum(),
        "an event is trained on as another item": (data.items[event] != item).sum(),
        "an event is trained on twice": len(event) - len(np.unique(event)),
        "a target, or what follows it, is trained on": (event >= first_target[row]).sum(),
        "an item that is trained on is unknown": (~split.known_V[item]).sum(),
        "padding is known": int(split.known_V[0]),
    }
    if split.boundaries is not None:
        known = np.bincount(item, minlength=data.num_items + 1) > 0
        leaks["an event from validation on is trained on"] = (data.times[event] >= split.boundaries[0]).sum()
        leaks["an earlier event is not trained on"] = (data.times < split.boundaries[0]).sum() - len(event)
        leaks["an item is known that is not trained on"] = (split.known_V & ~known).sum()
    return leaks


def row_leaks(data: Dataset, split: Split, part: EvaluationSplit, drawn: np.ndarray) -> dict[str, int]:
    user_of = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    row, event, item = contents(part.histories)
    known_before = np.concatenate([[0], np.cumsum(split.known_V[data.items])])
    complete = known_before[part.events] - known_before[data.offsets[part.users]]
    stride = data.num_items + 1
    had = np.union1d(row * stride + item, np.arange(len(part.targets)) * stride + part.targets)
    leaks = {
        "a target is no event of its user": (user_of[part.events] != part.users).sum(),
        "a target is another item": (data.items[part.events] != part.targets).sum(),
        "an event is a target twice": len(part.events) - len(np.unique(part.events)),
        "a target is unknown": (~split.known_V[part.targets]).sum(),
        "an event of somebody else is shown": (user_of[event] != part.users[row]).sum(),
        "an event is shown as another item": (data.items[event] != item).sum(),
        "the target, or what follows it, is shown": (event >= part.events[row]).sum(),
        "something later than the target is shown": (data.times[event] > data.times[part.events][row]).sum(),
        "a known event before the target is not shown": (part.histories.lengths != complete).sum(),
        "a target is in its history": np.isin(
            np.arange(len(part.targets)) * stride + part.targets, row * stride + item
        ).sum(),
        "a row has an empty history": (part.histories.lengths == 0).sum(),
        "a negative is of the history, or the target": np.isin(
            np.arange(len(part.targets))[:, None] * stride + drawn, had
        ).sum(),
        "a negative is unknown": (~split.known_V[drawn] & (drawn > 0)).sum(),
        "users are neither evaluated nor skipped": data.num_users
        - len(np.unique(part.users))
        - sum(part.skipped.values()),
    }
    if split.boundaries is not None:
        begin, end = {"valid": split.boundaries, "test": (split.boundaries[1], data.times.max() + 1)}[part.name]
        outside = (data.times[part.events] < begin) | (data.times[part.events] >= end)
        leaks["a target is outside its period"] = outside.sum()
        leaks["an event of the period is shown"] = (data.times[event] >= begin).sum()
    return leaks


LOSSES = (
    LossConfig(loss="bce", num_negatives=5),
    LossConfig(loss="softmax", num_negatives=5, negatives="popularity"),
    LossConfig(loss="gbce", num_negatives=50, share_negatives=True),
    LossConfig(loss="softmax", num_negatives=50, negatives="in_batch"),
    LossConfig(),
)


def batch_leaks(data: Dataset, split: Split, seed: int) -> dict[str, int]:
    """Of the first two batches of an epoch."""
    loss, windows, stride = LOSSES[seed % len(LOSSES)], ("last", "random")[seed // 2 % 2], data.num_items + 1
    options = {
        "maxlen": 1 + seed % 20,
        "batch_size": 100,
        "plan": NegativePlan.of(loss),
        "seed": seed,
        "windows": windows,
    }
    batches = TrainingBatches(split.training, data.num_items, known_V=split.known_V, **options)
    row, _, item = contents(split.training)
    follows = row[1:] == row[:-1]
    steps = (row[1:] * stride + item[:-1]) * stride + item[1:]
    own, leaks = np.unique(row * stride + item), {"a step is none of training": 0, "an own item is a negative": 0}
    leaks |= {"a negative is unknown": 0, "an item that is skipped is no training item": 0}
    for step, users in enumerate(batches.plan(0)[:2] if len(batches) else []):
        batch = batches.batch(0, step)
        user_P = np.repeat(users, batch.lengths_B)
        learned = (user_P * stride + batch.items_BL.ravel()[batch.real_P]) * stride + batch.targets_P
        leaks["a step is none of training"] += (~np.isin(learned, steps[follows])).sum()
        unknown = np.flatnonzero(~split.known_V[1:]) + 1
        given = np.zeros(0, int) if batches.unknown_U is None else batches.unknown_U
        leaks["a negative is unknown"] += len(np.setxor1d(unknown, given))
        drawn = np.zeros((1, 0), int) if batch.negatives is None else np.atleast_2d(batch.negatives)
        leaks["a negative is unknown"] += (~split.known_V[drawn] & (drawn > 0)).sum()
        if batch.own_BK is None:
            leaks["an own item is a negative"] += np.isin(user_P[:, None] * stride + drawn, own).sum()
        else:
            skipped = np.unique(users[:, None] * stride + batch.own_BK)
            leaks["an item that is skipped is no training item"] += len(
                np.setxor1d(skipped, own[np.isin(own // stride, users)])
            )
    return leaks


def check(data: Dataset, split: Split, seed: int, negatives: int = 5) -> int:
    """The number of rows, when there is no leak in any."""
    found = training_leaks(data, split) | batch_leaks(data, split, seed)
    for part in (split.valid, split.test):
        drawn = sampled_negatives(part, data.num_items, negatives, seed)
        found |= {f"{part.name}: {leak}": count for leak, count in row_leaks(data, split, part, drawn).items()}
    found["an event is a target of both"] = len(np.intersect1d(split.valid.events, split.test.events))
    assert not {leak: int(count) for leak, count in found.items() if count}
    return len(split.valid.events) + len(split.test.events)


RANDOM = {
    "kind": st.sampled_from(KINDS),
    "users": st.integers(1, 12),
    "items": st.integers(1, 9),
    "longest": st.integers(1, 14),
    "moments": st.integers(1, 40),
    "seed": st.integers(0, 10**6),
}


def drawn_split(kind: str, seed: int, **sizes: int) -> tuple[Dataset, Split, np.random.Generator]:
    random = np.random.default_rng(seed)
    data = random_data(random, **sizes)
    try:
        return data, split_of(data, how_of(kind, data, random)), random
    except DataError:
        assume(False)
        raise


@settings(max_examples=400, deadline=None)
@given(**RANDOM)
def test_no_split_leaks_and_targets_are_those_of_a_plain_loop(kind: str, seed: int, **sizes: int) -> None:
    data, split, _ = drawn_split(kind, seed, **sizes)
    check(data, split, seed)
    expected: dict[str, list[int]] = {"valid": [], "test": []}
    for user in range(data.num_users):
        own = list(range(data.offsets[user], data.offsets[user + 1]))
        if split.boundaries is None:
            last = 1 if kind == "leave-one-out" else int(kind[5:])
            if len(own) > 2 * last:
                expected["valid"] += own[-2 * last : -last]
                expected["test"] += own[-last:]
            continue
        ends = (split.boundaries[1], np.inf)
        for name, begin, end in zip(expected, split.boundaries, ends, strict=True):
            targets = [e for e in own if begin <= data.times[e] < end][:1]
            before = [e for e in own if data.times[e] < begin and split.known_V[data.items[e]]]
            expected[name] += [e for e in targets if before and split.known_V[data.items[e]]]
    for part in (split.valid, split.test):
        first = {
            event: data.offsets[np.searchsorted(data.offsets, event, "right") - 1] for event in expected[part.name]
        }
        new = [e for e, begin in first.items() if data.items[e] not in data.items[begin:e]]
        assert part.events.tolist() == new
        assert part.repeats_left_out == len(first) - len(new)


def listed(histories: Histories) -> list[tuple[list[int], list[int]]]:
    ranges = list(zip(histories.starts, histories.ends, strict=True))
    return [(histories.items[a:b].tolist(), histories.ticks[a:b].tolist()) for a, b in ranges]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(part=st.sampled_from(["valid", "test"]), **(RANDOM | {"kind": st.sampled_from(FIXED)}))
def test_nothing_before_a_part_depends_on_what_comes_from_there_on(
    part: str, kind: str, seed: int, **sizes: int
) -> None:
    """Later events get other items and times: training, its personal times and all histories stay."""
    data, split, random = drawn_split(kind, seed, **sizes)
    assume(len(split.valid.events) and len(split.test.events))
    if split.boundaries is None:
        later = np.zeros(data.num_events, bool)
        later[split.test.events] = True
        later[split.valid.events] = part == "valid"
    else:
        later = data.times >= split.boundaries[part == "test"]
    items, times = data.items.copy(), data.times.copy()
    items[later] = random.integers(1, data.num_items + 1, later.sum())
    # The time between a later event and the one before it becomes another.
    times[later] += np.cumsum(random.integers(0, 50, data.num_events))[later] * SECOND
    changed = replace(data, items=items, times=times)
    model = ModelConfig(time=True)
    try:
        before, after = (with_ticks(split_events(each, split.how), each, model) for each in (data, changed))
    except DataError:  # validation has become empty
        assume(False)
    assert listed(before.training) == listed(after.training)
    assert np.array_equal(before.known_V, after.known_V)
    for name in {"valid", "test"} if part == "test" else {"valid"}:
        ours, theirs = getattr(before, name), getattr(after, name)
        if name != part:
            assert np.array_equal(ours.events, theirs.events)
        row_of = {event: row for row, event in enumerate(theirs.events)}
        for row, (user, event) in enumerate(zip(ours.users, ours.events, strict=True)):
            if event in row_of and not later[data.offsets[user] : event].any():
                assert listed(ours.histories)[row] == listed(theirs.histories)[row_of[event]]


def test_hundred_thousand_random_rows_hold_no_leak() -> None:
    assert random_rows(100_000) >= 100_000


@pytest.mark.slow
def test_a_million_random_rows_hold_no_leak() -> None:
    assert random_rows(1_000_000) >= 1_000_000


def random_rows(wanted: int) -> int:
    """Rows of random splits of random data with five negatives each, and batches of training, all checked."""
    random, rows, seed = np.random.default_rng(0), 0, 0
    while rows < wanted:
        seed += 1
        sizes = {"users": 2000, "items": int(random.integers(20, 400)), "longest": int(random.integers(5, 40))}
        data = random_data(random, moments=int(random.choice([20, 1000, 10**6])), **sizes)
        try:
            split = split_of(data, how_of(KINDS[seed % len(KINDS)], data, random))
        except DataError:  # such as last-5 where the longest history has 8 events
            continue
        rows += check(data, split, seed)
    return rows
