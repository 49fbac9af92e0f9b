"""The split `files`: every target and history equals what a loop over the events finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sasrec.batches.ticks import with_ticks
from sasrec.config.settings import ModelConfig
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.parts import TEST, TRAIN, VALID
from sasrec.data.splits import EvaluationSplit, split_events
from sasrec.errors import ConfigError
from sasrec.evaluation.card import card
from tests.synthetic import dataset, random_lists


def shown(histories: Histories) -> list[list[int]]:
    return [histories.items[a:b].tolist() for a, b in zip(histories.starts, histories.ends, strict=True)]


def rows(part: EvaluationSplit) -> list[tuple[int, list[int], int]]:
    return list(zip(part.users.tolist(), shown(part.histories), part.targets.tolist(), strict=True))


def with_parts(lists: list[list[int]], parts: list[list[int]], *, timed: bool = False) -> Dataset:
    data = dataset(lists)
    flat = np.array([part for row in parts for part in row], np.int8)
    times = np.concatenate([np.arange(len(row)) ** 2 * 10**6 for row in lists])
    return replace(data, parts=flat, times=times if timed else None)


def expected(lists: list[list[int]], parts: list[list[int]], part: int) -> list[tuple[int, list[int], int]]:
    """The rows of a part, by the definition in docs/reference/settings.md."""
    known = {
        item
        for row, of in zip(lists, parts, strict=True)
        for item, each in zip(row, of, strict=True)
        if each == TRAIN
    }
    found = []
    for user, (row, of) in enumerate(zip(lists, parts, strict=True)):
        for at, item in enumerate(row):
            history = [earlier for earlier in row[:at] if earlier in known]
            earlier_file = any(each < part for each in of)
            if of[at] == part and earlier_file and item in known and history and item not in row[:at]:
                found.append((user, history, item))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_target_and_history_is_what_a_loop_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    lists = random_lists(30, 40, seed, longest=8)
    # Parts in any order: held-out events may lie between training events.
    parts = [random.choice([TRAIN, VALID, TEST], len(row), p=[0.6, 0.2, 0.2]).tolist() for row in lists]
    split = split_events(with_parts(lists, parts), "files")
    assert rows(split.valid) == expected(lists, parts, VALID)
    assert rows(split.test) == expected(lists, parts, TEST)
    training = [
        [item for item, part in zip(row, of, strict=True) if part == TRAIN]
        for row, of in zip(lists, parts, strict=True)
    ]
    assert shown(split.training) == training
    for name, part in (("valid", split.valid), ("test", split.test)):
        events = sum(of.count(VALID if name == "valid" else TEST) for of in parts)
        # Each event of a file is a target, or counted; each user has a target, or is counted.
        assert events == len(part.targets) + part.repeats_left_out + sum(part.targets_left_out.values())
        assert len(lists) == len(set(part.users.tolist())) + sum(part.skipped.values())


def test_reasons_for_skipping_are_counted_for_users_and_targets() -> None:
    lists = [[1, 2, 3], [1, 2], [3, 1], [4, 2], [2, 5, 5]]
    parts = [[0, 0, 2], [0, 0], [2, 2], [2, 0], [0, 2, 2]]
    split = split_events(with_parts(lists, parts), "files")
    assert rows(split.test) == []  # item 3 and 5 are not in training; 4 has no history; user 2 is new
    assert split.test.skipped == {
        "no event in this file": 1,
        "new user: no event in an earlier file": 1,
        "the target's item is not in training": 3,
        "no item of the history is in training": 0,
        "the user has had the target before": 0,
    }
    assert split.test.targets_left_out == {
        "new user: no event in an earlier file": 2,
        "the target's item is not in training": 4,
        "no item of the history is in training": 0,
    }
    assert split.valid.skipped == {"there is no validation file": 5, "the user has had the target before": 0}
    protocol = card(with_parts(lists, parts), split)
    assert protocol["split"].startswith("files: ")
    assert protocol["full"] == "all items that occur in training"
    assert (protocol["items"], protocol["items_not_candidates"]) == (5, 3)
    assert protocol["test"]["targets_left_out"] == split.test.targets_left_out


def test_personal_times_follow_the_events_and_their_unit_ends_before_held_out_events() -> None:
    lists, parts = [[1, 2, 3, 4], [1, 2, 3]], [[0, 0, 2, 0], [0, 2, 0]]
    data = with_parts(lists, parts, timed=True)  # times 0, 1, 4, 9 seconds
    split = with_ticks(split_events(data, "files"), data, ModelConfig(time=True))
    assert split.training.ticks is not None
    assert split.test.histories.ticks is not None
    assert split.training.ticks.tolist() == [1, 2, 10, 1, 5]
    assert split.event_times is not None
    assert (split.event_times // 10**6).tolist() == [0, 1, 9, 0, 4]
    ticks = [
        split.test.histories.ticks[a:b].tolist()
        for a, b in zip(split.test.histories.starts, split.test.histories.ends, strict=True)
    ]
    assert list(zip(rows(split.test), ticks, strict=True)) == [((0, [1, 2], 3), [1, 2]), ((1, [1], 2), [1])]
    wide = replace(data, times=data.times * np.array([3, 3, 3, 3, 5, 5, 5]))
    assert with_ticks(split_events(wide, "files"), wide, ModelConfig(time=True)).training.ticks.tolist() == [
        1,
        2,
        10,
        1,
        5,
    ]


def test_gaps_between_held_out_events_do_not_make_the_unit() -> None:
    data = replace(with_parts([[1, 2, 1, 2]], [[0, 0, 2, 2]]), times=np.array([0, 10, 20, 21]) * 10**6)
    assert with_ticks(split_events(data, "files"), data, ModelConfig(time=True)).training.ticks.tolist() == [1, 2]


def test_other_splits_are_refused_for_such_data_and_this_split_for_other_data() -> None:
    data = with_parts([[1, 2, 3]], [[0, 0, 2]])
    for how in ("leave-one-out", "last-2", "temporal:0.8"):
        with pytest.raises(
            ConfigError, match=f"so split={how} would mix their events with training. Remove `split`"
        ):
            split_events(data, how)
    with pytest.raises(
        ConfigError, match=r"needs data with own validation or test files\. Give the files as `valid`"
    ):
        split_events(dataset([[1, 2, 3]]), "files")
