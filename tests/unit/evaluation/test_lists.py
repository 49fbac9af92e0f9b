"""Coverage, popularity, novelty, diversity and slices against plain loops."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import sasrec
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.evaluation.lists import auc, coverage, intra_list_diversity, novelty, popularity, slices
from sasrec.evaluation.metrics import metrics_from_ranks
from tests.synthetic import chain_frame

ITEMS, ROWS, K = 40, 50, 8
DAY = 86_400 * 10**6


def made(seed: int) -> tuple[np.ndarray, list[list[int]], np.ndarray]:
    """Random lists of up to K different items, the same as Python lists, and counts. Some are short, one is empty."""
    random = np.random.default_rng(seed)
    lists_BK = np.stack([random.permutation(ITEMS)[:K] + 1 for _ in range(ROWS)])
    for row in range(0, ROWS, 5):
        lists_BK[row, row % K :] = 0
    counts_V = random.integers(0, 9, ITEMS + 1) ** 2
    counts_V[0] = 0
    return lists_BK, [[i for i in row if i > 0] for row in lists_BK.tolist()], counts_V


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(3))
def test_coverage_equals_a_plain_loop(seed: int) -> None:
    lists_BK, lists, _ = made(seed)
    assert coverage(lists_BK[:3], ITEMS) == len({i for row in lists[:3] for i in row}) / ITEMS
    assert coverage(np.tile(np.arange(1, ITEMS + 1), (2, 1)), ITEMS) == 1
    assert coverage(np.zeros((3, K), np.int64), ITEMS) == 0


@pytest.mark.parametrize("seed", range(3))
def test_popularity_and_its_ratio_equal_a_plain_loop(seed: int) -> None:
    lists_BK, lists, counts_V = made(seed)
    random = np.random.default_rng(seed)
    items, lengths = random.integers(1, ITEMS + 1, 900).astype(np.int32), random.integers(0, 10, ROWS)
    starts = random.integers(0, 800, ROWS)
    found = popularity(lists_BK, Histories(items, None, starts, starts + lengths), counts_V)
    recommended = mean([mean([counts_V[i] for i in row]) for row in lists if row])
    rows = [items[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True) if n]
    had = mean([mean([counts_V[i] for i in row]) for row in rows])
    assert found["popularity"] == pytest.approx(recommended)
    assert found["popularity_ratio"] == pytest.approx(recommended / had)


@pytest.mark.parametrize("seed", range(3))
def test_novelty_equals_a_plain_loop_and_an_unseen_item_counts_as_had_by_one_user(seed: int) -> None:
    lists_BK, lists, users_V = made(seed)
    expected = mean([mean([-math.log2(max(users_V[i], 1) / 100) for i in row]) for row in lists if row])
    assert novelty(lists_BK, users_V, 100) == pytest.approx(expected)
    assert novelty(np.array([[1, 2]]), np.array([0, 0, 1]), 1024) == 10
    assert novelty(np.array([[1]]), np.array([0, 64]), 64) == 0


@pytest.mark.parametrize("seed", range(3))
def test_diversity_equals_a_plain_loop_over_pairs(seed: int) -> None:
    lists_BK, lists, counts_V = made(seed)
    groups_V = counts_V % 3
    pairs = [list(combinations(row, 2)) for row in lists if len(row) > 1]
    expected = mean([mean([groups_V[i] != groups_V[j] for i, j in row]) for row in pairs])
    assert intra_list_diversity(lists_BK, groups_V) == pytest.approx(expected)
    assert intra_list_diversity(lists_BK, np.zeros(ITEMS + 1, np.int64)) == 0
    assert intra_list_diversity(lists_BK, np.arange(ITEMS + 1)) == 1


def test_where_there_is_nothing_to_average_the_answer_is_not_a_number() -> None:
    none, nobody = (
        np.zeros((2, K), np.int64),
        Histories(np.zeros(0, np.int32), None, np.zeros(2, int), np.zeros(2, int)),
    )
    counts_V = np.ones(ITEMS + 1, np.int64)
    assert all(math.isnan(value) for value in popularity(none, nobody, counts_V).values())
    assert math.isnan(popularity(made(0)[0], nobody, counts_V)["popularity_ratio"])
    assert math.isnan(novelty(none, counts_V, 9))
    assert math.isnan(intra_list_diversity(none, counts_V))
    assert math.isnan(intra_list_diversity(np.array([[1], [2]]), counts_V))


def attributes(seed: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    counts_V = np.concatenate([[0], random.geometric(0.05, ITEMS)])
    ranks = random.integers(2, 80, rows) / 2
    return (
        ranks,
        random.geometric(0.06, rows),
        random.integers(1, ITEMS + 1, rows),
        counts_V,
        random.integers(0, 90 * DAY, rows),
    )


@pytest.mark.parametrize("seed", range(3))
def test_slices_by_length_equal_a_plain_loop(seed: int) -> None:
    ranks, lengths, targets, counts_V, _ = attributes(seed)
    found = slices(ranks, lengths, targets, counts_V)
    for name, low, high in (("up to 5", 0, 5), ("6-20", 6, 20), ("21-50", 21, 50), ("51 and more", 51, 10**9)):
        inside = [row for row in range(len(ranks)) if low <= lengths[row] <= high]
        metrics = metrics_from_ranks(ranks[inside])
        expected = {"rows": len(inside), "from": min(lengths[inside]), "to": max(lengths[inside])}
        assert found[f"history {name}"] == expected | {k: metrics[k] for k in ("ndcg@10", "hr@10")}


@pytest.mark.parametrize("seed", range(3))
def test_targets_are_sliced_by_thirds_of_the_events(seed: int) -> None:
    ranks, lengths, targets, counts_V, _ = attributes(seed)
    found = slices(ranks, lengths, targets, counts_V)
    total, rows = counts_V.sum(), {"tail": [], "middle": [], "head": []}
    for row, target in enumerate(targets):
        below = sum(c for c in counts_V if c < counts_V[target])
        equal = sum(c for c in counts_V if c == counts_V[target])
        share = (below + equal / 2) / total
        rows["tail" if share < 1 / 3 else "middle" if share < 2 / 3 else "head"].append(row)
    for name, inside in rows.items():
        part, metrics = found[f"target in the {name}"], metrics_from_ranks(ranks[inside])
        assert (part["rows"], part["ndcg@10"], part["hr@10"]) == (
            len(inside),
            metrics["ndcg@10"],
            metrics["hr@10"],
        )
        assert (part["from"], part["to"]) == (min(counts_V[targets[inside]]), max(counts_V[targets[inside]]))


def test_the_head_is_few_items_with_about_a_third_of_the_events() -> None:
    counts_V = np.array([0, 100, 100, 100, *[1] * 300])
    found = slices(np.ones(303), np.ones(303, int), np.arange(1, 304), counts_V)
    assert found["target in the tail"]["rows"] == 300
    assert found["target in the head"] == {"rows": 3, "from": 100, "to": 100, "ndcg@10": 1, "hr@10": 1}
    assert "target in the middle" not in found


def test_gaps_are_sliced_by_thirds_of_the_rows_in_days_and_equal_ones_stay_together() -> None:
    ranks, lengths, targets, counts_V, gaps = attributes(0)
    found = slices(ranks, lengths, targets, counts_V, gaps)
    order = np.argsort(gaps)
    for name, inside in zip(
        ("shortest", "middle", "longest"), (order[:133], order[133:267], order[267:]), strict=True
    ):
        part = found[f"{name} gaps to the target"]
        assert part["rows"] == len(inside)
        assert part["ndcg@10"] == pytest.approx(metrics_from_ranks(ranks[inside])["ndcg@10"])
        assert part["from"] == pytest.approx(gaps[inside].min() / DAY)
        assert part["to"] == pytest.approx(gaps[inside].max() / DAY)
    alike = slices(ranks, lengths, targets, counts_V, np.zeros(400, np.int64))
    assert alike["middle gaps to the target"]["rows"] == 400


def test_without_times_there_are_no_slices_by_gap_and_every_grouping_holds_every_row() -> None:
    ranks, lengths, targets, counts_V, gaps = attributes(1)
    for given, groupings in ((None, 2), (gaps, 3)):
        found = slices(ranks, lengths, targets, counts_V, given)
        assert any("gap" in name for name in found) == (given is not None)
        assert sum(part["rows"] for part in found.values()) == groupings * len(ranks)
        total = sum(part["rows"] * part["ndcg@10"] for part in found.values()) / groupings
        assert total / len(ranks) == pytest.approx(metrics_from_ranks(ranks)["ndcg@10"])


@pytest.mark.parametrize("split", ["leave-one-out", "temporal:0.8"])
def test_auc_equals_a_plain_loop_over_the_other_candidates(split: str) -> None:
    data = sasrec.prepare(chain_frame(users=30))
    part = split_events(data, split).test
    random = np.random.default_rng(3)
    ranks, shares = [], []
    for row, target in enumerate(part.targets.tolist()):
        scores = random.integers(0, 6, data.num_items + 1)  # with many ties
        history = set(part.histories.items[part.histories.starts[row] : part.histories.ends[row]].tolist())
        others = [i for i in range(1, data.num_items + 1) if part.known_V[i] and i not in history | {target}]
        above = sum(scores[i] > scores[target] for i in others)
        equal = sum(scores[i] == scores[target] for i in others)
        ranks.append(1 + above + equal / 2)
        if others:
            shares.append((len(others) - above - equal / 2) / len(others))
    assert auc(np.array(ranks), part) == pytest.approx(mean(shares), abs=1e-12)
    assert 0.2 < mean(shares) < 0.8


def test_details_have_the_auc_of_the_model_and_of_popularity(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=40))
    run = sasrec.train(data, tmp_path / "run", maxlen=8, hidden_units=8, num_blocks=1, num_epochs=3, device="cpu")
    assert run.metrics is not None
    measured = sasrec.evaluate(tmp_path / "run", details=True)["details"]["lists"]
    assert 0 < measured["popularity"]["auc"] < measured["model"]["auc"] <= 1
