"""Ranks and metrics against independent programs: trec_eval's metrics, SciPy's average ranks, and plain loops.

No library computes half ranks. So ties are checked on ranks, and metrics are checked on rankings without ties.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import pytrec_eval
import torch
from scipy.stats import rankdata

from sasrec.data.histories import Histories
from sasrec.data.splits import EvaluationSplit, split_events
from sasrec.evaluation.metrics import CUTOFFS, METRICS, Metrics, metrics_from_ranks
from sasrec.evaluation.target_ranks import TargetRanks, sampled_negatives, target_ranks
from tests.synthetic import dataset, random_lists

ITEMS = 60


class Table:
    """Scores from a fixed table (rows of the split, items + 1)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.num_items = torch.from_numpy(table), table.shape[1] - 1

    def scores(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        return self.table[torch.from_numpy(rows)].clone()


def ranked(seed: int, different_scores: int | None) -> tuple[EvaluationSplit, np.ndarray, np.ndarray, TargetRanks]:
    """A split, the scores of its rows, sampled negatives, and our ranks."""
    split = split_events(dataset(random_lists(120, ITEMS, seed, longest=25), ITEMS)).test
    random = np.random.default_rng(seed)
    shape = (len(split.targets), ITEMS + 1)
    if different_scores is None:
        table = np.stack([random.permutation(shape[1]) for _ in range(shape[0])]).astype(np.float32)
    else:
        table = random.integers(0, different_scores, shape).astype(np.float32)
    negatives = sampled_negatives(split, ITEMS, 30, seed)
    return split, table, negatives, target_ranks(Table(table), split, negatives=negatives)


def candidates(split: EvaluationSplit, row: int) -> list[int]:
    """The target, then all other items that are not in the history."""
    histories = split.histories
    seen = {*histories.items[histories.starts[row] : histories.ends[row]].tolist(), int(split.targets[row])}
    return [int(split.targets[row]), *(item for item in range(1, ITEMS + 1) if item not in seen)]


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_trec_eval(seed: int) -> None:
    split, table, _, ranks = ranked(seed, different_scores=None)
    lists = {str(row): {str(i): float(table[row, i]) for i in candidates(split, row)} for row in range(len(table))}
    relevant = {str(row): {str(target): 1} for row, target in enumerate(split.targets)}
    cuts = ",".join(map(str, CUTOFFS))
    asked = {f"ndcg_cut.{cuts}", f"success.{cuts}", "recip_rank"}
    theirs = list(pytrec_eval.RelevanceEvaluator(relevant, asked).evaluate(lists).values())
    ours = metrics_from_ranks(ranks.full)
    for k in CUTOFFS:
        assert ours[f"ndcg@{k}"] == pytest.approx(np.mean([each[f"ndcg_cut_{k}"] for each in theirs]), abs=1e-9)
        assert ours[f"hr@{k}"] == pytest.approx(np.mean([each[f"success_{k}"] for each in theirs]), abs=1e-9)
        reciprocal = [each["recip_rank"] * each[f"success_{k}"] for each in theirs]
        assert ours[f"mrr@{k}"] == pytest.approx(np.mean(reciprocal), abs=1e-9)
    assert ours["mrr"] == pytest.approx(np.mean([each["recip_rank"] for each in theirs]), abs=1e-9)


@pytest.mark.parametrize("different_scores", [1, 2, 5, 1000])
def test_ranks_with_ties_agree_with_the_average_ranks_of_scipy(different_scores: int) -> None:
    split, table, negatives, ranks = ranked(3, different_scores)
    for row, target in enumerate(split.targets):
        assert ranks.full[row] == rankdata(-table[row, candidates(split, row)], "average")[0]
        assert ranks.sampled[row] == rankdata(-table[row, [target, *negatives[row]]], "average")[0]


@pytest.mark.parametrize("different_scores", [2, 5, None])
def test_ranks_agree_with_a_plain_loop(different_scores: int | None) -> None:
    split, table, _, ranks = ranked(4, different_scores)
    for row in range(len(table)):
        target, *others = candidates(split, row)
        above = equal = 0
        for item in others:
            above += bool(table[row, item] > table[row, target])
            equal += bool(table[row, item] == table[row, target])
        assert ranks.full[row] == 1 + above + equal / 2


def made() -> Metrics:
    def figures(value: float) -> dict[str, dict[str, dict[str, float]]]:
        return {"test": {kind: dict.fromkeys(METRICS, value) for kind in ("full", "sampled")}}

    card = {"split": "leave-one-out: last", "data": "<b>mine</b>", "test": {"targets": 1234, "users": 999}}
    return Metrics(figures(0.25) | {"baselines": {"<script>": figures(0.125)}, "protocol": card})


def test_metrics_are_a_dictionary_and_a_frame() -> None:
    metrics = made()
    assert json.loads(json.dumps(metrics)) == metrics
    frame = metrics.frame()
    assert frame.columns == ["split", "scorer", "candidates", "metric", "value"]
    assert frame.height == 2 * 2 * len(METRICS)
    row = frame.filter(scorer="<script>", candidates="sampled", metric="hr@20")
    assert row.rows() == [("test", "<script>", "sampled", "hr@20", 0.125)]


def test_metrics_show_shortly_and_in_a_notebook_as_a_table() -> None:
    metrics = made()
    assert repr(metrics) == "<Metrics, full catalogue: test NDCG@10 0.2500, HR@10 0.2500>"
    shown = metrics._repr_html_()
    assert "<td>0.2500</td>" in shown
    assert "1,234 targets of 999 users" in shown
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert Metrics({"protocol": {}})._repr_html_() == "&lt;Metrics, full catalogue: nobody has a target&gt;"
