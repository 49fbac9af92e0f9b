"""Splits by the last events and by time: their counts, what is refused, and whole runs under them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.batches.ticks import with_ticks
from sasrec.cli.main import main
from sasrec.config.settings import ModelConfig, RunConfig
from sasrec.config.split_rule import split_rule
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.moments import iso
from sasrec.data.splits import EvaluationSplit, split_events
from sasrec.errors import ConfigError, DataError, EvaluationError
from sasrec.evaluation.target_ranks import sampled_negatives, target_ranks
from tests.synthetic import chain_frame, dataset, late_frame, random_lists, small, write_csv

SMALL = small(num_epochs=2)
DAY = 86_400 * 10**6


def timed(users: list[list[tuple[int, int]]], num_items: int | None = None) -> Dataset:
    """Users as lists of (item, day)."""
    data = dataset([[item for item, _ in row] for row in users], num_items)
    return replace(data, times=np.array([day * DAY for row in users for _, day in row]))


def shown(histories: Histories) -> list[list[int]]:
    return [histories.items[a:b].tolist() for a, b in zip(histories.starts, histories.ends, strict=True)]


def rows(part: EvaluationSplit) -> list[tuple[int, list[int], int]]:
    return list(zip(part.users.tolist(), shown(part.histories), part.targets.tolist(), strict=True))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        *((wrong, "unknown split .*Use leave-one-out, last-N") for wrong in ("", "loo", "last", "last-")),
        *((wrong, "unknown split") for wrong in ("last-0", "last--1", "last-01", "last-1.5", "last-x", "Last-1")),
        *((f"temporal:{wrong}", "not a fraction between 0 and 1") for wrong in ("0", "1", "-0.1", "1.5", "nan", "inf", "2015")),
        ("temporal:20240131", "could be a date or a number.*Write 2024-01-31T00:00:00 for the date, or 1970-08-23T06:15:31"),
        ("temporal:20240131120000", "could be a date or a number"),
        ("temporal:1700000000,1699999999000", "must begin before test"),
        *((f"temporal:{wrong}", "neither an ISO date nor a fraction") for wrong in ("", "soon", "2015-13-01", "0.5,", "1/2/2015")),
        ("temporal", "neither an ISO date nor a fraction"),
        ("temporal:0.5,0.6,0.7", "more than two boundaries"),
        ("temporal:0.6,0.5", "must begin before test"),
        ("temporal:2015-01-02,2015-01-01", "must begin before test"),
        ("temporal:2015-01-01,2015-01-01T00:00Z", "must begin before test"),
    ],
)  # fmt: skip
def test_a_malformed_split_is_refused_before_any_data_is_read(split: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig().replace(split=split)


@pytest.mark.parametrize(
    "number", ["1700000000", "1700000000000", "1700000000.0", "1700000000000000", "1700000000000000000"]
)
def test_a_moment_is_a_date_or_a_number_in_the_unit_that_its_size_shows(number: str) -> None:
    assert split_rule(f"temporal:{number}") == split_rule("temporal:2023-11-14T22:13:20")
    assert split_rule(f"temporal:1500000000,{number}").boundaries == (1_500_000_000_000_000, 1_700_000_000_000_000)


def test_a_split_that_this_data_cannot_have_is_refused_with_the_remedy() -> None:
    data = timed([[(1, 0), (2, 1), (3, 2), (4, 3)], [(1, 0), (2, 1), (3, 2), (4, 3)]])
    for split, message in {
        "last-2": "needs a user with at least 5 events, but the longest history has 4 events. Use a smaller N",
        "temporal:1971-01-01": "training has 8, validation 0, test 0.*1970-01-01T00:00.* to 1970-01-04",
        "temporal:1960-01-01": "training has 0.*Use other moments",
        "temporal:1970-01-02": "only 2 of 8 events are before 1970-01-02.*temporal:T1,T2",
        "temporal:1970-01-03T12:00,1970-01-03T13:00": "training has 6, validation 0, test 2",
        "temporal:1970-01-03,0.1": "leaves a part without events",
    }.items():
        with pytest.raises(DataError, match=message):
            split_events(data, split)
    with pytest.raises(DataError, match="all have the same time"):
        split_events(timed([[(1, 5)] * 6]), "temporal:0.5")
    with pytest.raises(DataError, match=r"all have the same time\. Use a later moment, give both"):
        split_events(timed([[(1, 5)] * 6 + [(1, 6)] * 2]), "temporal:0.9")
    with pytest.raises(DataError, match=r"needs times.*`time_column`.*split=leave-one-out"):
        split_events(dataset([[1, 2, 3]]), "temporal:0.9")


def test_leave_one_out_is_last_1() -> None:
    data = dataset(random_lists(300, 40, seed=1, longest=9), 40)
    one, other = split_events(data), split_events(data, "last-1")
    for name in ("valid", "test"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert rows(ours) == rows(theirs)
        assert ours.skipped == theirs.skipped
        assert np.array_equal(sampled_negatives(ours, 40, 9, 0), sampled_negatives(theirs, 40, 9, 0))
    assert shown(one.training) == shown(other.training)
    assert one.known_V.tolist() == other.known_V.tolist() == [False] + [True] * 40


def test_last_n_has_n_targets_each_with_everything_before_it() -> None:
    split = split_events(dataset([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4], [5, 4, 3, 2, 1], [1]]), "last-2")
    assert shown(split.training) == [[1, 2], [1, 2, 3, 4], [5], [1]]
    assert rows(split.valid) == [(0, [1, 2], 3), (0, [1, 2, 3], 4), (2, [5], 4), (2, [5, 4], 3)]
    assert rows(split.test) == [(0, [1, 2, 3, 4], 5), (0, [1, 2, 3, 4, 5], 6), (2, [5, 4, 3], 2), (2, [5, 4, 3, 2], 1)]  # fmt: skip
    assert split.test.skipped == {"fewer than 5 events": 2, "the user has had the target before": 0}


TEMPORAL = [
    [(1, 0), (2, 1), (3, 12), (1, 13), (2, 20), (3, 21)],  # a target in each
    [(3, 9), (1, 10), (5, 11), (2, 30)],  # item 5 comes up after day 10: not in the test history
    [(1, 0), (5, 10), (6, 20)],  # targets that are not in training
    [(2, 0), (2, 9)],  # nothing to find
    [(1, 15), (2, 25)],  # new in validation, known in test
    [(6, 15), (2, 25)],  # at test, nothing known in the history
    [(1, 20), (2, 21)],  # new in test
]


def test_temporal_takes_the_first_event_of_each_period_and_counts_whom_it_skips() -> None:
    data = timed(TEMPORAL, 7)
    split = split_events(data, "temporal:1970-01-11,1970-01-21")
    assert [moment // DAY for moment in split.boundaries] == [10, 20]
    assert shown(split.training) == [[1, 2], [3], [1], [2, 2], [], [], []]
    assert rows(split.valid) == [(0, [1, 2], 3), (1, [3], 1)], "an event at the boundary is after it"
    assert rows(split.test) == [(1, [3, 1], 2), (4, [1], 2)], "user 0 has had item 2"
    assert np.flatnonzero(split.known_V).tolist() == [1, 2, 3]
    assert list(split.valid.skipped.values()) == [2, 2, 1, 0, 0]
    assert list(split.test.skipped.values()) == [1, 1, 1, 1, 1]
    assert list(split.test.skipped) == [
        "no event in this period",
        "new user: no event before this period",
        "the target's item is not in training",
        "no item of the history is in training",
        "the user has had the target before",
    ]
    assert (split.valid.events_left_out, split.test.events_left_out) == (0, 1)
    assert "new user: no event before this period: 2" in split.valid.why_skipped


def test_a_fraction_becomes_the_nearest_moment_that_parts_no_equal_times() -> None:
    data = timed(
        [
            [(1, day) for day in (0, 1, 2, 3, 4, 5, 6, 7, 8, 8)],
            [(1, day) for day in (2, 3, 5, 5, 5, 5, 6, 7, 8, 9)],
        ]
    )
    days = sorted((data.times // DAY).tolist())
    assert days == [0, 1, 2, 2, 3, 3, 4, 5, 5, 5, 5, 5, 6, 6, 7, 7, 8, 8, 8, 9]
    for how, expected in {
        "temporal:0.8": (6, 8),  # 16 before day 8; 4 after, so 4 between: 12 before day 6
        "temporal:0.7": (5, 7),  # 14 before day 7, 6 after; there are moments with 7 and 12 before, none with 8
        "temporal:0.85": (6, 8),  # 17 are never before a moment: 16 are nearest
        "temporal:0.3,0.6": (4, 6),
        "temporal:0.3,1970-01-09": (4, 8),
        "temporal:1970-01-05T00:00,1970-01-09T02:00+02:00": (4, 8),
        "temporal:345600,691200.0": (4, 8),
    }.items():
        assert tuple(moment // DAY for moment in split_events(data, how).boundaries) == expected, how


def test_items_outside_training_are_no_candidates() -> None:
    split = split_events(timed(TEMPORAL, 7), "temporal:1970-01-11,1970-01-21").test

    class Rising:
        num_items = 7

        def scores(self, histories: Histories, numbers: np.ndarray) -> object:
            import torch

            return torch.arange(8.0).repeat(len(numbers), 1)

    assert target_ranks(Rising(), split).full.tolist() == [1.0, 2.0], "of items 1 to 3, without the history"
    negatives = sampled_negatives(split, 7, 50, 0)
    assert [set(row.tolist()) for row in negatives] == [{0}, {3}]


def test_personal_times_have_their_unit_from_the_training_part_of_the_split() -> None:
    """Under last-2 the first user's has one event, so their first gap after it is the unit."""
    data = timed([[(1, 0), (2, 8), (1, 12), (2, 14), (1, 15)], [(1, 13), (2, 14), (1, 16)]])
    model = ModelConfig(time=True)
    for how, unit in {"leave-one-out": 4, "last-2": 8, "temporal:1970-01-11,1970-01-15": 8}.items():
        expected = [round(day / unit) + 1 for day in (0, 8, 12, 14, 15)]
        split = with_ticks(split_events(data, how), data, model)
        assert split.training.ticks[:5].tolist() == expected, how
    history = replace(model, interval_unit="history")
    split = with_ticks(split_events(data, "temporal:1970-01-11,1970-01-15"), data, history)
    assert split.training.ticks[:5].tolist() == [1, 9, 13, 15, 16]


@pytest.mark.parametrize("time", [False, True])
def test_a_temporal_run_trains_resumes_and_is_measured_under_its_own_split(time: bool, tmp_path: Path) -> None:
    data, run = sasrec.prepare(late_frame()), tmp_path / "run"
    recommender = sasrec.train(data, run, split="temporal:0.8", time=time, **SMALL)
    trained = json.loads((run / "metrics.json").read_text())
    assert sasrec.evaluate(run, device="cpu") == trained
    protocol, split = trained["protocol"], split_events(data, "temporal:0.8")
    assert protocol["boundaries"] == {"valid": iso(split.boundaries[0]), "test": iso(split.boundaries[1])}
    assert protocol["split"].startswith(f"temporal: trained on what is before {iso(split.boundaries[0])}; ")
    assert protocol["training_events"] == split.training.lengths.sum() < data.num_events * 0.7
    assert protocol["items_not_candidates"] == 1, "the late item"
    for name in ("valid", "test"):
        part = getattr(split, name)
        assert protocol[name]["targets"] == protocol[name]["users"] == len(part.targets) > 10
        assert protocol[name]["skipped"] == part.skipped
        assert trained["baselines"]["popularity"][name]["full"]["hr@10"] > 0
    assert protocol["test"]["history_events_left_out"] == split.test.events_left_out > 0
    assert protocol["test"]["skipped"]["new user: no event before this period"] > 0
    assert protocol["test"]["skipped"]["the target's item is not in training"] > 0
    assert len(recommender.recommend_user("u000", k=30, exclude_seen=False)) == 25, "all but the late item"
    with pytest.warns(UserWarning, match="events with items that are not in training"):
        assert sasrec.load(run, device="cpu").recommend_all(k=1).height == 80
    with pytest.raises(ConfigError, match=r"`split` was 'temporal:0\.8' when this run began"):
        sasrec.resume(run, split="leave-one-out")
    sasrec.resume(run, num_epochs=3)
    sasrec.train(data, tmp_path / "whole", split="temporal:0.8", time=time, **(SMALL | {"num_epochs": 3}))
    assert (run / "metrics.json").read_text() == (tmp_path / "whole/metrics.json").read_text()


def test_training_under_temporal_is_the_same_whatever_happens_later(tmp_path: Path) -> None:
    frame = late_frame()
    cut = frame["time"].quantile(0.7)
    backwards = pl.col("item").filter(pl.col("time") >= cut + 9000).reverse()
    later = frame.filter(pl.col("time") >= cut + 9000).with_columns(item=backwards)
    other = pl.concat([frame.filter(pl.col("time") < cut + 9000), later])
    assert not frame.sort("user", "time").equals(other.sort("user", "time"))
    assert sorted(frame["item"].unique()) == sorted(other["item"].unique()), "ids keep their numbers"
    how = f"temporal:{iso(int(cut) * 10**6)},{iso((int(cut) + 9000) * 10**6)}"
    one, two = (
        sasrec.train(sasrec.prepare(each), tmp_path / name, split=how, loss="bce", time=True, **SMALL)
        for name, each in (("one", frame), ("two", other))
    )
    for ours, theirs in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert ours.equal(theirs)
    valid = [json.loads((tmp_path / name / "metrics.json").read_text())["valid"] for name in ("one", "two")]
    assert valid[0] == valid[1]


def test_last_2_measures_two_targets_a_user(tmp_path: Path) -> None:
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", split="last-2", **SMALL)
    protocol = json.loads((tmp_path / "run/metrics.json").read_text())["protocol"]
    long = 60 - protocol["test"]["skipped"]["fewer than 5 events"]
    assert protocol["test"]["targets"] + protocol["test"]["repeats_left_out"] == 2 * long
    assert protocol["test"]["users"] + sum(protocol["test"]["skipped"].values()) == 60
    assert protocol["boundaries"] is None


def test_a_run_whose_split_leaves_nobody_to_measure_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pl.DataFrame(
        {"user": list("aaabbb"), "item": list("xyxzwz"), "time": [1, 2, 3, 10**6, 10**6 + 1, 10**6 + 2]}
    )
    how = "temporal:1970-01-12T13:46:40,1970-01-12T13:46:41"
    sasrec.train(sasrec.prepare(frame, time_unit="s"), tmp_path / "run", split=how, **SMALL)
    said = capsys.readouterr().err
    assert (
        "nobody has a validation target (no event in this period: 1; new user: no event before this period: 1)"
        in said
    )
    assert not (tmp_path / "run/metrics.json").exists()
    with pytest.raises(
        EvaluationError,
        match=r"no metrics can.*validation target \(no event in this period: 1.*test.*Train with another `split`",
    ):
        sasrec.evaluate(tmp_path / "run")


@pytest.mark.parametrize("loss", [{}, {"label_smoothing": 0.1, "skip_own_items": True}])
def test_under_a_temporal_split_cross_entropy_learns_nothing_of_items_that_are_not_in_training(
    tmp_path: Path, loss: dict[str, object]
) -> None:
    frame = chain_frame()
    last = frame["time"].max()
    late = pl.DataFrame({"user": ["u000", "u001"], "item": ["late", "later"], "time": [last, last]})
    data = sasrec.prepare(pl.concat([frame, late]), time_unit="s")
    numbers = {item: 1 + place for place, item in enumerate(data.catalogue.ids.to_list())}
    tables = [
        sasrec.train(data, tmp_path / f"{epochs}", split="temporal:0.7", **(SMALL | loss | {"num_epochs": epochs}))
        .model.item_embedding.weight.detach()
        .numpy()
        for epochs in (1, 2)
    ]
    changed = np.abs(tables[0] - tables[1]).max(1) > 0
    assert changed[numbers["item-03"]]
    assert not changed[[numbers["late"], numbers["later"]]].any()


def test_the_command_line_takes_splits_and_prints_whom_they_skip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write_csv(tmp_path / "events.csv")
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    arguments = ["train", "--dataset", str(events), "--train_dir", str(tmp_path / "run"), *flags]
    assert main([*arguments, "--split", "temporal:1.5"]) == 1
    assert "1.5 is not a fraction between 0 and 1" in capsys.readouterr().err
    assert main([*arguments, "--split", "temporal:0.85"]) == 0
    captured = capsys.readouterr()
    assert "split temporal:0.85: " in captured.err
    assert "\npopularity " in captured.out
    assert "split: temporal: validation from 2020-09-13T" in captured.out
    assert "test skips: " in captured.out
    assert "(no event in this period)" in captured.out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "split: temporal: validation from 2020-09-13T" in capsys.readouterr().out
    resume = ["train", "--train_dir", str(tmp_path / "run"), "--resume"]
    assert main([*resume, "--split", "last-2"]) == 1
    assert "--split was 'temporal:0.85'" in capsys.readouterr().err
    assert main([*resume, "--num_epochs", "3"]) == 0
    without = tmp_path / "without.csv"
    pl.read_csv(events).drop("time").write_csv(without)
    assert (
        main(["train", "--dataset", str(without), "--train_dir", str(tmp_path / "no"), "--split=temporal:0.9"])
        == 1
    )
    assert "Name the column of times with --time_column, or use --split leave-one-out" in capsys.readouterr().err
