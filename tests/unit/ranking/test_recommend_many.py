"""Many histories at once give the lists of one call each, in the forms in which engines pass batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import sasrec
from sasrec.errors import ConfigError, DataError, SasrecWarning
from tests.synthetic import chain_frame, small

KINDS: list[dict[str, Any]] = [{}, {"time": True}, {"split": "temporal:0.8"}]


@pytest.fixture(scope="module", params=range(len(KINDS)), ids=["plain", "time", "temporal"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> sasrec.Recommender:
    settings = small(num_epochs=2) | KINDS[request.param]
    return sasrec.train(chain_frame(), tmp_path_factory.mktemp("run") / "run", **settings)


def lists_and_times(model: sasrec.Recommender) -> tuple[list[list[Any]], list[list[float]]]:
    random = np.random.default_rng(0)
    items = model.items.ids.to_list()
    lists = [random.choice(items, random.integers(1, 20)).tolist() for _ in range(50)]
    lists[7] = ["ghost", *lists[7], "ghost"]
    times = [np.sort(random.integers(0, 10_000, len(row))).astype(float).tolist() for row in lists]
    return lists, times


@pytest.mark.filterwarnings("ignore::sasrec.errors.SasrecWarning")
def test_the_lists_are_those_of_one_call_each(model: sasrec.Recommender) -> None:
    lists, times = lists_and_times(model)
    many = model.recommend_many(lists, 7, times=times, deny=[model.items.ids[3]])
    assert many.columns == ["row", "item", "score", "rank"]
    for row, (history, seconds) in enumerate(zip(lists, times, strict=True)):
        one = model.recommend(history, 7, times=seconds, deny=[model.items.ids[3]])
        of_row = many.filter(pl.col("row") == row)
        assert of_row["item"].to_list() == [item for item, _ in one]
        assert of_row["rank"].to_list() == list(range(1, len(one) + 1))
        np.testing.assert_allclose(of_row["score"], [score for _, score in one], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sasrec.errors.SasrecWarning")
def test_columns_of_lists_and_tables_give_the_same(model: sasrec.Recommender) -> None:
    lists, times = lists_and_times(model)
    users = [f"user {row}" for row in range(len(lists))]
    expected = model.recommend_many(lists, 5, times=times)
    series, seconds = pl.Series(lists), pl.Series(times)
    assert model.recommend_many(series, 5, times=seconds).equals(expected)
    assert model.recommend_many(series.to_arrow(), 5, times=seconds.to_arrow()).equals(expected)
    table = pa.table({"user": users, "items": lists, "times": times})
    for batch in (table, table.to_batches()[0]):
        found = model(batch, k=5)
        assert found.column_names == ["user", "item", "score", "rank"]
        assert found["item"].to_pylist() == expected["item"].to_list()
        assert found["user"].to_pylist() == [users[row] for row in expected["row"]]


def test_what_is_unknown_is_left_out_and_said(model: sasrec.Recommender) -> None:
    known = model.items.ids[0]
    times = [[1.0, 2.0], [5.0], []]
    with (
        pytest.warns(SasrecWarning, match="2 of 3 histories have no known item"),
        pytest.warns(SasrecWarning, match="ghost"),
    ):
        found = model.recommend_many([["ghost", known], ["ghost"], []], 3, times=times)
    assert set(found["row"]) == {0}


def test_bad_calls_are_refused(model: sasrec.Recommender) -> None:
    known = model.items.ids[0]
    for histories, words in (
        ("abc", "give a list"),
        ([known], "give a list of item ids, not"),
        (pl.Series([1]), "must be a column of lists"),
    ):
        with pytest.raises(DataError, match=words):
            model.recommend_many(histories, times=[[1.0]])
    with pytest.raises(ConfigError, match="`k` must be at least 1"):
        model.recommend_many([[known]], 0)
    with pytest.raises(DataError, match=r"no column 'items', only user, item"):
        model(pa.table({"user": ["a"], "item": [[known]]}))
    batch = pa.table({"user": ["a"], "items": [[known]], "times": [[1.0]]})
    twice = pa.Table.from_arrays([*batch.columns, pa.array(["b"])], names=[*batch.column_names, "user"])
    for table, words in (
        ({"user": ["a"], "items": [[known]]}, "a dict is not a table. Give a pyarrow Table with the columns user"),
        (None, "a NoneType is not a table"),
        (twice, "the table cannot be read: .*user"),
    ):
        with pytest.raises(DataError, match=words):
            model(table)
    for name, value in (("nope", 2), ("times", [[1.0]]), ("histories", [])):
        with pytest.raises(
            ConfigError, match=rf"{name}' is not an option here\. Use one of assume_regular, exclude"
        ):
            model(batch, **{name: value})
    for option in ("allow", "deny"):
        for ids in (str(known), 5):
            with pytest.raises(DataError, match=f"{option} list: give a list of item ids"):
                model.recommend_many([[known]], times=[[1.0]], **{option: ids})
            with pytest.raises(DataError, match=f"{option} list: give a list of item ids"):
                model.recommend_all(**{option: ids})
    for histories in ({known}, [{known}], {(known,)}):
        with pytest.raises(DataError, match="a set, which has no order"):
            model.recommend_many(histories, times=[[1.0]])
    if not model.model.config.time:
        return
    for times, words in (
        (None, "needs the times"),
        ([[1.0]], "must have a list for each history"),
        ([[2.0, 1.0], [1.0]], "in ascending order"),
        ([[1.0, float("nan")], [1.0]], "finite numbers"),
        ([["x", "y"], ["z"]], "must be numbers"),
        ([[1.0, 2.0], [1.0, 2.0]], r"history 1 \(from 0\): it has 1 item, but 2 times"),
        ([[1.0, 2.0], [None]], r"history 1 \(from 0\): times must be finite"),
    ):
        with pytest.raises(DataError, match=words):
            model.recommend_many([[known, known], [known]], times=times)
    falls_between_histories = model.recommend_many([[known, known], [known]], times=[[5.0, 6.0], [1.0]])
    assert set(falls_between_histories["row"]) == {0, 1}


def test_integer_ids_are_found_as_numbers_texts_and_whole_floats(tmp_path: Path) -> None:
    frame = chain_frame().with_columns(pl.col("item").str.slice(5).cast(pl.Int64))
    model = sasrec.train(frame, tmp_path / "run", **small(num_epochs=1))
    expected = model.recommend_many([[1, 2], [3]], 4)
    for histories in (
        [["1", "2"], ["3"]],
        [[1.0, 2.0], [3.0]],
        [["1", 2], [np.int64(3)]],
        pl.Series([[1, 2], [3]], dtype=pl.List(pl.Int32)),
    ):
        assert model.recommend_many(histories, 4).equals(expected)


@pytest.mark.filterwarnings("ignore::sasrec.errors.SasrecWarning")
def test_ids_are_found_as_in_single_calls_whatever_their_types(tmp_path: Path) -> None:
    frame = chain_frame().with_columns(pl.col("item").str.slice(5).cast(pl.Int64))
    model = sasrec.train(frame, tmp_path / "run", **small(num_epochs=1))
    histories: list[Any] = [
        [1, "2", 3.0],
        np.array([1, 2], np.float32),
        np.array([4, 5]),
        [np.float64(6), " 7 ", None, float("nan"), 2**70],
        ["8 ", "9"],
        [10.0, 11.5],
        (each for each in [12, 13]),
    ]
    histories = [each if hasattr(each, "__len__") else list(each) for each in histories]
    expected = [[item for item, _ in model.recommend(each, 4)] for each in histories]
    for given in (histories, iter(histories)):
        found = model.recommend_many(given, 4)
        assert [found.filter(row=row)["item"].to_list() for row in range(len(histories))] == expected
    for each, items in zip(histories, expected, strict=True):
        assert model.recommend_many([each], 4)["item"].to_list() == items
    padded = pl.DataFrame({"user": ["a"], "items": [["1 ", " 2"]]})
    plain = padded.with_columns(items=pl.Series([["1", "2"]]))
    assert model(padded, 4).equals(model(plain.to_arrow(), 4))
