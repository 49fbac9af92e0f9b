"""Lists of items: in text, JSON and tables, alone or beside an item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import sasrec
from sasrec.errors import DataError
from tests.reading import histories, made, notes

START = 1_600_000_000
HISTORIES = {f"u{user}": [f"i{k % 5}" for k in range(12) if k % 3 == user] for user in range(3)}
ROWS = [(f"u{k % 3}", f"i{k % 5}", START + 1000 * k) for k in range(12)]


@pytest.mark.parametrize("items", [["[1, 2]", "[3]", "[2, 4]"], ["1,2,5", "3", "2,4"], ["1 2 5", "3", "2 4"]])
def test_a_frame_with_lists_as_text_is_read_as_a_file_with_them(items: list[str], tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": ["a", "b", "c"], "items": items})
    frame.to_csv(tmp_path / "made.csv", index=False)
    frame.to_parquet(tmp_path / "made.parquet")
    read = [histories(each) for each in (tmp_path / "made.csv", tmp_path / "made.parquet", frame)]
    assert read[0] == read[1] == read[2]
    assert read[0]["c"] == ["2", "4"]


def test_text_of_a_frame_that_may_be_lists_is_asked_about() -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "item": ["x|y", "y|z"]})
    with pytest.raises(DataError, match=r"may be a list of items.*columns='user:user,item:items"):
        sasrec.prepare(frame)
    assert histories(frame, columns="user,items") == {"a": ["x", "y"], "b": ["y", "z"]}
    assert histories(frame, columns="user,item") == {"a": ["x|y"], "b": ["y|z"]}


def test_lines_that_may_be_users_with_items_are_refused_with_both_remedies(tmp_path: Path) -> None:
    path = made(tmp_path, "a.txt", "".join(f"{k} {k % 7 + 1} {k % 5 + 1} {k % 3 + 1}\n" for k in range(1, 30)))
    with pytest.raises(DataError, match="If each line is a user with the user's items, use columns='user,items'"):
        sasrec.prepare(path)
    assert histories(path, columns="user,items")["8"] == ["2", "4", "3"]


@pytest.mark.parametrize("kind", ["text", "json", "frame"])
def test_lists_of_items_beside_the_item_are_asked_about(kind: str, tmp_path: Path) -> None:
    rows = [
        {"session_id": f"s{k}", "item_id_list": [f"i{k % 4}", "i9"], "item_id": f"i{k % 3}"} for k in range(12)
    ]
    source: Any = pl.DataFrame(rows)
    if kind == "json":
        source = made(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "text":
        text = "".join(f"{row['session_id']}\t{' '.join(row['item_id_list'])}\t{row['item_id']}\n" for row in rows)
        source = made(tmp_path, "a.inter", "session_id:token\titem_id_list:token_seq\titem_id:token\n" + text)
    with pytest.raises(DataError, match=r"item_id_list has lists of items, such as .* beside item_id"):
        sasrec.prepare(source)
    assert histories(source, columns="session_id:user,item_id:item")["s4"] == ["i1"]
    assert histories(source, columns="session_id:user,item_id_list:items")["s5"] == ["i1", "i9"]


def test_lists_of_something_else_beside_the_item_are_ignored() -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "tags": [["p", "q"], ["p"]]})
    assert histories(frame) == {"a": ["x"], "b": ["y"]}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("[u'a', \"it's\"]", ["a", "it's"]),
        ("{12,13}", ["12", "13"]),
        ("(00, 12_1, 0x1F)", ["00", "12_1", "0x1F"]),
        ("[12, 13,]", ["12", "13"]),
        ("12 , 13 , 14,", ["12", "13", "14"]),
        ("[1;2]", None),
        ("[1e5, 2e7]", None),
        ("[12 13, 14]", None),
        ("['a' b]", None),
    ],
)
def test_lists_are_read_as_they_are_written_or_refused(text: str, read: list[str] | None) -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "items": [text, text]})
    if read is None:
        with pytest.raises(DataError, match="holds lists that cannot be read"):
            sasrec.prepare(frame)
    else:
        assert histories(frame)["b"] == read


@pytest.mark.parametrize("empty", ["{}", "[]", "{ }"])
def test_an_empty_list_gives_no_event_as_postgresql_and_as_json_write_it(empty: str, tmp_path: Path) -> None:
    path = made(tmp_path, "a.tsv", f"user\titems\na\t{{1,2,3}}\nb\t{{2,3}}\nc\t{empty}\n")
    assert histories(path) == {"a": ["1", "2", "3"], "b": ["2", "3"]}


def test_lists_of_times_may_have_fractions(tmp_path: Path) -> None:
    text = 'user,items,time\na,"[5,6]","[1600000000.5,1600000000.25]"\nb,"[5,6]","[1600000000,1600000001]"\n'
    assert histories(made(tmp_path, "a.csv", text)) == {"a": ["6", "5"], "b": ["5", "6"]}


@pytest.mark.parametrize("name", ["items", "item_list", "item_ids"])
def test_baskets_of_words_are_asked_about_although_users_come_again(name: str) -> None:
    frame = pl.DataFrame({"user": ["a", "a", "b"], name: ["milk,bread", "eggs", "milk,tea"]})
    with pytest.raises(DataError, match=f"{name}, such as milk,bread, may be a list of items"):
        sasrec.prepare(frame, item=None)
    assert histories(frame, columns=f"user:user,{name}:items")["a"] == ["milk", "bread", "eggs"]


def test_a_history_beside_an_item_with_a_time_is_noted_and_without_a_time_asked_about(tmp_path: Path) -> None:
    rows = "".join(f"{user},x y,{item},{time}\n" for user, item, time in ROWS)
    path = made(tmp_path, "a.csv", "user,history,item,time\n" + rows)
    assert histories(path) == HISTORIES
    assert "history is not read, because each row has its own item and time" in notes(path)
    with pytest.raises(DataError, match="history has lists of items, such as x y, beside item"):
        sasrec.prepare(pl.read_csv(path).drop("time"))


def test_text_lists_whose_elements_come_again_are_asked_about() -> None:
    frame = pl.DataFrame({"user": ["a", "b", "a"], "sku": ["p1;p2;p3", "p2;p4", "p3;p4"]})
    with pytest.raises(DataError, match="sku, such as p1;p2;p3, may be a list of items"):
        sasrec.prepare(frame)
    assert histories(frame.with_columns(sku=pl.Series(["Jim; Joe", "Ann; Bob", "Heat"])))["b"] == ["Ann; Bob"]


@pytest.mark.parametrize(
    ("name", "items"), [("business", ["Joe's Pizza", "Bob's Bar"]), ("movie", ["The Big Sleep", "Heat"])]
)
def test_names_of_items_with_blanks_are_not_lists(name: str, items: list[str]) -> None:
    assert histories(pl.DataFrame({"user": ["a", "b"], name: items})) == {"a": items[:1], "b": items[1:]}


def test_the_remedy_for_unknown_names_says_lists() -> None:
    frame = pl.DataFrame({"who": ["a", "b", "c"], "history": ["x y z", "y z", "x z"]})
    with pytest.raises(DataError, match="columns='who:user,history:items'"):
        sasrec.prepare(frame)
