"""The catalogue grows at its end; numbers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sasrec.data.items import Items, shown
from sasrec.errors import DataError


def test_new_items_are_appended_and_present_ones_keep_what_they_have() -> None:
    before = Items(pl.Series(["b", "a"]), pl.Series(["B", None], dtype=pl.String))
    other = Items(pl.Series(["c", "b"]), pl.Series(["C", "other B"]), pl.Series(["x", "y"]))
    after = before.extended(other)
    assert after.ids.to_list() == ["b", "a", "c"]
    assert after.titles is not None
    assert after.titles.to_list() == ["B", None, "C"]
    assert after.groups is not None
    assert after.groups.to_list() == ["y", None, "x"], "an item without a group takes it"
    assert after.numbers(["c", "b", "nobody"])[0].tolist() == [3, 1]
    assert after.numbers(["nobody"])[1] == ["nobody"]
    assert (after.id_of(3), after.title("c"), after.title("a"), after.title("nobody")) == ("c", "C", None, None)
    assert len(before) == 2, "the old catalogue stays"


def test_integer_ids_and_text_ids_are_not_mixed() -> None:
    with pytest.raises(DataError, match="columns of the same type"):
        Items(pl.Series([1, 2])).extended(Items(pl.Series(["3"])))
    assert Items(pl.Series([1, 2])).extended(Items(pl.Series([3, 2, 3]))).ids.to_list() == [1, 2, 3]


@pytest.mark.parametrize("groups", [None, pl.Series(["x", None])])
def test_a_file_gives_the_catalogue_back(groups: pl.Series | None, tmp_path: Path) -> None:
    items = Items(pl.Series(["a", "ü\n"]), None, groups)
    items.save(tmp_path / "items.parquet")
    read = Items.read(tmp_path / "items.parquet")
    assert read.ids.equals(items.ids)
    assert read.titles is None
    assert (read.groups is None) == (groups is None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet"]


def test_titles_of_any_text_type_are_joined() -> None:
    before = Items(pl.Series(["a"]), pl.Series([None]))
    after = before.extended(Items(pl.Series(["b"]), pl.Series(["B"], dtype=pl.Categorical)))
    assert after.titles is not None
    assert after.titles.to_list() == [None, "B"]


@pytest.mark.parametrize("ids", [[1, 2, 30], ["1", "2", "30"]])
def test_an_id_is_found_whatever_the_type_of_its_number(ids: list[int] | list[str]) -> None:
    items = Items(pl.Series(ids), pl.Series(["A", "B", "C"]))
    for known in (
        30,
        30.0,
        "30",
        np.int8(30),
        np.float32(30),
        np.float16(30),
        np.str_("30"),
        pd.Series([30.0])[0],
    ):
        assert items.number_of(known) == 3, type(known)
        assert items.title(known) == "C"
    for unknown in (30.5, float("nan"), float("inf"), None, "30.0", "030", True):
        assert items.number_of(unknown) is None, unknown


def test_a_float_too_large_to_be_exact_finds_nothing() -> None:
    items = Items(pl.Series([2**24, 2**24 - 1, 2**53, 2**53 - 1]))
    found = [np.float32(2**24), np.float32(2**24 - 1), float(2**24), float(2**53), float(2**53 - 1)]
    assert [items.number_of(number) for number in found] == [None, 2, 1, None, 4]


def test_ids_with_invisible_characters_are_shown_with_escapes() -> None:
    for plain in ("item-07", "ü", "映画", "7", "a;b"):
        assert shown(plain) == plain
    for hidden in ("7 ", "\ufeff7", "7\u200b", "7\u00a0", "a\tb", "a,b", "", "it's"):
        assert shown(hidden) == repr(hidden) != hidden
