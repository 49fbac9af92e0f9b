"""One door for every source: formats by content, folders, patterns, stdin, tables, lists, conditions, databases."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import sys
import uuid
import zipfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from backports import zstd

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError, DataError, SasrecWarning
from tests.reading import histories

ROWS = [("b", "x", 1_600_000_003), ("a", "y", 1_600_000_002), ("a", "x", 1_600_000_001), ("b", "z", 1_600_000_004)]
HISTORIES = {"a": ["x", "y"], "b": ["x", "z"]}
FRAME = pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row")
CSV = FRAME.write_csv().encode()


def written(frame: pl.DataFrame, folder: Path) -> Path:
    frame.write_csv(folder / "made.csv")
    return folder / "made.csv"


def zipped(data: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return stream.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "zip": lambda data: zipped(data, "__MACOSX/._a.csv", "a.csv"),
}


@pytest.mark.parametrize("method", PACKED)
@pytest.mark.parametrize("name", ["a.csv", "events"])
def test_the_content_tells_how_a_file_is_compressed(method: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKED[method](CSV))
    assert histories(tmp_path / name) == HISTORIES
    (tmp_path / "cut.csv").write_bytes(PACKED[method](CSV * 999)[:-30])
    with pytest.raises(DataError, match=r"cut off|not a valid|cannot be read"):
        sasrec.prepare(tmp_path / "cut.csv")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.log"])
def test_the_content_tells_json_from_text(name: str, tmp_path: Path) -> None:
    records = FRAME.to_dicts()
    for text in ("\n".join(map(json.dumps, records)), json.dumps(records), json.dumps(records, indent=1)):
        (tmp_path / name).write_text(text + "\n")
        assert histories(tmp_path / name) == HISTORIES


def test_parquet_and_arrow_are_known_by_their_content(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.bin")
    FRAME.write_ipc(tmp_path / "b.bin")
    FRAME.write_ipc_stream(tmp_path / "c.bin")
    for name in ("a.bin", "b.bin", "c.bin"):
        assert histories(tmp_path / name) == HISTORIES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"SQLite format 3\x00" + b"\0" * 99, "Name it by a URL"),
        (b"\x80\x04\x95abc", "which can run code when it is read. Save the table as Parquet"),
        (b"<!DOCTYPE html><html>", "download it again"),
        (b"%PDF-1.7", "is a PDF"),
        (zipped(b"x", "[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook. Save the sheet as CSV"),
        (zipped(CSV, "a.csv", "b.csv"), r"archive of 2 files .a\.csv, b\.csv.\. Unpack it"),
        ("user,item".encode("utf-16-le"), "Set encoding='utf-16-le'"),
    ],
)
def test_what_is_not_a_table_is_called_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        sasrec.prepare(tmp_path / "a.csv")


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(CSV, "a.csv"))
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(sign) + place] |= 1  # the flag that says encrypted
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"cannot be unpacked here: .*password required.*Unpack it"):
        sasrec.prepare(tmp_path / "a.zip")


def test_a_folder_is_all_its_parts_in_order_of_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    for number in range(12):
        pl.DataFrame({"user": ["a"], "item": [f"i{number}"]}).write_csv(folder / f"part-{number}.csv")
    (folder / "_SUCCESS").write_text("")
    (folder / "README.md").write_text("about")
    expected = {"a": [f"i{number}" for number in range(12)]}
    assert histories(folder) == histories(f"{folder}/part-*.csv") == expected
    (folder / "items.tsv").write_text("item\ttitle\n")
    with pytest.raises(DataError, match=r"files of several formats .*Name the file with the events, or a pattern"):
        sasrec.prepare(folder)
    with pytest.raises(DataError, match="no file matches the pattern"):
        sasrec.prepare(f"{folder}/*.parquet")


def test_parts_of_a_folder_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(CSV)
    (tmp_path / "tags.csv").write_text("user,item,tag,time\na,x,good,1600000000\n")
    with pytest.raises(
        DataError, match=r"different columns: ratings\.csv has user, item, time, but tags\.csv has"
    ):
        sasrec.prepare(tmp_path)


def test_the_names_of_folders_give_columns(tmp_path: Path) -> None:
    for user, part in FRAME.group_by("user"):
        folder = tmp_path / f"user={user[0]}"
        folder.mkdir()
        part.drop("user").write_parquet(folder / "0.parquet")
    assert histories(tmp_path) == HISTORIES


def test_stdin_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(CSV))))
    assert main(["prepare", "-", "--output", str(tmp_path / "data")]) == 0
    assert "4 rows read from stdin" in capsys.readouterr().out


def test_tables_of_other_libraries() -> None:
    assert histories(FRAME.to_arrow()) == histories(FRAME.to_pandas()) == histories(FRAME.lazy()) == HISTORIES
    assert histories([FRAME.head(2), FRAME.tail(2).to_pandas()]) == HISTORIES
    users = [uuid.UUID(int=number) for number in (1, 2, 2, 1)]
    frame = pd.DataFrame({"user": users, "item": ["x", "y", "x", "z"], "time": FRAME["time"]})
    assert sorted(histories(frame)) == [str(uuid.UUID(int=1)), str(uuid.UUID(int=2))]
    with pytest.raises(DataError, match="Convert columns of unusual types"):
        sasrec.prepare(pd.DataFrame({"user": [1, "1"], "item": ["x", "y"]}))


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([2**63 + 5, 2**63 + 6, 2**63 + 6, 2**63 + 5], dtype=pl.UInt64),
        pl.Series([Decimal(7), Decimal(8), Decimal(8), Decimal(7)], dtype=pl.Decimal(20, 2)),
        pl.Series(["u", "v", "v", "u"], dtype=pl.Categorical),
        pl.Series([b"u", b"v", b"v", b"u"]),
    ],
    ids=str,
)
def test_ids_of_every_type_come_out_as_they_are(ids: pl.Series) -> None:
    found = histories(FRAME.with_columns(ids.alias("user")))
    expected = [value.decode() if isinstance(value, bytes) else value for value in ids.unique().sort()]
    assert [str(user) for user in found] == [str(value).removesuffix(".00") for value in expected]
    assert list(found.values()) == [HISTORIES["b"], HISTORIES["a"]]


def test_json_integers_of_any_size_are_kept(tmp_path: Path) -> None:
    for large in (2**63 + 1, 2**64 + 1):
        lines = [json.dumps({"user": large, "item": item, "time": time}) for _, item, time in ROWS]
        (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
        assert [str(user) for user in histories(tmp_path / "a.jsonl")] == [str(large)]


LISTS = {"7": ["5", "17", "12"], "8": ["4", "5"], "9": ["12"]}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("7\t5,17,12\n8\t4,5\n9\t12\n", {}),
        ("7 5 17 12\n8 4 5\n9 12\n", {"columns": "user,items"}),
        ('user_id,items\n7,"[5, 17, 12]"\n8,"[4, 5]"\n9,"[12]"\n', {}),
        ("user_id;item_ids\n7;5|17|12\n8;4|5\n9;12\n", {"columns": "user,items"}),
        (
            "user_id;item_ids;times\n7;5 17 12;1600000001 1600000002 1600000003\n8;4 5;1600000001 1600000002\n9;12;1600000001\n",
            {},
        ),
        (
            '{"user": "7", "items": [5, 17, 12]}\n{"user": "8", "items": [4, 5]}\n{"user": "9", "items": [12]}\n',
            {},
        ),
        (
            '{"session": "7", "events": [{"aid": 17, "ts": 1600000002}, {"aid": 5, "ts": 1600000001}, '
            '{"aid": 12, "ts": 1600000003}]}\n{"session": "8", "events": [{"aid": 4, "ts": 1600000001}, '
            '{"aid": 5, "ts": 1600000002}]}\n{"session": "9", "events": [{"aid": 12, "ts": 1600000001}]}\n',
            {},
        ),
    ],
    ids=["tab and commas", "blanks", "brackets", "bars", "with times", "JSON", "session"],
)
def test_one_line_a_user_gives_its_events(text: str, options: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.warns(SasrecWarning) as said:
        found = histories(tmp_path / "a.txt", **options)
    assert {user: [str(item) for item in items] for user, items in found.items()} == LISTS
    assert text.startswith("{") or any("each element is an event" in str(note.message) for note in said)


def test_lists_in_a_frame_and_lists_that_do_not_fit() -> None:
    frame = pl.DataFrame(
        {
            "user": ["7", "8"],
            "item": [["5", "17"], ["4"]],
            "time": [[1_600_000_002, 1_600_000_001], [1_600_000_000]],
        }
    )
    assert histories(frame) == {"7": ["17", "5"], "8": ["4"]}
    short = frame.with_columns(time=pl.Series([[1_600_000_002], [1_600_000_000]]))
    with pytest.raises(DataError, match="2 items but 1 times"):
        sasrec.prepare(short)
    assert histories(short, max_rejects=1) == {"8": ["4"]}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_condition_keeps_rows(form: str, tmp_path: Path) -> None:
    frame = FRAME.with_columns(event=pl.Series(["view", "buy", "view", "view"]), rating=pl.Series([10, 9, 8, 10]))
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[form](
        tmp_path / f"a.{form}"
    )
    path = tmp_path / f"a.{form}"
    assert histories(path, where="event = 'view' AND rating > 9") == {"b": ["x", "z"]}
    with pytest.warns(SasrecWarning, match="event has several kinds of events, and all are read alike: view"):
        sasrec.prepare(path)
    assert histories(path, where="event = 'view' AND rating = 8") == {"a": ["x"]}
    with pytest.raises(DataError, match="has no column 'kind', which `where` names"):
        sasrec.prepare(path, where="kind = 1")
    with pytest.raises(ConfigError, match=r"where='SUM\(rating\) > 5' has SUM, which reads many rows"):
        sasrec.prepare(path, where="SUM(rating) > 5")
    assert histories(path, where="event <> 'sum(' AND rating = 8") == {"a": ["x"]}
    with pytest.raises(ConfigError, match="is not a condition in SQL"):
        sasrec.prepare(path, where="event = ")


def test_a_query_of_a_database(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE log (user TEXT, item TEXT, time INTEGER)")
        connection.executemany("INSERT INTO log VALUES (?, ?, ?)", ROWS)
    url = f"sqlite:///{path}"
    assert histories(url, query="SELECT * FROM log") == HISTORIES
    for wrong, said in (({}, "Set `query`"), ({"query": "SELECT * FROM gone"}, "no such table")):
        with pytest.raises(DataError, match=said):
            sasrec.prepare(url, **wrong)
    with pytest.raises(DataError, match=r"does not exist. Check the path"):
        sasrec.prepare("sqlite:///gone.db", query="SELECT 1")


def test_a_record_may_have_line_breaks_inside_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'user,item,text,time\na,x,"good\n\nvery ""good""",1600000000\na,y,plain,1600000001\n'
    )
    assert histories(tmp_path / "a.csv") == {"a": ["x", "y"]}
    (tmp_path / "b.csv").write_text(
        'user,item,text,time\na,x,"good,1600000000\na,y,plain,1600000001\nb,y,plain,1600000001\n'
    )
    with pytest.raises(DataError, match=r"b\.csv:2: a quote is not closed"):
        sasrec.prepare(tmp_path / "b.csv")


def test_tab_separated_text_may_have_quotes_that_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('user\titem\ttitle\na\tx\t"Best of\na\ty\t12" record\n')
    assert histories(tmp_path / "a.tsv") == {"a": ["x", "y"]}


def test_text_in_another_encoding(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        (tmp_path / "a.csv").write_bytes("user,item\nMüller,Äpfel\nMüller,Öl\n".encode(encoding))
        options = {"encoding": encoding} if encoding == "cp1252" else {}
        assert histories(tmp_path / "a.csv", **options) == {"Müller": ["Äpfel", "Öl"]}
    (tmp_path / "a.csv").write_bytes("user,item\nMüller,Äpfel\nMüller,Öl\n".encode("cp1252"))
    with pytest.raises(DataError, match="Set the encoding, for example encoding='cp1252'"):
        sasrec.prepare(tmp_path / "a.csv")
    with pytest.raises(DataError, match="the encoding 'martian' is unknown"):
        sasrec.prepare(tmp_path / "a.csv", encoding="martian")


def test_explain_shows_each_column_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    assert main(["prepare", "--explain", str(tmp_path / "a.csv")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["time", "s", "since", "1970", "(1600000003)", "time", "its", "name"] in lines
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]
    (tmp_path / "a.csv").write_text("1,2,3\n2,1,3\n3,1,2\n")
    assert main(["prepare", "--explain", str(tmp_path / "a.csv")]) == 1
    shown = capsys.readouterr()
    assert "integers, 3 distinct (1)" in shown.out
    assert "--columns" in shown.err


def test_columns_that_the_settings_leave_open_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("klant;artikel;datum\nk1;a1;01-02-2025\nk1;a2;13-02-2025\nk2;a1;14-02-2025\n")
    assert main(["prepare", "--explain", str(path), "--columns=klant:user,artikel:item"]) == 0
    why = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith(("kl", "da"))}
    assert why["klant"].split()[-4:] == ["named", "in", "the", "settings"]
    assert why["datum"].split()[-3:] == ["time", "its", "values"]
    found = sasrec.prepare(path, columns="klant:user,artikel:item").report["warnings"]
    assert "columns recognised by their names and values: time = datum" in found
    with pytest.raises(DataError, match="Write the column before its role: klant:user"):
        sasrec.prepare(path, columns="user:klant,item:artikel")


def test_a_user_with_much_of_all_events_is_named() -> None:
    rows = [("robot", f"i{n}", 1_600_000_000 + n) for n in range(99)]
    rows += [(f"u{n}", f"i{n % 7}", 1_600_000_000 + n) for n in range(60)]
    with pytest.warns(SasrecWarning, match="user 'robot' has 62% of all events"):
        sasrec.prepare(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"))


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "frame"])
def test_a_reject_has_its_whole_row(form: str, tmp_path: Path) -> None:
    frame = FRAME.with_columns(user=pl.Series(["b", "N/A", "a", "b"]), note=pl.lit("seen"))
    path: Any = tmp_path / f"a.{form}"
    if form == "frame":
        path = frame
    elif form == "json":
        path.write_text(json.dumps(frame.to_dicts()))
    else:
        {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[form](path)
    sasrec.prepare(path, max_rejects=1, output=tmp_path / "data")
    (reject,) = pl.read_csv(tmp_path / "data/rejects.csv").to_dicts()
    assert (reject["column"], reject["reason"]) == ("user", "the user is missing (N/A)")
    assert all(value in reject["row"] for value in ("N/A", "y", "1600000002", "seen"))
    assert "1600000003" not in reject["row"]


def test_a_condition_compares_text_as_text_and_numbers_with_all_digits(tmp_path: Path) -> None:
    lines = ["user,item,store,order_id,ok", "a,x,007,9007199254740993,true", "a,y,7,9007199254740992,false"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    for where in ("store = '007'", "store LIKE '00%'", "order_id = 9007199254740993", "ok = true", "ok"):
        assert histories(tmp_path / "a.csv", where=where) == {"a": ["x"]}
    (tmp_path / "a.csv").write_text("\n".join([*lines, "a,z,7,,true", "a,w,7,many,true"]) + "\n")
    with pytest.raises(DataError, match=r"a\.csv:5 order_id: order_id is not a number, which the condition"):
        sasrec.prepare(tmp_path / "a.csv", where="order_id > 5")
    assert histories(tmp_path / "a.csv", where="order_id > 5", max_rejects=1) == {"a": ["x", "y"]}
    with pytest.raises(DataError, match="cannot be applied"):
        sasrec.prepare(tmp_path / "a.csv", where="order_id > 5 AND order_id = 'many'")


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_column_may_be_called_line(form: str, tmp_path: Path) -> None:
    frame, path = FRAME.rename({"item": "line"}), tmp_path / f"a.{form}"
    {
        "csv": frame.write_csv,
        "jsonl": frame.write_ndjson,
        "json": frame.write_json,
        "parquet": frame.write_parquet,
    }[form](path)
    assert histories(path, item="line") == HISTORIES
    assert histories(path, item="line", where="line = 'x'") == {"a": ["x"], "b": ["x"]}
    assert histories(frame, item="line") == HISTORIES


def test_the_index_of_a_pandas_frame_is_read_if_it_has_a_name() -> None:
    frame = FRAME.to_pandas()
    assert histories(frame.set_index("time")) == histories(frame.set_index(["user", "time"])) == HISTORIES
    dated = frame.assign(time=pd.to_datetime(frame["time"], unit="s")).set_index("time")
    assert histories(dated) == HISTORIES
    with pytest.raises(DataError, match="more than one column of the frame is named item"):
        sasrec.prepare(pd.concat([frame, frame[["item"]]], axis=1))


@pytest.mark.parametrize(
    ("items", "read"),
    [
        ("[1. 2. 3.]", ["1", "2", "3"]),
        ("[Dota 2, Team Fortress]", ["Dota 2", "Team Fortress"]),
        ('["caf\\u00e9", "12"]', ["café", "12"]),
        ("[1 2 ... 8 9]", None),
        ("[[12, 1600000000], [13, 1600000001]]", None),
        ("[{'item_id': '10', 'playtime': 6}]", None),
    ],
)
def test_lists_in_brackets_are_read_as_ids_or_refused(items: str, read: list[str] | None, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "items": [items, items]})
    if read is None:
        with pytest.raises(DataError, match="holds lists that cannot be read"):
            sasrec.prepare(written(frame, tmp_path))
    else:
        assert histories(written(frame, tmp_path)) == {"a": read, "b": read}


@pytest.mark.parametrize("item", ["978 3 16 148410 0", "1,234,567"])
def test_an_item_that_may_be_a_list_is_asked_about(item: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "item": [item, item], "time": [1_600_000_000, 1_600_000_001]})
    path = written(frame, tmp_path)
    with pytest.raises(
        DataError, match=r"may be a list of items\. If it is, use columns='user:user,item:items,time:time'"
    ):
        sasrec.prepare(path)
    assert histories(path, columns="user,item,time")["a"] == [item]
    assert len(histories(path, columns="user,items,time")["a"]) > 2


def test_a_row_without_a_user_does_not_make_items_look_like_lists(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,time\na,i1,1600000000\n,two words,1600000001\n")
    assert histories(tmp_path / "e.csv", max_rejects=-1) == {"a": ["i1"]}
