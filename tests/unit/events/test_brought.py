"""Files and tables as people bring them: lists beside items, nested objects, lines above the table, empty parts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import sasrec
from sasrec.errors import DataError

START = 1_600_000_000
ROWS = [(f"u{k % 3}", f"i{k % 5}", START + 1000 * k) for k in range(12)]
HISTORIES = {f"u{user}": [item for u, item, _ in ROWS if u == f"u{user}"] for user in range(3)}
TABLE = "".join(f"{user},{item},{time}\n" for user, item, time in ROWS)
CSV = "user,item,time\n" + TABLE


def histories(source: Any, **options: Any) -> dict[Any, list[Any]]:
    data = sasrec.prepare(source, **options)
    return {user: data.history(user) for user in data.user_ids}


def notes(source: Any, **options: Any) -> list[str]:
    found: list[str] = sasrec.prepare(source, **options).report["warnings"]
    return found


def made(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


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


@pytest.mark.parametrize("keys", [("user.id", "item.id"), ("user.user_id", "properties.product_id")])
def test_fields_of_nested_objects_are_columns(keys: tuple[str, str], tmp_path: Path) -> None:
    def row(user: str, item: str, time: int) -> dict[str, Any]:
        (outer, inner), (other, own) = (key.split(".") for key in keys)
        return {outer: {inner: user, "name": "x"}, other: {own: item, "price": 3}, "timestamp": time}

    rows = [row(*each) for each in ROWS]
    path = made(tmp_path, "a.jsonl", "".join(json.dumps(each) + "\n" for each in rows))
    assert histories(path) == histories(pl.DataFrame(rows)) == HISTORIES


def test_typed_values_as_mongodb_exports_them(tmp_path: Path) -> None:
    def line(user: str, item: str, time: int) -> str:
        when = [{"$date": time * 1000}, {"$date": {"$numberLong": str(time * 1000)}}][time % 2]
        return json.dumps({"_id": {"$oid": f"{time:024x}"}, "user": {"$oid": user}, "item": item, "time": when})

    path = made(tmp_path, "a.json", "\n".join(line(*row) for row in ROWS) + "\n")
    assert histories(path) == HISTORIES


def test_numbers_and_text_in_one_column_of_ids_are_noted(tmp_path: Path) -> None:
    text = "".join(json.dumps({"user": [1, "1"][k % 2], "item": f"i{k}"}) + "\n" for k in range(6))
    path = made(tmp_path, "a.jsonl", text)
    assert any("the number 1 and the text 1 are one user" in note for note in notes(path))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"user": ["a", "b"], "item": ["x", "y"]}),
        json.dumps({"a": ["x", "y"], "b": ["y"]}, indent=1),
        json.dumps({"user": {"0": "a"}, "item": {"0": "x"}}),
        json.dumps({"0": {"user": "a", "item": "x"}}),
        json.dumps({"columns": ["user", "item"], "index": [0], "data": [["a", "x"]]}),
    ],
)
def test_json_of_whole_columns_is_refused_with_how_to_write_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one JSON object.*to_json\(orient='records', lines=True\)"):
        sasrec.prepare(made(tmp_path, "a.json", text))


@pytest.mark.parametrize(
    ("above", "count"),
    [("Report of events\nMade 2024-01-01\n\n", "2 lines are"), ("# made by a tool\n", "line is")],
)
def test_lines_above_the_table_are_refused(above: str, count: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"the first {count} not part of the table .*lines have 3 fields. Remove"):
        sasrec.prepare(made(tmp_path, "a.csv", above + CSV))


def test_empty_fields_above_and_beside_the_table(tmp_path: Path) -> None:
    lines = [f"{line};;" for line in CSV.replace(",", ";").splitlines()]
    assert histories(made(tmp_path, "a.csv", "\n".join(lines) + "\n")) == HISTORIES
    with pytest.raises(DataError, match=r"the first 2 lines are not part of the table"):
        sasrec.prepare(made(tmp_path, "b.csv", "\n".join(["Report;;;;", ";;;;", *lines]) + "\n"))


def test_a_dump_in_sql_is_refused(tmp_path: Path) -> None:
    text = "-- dump\n" + "".join(f"INSERT INTO events VALUES ('{u}', '{i}', {t});\n" for u, i, t in ROWS)
    with pytest.raises(DataError, match=r"dump in SQL.*`query`"):
        sasrec.prepare(made(tmp_path, "a.sql", text))


def test_the_line_that_tells_excel_the_separator_is_read(tmp_path: Path) -> None:
    text = "sep=;\n" + CSV.replace(",", ";") + "u9;i1;never\n"
    path = made(tmp_path, "a.csv", text)
    assert histories(path, max_rejects=1) == HISTORIES
    with pytest.raises(DataError, match=r"a\.csv:15 time"):
        sasrec.prepare(path)


@pytest.mark.parametrize("packed", [False, True])
def test_empty_parts_of_a_folder_are_noted(packed: bool, tmp_path: Path) -> None:
    for name, text in (("part-0", ""), ("part-1", CSV), ("part-2", "user,item,time\n")):
        data = text.encode()
        path = tmp_path / f"{name}.csv"
        path.write_bytes(gzip.compress(data) if packed else data)
    assert histories(tmp_path) == HISTORIES
    assert "1 of 3 files are empty, such as part-0.csv" in notes(tmp_path)


def test_columns_are_named_by_numbers_also_below_a_header(tmp_path: Path) -> None:
    path = made(tmp_path, "a.csv", "who,what,when\n" + TABLE)
    assert histories(path, user="0", item="1", time="2") == HISTORIES
    assert histories(pl.read_csv(path), user="0", item="1", time="2") == HISTORIES


def test_hours_beside_days_are_not_passed_over(tmp_path: Path) -> None:
    text = "user,item,date,hour\n" + "".join(f"u,i{k},2020-01-0{k % 3 + 1},{k}\n" for k in range(12))
    with pytest.raises(DataError, match=r"hour has times of day, such as 0\. Join both"):
        sasrec.prepare(made(tmp_path, "a.csv", text))


def test_where_counts_the_rows_that_it_leaves_out(tmp_path: Path) -> None:
    rows = "".join(f"{user},{item},{time},{['view', 'buy'][time // 1000 % 2]}\n" for user, item, time in ROWS)
    path = made(tmp_path, "a.csv", "user,item,time,kind\n" + rows)
    frame = pl.read_csv(path)
    frame.write_ndjson(tmp_path / "a.jsonl")
    for source in (path, frame, tmp_path / "a.jsonl"):
        assert "`where` leaves out 6 rows; 6 are kept" in notes(source, where="kind = 'buy'")
    with pytest.raises(DataError, match="no row fulfils where=\"kind = 'bought'\""):
        sasrec.prepare(path, where="kind = 'bought'")


def test_a_row_with_two_values_that_do_not_fit_the_condition_is_one_reject(tmp_path: Path) -> None:
    path = made(tmp_path, "a.csv", "user,item,p,q\na,x,1,1\na,y,2,2\nb,x,?,?\n")
    with pytest.raises(DataError, match="1 of 3 rows are bad"):
        sasrec.prepare(path, where="p > 0 AND q > 0")


def test_a_reject_has_all_lines_of_its_record(tmp_path: Path) -> None:
    text = 'user,item,text\na,x,"one\ntwo"\na,,"three\nfour"\na,y,five\nb,z,"six\n'
    with pytest.raises(DataError, match="2 of 4 rows are bad"):
        sasrec.prepare(made(tmp_path, "a.csv", text), output=tmp_path / "made")
    rejects = pl.read_csv(tmp_path / "made" / "rejects.csv")
    assert rejects.select("line", "row").rows() == [(4, 'a,,"three\nfour"'), (7, 'b,z,"six')]
