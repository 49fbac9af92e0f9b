"""Ranks are the same whatever the blocks they are counted in, exact, and small in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec.batches.loader import DeviceBatch
from sasrec.config.settings import ModelConfig
from sasrec.data.histories import Histories
from sasrec.data.splits import EvaluationSplit, split_events
from sasrec.errors import EvaluationError
from sasrec.evaluation import target_ranks as target_ranks_module
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import sampled_negatives, target_ranks
from sasrec.models import SequenceModel, build_model
from sasrec.ranking import candidates, scorers
from sasrec.ranking.candidates import own_blocks
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.scorers import ModelScorer
from tests.synthetic import dataset, random_lists

ITEMS = 40


class TableScorer:
    """Scores from a fixed table (rows of the split, items + 1)."""

    def __init__(self, table: np.ndarray | torch.Tensor) -> None:
        self.table, self.num_items = torch.as_tensor(table), table.shape[1] - 1

    def scores(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        return self.table[torch.from_numpy(rows)].clone()


def made_split(
    histories: list[list[int]], targets: list[int], items: int, unknown: frozenset[int] = frozenset()
) -> EvaluationSplit:
    data = dataset([*histories, [1]], items)
    known_V = np.array([0 < item <= items and item not in unknown for item in range(items + 1)])
    return EvaluationSplit(
        name="test",
        users=np.arange(len(targets)),
        events=np.arange(len(targets)),
        histories=Histories(data.items, None, data.offsets[:-2], data.offsets[1:-1]),
        targets=np.array(targets),
        known_V=known_V,
        skipped={},
        events_left_out=0,
        repeats_left_out=0,
    )


def ranks_by_loops(split: EvaluationSplit, table: np.ndarray) -> list[float]:
    """As docs/reference/metrics.md has it."""
    found: list[float] = []
    for row, target in enumerate(split.targets.tolist()):
        seen = set(split.histories.items[split.histories.starts[row] : split.histories.ends[row]].tolist())
        others = [table[row, item] for item in np.flatnonzero(split.known_V) if item not in seen | {target}]
        own = table[row, target]
        never = bool(np.isneginf(own))  # never recommended, so behind all others
        found.append(1 + (len(others) if never else sum(float(s > own) + float(s == own) / 2 for s in others)))
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[EvaluationSplit, np.ndarray]:
    """Few items and fewer scores: ties, targets that repeat, unknown items, empty histories, infinities."""
    items, rows = draw(st.integers(2, 9)), draw(st.integers(1, 6))
    unknown = draw(st.frozensets(st.integers(1, items), max_size=items - 1))
    item = st.sampled_from([each for each in range(1, items + 1) if each not in unknown])
    histories = draw(st.lists(st.lists(item, max_size=6), min_size=rows, max_size=rows))
    targets = draw(st.lists(item, min_size=rows, max_size=rows))
    score = st.sampled_from([-1.5, 0.0, 1e-45, 1e-39, 1.0, 1.0000001, 3e38, float("inf"), -float("inf")])
    table = draw(st.lists(st.lists(score, min_size=items + 1, max_size=items + 1), min_size=rows, max_size=rows))
    return made_split(histories, targets, items, unknown), np.array(table, np.float32)


@settings(max_examples=300, deadline=None)
@given(cases(), st.sampled_from([1, 10, 10**6]), st.sampled_from([1, 12, 10**6]), st.sampled_from([2, 2**24]))
def test_ranks_equal_plain_loops(
    case: tuple[EvaluationSplit, np.ndarray], at_once: int, in_cache: int, exact: int
) -> None:
    split, table = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_SCORES_AT_ONCE", at_once)
        patch.setattr(candidates, "_SCORES_IN_CACHE", in_cache)
        patch.setattr(target_ranks_module, "_EXACT", exact)
        assert target_ranks(TableScorer(table), split).full.tolist() == ranks_by_loops(split, table)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_scores_of_every_precision_are_counted_exactly(kind: torch.dtype) -> None:
    """Of 5,000 items: more than a sum in half precision can count."""
    random = np.random.default_rng(0)
    split = made_split(random_lists(20, 5000, seed=0), random.integers(1, 5001, 20).tolist(), 5000)
    table = torch.from_numpy(random.integers(0, 200, (20, 5001))).to(kind)
    assert target_ranks(TableScorer(table), split).full.tolist() == ranks_by_loops(split, table.double().numpy())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fill", [0.0, float("inf"), -float("inf")])
def test_a_score_that_is_not_a_number_is_found_wherever_it_is(fill: float, threads: int) -> None:
    """Also of an item that is in the history, or not known, or beside infinities."""
    items, before = 70, torch.get_num_threads()
    split = made_split([[1, 2, 70], [3]], [4, 5], items, frozenset({6, 69}))
    torch.set_num_threads(threads)
    try:
        for row, item in np.ndindex(2, items + 1):
            table = np.full((2, items + 1), fill, np.float32)
            table[row, item] = np.nan
            if item:
                with pytest.raises(EvaluationError, match="NaN"):
                    target_ranks(TableScorer(table), split)
            else:
                target_ranks(TableScorer(table), split)  # padding is no item
    finally:
        torch.set_num_threads(before)


def model_of(items: int = ITEMS, **settings: object) -> SequenceModel:
    torch.manual_seed(0)
    model = build_model(items, dataclasses.replace(ModelConfig(maxlen=12, hidden_units=16), **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def timed_split(items: int = ITEMS, users: int = 150) -> EvaluationSplit:
    split = split_events(dataset(random_lists(users, items, seed=1), items)).test
    times = np.arange(len(split.histories.items), dtype=np.int64) * 7 % 50
    return dataclasses.replace(split, histories=dataclasses.replace(split.histories, ticks=np.sort(times)))


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_models_ranks_are_the_same_to_the_last_bit_however_many_processes_share(
    time: bool, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("_SCORES_AT_ONCE", 20), ("_SCORES_IN_CACHE", 6)):  # chunks of 20 rows, blocks of 6
        monkeypatch.setattr(candidates, name, size * (ITEMS + 1))
    monkeypatch.setattr(scorers, "_POSITIONS_AT_ONCE", 70)
    split, scorer = timed_split(), ModelScorer(model_of(time=time))
    negatives = sampled_negatives(split, ITEMS, 9, seed=0)
    scores = {int(row): line for block, ready in own_blocks(scorer, split.histories)
              for row, line in zip(block, ready.scores(split.histories, block), strict=True)}  # fmt: skip
    whole = target_ranks(scorer, split, negatives=negatives)
    shares = []
    monkeypatch.setattr(candidates, "world", lambda: ranks)
    for number in range(ranks):
        monkeypatch.setattr(candidates, "rank", lambda number=number: number)
        shares.append(target_ranks(scorer, split, negatives=negatives))
        for block, ready in own_blocks(scorer, split.histories):
            for row, line in zip(block, ready.scores(split.histories, block), strict=True):
                assert torch.equal(scores.pop(int(row)), line)
    assert not scores, "every row belongs to one rank"
    assert np.array_equal(sum(share.full for share in shares), whole.full)
    assert np.array_equal(sum(share.sampled for share in shares), whole.sampled)


@pytest.mark.parametrize("time", [False, True])
def test_blocks_have_the_scores_that_the_model_gives_row_by_row(
    time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_SCORES_IN_CACHE", 6 * (ITEMS + 1))
    monkeypatch.setattr(scorers, "_POSITIONS_AT_ONCE", 70)
    split, scorer = timed_split(), ModelScorer(model_of(time=time).double())
    rows_done = []
    for rows, ready in own_blocks(scorer, split.histories):
        assert len(rows) <= 6
        scores_BV = ready.scores(split.histories, rows)
        for row, scores_V in zip(rows, scores_BV, strict=True):
            alone_V = scorer.scores(split.histories, np.array([row]))[0]
            assert torch.allclose(scores_V, alone_V, rtol=0, atol=1e-12)
        rows_done.extend(rows.tolist())
    assert sorted(rows_done) == list(range(len(split.histories)))


@pytest.mark.parametrize("time", [False, True])
def test_in_double_precision_a_models_metrics_are_the_same_to_the_last_bit_whatever_the_sizes(
    time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision sizes decide how scores are rounded, so they are constants there."""
    split, scorer = timed_split(), ModelScorer(model_of(time=time).double())
    negatives, found = sampled_negatives(split, ITEMS, 9, seed=0), []
    for chunk, block, positions in ((512, 512, 2**12), (20, 6, 70), (1, 1, 1), (7, 100, 10**6)):
        monkeypatch.setattr(candidates, "_SCORES_AT_ONCE", chunk * (ITEMS + 1))
        monkeypatch.setattr(candidates, "_SCORES_IN_CACHE", block * (ITEMS + 1))
        monkeypatch.setattr(scorers, "_POSITIONS_AT_ONCE", positions)
        ranks = target_ranks(scorer, split, negatives=negatives)
        found.append([metrics_from_ranks(each) for each in (ranks.full, ranks.sampled)])
    assert all(metrics == found[0] for metrics in found[1:])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(training: bool) -> None:
    model = model_of(dropout_rate=0.5).train(training)
    ranks = [target_ranks(ModelScorer(model), timed_split()).full for _ in range(2)]
    assert model.training is training
    assert np.array_equal(*ranks), "dropout is off"


def watched_batches(model: SequenceModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The shapes that the model is given to encode."""
    shapes, original = [], model.last_states

    def last_states(batch: DeviceBatch) -> torch.Tensor:
        shapes.append(batch.items_BL.shape)
        return original(batch)

    monkeypatch.setattr(model, "last_states", last_states)
    return shapes


def test_long_histories_are_encoded_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    split = made_split([[1] * 1000] * 600 + [[1] * 3] * 600 + [[]], [2] * 1201, 3)
    model = model_of(3, maxlen=200, hidden_units=2, num_blocks=1)
    shapes = watched_batches(model, monkeypatch)
    target_ranks(ModelScorer(model), split)
    assert sum(rows for rows, _ in shapes) == 1201
    assert max(rows * length for rows, length in shapes) <= 4096
    assert max(rows for rows, _ in shapes) > 400, "of short ones many"
    assert max(length for _, length in shapes) == 200


def test_a_history_longer_than_all_that_fits_is_encoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "_POSITIONS_AT_ONCE", 5)
    split = made_split([[1] * 9, [1], [1] * 2, [1] * 9, []], [2] * 5, 3)
    model = model_of(3)
    shapes = watched_batches(model, monkeypatch)
    target_ranks(ModelScorer(model), split)
    assert sorted(shapes) == [(1, 2), (1, 9), (1, 9), (2, 1)]


@pytest.mark.parametrize(("items", "most"), [(3, 512), (23_715, 22), (200_000, 2), (3_000_000, 1)])
def test_a_large_catalogue_is_scored_few_rows_at_a_time(items: int, most: int) -> None:
    asked = []

    class Watched:
        num_items = items

        def scores(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
            asked.append(len(rows))
            return torch.zeros(len(rows), items + 1)

    rows = 600 if items < 10**5 else 3
    target_ranks(Watched(), made_split([[1]] * rows, [2] * rows, items))
    assert sum(asked) == rows
    assert max(asked) == min(rows, most)


def top_of_all(model: SequenceModel, lists: list[list[int]]) -> Iterator[tuple[object, ...]]:
    return (
        Recommender(ModelScorer(model), dataset(lists, ITEMS).catalogue, dataset(lists, ITEMS))
        .recommend_all(5)
        .iter_rows()
    )


def test_recommending_for_all_is_recommending_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SCORES_AT_ONCE", "_SCORES_IN_CACHE"):
        monkeypatch.setattr(candidates, name, 7 * (ITEMS + 1))
    lists, model = random_lists(50, ITEMS, seed=5), model_of().double()
    recommender = Recommender(ModelScorer(model), dataset(lists, ITEMS).catalogue, dataset(lists, ITEMS))
    found: dict[str, list[object]] = {}
    for user, item, _, _ in top_of_all(model, lists):
        found.setdefault(str(user), []).append(item)
    assert len(found) == 50
    for user, items in found.items():
        assert items == [item for item, _ in recommender.recommend_user(user, 5)]
