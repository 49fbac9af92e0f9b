"""The events that are new since a run, the newest of them, and how far popularity has moved."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.data.dataset import Dataset
from sasrec.data.newest import drift, held_out, new_events
from sasrec.data.onto import onto


def data_of(rows: list[tuple[str, str, int]], *, timed: bool = True) -> Dataset:
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    frame = frame.with_columns(time=pl.col("time") * 86_400 + 1_600_000_000)
    return sasrec.prepare(frame if timed else frame.drop("time"))


OLD = [("b", "x", 1), ("b", "y", 2), ("c", "x", 1), ("c", "x", 1)]
NOW = [*OLD, ("c", "x", 1), ("b", "x", 3), ("a", "z", 1), ("a", "x", 4)]


@pytest.mark.parametrize("timed", [True, False])
def test_what_is_new_is_counted_and_equal_events_count_as_often_as_they_occur(*, timed: bool) -> None:
    old, now = data_of(OLD, timed=timed), data_of(NOW, timed=timed)
    now = onto(old.catalogue.extended(now.catalogue), now)
    assert now.user_ids.to_list() == ["a", "b", "c"]
    assert new_events(old, now).tolist() == [True, True, False, False, True, False, False, True]


def test_the_last_tenth_is_held_out_or_without_times_the_last_new_event_of_each_user() -> None:
    rows = [(f"u{n % 3}", f"i{n}", n) for n in range(40)]
    data = data_of(rows)
    new_E = np.asarray(data.times) >= np.sort(data.times)[20]
    late = held_out(data, new_E)
    assert sorted(np.asarray(data.times)[late].tolist()) == np.sort(data.times)[38:].tolist()
    without = data_of(rows, timed=False)
    last = held_out(without, np.arange(40) % 2 == 0)
    assert [int(index) for index in np.flatnonzero(last)] == [12, 26, 38]


def test_new_events_of_one_moment_are_not_all_held_out() -> None:
    data = data_of([(user, item, 7) for user in "ab" for item in "xyz"])
    assert held_out(data, np.ones(6, bool)).tolist() == [False, False, True] * 2


def test_drift_is_the_share_of_events_that_would_have_to_be_of_other_items() -> None:
    old = data_of([("a", "x", 1), ("b", "x", 1), ("c", "y", 1), ("d", "y", 1)])
    now = onto(old.catalogue.extended(data_of(NOW).catalogue), data_of([("e", "x", 2), ("f", "z", 2)] * 2))
    assert drift(old, now, np.ones(4, bool)) == 0.5
    same = onto(old.catalogue, data_of([("e", "x", 2), ("f", "y", 2)]))
    assert drift(old, same, np.ones(2, bool)) == 0.0
