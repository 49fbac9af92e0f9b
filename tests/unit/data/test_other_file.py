"""A run's data with the events of another file as test targets: histories, what is left out, and its counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.data.dataset import Dataset
from sasrec.data.other_file import with_test_file
from sasrec.data.splits import Split, split_events
from sasrec.errors import DataError
from sasrec.evaluation.card import card
from tests.synthetic import chain_frame

BEGIN = 1_600_000_000


def frame(*rows: tuple[str, str, int]) -> pl.DataFrame:
    """Events at these seconds after a day of 2020."""
    found = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return found.with_columns(pl.col("time") + BEGIN)


OWN = frame(
    *(("a", item, time) for item, time in (("u", 1), ("v", 2), ("w", 3), ("x", 4))),
    *(("b", item, time) for item, time in (("v", 1), ("w", 2), ("y", 9))),
    *(("c", item, time) for item, time in (("x", 1), ("y", 2), ("z", 3))),
)


def file(*rows: tuple[str, str, int]) -> Dataset:
    return sasrec.prepare(frame(*rows))


def rows(data: Dataset, split: Split) -> list[tuple[object, list[object], object]]:
    """(user, history, target) in the ids of the data."""
    part, name = split.test, data.catalogue.id_of
    return [
        (data.user_ids[int(user)], [name(int(item)) for item in part.histories.items[a:b]], name(int(target)))
        for user, a, b, target in zip(
            part.users, part.histories.starts, part.histories.ends, part.targets, strict=True
        )
    ]


def test_a_target_is_ranked_from_all_earlier_events_of_both() -> None:
    data = sasrec.prepare(OWN)
    own = split_events(data)
    merged, split = with_test_file(data, own, file(("b", "u", 5), ("a", "y", 7), ("a", "z", 8), ("b", "x", 10)))
    assert rows(merged, split) == [
        ("a", ["u", "v", "w", "x"], "y"),
        ("a", ["u", "v", "w", "x", "y"], "z"),
        ("b", ["v", "w"], "u"),
        ("b", ["v", "w", "u", "y"], "x"),
    ]
    assert len(split.valid.targets) == 0
    for name in ("starts", "ends"):
        lengths = [np.diff(np.stack([part.training.starts, part.training.ends]), axis=0) for part in (own, split)]
        assert lengths[0].tolist() == lengths[1].tolist(), name
    trained = [
        [part.training.items[a:b].tolist() for a, b in zip(part.training.starts, part.training.ends, strict=True)]
        for part in (own, split)
    ]
    assert trained[0] == trained[1]
    assert (split.known_V == own.known_V).all()


def test_what_cannot_be_a_target_is_counted_by_reason() -> None:
    data = sasrec.prepare(OWN)
    other = file(
        ("new", "u", 5), ("new", "v", 6),  # an unknown user
        ("a", "new", 5), ("a", "z", 6),  # an unknown item
        ("b", "new", 5),  # only an unknown item
        ("a", "u", 1), ("a", "u", 9),  # trained on; an item that the user has seen
        ("c", "z", 3),  # held out by the run: measured once
    )  # fmt: skip
    merged, split = with_test_file(data, split_events(data), other)
    assert rows(merged, split) == [("a", ["u", "v", "w", "x"], "z"), ("c", ["x", "y"], "z")]
    assert {reason: count for reason, count in split.test.targets_left_out.items() if count} == {
        "the user is not in the run's data": 2,
        "the item is not in the run's data": 2,
        "the run was trained on the event": 1,
    }
    assert split.test.repeats_left_out == 1
    assert {reason: count for reason, count in split.test.skipped.items() if count} == {
        "the item is not in the run's data": 1
    }
    protocol = card(merged, split)
    assert protocol["test_file"] == {"name": "frame", "data_hash": other.data_hash}
    assert protocol["split"].startswith(
        f"other file: trained under leave-one-out; each event of frame ({other.data_hash[:12]})"
    )
    assert protocol["full"] == "all items of the catalogue"


def test_events_before_what_the_run_was_trained_on_are_called_a_leak_with_counts() -> None:
    data = sasrec.prepare(OWN.with_columns((pl.col("time") - BEGIN) * 10 + BEGIN))
    for other, leak in (
        (
            file(("a", "z", 15), ("a", "y", 20), ("b", "z", 15), ("c", "u", 5)),
            "2 of 4 events of the file are earlier",
        ),
        (file(("a", "z", 25), ("b", "z", 15)), None),  # between training and the run's held-out events
    ):
        merged, split = with_test_file(data, split_events(data), other)
        assert split.other_file is not None
        assert (leak or "") in split.other_file.get("leak", "")
        assert ("leak" in split.other_file) == bool(leak)
    assert rows(merged, split)[0] == ("a", ["u", "v"], "z")


def test_integer_ids_and_ids_as_text_are_the_same_ids() -> None:
    numbers = OWN.with_columns(pl.col("user", "item").rank("dense").cast(pl.Int64))
    data, other = (
        sasrec.prepare(numbers),
        sasrec.prepare(numbers.head(1).with_columns(pl.lit("5").alias("item"), time=1_600_000_009)),
    )
    merged, split = with_test_file(data, split_events(data), other)
    assert [(user, target) for user, _, target in rows(merged, split)] == [(1, 5)]


def test_without_times_the_file_follows_the_runs_data() -> None:
    data = sasrec.prepare(OWN.drop("time"))
    merged, split = with_test_file(data, split_events(data), file(("c", "u", 2), ("c", "v", 1)))
    assert rows(merged, split) == [("c", ["x", "y", "z"], "v"), ("c", ["x", "y", "z", "v"], "u")]
    with pytest.raises(DataError, match="the run's data has times and the file 'frame' has none"):
        with_test_file(sasrec.prepare(OWN), split_events(sasrec.prepare(OWN)), data)


@pytest.mark.parametrize("how", ["leave-one-out", "last-2", "temporal:0.8"])
def test_the_runs_own_held_out_events_as_a_file_give_the_runs_own_targets(how: str) -> None:
    frame = chain_frame(users=80).with_columns(
        time=pl.col("time") + pl.col("user").str.slice(1).cast(pl.Int64) * 1800
    )
    data = sasrec.prepare(frame)
    own = split_events(data, how)
    users, events = own.test.users, own.test.events
    assert data.times is not None
    test = pl.DataFrame(
        {
            "user": data.user_ids.gather(users),
            "item": data.catalogue.ids.gather(data.items[events] - 1),
            "time": data.times[events] // 10**6,
        }
    )
    merged, split = with_test_file(data, own, sasrec.prepare(test))
    assert rows(merged, split) == rows(data, own)
    by_file = sasrec.prepare(frame.join(test, on=["user", "item", "time"], how="anti"), test=test)
    assert rows(by_file, replace(split_events(by_file, "files"), known_V=own.known_V)) == rows(data, own)
