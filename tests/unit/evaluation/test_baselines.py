"""The baselines, against plain loops."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from sasrec.cli.tables import print_metrics
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.evaluation.baselines import ItemToItem, Markov, RecentPopularity, baselines, event_counts
from sasrec.evaluation.measure import evaluate_scorer
from sasrec.evaluation.metrics import Metrics
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.ranking import candidates, scorers
from sasrec.runtime.log import RunLog
from tests.synthetic import dataset, random_lists

ITEMS = 25
DAY = 86_400 * 10**6


def lists() -> list[list[int]]:
    return [
        *random_lists(60, ITEMS, seed=1, longest=12),
        *random_lists(3, ITEMS, seed=2, longest=80),
        [4, 4, 4, 4],
    ]


def with_times(data: Dataset, seed: int = 0) -> Dataset:
    """Give each user's events times within twenty days."""
    random = np.random.default_rng(seed)
    days = [np.sort(random.integers(0, 20 * 24, n)) for n in np.diff(data.offsets)]
    return Dataset(data.items, np.concatenate(days) * DAY // 24, data.offsets, data.user_ids, data.catalogue)


def every_row(scorer: scorers.Scorer, histories: Histories) -> np.ndarray:
    return scorer.scores(histories, np.arange(len(histories))).numpy()


def parts(data: Dataset) -> list[list[int]]:
    histories = split_events(data).training
    return [histories.items[s:e].tolist() for s, e in zip(histories.starts, histories.ends, strict=True)]


@pytest.mark.parametrize("unused", [0, 5000])
def test_item_to_item_equals_a_plain_loop_over_users_and_pairs(unused: int) -> None:
    data = dataset(lists(), ITEMS)
    histories = split_events(data).test.histories
    scores = every_row(ItemToItem(split_events(data).training, ITEMS + unused, decay=0.8), histories)
    sets = [set(part) for part in parts(data)]
    for row in range(len(histories)):
        history = histories.items[histories.starts[row] : histories.ends[row]].tolist()
        for j in range(1, ITEMS + 1):
            expected = 0.0
            for since, i in enumerate(reversed(history)):
                both = sum(i in each and j in each for each in sets)
                if i != j and both:
                    alone = [sum(k in each for each in sets) for k in (i, j)]
                    expected += 0.8**since * both / math.sqrt(alone[0] * alone[1])
            assert scores[row, j] == pytest.approx(expected, abs=3e-6)


def test_markov_equals_a_plain_loop_over_transitions() -> None:
    data = dataset(lists(), ITEMS)
    training, histories = split_events(data).training, split_events(data).test.histories
    scores = every_row(Markov(training, ITEMS), histories)
    events = [item for part in parts(data) for item in part]
    steps = [step for part in parts(data) for step in itertools.pairwise(part)]
    most = max(events.count(i) for i in range(1, ITEMS + 1))
    for row, end in enumerate(histories.ends):
        for j in range(1, ITEMS + 1):
            expected = steps.count((histories.items[end - 1], j)) + events.count(j) / (most + 1)
            assert scores[row, j] == pytest.approx(expected, abs=1e-12)


def test_one_transition_counts_more_than_any_popularity() -> None:
    data = dataset([[1, 2, 1, 2], [3, 5, 1, 1], *[[4] * 50] * 50], 5)
    scores = every_row(
        Markov(split_events(data).training, 5), Histories(np.array([3]), None, np.array([0, 1]), np.array([1, 1]))
    )
    assert scores[0, 1:].argmax() == 4  # item 5 followed item 3 once
    assert scores[0, 4] < 1 < scores[0, 5]
    assert scores[1, 1:].argmax() == 3  # an empty history gets the most popular items


@pytest.mark.parametrize("since", [0, -3650, 20_000])
@pytest.mark.parametrize("days", [1, 7, 100])
def test_recent_popularity_counts_the_last_days_of_the_training_part(days: int, since: int) -> None:
    """This also holds if all times are before 1970."""
    data = with_times(dataset(lists(), ITEMS))
    data = dataclasses.replace(data, times=data.times + since * DAY)
    training = split_events(data).training
    scores = every_row(RecentPopularity(training, ITEMS, data.times, days), training)
    inside = [p for s, e in zip(training.starts, training.ends, strict=True) for p in range(s, e)]
    newest = max(data.times[p] for p in inside)
    recent = [int(data.items[p]) for p in inside if newest - data.times[p] < days * DAY]
    assert recent
    counts_V = event_counts(training, ITEMS)
    below = (counts_V / (counts_V.max() + 1)).astype(np.float32).tolist()
    expected = [recent.count(item) or below[item] for item in range(1, ITEMS + 1)]
    assert scores[:, 1:].tolist() == [expected] * len(training)


def test_recent_popularity_counts_the_right_events_where_a_split_leaves_items_out() -> None:
    """Item 3 is new after the boundary. The histories omit it, so the event times must omit it too."""
    rows = [[(1, 0), (3, 20), (1, 21)], [(3, 20), (3, 21), (2, 22)], [(1, 1), (2, 9), (2, 18)], [(2, 10), (1, 19)]]
    data = dataset([[item for item, _ in row] for row in rows], 3)
    data = dataclasses.replace(data, times=np.array([day * DAY for row in rows for _, day in row]))
    split = split_events(data, "temporal:1970-01-19,1970-01-21T12:00:00")
    recent = RecentPopularity(split.training, 3, split.event_times, days=9)
    assert recent.scores(split.training, np.arange(1))[0].tolist() == pytest.approx([0, 2 / 3, 2, 0]), (
        "days 9 and 10, not 0 and 1"
    )


def test_recent_popularity_is_offered_only_where_there_are_times() -> None:
    data = with_times(dataset(lists(), ITEMS))
    training = split_events(data).training
    assert list(baselines(training, ITEMS, None)) == ["popularity", "item-to-item", "markov"]
    timed = ["popularity", "recent-7-days", "item-to-item", "markov"]
    assert list(baselines(training, ITEMS, data.times)) == timed


def test_nothing_but_the_training_part_is_counted() -> None:
    data = with_times(dataset(lists(), ITEMS))
    training = split_events(data).training
    inside = np.zeros(data.num_events, bool)
    for start, end in zip(training.starts, training.ends, strict=True):
        inside[start:end] = True
    items = np.where(inside, data.items, 1).astype(np.int32)
    times = np.where(inside, data.times, data.times.max() + 100 * DAY)
    other = Histories(items, None, training.starts, training.ends)
    ours, theirs = baselines(training, ITEMS, data.times), baselines(other, ITEMS, times)
    for name in ours:
        assert np.array_equal(every_row(ours[name], training), every_row(theirs[name], training)), name


def test_scores_are_new_at_each_call_so_that_the_caller_may_write_into_them() -> None:
    data = with_times(dataset(lists(), ITEMS))
    training = split_events(data).training
    for scorer in baselines(training, ITEMS, data.times).values():
        first = scorer.scores(training, np.arange(5))
        kept = first.clone()
        first.fill_(-torch.inf)
        assert torch.equal(scorer.scores(training, np.arange(5)), kept)


def measured(data: Dataset) -> dict:
    split = split_events(data)
    made = baselines(split.training, data.num_items, split.event_times)
    return evaluate_scorer(made.pop("popularity"), data, split, log=RunLog(None)).metrics


@pytest.mark.parametrize("scores_at_once", [1, 300, 10**7])
def test_metrics_are_the_same_to_the_last_bit_whatever_the_batch(
    scores_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_times(dataset(lists(), ITEMS))
    before = measured(data)
    monkeypatch.setattr(candidates, "_SCORES_AT_ONCE", scores_at_once)
    assert measured(data) == before


def test_scores_are_the_same_to_the_last_bit_alone_and_among_others() -> None:
    data = with_times(dataset(random_lists(600, 400, seed=3), 400))
    split = split_events(data).test
    for scorer in baselines(split_events(data).training, 400, data.times).values():
        together = scorer.scores(split.histories, np.arange(len(split.targets)))
        rows = np.random.default_rng(0).permutation(len(split.targets))[:100]
        alone = torch.cat([scorer.scores(split.histories, rows[i : i + 1]) for i in range(100)])
        assert torch.equal(together[torch.from_numpy(rows)], alone)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_are_the_same_to_the_last_bit_however_many_processes_share(
    ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_SCORES_AT_ONCE", 300)
    data = with_times(dataset(lists(), ITEMS))
    split = split_events(data).test
    for scorer in baselines(split_events(data).training, ITEMS, data.times).values():
        whole = target_ranks(scorer, split).full
        with monkeypatch.context() as patch:
            patch.setattr(candidates, "world", lambda: ranks)
            shares = []
            for number in range(ranks):
                patch.setattr(candidates, "rank", lambda number=number: number)
                shares.append(target_ranks(scorer, split).full)
        assert np.array_equal(sum(shares), whole)


def test_a_large_catalogue_never_becomes_a_dense_matrix_of_items_by_items() -> None:
    items = 300_000  # a full matrix of item pairs would take 360 GB of float32
    data = dataset(random_lists(200, items, seed=0, longest=20), items)
    training = split_events(data).training
    scores = ItemToItem(training, items).scores(training, np.arange(4))
    assert scores.shape == (4, items + 1)


def test_no_events_to_train_on_scores_nothing() -> None:
    nobody = Histories(np.zeros(0, np.int32), None, np.zeros(2, np.int64), np.zeros(2, np.int64))
    for scorer in baselines(nobody, 3, np.zeros(0, np.int64)).values():
        assert scorer.scores(nobody, np.arange(2)).tolist() == [[0] * 4] * 2


def test_every_baseline_is_in_the_metrics_and_in_the_printed_tables(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = measured(with_times(dataset(lists(), ITEMS)))
    assert list(metrics["baselines"]) == ["popularity", "recent-7-days", "item-to-item", "markov"]
    print_metrics(Metrics(metrics))
    out = capsys.readouterr().out
    for name in ("popularity", "recent-7-days", "item-to-item", "markov"):
        assert out.count(f"\n{name} ") == 2, "on validation and on test"
    assert "the best baseline" in out
