"""Separators, lines of names, and lines that are not events, in text files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sasrec
from sasrec.errors import DataError


def made(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def histories(source: Any, **options: Any) -> dict[str, list[str]]:
    data = sasrec.prepare(source, **options)
    return {str(user): [str(item) for item in data.history(user)] for user in data.user_ids}


@pytest.mark.parametrize(
    "text",
    [
        "who,what\nk1,a1\nk1,a2\nk2,a1\n",
        "who,what\n1b-2,a\n1b-2,b\n3c-4,a\n",
        "user_id,item_id,0\nk1,a1,3\nk2,a2,4\n",
    ],
)
def test_names_above_ids_with_digits_are_not_an_event(text: str, tmp_path: Path) -> None:
    roles = "user,item" + ",-" * (text.index("\n") > 9)
    assert {"who", "user_id"}.isdisjoint(histories(made(tmp_path, text), columns=roles))


@pytest.mark.parametrize(
    ("text", "roles", "first"),
    [
        ("x1,book,2020-09-14T00:00:00\nx1,pen,2020-09-15T00:00:00\nx2,ink,2020-09-15\n", "user,item,time", "x1"),
        ("a1b2,B001,2020-09-14T00:00:00,video\na1b3,B002,2020-09-15,song\n", "user,item,time,-", "a1b2"),
        ("x1,book\nx1,pen\nx2,ink\n", "user,item", "x1"),
        ("guest,B001\n17,B002\n18,B001\n", "user,item", "guest"),
        ("user,B0012,5\n17,B0022,4\n18,B0011,3\n", "user,item,-", "user"),
    ],
)
def test_a_first_row_with_a_word_is_an_event(text: str, roles: str, first: str, tmp_path: Path) -> None:
    read = histories(made(tmp_path, text), columns=roles)
    assert first in read
    assert sum(map(len, read.values())) == text.count("\n")


def test_words_above_words_are_read_as_a_row_and_noted(tmp_path: Path) -> None:
    path = made(tmp_path, "who,what\nann,pen\nann,ink\nbob,pen\n")
    data = sasrec.prepare(path, columns="user,item")
    assert any("the first line of a.csv (who,what) is read as a row" in note for note in data.report["warnings"])
    assert histories(path, columns="who:user,what:item") == {"ann": ["pen", "ink"], "bob": ["pen"]}


@pytest.mark.parametrize(
    ("text", "options", "history"),
    [
        ("u1;a;3,5;1600000001\nu1;b;4,0;1600000002\n", {"columns": "user,item,-,time"}, ["a", "b"]),
        ("u1|a|Doe, J|1600000001\nu1|b|Doe|1600000002\n", {"columns": "user,item,-,time"}, ["a", "b"]),
        ("user;item;price, EUR;time\nu1;a;3;1600000001\nu1;b;3;1600000002\n", {}, ["a", "b"]),
        ('user,item,title\nu1,a,"x;y;z"\nu1,b,"p;q;r"\n', {}, ["a", "b"]),
    ],
)
def test_the_separator_is_the_sign_that_all_lines_have(
    text: str, options: dict[str, str], history: list[str], tmp_path: Path
) -> None:
    for name in ("a.csv", "a.txt"):
        assert histories(made(tmp_path, text, name), **options) == {"u1": history}


def test_one_line_a_user_with_the_shortest_line_first(tmp_path: Path) -> None:
    path = made(tmp_path, "1 5\n2 6 9 5 1\n3 5 6\n", "a.txt")
    with pytest.raises(DataError, match=r"lines have 2 to 5 fields.*use columns='user,items'"):
        sasrec.prepare(path)
    assert histories(path, columns="user,items") == {"1": ["5"], "2": ["6", "9", "5", "1"], "3": ["5", "6"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("user_id, item_id", "the header is repeated"),
        ('"user_id","item_id"', "the header is repeated"),
        ("item_id,user_id", "the header is repeated"),
        ("string,string", "a line of types"),
        ("--------,-------", "a line of signs"),
    ],
)
def test_lines_of_the_table_are_rejected(line: str, reason: str, tmp_path: Path) -> None:
    path = made(tmp_path, f"user_id,item_id\na,x\n{line}\nb,y\n")
    with pytest.raises(DataError, match=f"1 of 3 rows are bad:\n  a.csv:3: {reason}"):
        sasrec.prepare(path)
    assert histories(path, max_rejects=1) == {"a": ["x"], "b": ["y"]}


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ('user item time\n"u1" "a" 1600000009\n"u1" "b" 1600000001\n', {}, "values of user are between quotes"),
        (
            "'u1','a',1600000009\n'u1','b',1600000001\n",
            {"columns": "user,item,time"},
            "between quotes, such as 'u1'",
        ),
        ("[1,5]\n[1,6]\n(2,7)\n", {"columns": "user,item"}, r"begin with a bracket, such as \[1"),
        ("user_id,item,item.1,item.2\n1,5,6,7\n2,6,7,8\n", {}, r"item, item\.1, item\.2 may all have items"),
    ],
)
def test_marks_and_further_items_are_not_read_as_ids(
    text: str, options: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        sasrec.prepare(made(tmp_path, text), **options)
