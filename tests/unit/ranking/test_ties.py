"""Items with equal scores are listed in order of item number, whatever the length of the list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sasrec
from sasrec.data.histories import Histories
from sasrec.ranking import candidates
from sasrec.ranking.candidates import top_items
from sasrec.ranking.rules import Rules
from sasrec.ranking.selection import RowRules, Selection
from tests.synthetic import chain_frame, small

EVENTS = chain_frame(users=40, items=150)
VALID, TEST = 1_600_000_000 + 3600 * 6, 1_600_000_000 + 3600 * 8


class Table:
    """Scores from a fixed table, (rows, items + 1)."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.num_items = table, table.shape[1] - 1

    def scores(self, histories: Histories, rows: np.ndarray) -> torch.Tensor:
        return self.table[torch.from_numpy(rows)].clone()


def listed(table: torch.Tensor, k: int, selection: Selection) -> list[list[tuple[int, float]]]:
    """The lists that are served for empty histories."""
    rows = np.arange(len(table))
    histories = Histories(np.zeros(0, np.int32), None, np.zeros_like(rows), np.zeros_like(rows))
    blocks = [(rows, Table(table))]
    ((_, items, scores),) = top_items(blocks, histories, k, exclude_seen=True, selection=selection)
    rows_of_pairs = (zip(*row, strict=True) for row in zip(items.tolist(), scores.tolist(), strict=True))
    return [[(item, score) for item, score in pairs if score > -np.inf] for pairs in rows_of_pairs]


def by_sorting(table: torch.Tensor, k: int) -> list[list[tuple[int, float]]]:
    found = []
    for scores in table.tolist():
        pairs = [(item, score) for item, score in enumerate(scores) if item and score > -np.inf]
        found.append(sorted(pairs, key=lambda pair: -pair[1])[:k])  # `sorted` is stable
    return found


@st.composite
def tables(draw: st.DrawFn) -> torch.Tensor:
    rows, items, seed = draw(st.integers(1, 4)), draw(st.integers(1, 200)), draw(st.integers(0, 10**6))
    values = draw(st.sampled_from([[0.0], [0.0, -0.0, 1.0], [-np.inf, 2.0], [-np.inf, -1.5, 0.0, 1.0, 3.0, 4.0]]))
    random = np.random.default_rng(seed)
    table = random.choice(values, (rows, items + 1))
    distinct = random.random(table.shape) < draw(st.sampled_from([0, 0.05, 0.9, 1]))
    kind = draw(st.sampled_from([torch.float32, torch.float64, torch.float16]))
    return torch.from_numpy(np.where(distinct, random.normal(size=table.shape), table)).to(kind)


@settings(max_examples=300, deadline=None)
@given(tables(), st.integers(1, 220), st.sampled_from([1, 300, 2**19]))
def test_lists_are_those_of_a_stable_sort(table: torch.Tensor, k: int, in_cache: int) -> None:
    expected, plain = by_sorting(table, k), Selection(None)
    groups_V = np.arange(table.shape[1]) % 3
    grouped = Selection(None, RowRules(groups_V=groups_V, per_group=table.shape[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_SCORES_IN_CACHE", in_cache)
        assert listed(table, k, plain) == expected
        items = [[item for item, _ in row] for row in listed(table, k, grouped)]
    assert items == [[item for item, _ in row] for row in expected], (
        "a limit that no group reaches changes nothing"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 150 items, most have two events or less, so counts have many ties."""
    folder = tmp_path_factory.mktemp("ties")
    items = EVENTS.select("item").unique().with_columns(group=pl.lit("all"))
    items.write_csv(folder / "items.csv")
    data = sasrec.prepare(EVENTS, items=folder / "items.csv", items_group="group")
    sasrec.train(data, folder / "run", split=f"temporal:{VALID},{TEST}", **small(num_epochs=1))
    return folder / "run"


@pytest.mark.parametrize("name", ["popularity", "recent-7-days", "item-to-item", "markov"])
def test_a_list_is_the_beginning_of_every_longer_list(run: Path, name: str) -> None:
    model = sasrec.load(f"{run}:{name}")
    whole = model.recommend_all(150)
    for k in (1, 10, 60):
        top = whole.filter(pl.col("rank") <= k)
        assert model.recommend_all(k).equals(top)
        assert model.recommend_all(k, rules=Rules(per_group=150)).equals(top)


def test_measures_of_lists_do_not_depend_on_further_cutoffs(run: Path) -> None:
    short, long = (sasrec.evaluate(run, whole_period=True, k=k)["baselines"] for k in ([], [150]))
    for name, found in short.items():
        period = found["test"]["whole_period"]
        assert period == {metric: long[name]["test"]["whole_period"][metric] for metric in period}


@pytest.mark.parametrize("name", ["popularity", "recent-7-days", "item-to-item"])
def test_the_lists_that_are_measured_are_the_lists_that_are_served(run: Path, name: str) -> None:
    model, users = sasrec.load(f"{run}:{name}"), sasrec.evaluate(f"{run}:{name}", whole_period=True, k=[60]).users
    assert users is not None
    rows = users.filter(pl.col("scorer") == name, pl.col("split") == "test").to_dicts()
    assert len(rows) > 10
    for row in rows:
        own = EVENTS.filter(pl.col("user") == row["user"])
        before = own.filter(pl.col("time") < TEST)["item"].to_list()
        after = set(own.filter(pl.col("time") >= TEST)["item"]) - set(before)
        found = [item in after for item, _ in model.recommend(before, 10)]
        assert row["precision@10"] == pytest.approx(sum(found) / 10)


def test_similar_items_with_equal_embeddings_are_in_order(run: Path) -> None:
    model = sasrec.load(run)
    assert model.known_items is not None
    known = np.flatnonzero(model.known_items)
    ids = [model.items.id_of(number) for number in known.tolist()]
    with torch.no_grad():
        model.model.item_embedding.weight[known[20:]] = torch.eye(16)[0]  # cosines of exactly 1
    for k in (5, 150):
        assert [item for item, cosine in model.similar(ids[20], k) if cosine == 1] == ids[21:][:k]
