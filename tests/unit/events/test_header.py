"""Separators, lines of names, and lines that are not events, in text files."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize(
    ("text", "roles", "read"),
    [
        ("zoe,lamp,NA\nbob,toy,4\nbob,vase,3\n", "user,item,-", {"zoe": ["lamp"], "bob": ["toy", "vase"]}),
        ("u1,i1,none\nu1,i2,some\n", "user,item,-", {"u1": ["i1", "i2"]}),
        ("0,1\nu1,i5\nu1,i6\n", "user,item", {"u1": ["i5", "i6"]}),
        (",0,1\n0,u1,i5\n1,u1,i6\n", "-,user,item", {"u1": ["i5", "i6"]}),
        ('"V1","V2"\nu1,i5\nu1,i6\n', "user,item", {"u1": ["i5", "i6"]}),
        ("column_1,column_2\nuser_1,item_5\n", "user,item", {"user_1": ["item_5"]}),
        ("user_id,0\n101,5\n102,6\n", "user,item", {"101": ["5"], "102": ["6"]}),
        ("1,2,ts\na,x,1600000000\na,y,1600000001\n", "user,item,time", {"a": ["x", "y"]}),
    ],
)
def test_missing_values_are_in_rows_and_numbered_names_in_headers(
    text: str, roles: str, read: dict[str, list[str]], tmp_path: Path
) -> None:
    assert histories(made(tmp_path, text), columns=roles) == read


@pytest.mark.parametrize(
    ("text", "roles", "note"),
    [
        ("guest,home\nu1,page1\nu2,page2\n", "user,item", r"\(guest,home\) is read as the names of the columns"),
        ("user,mp3\nann,song3\nbob,song4\n", "user,item", r"\(user,mp3\) is read as a row"),
        ("buyer,thing,2019\nk1,t1,5\nk2,t2,6\n", "user,item,-", r"\(buyer,thing,2019\) is read as a row"),
    ],
)
def test_a_first_line_that_can_be_both_is_noted(text: str, roles: str, note: str, tmp_path: Path) -> None:
    found = sasrec.prepare(made(tmp_path, text), columns=roles).report["warnings"]
    assert any(re.search(note, each) for each in found), found


def test_one_column_does_not_get_two_roles(tmp_path: Path) -> None:
    path = made(tmp_path, "1,2,ts\na,x,1600000000\na,y,1600000001\n")
    with pytest.raises(DataError, match=r"gives the column '1' of a\.csv two roles"):
        sasrec.prepare(path, columns="0:user,1:item")


def test_quoted_signs_are_not_separators(tmp_path: Path) -> None:
    text = '"User-ID";"ISBN";"Book, Rating"\n"1";"x";"5"\n"1";"y";"3"\n'
    assert histories(made(tmp_path, text)) == {"1": ["x", "y"]}


def test_ids_that_also_occur_elsewhere_are_not_a_header(tmp_path: Path) -> None:
    path = made(tmp_path, "user,item\nmember,book\nmember,pen\nann,book\n")
    assert histories(path) == {"ann": ["book"], "member": ["book", "pen"]}


def test_own_names_in_other_letters_are_a_repeated_header(tmp_path: Path) -> None:
    path = made(tmp_path, 'client,offer\na,x\nClient, "Offer"\nvarchar(20),int(11)\n--,**\nb,y\n')
    assert histories(path, columns="client:user,offer:item", max_rejects=3) == {"a": ["x"], "b": ["y"]}
