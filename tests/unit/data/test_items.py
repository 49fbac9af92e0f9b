"""The catalogue grows at its end; numbers stay."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from sasrec.data.items import Items
from sasrec.errors import DataError


def test_new_items_are_appended_and_present_ones_keep_number_title_and_group() -> None:
    before = Items(pl.Series(["b", "a"]), pl.Series(["B", None], dtype=pl.String))
    other = Items(pl.Series(["c", "b"]), pl.Series(["C", "other B"]), pl.Series(["x", "y"]))
    after = before.extended(other)
    assert after.ids.to_list() == ["b", "a", "c"]
    assert after.titles is not None
    assert after.titles.to_list() == ["B", None, "C"]
    assert after.groups is not None
    assert after.groups.to_list() == [None, None, "x"]
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
