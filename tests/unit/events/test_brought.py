"""Files and tables as people bring them: lists beside items, nested objects, lines above the table, empty parts."""

from __future__ import annotations

import ast
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import sasrec
from sasrec.errors import ConfigError, DataError
from tests.reading import histories, made, notes

START = 1_600_000_000
ROWS = [(f"u{k % 3}", f"i{k % 5}", START + 1000 * k) for k in range(12)]
HISTORIES = {f"u{user}": [item for u, item, _ in ROWS if u == f"u{user}"] for user in range(3)}
TABLE = "".join(f"{user},{item},{time}\n" for user, item, time in ROWS)
CSV = "user,item,time\n" + TABLE


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
    with pytest.raises(DataError, match=r"hour may have times of day, such as 0\. Join both"):
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


@pytest.mark.parametrize(
    ("date", "clock"),
    [
        ("2020-09-14 00:00:00", "10:00"),
        ("1600041600", "10:00"),
        ("2020-09-14", "T10:00:00Z"),
        ("2020-09-14", "10h30"),
        ("2020-09-14", "9:00 p.m."),
    ],
)
def test_a_time_of_day_beside_midnights_is_not_passed_over(date: str, clock: str, tmp_path: Path) -> None:
    text = f"user,item,date,at_clock\na,x,{date},{clock}\na,y,{date},NULL\na,z,{date},{clock}\n"
    with pytest.raises(DataError, match=r"at_clock may have times of day, such as .* Join both"):
        sasrec.prepare(made(tmp_path, "a.csv", text))


@pytest.mark.parametrize("typed", [pl.Time(), pl.Duration()])
def test_a_typed_time_of_day_beside_days_is_not_passed_over(typed: pl.DataType, tmp_path: Path) -> None:
    clock = pl.Series([36_000, 32_400], dtype=pl.Int64) * (10**9 if typed == pl.Time else 10**6)
    days = pl.Series(["2020-09-14"] * 2).str.to_date()
    frame = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"], "date": days, "clock": clock.cast(typed)})
    frame.write_parquet(tmp_path / "a.parquet")
    for source in (frame, tmp_path / "a.parquet"):
        with pytest.raises(DataError, match=r"clock may have times of day, such as 10:00:00\. Join both"):
            sasrec.prepare(source)


def test_formats_are_read_as_in_strptime_or_refused(tmp_path: Path) -> None:
    def path(*times: str) -> Path:
        return made(tmp_path, "a.csv", "user,item,time\n" + "".join(f"u,{n},{t}\n" for n, t in enumerate(times)))

    halves = path("10:00:00.5 2020-01-02", "10:00:00.25 2020-01-02")
    assert histories(halves, time_format="%H:%M:%S.%f %Y-%m-%d") == {"u": ["1", "0"]}
    with pytest.raises(DataError, match="%Z, and %f without a point before it, are not read"):
        sasrec.prepare(path("2020-01-02 EST", "2020-01-02 UTC"), time_format="%Y-%m-%d %Z")
    assert "the times have no year, so all are read as of one year: December is after January" in notes(
        path("31 Dec", "01 Jan"), time_format="%d %b"
    )


@pytest.mark.parametrize(
    ("condition", "kept"),
    [("rating IS NOT NULL", ["a", "c"]), ("rating IS NULL", ["b"]), ("event = 'buy'", ["a", "c"])],
)
def test_conditions_read_text_without_blanks_and_nothing_as_null(
    condition: str, kept: list[str], tmp_path: Path
) -> None:
    path = made(tmp_path, "a.csv", "user,item,rating,event\nu,a,5, buy\nu,b,,view\nu,c,3,buy \n")
    assert histories(path, where=condition) == {"u": kept}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("e.csv", "e.csv.gz"), "may be the same events twice"),
        (("e.csv", "e (1).csv"), "may be the same events twice"),
        (("train.csv", "test.csv"), r"files of a split \(test, train\)"),
        (("ml.train.inter", "ml.valid.inter"), r"files of a split \(train, valid\)"),
        (("a.csv", "Copy of a.csv"), "may be the same events twice"),
        (("a.csv", "a_kopie 2.csv"), "may be the same events twice"),
        (("a.parquet", "_delta_log/0.json"), "a table of Delta Lake or Iceberg"),
    ],
)
def test_folders_whose_files_are_not_simply_parts_are_refused(
    names: tuple[str, str], words: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(CSV.encode()) if name.endswith("gz") else CSV.encode())
    with pytest.raises(DataError, match=words):
        sasrec.prepare(tmp_path)


def test_a_part_without_the_line_of_names_is_named(tmp_path: Path) -> None:
    made(tmp_path, "x-a.csv", CSV)
    made(tmp_path, "x-b.csv", TABLE)
    with pytest.raises(DataError, match=r"x-b\.csv has no line of names, but x-a\.csv has one .*Join such parts"):
        sasrec.prepare(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("behavior_type", [1, 4], "behavior_type has several kinds.* where='behavior_type = 1'"),
        ("is_click", [0, 1], "is_click has several kinds of events"),
        ("clicked", ["false", "true"], "clicked has several kinds.* where='clicked = false'"),
        ("quantity", [2, -1], "quantity has negative numbers, .* where='quantity > 0'"),
    ],
)
def test_kinds_of_events_in_numbers_are_noted(column: str, values: list[Any], words: str) -> None:
    frame = pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row")
    frame = frame.with_columns(pl.Series(column, values * 6))
    found = notes(frame)
    assert [note for note in found if re.search(words, note)], found


def test_items_as_objects_are_events_whatever_holds_them(tmp_path: Path) -> None:
    def line(user: str) -> dict[str, Any]:
        return {"items": [{"item_id": i, "timestamp": t} for u, i, t in ROWS if u == user], "shop": {"id": 1}}

    flat = [{"user_id": user, **line(user)} for user in HISTORIES]
    nested = [{"user": {"id": user}, "history": line(user)} for user in HISTORIES]
    for rows in (flat, nested):
        path = made(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        assert histories(path) == HISTORIES
    assert histories(pl.DataFrame(flat)) == HISTORIES


def test_a_field_of_an_event_takes_the_place_of_that_of_its_session() -> None:
    events = [[{"aid": item, "ts": time} for u, item, time in ROWS if u == user] for user in HISTORIES]
    frame = pl.DataFrame({"session": list(HISTORIES), "ts": [0] * 3, "events": events})
    assert histories(frame) == HISTORIES


def test_columns_of_unusual_types(tmp_path: Path) -> None:
    base = pd.DataFrame(ROWS, columns=["user", "item", "time"])
    assert histories(base.assign(span=pd.interval_range(0, 12))) == HISTORIES
    with pytest.raises(DataError, match="cannot be a time"):
        sasrec.prepare(base.assign(time=pd.period_range("2020-01", periods=12, freq="M")))
    with pytest.raises(DataError, match=r"cannot be read: .*Convert columns of unusual types"):
        sasrec.prepare(base.assign(odd=[1j] * 12))
    typed = pl.from_pandas(base)
    for kind in (pl.Decimal(20, 2), pl.String):
        time = typed["time"].cast(kind)
        assert histories(typed.with_columns(time.cast(pl.Categorical) if kind == pl.String else time)) == HISTORIES
    (tmp_path / "a.parquet.gz").write_bytes(_packed(typed.with_columns(user=pl.col("user").replace("u1", None))))
    assert histories(tmp_path / "a.parquet.gz", max_rejects=4) == {u: HISTORIES[u] for u in ("u0", "u2")}


def _packed(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return gzip.compress(stream.getvalue())


@pytest.mark.parametrize("encoding", ["utf_16", "undefined", "idna", "a\0b", "nonsense"])
def test_an_encoding_that_does_not_fit_is_refused(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is unknown, or does not fit a\.csv"):
        sasrec.prepare(made(tmp_path, "a.csv", CSV), encoding=encoding)


def test_whole_numbers_with_a_point_are_integer_ids_in_json(tmp_path: Path) -> None:
    path = made(
        tmp_path, "a.jsonl", '{"user": 1.0, "item": 2.0}\n{"user": 1.0, "item": 3}\n{"user": 1, "item": 2.5}\n'
    )
    assert histories(path, max_rejects=1) == {1: [2, 3]}


def test_one_id_written_in_two_ways_in_two_files_is_refused(tmp_path: Path) -> None:
    train = made(tmp_path, "a.csv", "user,item,time\n1,5,1600000000\n2,5,1600000001\n1,6,1600000002\n")
    test = made(tmp_path, "b.csv", "user,item,time\n1.0,5,1600000100\n2,5,1600000101\n")
    with pytest.raises(DataError, match=r"the user 1\.0 of the test file .* is written without the fraction"):
        sasrec.prepare(train, test=test)


def test_a_password_is_not_shown_for_any_database() -> None:
    with pytest.raises(DataError) as refused:
        sasrec.prepare("mysql://me:secret@host/db", query="SELECT 1")
    assert "secret" not in str(refused.value)


def test_lists_of_objects_beside_an_item_are_not_unpacked(tmp_path: Path) -> None:
    rows = [
        {"user": u, "place": i, "time": t, "pics": [None, [], [{"url": 1}, {"url": 2}]][n % 3]}
        for n, (u, i, t) in enumerate(ROWS)
    ]
    path = made(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for source in (path, pl.read_ndjson(path)):
        assert histories(source, item="place") == HISTORIES
        assert histories(source, columns="user:user,place:item,time:time") == HISTORIES


def test_what_is_unpacked_is_noted() -> None:
    rows = [{"user": user, "seen": [{"item": item} for item in items]} for user, items in HISTORIES.items()]
    assert histories(pl.DataFrame(rows)) == HISTORIES
    assert "each element of seen is an event" in notes(pl.DataFrame(rows))


def test_deeply_nested_fields_have_names(tmp_path: Path) -> None:
    rows = [{"context": {"user": {"id": u}}, "what": {"item": {"id": i}}, "time": t} for u, i, t in ROWS]
    path = made(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    options = {"columns": "context.user.id:user,what.item.id:item,time:time"}
    assert histories(path, **options) == histories(pl.DataFrame(rows), **options) == HISTORIES


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("ok <> false", ["a", "c"]),
        ("ok != true", ["b"]),
        ("ok = true", ["a", "c"]),
        ("flag = true", ["a"]),
        ("flag = 1", ["a"]),
    ],
)
def test_conditions_on_truth_values(condition: str, kept: list[str], tmp_path: Path) -> None:
    path = made(tmp_path, "a.csv", "user,item,ok,flag\nu,a,True,1\nu,b,False,0\nu,c,TRUE,0\n")
    assert histories(path, where=condition) == {"u": kept}


def test_nan_fulfils_no_condition() -> None:
    frame = pl.DataFrame({"user": ["u"] * 3, "item": ["a", "b", "c"], "r": [4.5, float("nan"), 2.5]})
    assert histories(frame, where="r > 3") == {"u": ["a"]}


def test_the_note_on_kinds_has_a_condition_that_works(tmp_path: Path) -> None:
    path = made(tmp_path, "a.csv", "user,item,event type\n" + "u,a,view\nu,b,buy\nu,c,view\n")
    condition = re.search(r"set where=('.*')$", next(note for note in notes(path) if "several kinds" in note))
    assert condition is not None
    assert histories(path, where=ast.literal_eval(condition[1])) == {"u": ["a", "c"]}
    with pytest.raises(ConfigError, match='Write the column as "user"'):
        sasrec.prepare(path, where="user = 'u'")


def test_hours_alone_are_a_format(tmp_path: Path) -> None:
    path = made(tmp_path, "a.csv", "user,item,time\nu,b,2014-12-06 03\nu,a,2014-12-06 02\n")
    assert histories(path, time_format="%Y-%m-%d %H") == {"u": ["a", "b"]}


@pytest.mark.parametrize("name", ["duration", "length", "hours", "score"])
def test_lengths_beside_days_are_not_times_of_day(name: str, tmp_path: Path) -> None:
    value = "3" if name == "hours" else "03:45"
    path = made(tmp_path, "a.csv", f"user,item,date,{name}\nu,b,2020-01-02,{value}\nu,a,2020-01-01,{value}\n")
    assert histories(path) == {"u": ["a", "b"]}


def test_the_order_of_files_without_times_is_noted(tmp_path: Path) -> None:
    for month in ("Oct", "Nov"):
        made(tmp_path, f"2019-{month}.csv", "user,item\nu,a\n")
    assert any("rows of 2019-Nov.csv, 2019-Oct.csv is taken as the order" in note for note in notes(tmp_path))
