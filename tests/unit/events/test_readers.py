"""The same events from every format, and what is decided about columns, ids and times."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import lines as text_lines
from sasrec.events.events import read_events

ROWS = [
    ("007", "b1c4a2d0-0000-4000-8000-000000000001", 1_600_000_000),
    ("007", 'say "hi", ok', 1_600_000_001),
    ("héloïse", "日本", 1_600_000_002),
    ("7", "x y", 1_600_000_003),
]
PLAIN = [row for row in ROWS if '"' not in row[1] and " " not in row[1]]


def written(path: Path, separator: str, rows: list = ROWS, header: str | None = "user,item,time") -> Path:
    def field(value: object) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if '"' in text else text

    lines = [separator.join(map(field, row)) for row in rows]
    if header is not None:
        lines.insert(0, header.replace(",", separator))
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def json_written(path: Path) -> Path:
    data = "".join(
        json.dumps(dict(zip(("user", "item", "time"), row, strict=True))) + "\n" for row in ROWS
    ).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(source: object, **options: object):
    return read_events(source, DataConfig(**options))


def rows_of(events) -> list[tuple]:
    return [(u, i, t // 10**6) for u, i, t in events.frame.select("user", "item", "time").iter_rows()]


def frame() -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.TSV", "a.txt", "a.dat"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_delimited_files_are_read_whatever_their_separator(name: str, separator: str, tmp_path: Path) -> None:
    assert rows_of(read(written(tmp_path / name, separator))) == ROWS


def test_every_other_format_gives_the_same_rows(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "a.parquet")
    sources = [
        json_written(tmp_path / "a.jsonl"),
        json_written(tmp_path / "a.ndjson.gz"),
        tmp_path / "a.parquet",
        frame(),
        frame().lazy(),
        frame().with_columns(pl.col("user", "item").cast(pl.Categorical)),
        pd.DataFrame(ROWS, columns=["user", "item", "time"]),
        written(tmp_path / "a.inter", "\t", header="user:token,item:token,time:float"),
        [written(tmp_path / "b.csv", ",", ROWS[:1]), written(tmp_path / "c.csv", ",", ROWS[1:])],
    ]
    for source in sources:
        assert rows_of(read(source)) == ROWS, source


def test_the_papers_text_without_a_header(tmp_path: Path) -> None:
    for separator in (" ", "   ", "\t", "::"):
        rows = [(1, 5, 1_600_000_010), (1, 6, 1_600_000_020)]
        path = written(tmp_path / "a.txt", separator, rows, header=None)
        columns = "" if separator == "::" else "user,item,time"
        assert rows_of(read(path, columns=columns)) == [("1", "5", 1_600_000_010), ("1", "6", 1_600_000_020)]
    events = read(written(tmp_path / "b.txt", " ", [(1, 5), (1, 6)], header=None))
    assert events.frame.columns == ["user", "item"]
    assert events.time_unit is None
    assert any("order of the rows" in warning for warning in events.warnings)
    events = read(written(tmp_path / "ratings.dat", "::", [(1, 5, 4, 1_600_000_010)], header=None))
    assert rows_of(events) == [("1", "5", 1_600_000_010)]
    assert any("user = 0, item = 1, time = 3" in warning for warning in events.warnings)
    path = written(tmp_path / "c.txt", " ", [*PLAIN, PLAIN[0]], header=None)
    assert rows_of(read(path, columns="user,item,time")) == [*PLAIN, PLAIN[0]]


def test_line_ends_byte_order_marks_and_blanks_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf user , item ,time\r\na , x,1600000010\r\n b,"y", 1600000020 \r\n')
    assert rows_of(read(path)) == [("a", "x", 1_600_000_010), ("b", "y", 1_600_000_020)]


def test_files_larger_than_a_block_keep_their_line_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "_BLOCK", 50)
    lines = [f"u{i},i{i},{i}" for i in range(100)]
    lines[70] = "broken"
    lines[80] = "x" * 120 + ",y,5"
    (tmp_path / "a.csv").write_text("user,item,time\n" + "\n".join(lines) + "\n")
    events = read(tmp_path / "a.csv", max_rejects=1, time_unit="s")
    assert events.rejects["line"].to_list() == [72]
    assert events.frame.height == 99


@pytest.mark.parametrize(
    ("text", "unit", "microseconds"),
    [
        ("978300019", "s", 978300019_000000),
        ("978300019.25", "s", 978300019_250000),
        ("881250949.0", "s", 881250949_000000),
        ("1600000000123", "ms", 1600000000_123000),
        ("1600000000123456", "us", 1600000000_123456),
        ("1600000000123456789", "ns", 1600000000_123456),
        ("2020-09-13", "iso", 1599955200_000000),
        ("2020-09-13T12:26", "iso", 1600000000_000000 - 40_000000),
        ("2020-09-13 12:26:40", "iso", 1600000000_000000),
        ("2020-09-13T12:26:40.5Z", "iso", 1600000000_500000),
        ("2020-09-13T14:26:40.123456789+02:00", "iso", 1600000000_123456),
        ("2020-09-13 12:26:40 UTC", "iso", 1600000000_000000),
        ("2020-09-13T07:56:40-0430", "iso", 1600000000_000000),
    ],
)
def test_times_in_every_unit_wherever_the_machine_is(
    text: str, unit: str, microseconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    events = read(written(tmp_path / "a.csv", ",", [("a", "x", text)]))
    assert events.frame["time"].to_list() == [microseconds]
    assert events.time_unit == unit
    assert any("without a time zone" in w for w in events.warnings) == (
        unit == "iso" and text[-1].isdigit() and len(text) < 20
    )


def test_an_explicit_unit_decides(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ",", [("a", "x", 1_600_000)])
    assert read(path, time_unit="ms").frame["time"].to_list() == [1_600_000_000]
    assert read(path, time_unit="ns").frame["time"].to_list() == [1_600]


def test_typed_time_columns_of_frames() -> None:
    moment = datetime(2020, 9, 13, 12, 26, 40, 5, tzinfo=UTC)
    east = moment.astimezone(timezone(timedelta(hours=2)))
    values = {
        1_600_000_000_000_005: [
            pl.Series([moment]),
            pl.Series([moment.replace(tzinfo=None)]).cast(pl.Datetime("ns")),
            pl.Series([east]).dt.convert_time_zone("Asia/Tokyo"),
        ],
        1_599_955_200_000_000: [pl.Series([date(2020, 9, 13)])],
        1_600_000_000_500_000: [pl.Series([1_600_000_000.5])],
        1_600_000_000_000_000: [pl.Series([1_600_000_000.0])],
    }
    for expected, columns in values.items():
        for column in columns:
            events = read(pl.DataFrame({"user": ["a"], "item": ["x"], "time": column}))
            assert events.frame["time"].to_list() == [expected], column.dtype


def test_a_key_that_the_first_json_object_lacks_is_still_a_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": "a", "item": "x"}\n{"user": "a", "item": "y", "time": 1600000007}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1 time: the key is missing"):
        read(path)
    assert rows_of(read(path, max_rejects=1)) == [("a", "y", 1_600_000_007)]


def test_integer_columns_are_remembered_as_such(tmp_path: Path) -> None:
    integers = pl.DataFrame({"user": [1, 2], "item": ["a", "b"]})
    events = read(integers)
    assert (events.integer_users, events.integer_items) == (True, False)
    (tmp_path / "a.jsonl").write_text('{"user": 1, "item": 5}\n{"user": 2, "item": "6"}\n')
    events = read(tmp_path / "a.jsonl")
    assert (events.integer_users, events.integer_items) == (True, False)
    assert events.frame["user"].to_list() == ["1", "2"]
    assert not read(written(tmp_path / "a.csv", ",", [(1, 2, 1_600_000_000)])).integer_users


def test_pandas_integers_with_a_hole_are_integers_and_the_hole_is_a_bad_row() -> None:
    holes = pd.DataFrame({"user": [1.0, None, 3.0], "item": ["a", "b", "c"]})
    with pytest.raises(DataError, match="frame:2 user: the user is"):
        read(holes)
    assert read(holes, max_rejects=1).frame["user"].to_list() == ["1", "3"]
    with pytest.raises(DataError, match="not an integer, unlike most others"):
        read(pl.DataFrame({"user": [1.0, 2.0, 3.5], "item": ["a", "b", "c"]}))


def test_columns_are_found_by_name_or_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ",", ROWS, header="User-ID,movieId,unixReviewTime")
    events = read(path)
    assert rows_of(events) == ROWS
    assert any("user = User-ID" in warning for warning in events.warnings)
    path = written(tmp_path / "b.csv", ",", ROWS, header="who,what,when")
    assert rows_of(read(path, user_column="who", item_column="what", time_column="when")) == ROWS
    swapped = written(tmp_path / "c.csv", ",", [("x", "a", 1_600_000_000)], header="item,user,time")
    assert rows_of(read(swapped, user_column="item", item_column="user")) == [("x", "a", 1_600_000_000)]


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            "who,what,time",
            {},
            "no column is named like the user or the item.*who: text.*columns='who:user,what:item'",
        ),
        ("who,what,which", {}, "no header with known names"),
        ("user,item,time", {"user_column": "usr"}, "no column 'usr'.*user, item, time"),
        ("user_id,uid,item", {}, r"more than one column could be the user \(user_id, uid\)"),
        ("user,item,item", {"item_column": "item"}, "more than one column is named item"),
        ('"user,item,time', {}, "first line cannot be split"),
        ("user,item,item_id", {}, r"more than one column could be the item .*item_column='item'"),
    ],
)
def test_columns_that_cannot_be_told_are_listed(header: str, options: dict, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ",", [("a", "b", "c")], header=header)
    with pytest.raises(DataError, match=message):
        read(path, **options)


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "gone.csv")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="a format that cannot be read"):
        read(tmp_path / "a.xlsx")
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\n \n")
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"user,item\n")[:10] + b"\xff" * 20)
    with pytest.raises(DataError, match="not a valid gzip file"):
        read(tmp_path / "a.csv.gz")
    (tmp_path / "latin.csv").write_bytes(b"user,item,\xfcber\na,b,c\n")
    with pytest.raises(DataError, match="first line is not valid UTF-8"):
        read(tmp_path / "latin.csv", max_rejects=-1)
    for frame in (pd.DataFrame({"user": [1, "a"], "item": ["x", "y"]}), pl.scan_csv(tmp_path / "gone.csv")):
        with pytest.raises(DataError, match="cannot be read"):
            read(frame)
    for source in (5, [], None):
        with pytest.raises(
            DataError, match=r"a file, a folder, a frame or a list of these|the list of files is empty"
        ):
            read(source)
    for column in (pl.Series([True]), pl.Series([[[1]]])):
        with pytest.raises(DataError, match="ids must be text or integers"):
            read(pl.DataFrame({"user": column, "item": ["x"]}))
    for column in (pl.Series([True]), pl.Series([[[1]]])):
        with pytest.raises(DataError, match="which cannot be a time"):
            read(pl.DataFrame({"user": ["a"], "item": ["x"], "time": column}))
    timed, untimed = (
        written(tmp_path / "b.csv", ",", ROWS),
        written(tmp_path / "c.txt", " ", [(1, 2), (1, 3)], header=None),
    )
    with pytest.raises(DataError, match="some of the files have times"):
        read([timed, untimed])
