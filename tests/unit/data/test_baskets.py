"""Baskets: events of one time are one step; none of them predicts another, in training or in evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.checkpoint import store
from sasrec.config.settings import EvaluationConfig, RunConfig
from sasrec.data.baskets import split_of
from sasrec.data.period import period_of
from sasrec.data.splits import Split
from sasrec.errors import DataError
from tests.synthetic import chain_frame, small


def basket_frame(users: int = 40, seed: int = 0) -> pl.DataFrame:
    """Baskets of one to four items; the last two baskets of some users have one item."""
    random = np.random.default_rng(seed)
    rows = [
        (f"u{user:02}", f"i{item}", 1_700_000_000 + 86_400 * day)
        for user in range(users)
        for day in range(random.integers(1, 7))
        for item in random.choice(20, random.integers(1, 5), replace=False)
    ]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


def made(split: Split, num_items: int, **settings: object) -> TrainingBatches:
    config = RunConfig().replace(**{"maxlen": 50, "batch_size": 8, "loss": "ce"} | settings)
    return TrainingBatches.of(split.training, num_items, config, split.known_V, split.basket_starts)


@pytest.mark.parametrize("split", ["leave-one-out", "temporal:0.6,0.8", "all"])
@pytest.mark.parametrize("windows", ["last", "random"])
def test_every_event_after_the_first_basket_is_a_target_of_what_is_before_its_basket(
    split: str, windows: str
) -> None:
    data = sasrec.prepare(basket_frame())
    found = split_of(data, EvaluationConfig(split=split, repeats=True, baskets=True))
    batches = made(found, data.num_items, windows=windows)
    times = found.event_times
    assert times is not None
    expected, got = [], []
    for user in np.flatnonzero(found.training.lengths):
        start, end = found.training.starts[user], found.training.ends[user]
        for event in range(start, end):
            before = [e for e in range(start, end) if times[e] < times[event]]
            if before:
                expected.append((found.training.items[before].tolist(), int(found.training.items[event])))
    for step in range(len(batches.plan(0))):
        for part in range(2):  # two parts of a batch have its targets once
            batch = batches.batch(0, step, part, 2)
            width = batch.items_BL.shape[1]
            for place, target in zip(batch.real_P, batch.targets_P, strict=True):
                row, column = divmod(int(place), width)
                got.append((batch.items_BL[row, : column + 1].tolist(), int(target)))
    assert sorted(got) == sorted(expected)


@pytest.mark.parametrize("windows", ["last", "random"])
def test_a_window_that_cuts_a_basket_still_predicts_from_the_last_event_before_the_basket(windows: str) -> None:
    frame = basket_frame(seed=2).with_row_index("row").with_columns(item=pl.format("event-{}", "row")).drop("row")
    data = sasrec.prepare(frame)
    split = split_of(data, EvaluationConfig(split="all", baskets=True))
    assert data.times is not None
    time_of = dict(zip(data.items.tolist(), data.times.tolist(), strict=True))  # each item occurs once
    follows = dict(zip(data.items[:-1].tolist(), data.items[1:].tolist(), strict=True))
    batches = made(split, data.num_items, windows=windows, maxlen=3)
    targets = 0
    for epoch in range(3):
        for step in range(len(batches.plan(epoch))):
            batch = batches.batch(epoch, step)
            assert batch.positions == max(1, len(batch.targets_P))
            for last, target in zip(batch.items_BL.ravel()[batch.real_P], batch.targets_P, strict=True):
                assert time_of[last] < time_of[target] == time_of[follows[last]]
                targets += 1
    assert targets > 150


@pytest.mark.parametrize("how", ["leave-one-out", "last-2", "temporal:0.6,0.8"])
def test_a_history_ends_before_the_basket_of_its_target(how: str) -> None:
    data = sasrec.prepare(basket_frame())
    assert data.times is not None
    plain = split_of(data, EvaluationConfig(split=how, repeats=True))
    found = split_of(data, EvaluationConfig(split=how, repeats=True, baskets=True))
    for part, without in ((found.valid, plain.valid), (found.test, plain.test)):
        kept = {}
        for row in range(len(without.users)):
            user, event = without.users[row], without.events[row]
            own = np.arange(data.offsets[user], event)
            before = [e for e in own if data.times[e] < data.times[event] and found.known_V[data.items[e]]]
            if before:
                kept[int(event)] = data.items[before].tolist()
        histories = part.histories
        assert kept == {
            int(event): histories.items[histories.starts[row] : histories.ends[row]].tolist()
            for row, event in enumerate(part.events)
        }
        lost = len(set(without.users.tolist()) - set(part.users.tolist()))
        assert part.skipped["no basket before the target"] == lost


def test_where_no_two_events_share_a_time_nothing_changes(tmp_path: Path) -> None:
    weights = []
    for baskets in (False, True):
        run = tmp_path / str(baskets)
        sasrec.train(chain_frame(), run, baskets=baskets, **small(num_epochs=2))
        weights.append(store.load(store.best(run / "checkpoints")).weights)
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_a_run_with_baskets_is_measured_as_it_was_trained_and_not_compared_with_others(tmp_path: Path) -> None:
    settings = small(num_epochs=2, repeats=True)
    for name, baskets in (("with", True), ("without", False)):
        sasrec.train(basket_frame(), tmp_path / name, baskets=baskets, **settings)
    metrics = sasrec.evaluate(tmp_path / "with")
    assert "one basket" in metrics["protocol"]["split"]
    assert metrics["protocol"]["test"]["skipped"]["no basket before the target"] > 0
    with pytest.raises(sasrec.errors.EvaluationError, match="basket"):
        sasrec.compare([tmp_path / "with", tmp_path / "without"])


def test_data_without_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`baskets` needs times"):
        sasrec.train(basket_frame().drop("time"), tmp_path / "run", baskets=True, **small(num_epochs=1))


def test_the_history_of_a_whole_period_ends_before_its_first_basket() -> None:
    data = sasrec.prepare(basket_frame())
    assert data.times is not None
    split = split_of(data, EvaluationConfig(split="last-2", repeats=True, baskets=True))
    period = period_of(data, split, split.test)
    assert len(period.part.users) > 10
    for row, event in enumerate(period.part.events):
        own = np.arange(data.offsets[period.part.users[row]], event)
        before = [e for e in own if data.times[e] < data.times[event]]
        start, end = period.part.histories.starts[row], period.part.histories.ends[row]
        assert data.items[start:end].tolist() == data.items[before].tolist()
