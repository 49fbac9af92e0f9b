"""Under a temporal split what is served is what is measured: the items of the training part, and no others."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import sasrec
from sasrec.checkpoint import store
from sasrec.errors import CheckpointError, ConfigError, DataError, SasrecWarning
from sasrec.ranking.known import NothingLeft
from sasrec.ranking.recommender import Recommender
from tests.synthetic import chain_frame, late_frame, small

SMALL = small(num_epochs=2)
KNOWN = 25
LATE = r"history: unknown items are ignored: late \(not in training\)"


def with_newcomer() -> pl.DataFrame:
    """Late events, of which one is all that a new user has."""
    frame = late_frame()
    newcomer = {"user": ["newcomer"], "item": ["late"], "time": [frame["time"].max()]}
    return pl.concat([frame, pl.DataFrame(newcomer)])


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "time"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "run"
    data = sasrec.prepare(with_newcomer())
    sasrec.train(data, folder, split="temporal:0.8", time=request.param, **SMALL)
    sasrec.export(folder, folder.parent / "model")
    return folder


def served(recommender: Recommender, history: list[str], k: int = 30, **options: Any) -> list[tuple[Any, float]]:
    return recommender.recommend(history, k, assume_regular=True, **options)


@pytest.mark.filterwarnings("ignore:history")
def test_the_place_in_the_list_before_a_target_is_the_rank_that_was_measured(tmp_path: Path) -> None:
    sasrec.train(sasrec.prepare(with_newcomer()), tmp_path / "run", split="temporal:0.8", **SMALL)
    recommender = sasrec.load(tmp_path / "run", device="cpu")
    data, compared = recommender.data, 0
    ids = data.catalogue.ids.to_list()
    rows = pl.read_parquet(tmp_path / "run/ranks.parquet").filter(scorer="model", split="test")
    for user, event, rank in rows.select("user", "event", "full").iter_rows():
        start = data.offsets[data.user_number(user)]
        *history, target = [ids[item - 1] for item in data.items[start : event + 1]]
        if target not in history:
            found = [item for item, _ in recommender.recommend(history, 30)]
            assert found.index(target) + 1 == rank
            compared += 1
    assert compared > 10


@pytest.mark.filterwarnings("ignore")
def test_items_that_are_not_in_training_are_served_to_nobody(run: Path) -> None:
    recommender = sasrec.load(run, device="cpu")
    everybody = recommender.recommend_all(30, exclude_seen=False)
    assert "late" not in everybody["item"]
    assert everybody.group_by("user").len()["len"].unique().to_list() == [KNOWN]
    assert len(recommender.recommend_user("u000", 30, exclude_seen=False)) == KNOWN
    assert len(served(recommender, ["item-03"], exclude_seen=False)) == KNOWN
    allowed = served(recommender, ["item-03"], allow=["late", "item-05", "item-06"], deny=["item-06", "late"])
    assert [item for item, _ in allowed] == ["item-05"]


def test_items_that_are_not_in_training_leave_histories_and_lists_with_a_warning(run: Path) -> None:
    recommender = sasrec.load(run, device="cpu")
    plain = served(recommender, ["item-01", "item-03"])
    with pytest.warns(UserWarning, match=LATE + "$"):
        assert served(recommender, ["item-01", "item-03", "late", "late"]) == plain
    with pytest.warns(UserWarning, match=r"ignored: ghost, late \(not in training\)$"):
        found = recommender.recommend(["item-01", "late", "ghost", "item-03", "item-04"], times=[0, 1, 6, 10, 12])
    assert found == recommender.recommend(["item-01", "item-03", "item-04"], times=[0, 10, 12])
    with (
        pytest.warns(UserWarning, match=r"allow list: unknown items are ignored: late \(not in training\)"),
        pytest.warns(NothingLeft, match="because the allow list has no known item"),
    ):
        assert served(recommender, ["item-01"], allow=["late"]) == []
    with (
        pytest.warns(UserWarning, match=LATE),
        pytest.raises(DataError, match="no item of the history is in the training part"),
    ):
        served(recommender, ["late"])


def test_a_user_is_served_from_all_their_events_of_known_items(run: Path) -> None:
    recommender = sasrec.load(run, device="cpu")
    data = recommender.data
    with pytest.warns(
        UserWarning, match="omit 70 events.*not in training. 1 user .*can get no recommendations"
    ) as said:
        everybody = recommender.recommend_all(30)
    assert len(said) == 1
    assert everybody["user"].n_unique() == 80
    late = data.catalogue.numbers(["late"])[0][0]
    for number, user in enumerate(data.user_ids):
        if user != "newcomer":
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                mine = recommender.recommend_user(user, 30)
            assert len(said) == (late in data.item_numbers_of(number))
            ours = everybody.filter(user=user)
            assert [item for item, _ in mine] == ours["item"].to_list()
            assert [score for _, score in mine] == pytest.approx(ours["score"].to_list(), abs=1e-4)
    with pytest.warns(UserWarning, match=LATE), pytest.raises(DataError, match=r"'newcomer'.*in training"):
        recommender.recommend_user("newcomer")


def test_an_export_serves_the_same_items_to_the_last_bit(run: Path) -> None:
    recommender, model = sasrec.load(run, device="cpu"), sasrec.load(run.parent / "model", device="cpu")
    assert model.data is None
    with pytest.raises(DataError, match="an export contains no users"):
        model.recommend_all()
    for options in ({}, {"exclude_seen": False}, {"deny": ["item-05"]}):
        there = served(model, ["item-03", "item-04"], **options)
        assert there == served(recommender, ["item-03", "item-04"], **options)
        assert "late" not in dict(there)
    with pytest.warns(UserWarning, match=LATE):
        there = served(model, ["late", "item-04"])
    assert there == served(recommender, ["item-04"])
    sasrec.export(run.parent / "model", run.parent / "again")
    assert served(sasrec.load(run.parent / "again", device="cpu"), ["item-04"]) == there


def test_an_export_keeps_which_items_are_known_only_where_some_are_not(run: Path, tmp_path: Path) -> None:
    best = store.load(store.best(run.parent / "model/checkpoints"))
    assert len(best.state["known_items"]) == 8, "27 bits are 4 bytes, which are 8 digits in base 64"
    sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **SMALL)
    sasrec.export(tmp_path / "run", tmp_path / "model")
    assert store.load(store.best(tmp_path / "model/checkpoints")).state["known_items"] is None
    for wrong in ("AAAA", "not base 64", 7):
        path = store.save(tmp_path / "wrong", best.weights, best.state | {"known_items": wrong})
        with pytest.raises(CheckpointError, match="known_items that do not fit its items"):
            sasrec.load(run.parent / "model", device="cpu", checkpoint=path)


def test_under_other_splits_every_item_of_the_data_is_served(tmp_path: Path) -> None:
    recommender = sasrec.train(sasrec.prepare(with_newcomer()), tmp_path / "run", **SMALL)
    assert len(served(recommender, ["late"], exclude_seen=False)) == KNOWN + 1
    assert recommender.recommend_all(1)["user"].n_unique() == 81
    assert np.isfinite([score for _, score in recommender.recommend_user("newcomer")]).all()
    assert json.loads((tmp_path / "run/metrics.json").read_text())["protocol"]["items_not_candidates"] == 0


@pytest.mark.parametrize(
    ("k", "words"), [(0, "at least 1, not 0"), (3.5, "a whole number, not 3.5"), ("5", "'5'")]
)
def test_k_is_a_whole_number_from_one(k: Any, words: str, run: Path) -> None:
    recommender = sasrec.load(run, device="cpu")

    def recommend(k: Any) -> list[tuple[str | int, float]]:
        return recommender.recommend([recommender.items.id_of(1)], k, assume_regular=True)

    for each in (recommend, recommender.recommend_all):
        with pytest.raises(ConfigError, match=words), warnings.catch_warnings(action="ignore"):
            each(k)
    assert len(recommend(np.int64(3))) == 3


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """A recommender on integer ids."""
    number = pl.col("item").str.slice(5).cast(pl.Int64)
    user = pl.col("user").str.slice(1).cast(pl.Int64)
    data = sasrec.prepare(chain_frame().with_columns(item=number, user=user))
    return sasrec.train(data, tmp_path_factory.mktemp("integers") / "run", **small(num_epochs=1))


def test_lists_of_ids_are_of_any_type(integers: Recommender) -> None:
    expected = integers.recommend([3, 4], 5, allow=[5, 6, 7, 8], deny=[8])
    assert [type(item) for item, _ in expected] == [int] * 3
    for kind in (list, tuple, iter, np.array, pl.Series, pd.Series, lambda ids: pd.Index(ids, dtype="float64")):
        for number in (int, float, str):
            lists = [kind(list(map(number, ids))) for ids in ([3, 4], [5, 6, 7, 8], [8])]
            assert integers.recommend(lists[0], 5, allow=lists[1], deny=lists[2]) == expected, (kind, number)
    late = pd.Series([3, 4], index=[7, 1])
    assert integers.recommend(late, 5, times=pd.Series([0.0, 9.0]), allow={5, 6, 7}) == expected
    assert integers.recommend_user(1.0) == integers.recommend_user(np.float32(1)) == integers.recommend_user("1")
    assert integers.title(3.0) is None


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("3", r"not '3'. Use \['3'\]"),
        (3, r"not 3. Use \[3\]"),
        (np.int64(3), r"Use \[.*3.*\] for one item"),
        (None, "not None"),
        (pl.DataFrame({"item": [3]}), "not a DataFrame. Use one of its columns"),
        (pd.DataFrame({"item": [3]}), "not a DataFrame. Use one of its columns"),
        (np.array([[3, 4]]), "not a ndarray"),
        ({3, 4}, "a set, which has no order"),
    ],
)
def test_a_history_that_is_not_a_list_is_refused(history: Any, words: str, integers: Recommender) -> None:
    with pytest.raises(DataError, match=words):
        integers.recommend(history)


def test_nothing_left_to_recommend_is_said(integers: Recommender) -> None:
    every = list(range(25))
    for options, reason in (
        ({"allow": []}, "the allow list has no known item"),
        ({"allow": [5], "deny": [5]}, "the allow list has no known item that is not in the deny list too"),
        ({"deny": every}, "the deny list has every item"),
        ({"allow": [3]}, "the history has every item that may be recommended"),
    ):
        with pytest.warns(NothingLeft, match=f"nothing is left to recommend because {reason}") as said:
            assert integers.recommend([3], **options) == []
        assert said[0].filename == __file__
    with pytest.warns(NothingLeft, match="the deny list has every item"):
        assert integers.recommend_all(deny=every).is_empty()
    with pytest.warns(UserWarning, match=r"for \d+ of 60 users because the history has every item") as said:
        some = integers.recommend_all(allow=[3])
    assert said[0].category is SasrecWarning
    assert 0 < some.height < 60


def test_warnings_of_unknown_ids_name_the_line_of_the_caller(integers: Recommender) -> None:
    for options in ({}, {"allow": [3, "?"]}, {"deny": ["?"]}):
        with pytest.warns(SasrecWarning, match="unknown items are ignored") as said:
            integers.recommend([1, *([] if options else ["?"])], **options)
        assert {each.filename for each in said} == {__file__}
