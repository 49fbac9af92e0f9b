"""Splits, batches and negatives."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import pytest

from sasrec.batches.batches import TrainingBatch, TrainingBatches, pad
from sasrec.batches.negatives import NegativePlan, NegativeSampler
from sasrec.config.settings import LossConfig
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from tests.synthetic import dataset, random_lists


def made(lists: list[list[int]], items: int, **changed: int) -> TrainingBatches:
    options = {"maxlen": 10, "batch_size": 8, "seed": 0} | changed
    loss = LossConfig(loss="bce", num_negatives=2)
    return TrainingBatches(
        split_events(dataset(lists, items)).training, items, plan=NegativePlan.of(loss), **options
    )


def test_leave_one_out_takes_the_last_event_for_test_and_the_one_before_for_validation() -> None:
    data = dataset([[1, 2, 3, 4, 5], [6, 7], [8], [9, 8, 7]])
    split = split_events(data)
    valid, test, training = split.valid, split.test, split.training
    assert valid.users.tolist() == test.users.tolist() == [0, 3]
    assert valid.skipped == test.skipped == {"fewer than 3 events": 2, "the user has had the target before": 0}
    assert valid.targets.tolist() == [4, 8]
    assert test.targets.tolist() == [5, 7]
    shown = [data.items[a:b].tolist() for a, b in zip(test.histories.starts, test.histories.ends, strict=True)]
    assert shown == [[1, 2, 3, 4], [9, 8]], "the test history contains the validation item"
    trained = [data.items[a:b].tolist() for a, b in zip(training.starts, training.ends, strict=True)]
    assert trained == [[1, 2, 3], [6, 7], [8], [9]]


def test_rows_are_padded_on_the_right_and_positions_count_from_the_end() -> None:
    data = dataset([[1, 2, 3, 4, 5], [6, 7]])
    batch = pad(Histories(data.items, None, data.offsets[:-1], data.offsets[1:]), np.array([1, 0]), maxlen=4)
    assert batch.items_BL.tolist() == [[6, 7, 0, 0], [2, 3, 4, 5]]
    assert batch.positions_BL.tolist() == [[3, 4, 0, 0], [1, 2, 3, 4]]
    assert batch.lengths_B.tolist() == [2, 4]


def test_each_position_learns_the_item_that_follows_it() -> None:
    batches = made([[1, 2, 3, 4, 9, 9], [5, 6, 7, 9, 9], [8, 9, 9]], items=9, maxlen=3)
    (users,) = batches.plan(0)
    batch = batches.batch(0, 0)
    pairs = zip(batch.items_BL.ravel()[batch.real_P].tolist(), batch.targets_P.tolist(), strict=True)
    assert sorted(pairs) == [(1, 2), (2, 3), (3, 4), (5, 6), (6, 7)]
    assert sorted(users.tolist()) == [0, 1], "user 2 has one training event and so nothing to predict"


@pytest.mark.parametrize("parts", [1, 2, 3, 40])
def test_parts_share_out_a_batch_and_keep_its_negatives(parts: int) -> None:
    made_ = made(random_lists(50, 30, seed=1), 30)
    whole = made_.batch(0, 1)
    pieces = [made_.batch(0, 1, part, parts) for part in range(parts)]
    assert {piece.positions for piece in pieces} == {whole.positions} == {len(whole.targets_P)}

    def examples(batch: TrainingBatch) -> list[tuple[int, ...]]:
        inputs, places = batch.items_BL.ravel()[batch.real_P], batch.positions_BL.ravel()[batch.real_P]
        return [
            (int(i), int(p), int(t), *map(int, n))
            for i, p, t, n in zip(inputs, places, batch.targets_P, batch.negatives, strict=True)
        ]

    assert sorted(itertools.chain(*map(examples, pieces))) == sorted(examples(whole))
    assert max(len(piece.lengths_B) for piece in pieces) <= -(-len(whole.lengths_B) // parts)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_has_each_user_once_whatever_the_number_of_ranks(ranks: int, accumulate: int) -> None:
    """Each rank takes every ranks-th of the parts of a batch, as the trainer does."""
    made_ = made(random_lists(200, 30, seed=3), 30)
    parts = ranks * accumulate

    def histories(batch: TrainingBatch) -> list[tuple[int, ...]]:
        return [tuple(row[row > 0]) for row in batch.items_BL if row.any()]

    for step in range(len(made_.plan(2))):
        shared = [
            histories(made_.batch(2, step, part, parts))
            for rank in range(ranks)
            for part in range(rank, parts, ranks)
        ]
        assert sorted(itertools.chain(*shared)) == sorted(histories(made_.batch(2, step)))
    assert sorted(np.concatenate(made_.plan(2))) == sorted(np.concatenate(made_.plan(7)))
    assert len(np.unique(np.concatenate(made_.plan(2)))) == len(made_)


def test_a_batch_is_a_pure_function_of_seed_epoch_and_step() -> None:
    lists = random_lists(50, 30, seed=1)
    one, other = made(lists, 30), made(lists, 30)
    other.batch(3, 1)  # another order of calls
    a, b = one.batch(1, 2), other.batch(1, 2)
    for name in ("items_BL", "positions_BL", "targets_P", "negatives", "real_P"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(a.negatives, made(lists, 30, seed=1).batch(1, 2).negatives)
    assert [u.tolist() for u in one.plan(0)] != [u.tolist() for u in one.plan(1)]


def test_random_windows_cover_the_whole_history_and_never_leave_the_training_part() -> None:
    lists = random_lists(30, 500, seed=4, longest=60)
    training = split_events(dataset(lists, 500)).training
    batches = TrainingBatches(
        training, 500, maxlen=10, batch_size=8, plan=NegativePlan.of(LossConfig()), seed=0, windows="random"
    )
    seen: dict[int, set[tuple[int, ...]]] = {}
    for epoch in range(300):
        for step, users in enumerate(batches.plan(epoch)):
            batch = batches.batch(epoch, step)
            targets = np.split(batch.targets_P, np.cumsum(batch.lengths_B)[:-1])
            for user, row, target in zip(users, batch.items_BL, targets, strict=True):
                seen.setdefault(int(user), set()).add((*row[row > 0].tolist(), int(target[-1])))
    assert seen.keys() == set(np.flatnonzero(training.lengths >= 2).tolist())
    for user, windows in seen.items():
        whole = training.items[training.starts[user] : training.ends[user]].tolist()
        width = min(11, len(whole))
        assert windows == {tuple(whole[at : at + width]) for at in range(len(whole) - width + 1)}
    one, other = batches.batch(5, 1), batches.batch(5, 1)
    assert np.array_equal(one.items_BL, other.items_BL)


@pytest.mark.parametrize("parts", [1, 3, 40])
@pytest.mark.parametrize("windows", ["last", "random"])
def test_a_loss_that_skips_own_items_gets_all_of_the_training_part_and_nothing_held_out(
    windows: Literal["last", "random"], parts: int
) -> None:
    training = split_events(dataset(random_lists(30, 40, seed=4, longest=60), 40)).training
    loss, options = LossConfig(skip_own_items=True), {"maxlen": 10, "batch_size": 8, "seed": 0}
    batches = TrainingBatches(training, 40, plan=NegativePlan.of(loss), windows=windows, **options)
    for step, users in enumerate(batches.plan(0)):
        for part in range(parts):
            batch, mine = batches.batch(0, step, part, parts), users[part::parts]
            assert len(batch.own_BK) == len(mine)
            for user, own in zip(mine, batch.own_BK, strict=True):
                items = set(training.items[training.starts[user] : training.ends[user]])
                assert set(own) == items
                assert own.tolist() == sorted(own), "each once, but for the last"
            widest = max((len(set(row)) for row in batch.own_BK), default=1)
            assert batch.own_BK.shape[1] == widest
    without = LossConfig(skip_own_items=False)
    assert TrainingBatches(training, 40, plan=NegativePlan.of(without), **options).batch(0, 0).own_BK is None


def test_an_epoch_has_every_user_once_and_batches_of_equal_numbers_of_positions() -> None:
    lists = random_lists(3000, 30, seed=2, longest=40)
    batches = made(lists, 30, maxlen=20, batch_size=100)
    plan = batches.plan(5)
    assert np.array_equal(
        np.sort(np.concatenate(plan)), np.flatnonzero([len(row) >= 4 or len(row) == 2 for row in lists])
    )
    assert len(batches) == sum(map(len, plan))
    sizes = np.array([len(batches.batch(5, step).targets_P) for step in range(len(plan))])
    assert abs(sizes / sizes.mean() - 1).max() < 0.05
    real = sizes.sum() / sum(batches.batch(5, step).items_BL.size for step in range(len(plan)))
    assert real > 0.95, "hardly any padding"


def test_negatives_are_never_a_training_item_of_the_user_nor_padding_and_uniform_over_the_rest() -> None:
    lists = [[1, 1, 5, 9], [2], [*range(1, 13)], [12]]
    data = dataset(lists, 12)
    histories = Histories(data.items, None, data.offsets[:-1], data.offsets[1:])
    sampler = NegativeSampler(histories, 12)
    drawn = sampler.draw(np.array([0, 1, 2, 3]), 20_000, np.random.default_rng(0))
    for row in (0, 1, 3):
        outside = sorted(set(range(1, 13)) - set(lists[row]))
        values, counts = np.unique(drawn[row], return_counts=True)
        assert values.tolist() == outside
        assert abs(counts / (20_000 / len(outside)) - 1).max() < 0.12
    assert (drawn[2] == 0).all(), "a user who has had everything has no negatives"


def test_a_million_negatives_hold_no_positive() -> None:
    lists = random_lists(500, 60, seed=3, longest=50)
    data = dataset(lists, 60)
    histories = Histories(data.items, None, data.offsets[:-1], data.offsets[1:])
    targets = np.random.default_rng(4).integers(1, 61, 500)
    drawn = NegativeSampler(histories, 60, also=targets).draw(np.arange(500), 2000, np.random.default_rng(5))
    forbidden = np.zeros((500, 61), bool)
    forbidden[np.arange(500), targets] = True
    for row, items in enumerate(lists):
        forbidden[row, items] = True
    assert drawn.min() >= 1
    assert drawn.max() <= 60
    assert not forbidden[np.arange(500)[:, None], drawn].any()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_any_batch_size_covers_the_epoch(batch_size: int) -> None:
    batches = made(random_lists(40, 30, seed=6), 30, batch_size=batch_size)
    assert sum(map(len, batches.plan(0))) == len(batches)
    assert all(len(users) for users in batches.plan(0))
