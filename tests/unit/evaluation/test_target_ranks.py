"""Ranks and metrics, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.errors import EvaluationError
from sasrec.evaluation.baselines import Popularity
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import sampled_negatives, target_ranks
from sasrec.ranking import candidates
from tests.synthetic import dataset, random_lists


class TableScorer:
    """Scores from a fixed table (rows of the split, items + 1)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.num_items = torch.from_numpy(table), table.shape[1] - 1

    def scores(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        return self.table[torch.from_numpy(rows)].clone()


def setting(items: int = 20, seed: int = 0):
    data = dataset(random_lists(80, items, seed=seed, longest=15), items)
    split = split_events(data).test
    table = np.random.default_rng(seed).integers(0, 6, (len(split.targets), items + 1)).astype(np.float32)
    return data, split, table


@pytest.mark.parametrize("scores_at_once", [1, 100, 10**6])
def test_ranks_equal_a_plain_loop_with_ties_by_half(scores_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_SCORES_AT_ONCE", scores_at_once)
    data, split, table = setting()
    negatives = sampled_negatives(split, 20, 7, seed=1)
    ranks = target_ranks(TableScorer(table), split, negatives=negatives)
    for row, target in enumerate(split.targets):
        seen = set(data.items[split.histories.starts[row] : split.histories.ends[row]].tolist())
        full = [table[row, i] for i in range(1, 21) if i not in seen and i != target]
        sampled = [table[row, i] for i in negatives[row] if i > 0]
        for others, rank in ((full, ranks.full[row]), (sampled, ranks.sampled[row])):
            own = table[row, target]
            assert rank == 1 + sum(s > own for s in others) + sum(s == own for s in others) / 2


def test_sampled_negatives_are_seeded_and_exclude_history_and_target() -> None:
    data, split, _ = setting()
    negatives = sampled_negatives(split, 20, 100, seed=3)
    assert np.array_equal(negatives, sampled_negatives(split, 20, 100, seed=3))
    assert not np.array_equal(negatives, sampled_negatives(split, 20, 100, seed=4))
    for row, target in enumerate(split.targets):
        assert not np.isin(negatives[row], [*data.item_numbers_of(split.users[row]), target]).any()


def test_what_lists_cannot_hold_is_no_target() -> None:
    split = split_events(dataset([[1, 2, 3, 1], [1, 2, 2, 3]], 4))
    assert (split.test.targets.tolist(), split.test.users.tolist()) == ([3], [1])
    assert (split.valid.targets.tolist(), split.valid.users.tolist()) == ([3], [0])
    assert split.test.skipped["the user has had the target before"] == split.test.repeats_left_out == 1
    scores = np.array([[9, 5, 6, 7, 8]], np.float32)
    assert target_ranks(TableScorer(scores), split.test).full.tolist() == [2.0]


def test_a_score_that_is_not_a_number_is_an_error() -> None:
    _, split, table = setting()
    table[3, 4] = np.nan
    with pytest.raises(EvaluationError, match="NaN"):
        target_ranks(TableScorer(table), split)


def test_target_that_is_never_recommended_ranks_behind_all_candidates() -> None:
    """Not in the middle of the items that are no candidates, which have the score -inf, too."""
    split = split_events(dataset([[1, 2, 3, 4]], 9)).test
    scores = np.arange(10, dtype=np.float32)[None]
    negatives = np.array([[5, 6, 6, 0]])  # a row without negatives has 0s
    for others in (0.0, -np.inf):  # of all items, or those of some
        scores[0, [4, 8, 9]] = -np.inf, others, others
        ranks = target_ranks(TableScorer(scores), split, negatives=negatives)
        assert ranks.full.tolist() == [6.0]  # 5 to 9 are the other candidates
        assert ranks.sampled is not None
        assert ranks.sampled.tolist() == [4.0]


def test_nobody_to_evaluate_is_an_error() -> None:
    split = split_events(dataset([[1, 2], [2]], 2)).test
    with pytest.raises(EvaluationError, match="fewer than 3 events: 2"):
        target_ranks(TableScorer(np.zeros((0, 3), np.float32)), split)


def test_metrics_equal_their_definitions() -> None:
    ranks = np.array([1.0, 2.5, 10.0, 10.5, 60.0])
    metrics = metrics_from_ranks(ranks)
    assert metrics["hr@10"] == 3 / 5
    assert metrics["hr@1"] == 1 / 5
    assert math.isclose(metrics["ndcg@10"], (1 + 1 / math.log2(3.5) + 1 / math.log2(11)) / 5)
    assert math.isclose(metrics["mrr@10"], (1 + 1 / 2.5 + 1 / 10) / 5)
    assert math.isclose(metrics["mrr"], (1 + 1 / 2.5 + 1 / 10 + 1 / 10.5 + 1 / 60) / 5)


def test_a_model_that_scores_everything_alike_is_as_good_as_chance() -> None:
    split = split_events(dataset([[i, i + 1, i + 2] for i in range(1, 50)], 101)).test
    ranks = target_ranks(TableScorer(np.zeros((49, 102), np.float32)), split)
    assert ranks.full.tolist() == [50.0] * 49  # 99 candidates: the middle


def test_popularity_counts_the_training_part_only() -> None:
    data = dataset([[1, 1, 2, 3, 4], [1, 2], [3]], 4)
    training = split_events(data).training
    scores = Popularity(training, 4).scores(training, np.array([0, 2]))
    assert scores[:, 1:].tolist() == [[3, 2, 1, 0]] * 2
