"""What the reader owes beyond single bad rows and formats: rejects on disk, odd sources, damage that looks sound."""

from __future__ import annotations

import gzip
import uuid
from datetime import date
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import sasrec
from sasrec.config.settings import DataConfig
from sasrec.errors import DataError, SasrecError
from sasrec.events.events import Events, read_events

HEADER = "user,item,time\n"
GOOD = "a,x,1600000005\n"
ANY = DataConfig(max_rejects=-1)


def file(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ids(events: Events) -> list[tuple[str, str]]:
    return events.frame.select("user", "item").rows()


def reasons(events: Events) -> list[tuple[int, str, str]]:
    return events.rejects.select("line", "column", "reason").rows()


@pytest.mark.parametrize("tolerated", [0, -1])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_rejects_are_written_whether_the_data_is_refused_or_not(
    tolerated: int, ending: str, tmp_path: Path
) -> None:
    bad = ["b", 'c,"y', ",z,5", "d,w,soon", "e,v,99999999999999", 'f,"u,1",6,7', "\xff,t,5"]
    lines = [
        b"user,item,time",
        b"a,x,1600000005",
        *(line.encode("latin-1") for line in bad),
        b"g,s,1600000008",
        b"",
    ]
    data = b"\n".join(lines)
    path = file(tmp_path / f"a.{ending}", gzip.compress(data) if ending.endswith("gz") else data)
    rejects_path = tmp_path / "made" / "for" / "rejects.csv"
    if tolerated == 0:
        with pytest.raises(DataError, match="7 of 9 rows are bad"):
            read_events(path, DataConfig(), rejects_path)
    else:
        events = read_events(path, DataConfig(max_rejects=tolerated), rejects_path)
        assert ids(events) == [("a", "x"), ("g", "s")]
        assert events.read == 9
    written = pl.read_csv(rejects_path, infer_schema=False).fill_null("")
    assert written.select("file", "line", "column", "raw").rows() == [
        (path.name, "3", "", "b"),
        (path.name, "4", "", 'c,"y'),
        (path.name, "5", "user", ""),
        (path.name, "6", "time", "soon"),
        (path.name, "7", "time", "99999999999999"),
        (path.name, "8", "", 'f,"u,1",6,7'),
        (path.name, "9", "", "\\xff,t,5"),
    ]
    assert all(written["reason"].str.len_chars() > 0)


def test_rejects_that_cannot_be_written_are_an_error_for_users(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", HEADER + GOOD + "b\n")
    for place in (tmp_path, path / "rejects.csv"):
        with pytest.raises(DataError, match="rejects cannot be written"):
            read_events(path, ANY, place)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    first = file(tmp_path / "1" / "part.csv", HEADER + GOOD + "b\n")
    second = file(tmp_path / "2" / "part.csv", HEADER + GOOD + "b,\n")
    other = file(tmp_path / "3" / "other.csv", HEADER + "b\n")
    events = read_events([first, second, other], ANY)
    assert events.sources == ("part.csv", "part.csv", "other.csv")
    assert events.rejects["file"].to_list() == [str(first), str(second), "other.csv"]


def test_a_source_of_the_wrong_kind_is_an_error_for_users(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a"], "item": ["x"]})
    for source in (b"a.csv", [1], {"a.csv": 1}, pd.Series([1]), [frame, None]):
        with pytest.raises(DataError, match="a file, a folder, a frame or a list of these"):
            read_events(source, ANY)
    with pytest.raises(DataError, match="contains no data"):
        read_events(tmp_path, ANY)
    for name in ("a" * 300 + ".csv", "a\0.csv"):
        with pytest.raises(DataError, match="does not exist"):
            read_events(name, ANY)


def test_a_file_that_cannot_be_read_is_an_error_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    path = file(tmp_path / "a.csv.gz", b"")
    monkeypatch.setattr(Path, "open", lambda *_: Broken())
    with pytest.raises(DataError, match=r"a\.csv\.gz cannot be read: .*Input/output error"):
        read_events(path, ANY)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.inter", "a.txt"])
def test_a_header_alone_is_no_data(name: str, tmp_path: Path) -> None:
    text = (HEADER if "csv" in name else HEADER.replace(",", "\t")).encode()
    path = file(tmp_path / name, gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(DataError, match=f"{name}: no row was read. Check the query"):
        read_events(path, ANY)


def test_a_frame_or_parquet_file_without_rows_is_no_data(tmp_path: Path) -> None:
    frame = pl.DataFrame(schema={"user": pl.String, "item": pl.Int64, "time": pl.Datetime})
    frame.write_parquet(tmp_path / "a.parquet")
    for source in (frame, frame.drop("time"), tmp_path / "a.parquet"):
        with pytest.raises(DataError, match="no row was read"):
            read_events(source, ANY)


def test_a_column_has_one_role(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", HEADER + GOOD)
    for twice in ({"user_column": "user", "item_column": "user"}, {"item_column": "item", "time_column": "item"}):
        with pytest.raises(DataError, match=r"column '(user|item)' is named for more than one role"):
            read_events(path, DataConfig(**twice))


def test_a_byte_order_mark_left_inside_by_joining_files_is_no_part_of_an_id(tmp_path: Path) -> None:
    events = read_events(file(tmp_path / "a.csv", "user,item\na,x\n\ufeffuser,item\na,y\n"), ANY)
    assert ids(events) == [("a", "x"), ("a", "y")]
    assert reasons(events) == [(3, "", "the header is repeated")]
    assert ids(read_events(file(tmp_path / "a.txt", "1 2\n\ufeff1 3\n"), ANY)) == [("1", "2"), ("1", "3")]


def test_blanks_before_a_quoted_field_are_dropped_too(tmp_path: Path) -> None:
    events = read_events(
        file(tmp_path / "a.csv", HEADER + 'a, "x, y",1600000005\nb,"z, w", 1600000006\n'), DataConfig()
    )
    assert ids(events) == [("a", "x, y"), ("b", "z, w")]


def test_a_quote_inside_a_plain_field_is_a_character(tmp_path: Path) -> None:
    events = read_events(file(tmp_path / "a.csv", HEADER + 'a,5" pipe,1600000005\n'), DataConfig())
    assert ids(events) == [("a", '5" pipe')]


def test_the_reason_says_what_is_wrong_with_a_quoted_line(tmp_path: Path) -> None:
    lines = [f'b,"{"x" * 140_000}",5', 'c,"x"\r,5', 'd,x\ry,"5"']
    events = read_events(file(tmp_path / "a.csv", HEADER + GOOD + "\n".join(lines) + "\n"), ANY)
    assert reasons(events) == [
        (3, "item", "the item is longer than 512 characters"),
        (4, "", "a carriage return within the line"),
        (5, "", "a carriage return within the line"),
    ]


def test_lines_that_end_with_carriage_returns_alone_are_named_as_such(tmp_path: Path) -> None:
    for text in ("user,item,time\ra,x,5\rb,y,6\r", "1\t2\r3\t4\r"):
        with pytest.raises(DataError, match="carriage return"):
            read_events(file(tmp_path / "a.csv", text), ANY)


@pytest.mark.parametrize("form", ["csv", "quoted", "jsonl", "parquet"])
def test_a_control_character_at_the_end_of_an_id_is_not_dropped_in_any_format(form: str, tmp_path: Path) -> None:
    texts = {
        "csv": "user,item\na,x\na,y\x1f\n",
        "quoted": 'user,item\na,x\na,"y\x1f"\n',
        "jsonl": '{"user":"a","item":"x"}\n{"user":"a","item":"y\\u001f"}\n',
    }
    source: object = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y\x1f"]})
    if form in texts:
        source = file(tmp_path / f"a.{'jsonl' if form == 'jsonl' else 'csv'}", texts[form])
    events = read_events(source, ANY)
    assert ids(events) == [("a", "x")]
    assert [reason for _, _, reason in reasons(events)] == ["the item has a control character"]


def test_integers_that_a_spreadsheet_shortened_are_damaged(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", "user,item\na,1\na,2\na,3\na,1.23457E+12\n")
    assert reasons(read_events(path, ANY)) == [(5, "item", "the item is not an integer, unlike most others")]


def test_a_fraction_among_texts_is_an_id_like_any_other(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", "user,item\na,A-1\na,7\na,8\na,3.5\na,B-2\n")
    assert read_events(path, DataConfig()).frame["item"].to_list() == ["A-1", "7", "8", "3.5", "B-2"]


def test_recbole_names_are_read_whatever_the_case_of_the_ending(tmp_path: Path) -> None:
    text = "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t1600000005\n"
    for name in ("a.inter", "a.INTER", "A.Inter"):
        assert ids(read_events(file(tmp_path / name, text), DataConfig())) == [("1", "2")]
    path = file(tmp_path / "a.inter.gz", gzip.compress(text.encode()))
    assert ids(read_events(path, DataConfig())) == [("1", "2")]


def test_parquet_files_are_taken_by_their_very_name(tmp_path: Path) -> None:
    for name in ("part[1].parquet", "a*.parquet", "user=7/a.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame({"user": ["a"], "item": [name]}).write_parquet(path)
        assert ids(read_events(path, DataConfig())) == [("a", name)]


def test_json_columns_are_found_after_any_number_of_bad_lines(tmp_path: Path) -> None:
    path = file(tmp_path / "a.jsonl", "[]\n" * 1001 + '{"user": 1, "item": 2, "time": 1600000005}\n')
    events = read_events(path, ANY)
    assert ids(events) == [("1", "2")]
    assert events.rejects["line"].to_list() == list(range(1, 1002))


@pytest.mark.parametrize("text", ["{}\n", "[1]\n{}\n", '{"us', "\n"])
def test_json_lines_without_any_key_are_no_data(text: str, tmp_path: Path) -> None:
    path = file(tmp_path / "b.jsonl", text)
    good = file(tmp_path / "a.jsonl", '{"user": 1, "item": 2, "time": 5}\n')
    for source in (path, [good, path]):
        with pytest.raises(DataError, match=r"b\.jsonl: no line is a non-empty JSON object"):
            read_events(source, ANY)


def test_half_a_character_in_json_is_a_bad_row_wherever_it_is(tmp_path: Path) -> None:
    path = file(
        tmp_path / "a.jsonl",
        '{"user": "a", "item": "x", "time": 1600000005}\n'
        '{"user": "a", "item": "y", "time": "\\ud800"}\n'
        '{"user": "a", "item": "z", "time": 1600000006, "more": "\\ud800"}\n',
    )
    events = read_events(path, ANY)
    assert ids(events) == [("a", "x"), ("a", "z")]
    assert reasons(events) == [(2, "time", "the time contains an invalid character (a lone surrogate)")]
    path = file(tmp_path / "b.jsonl", '{"\\ud800": "a", "item": "x"}\n')
    with pytest.raises(DataError, match="no column is named like the user") as refused:
        read_events(path, ANY)
    str(refused.value).encode()


def test_a_json_key_given_twice_is_a_bad_row(tmp_path: Path) -> None:
    path = file(tmp_path / "a.jsonl", '{"user": 1, "item": 2}\n{"user": 1, "user": 2, "item": 3}\n')
    events = read_events(path, ANY)
    assert ids(events) == [("1", "2")]
    assert reasons(events) == [(2, "", "not JSON: the key 'user' occurs twice")]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_cut_in_a_character_or_a_quote_is_noticed(ending: str, tmp_path: Path) -> None:
    texts = {
        "csv": 'user,item,time\nhéloïse,"日,本",2020-01-01T10:00Z\nb,"say ""y""",2020-01-02T10:00Z\n',
        "jsonl": '{"user": "é", "item": "日", "time": 1.5}\n{"user": "b", "item": 7, "time": 2.5}\n',
    }
    whole = texts[ending].encode()
    path = tmp_path / f"a.{ending}"
    for size in range(len(whole)):
        try:
            events = read_events(file(path, whole[:size]), ANY)
        except DataError:
            continue
        at_line_end = whole[:size].endswith(b"\n")
        noticed = events.rejects.height or any(f"last line of {path.name}" in note for note in events.warnings)
        assert noticed or at_line_end, whole[:size]
        assert events.read == events.frame.height + events.rejects.height


def test_frames_of_every_id_type_give_text_and_remember_integers() -> None:
    rows = {
        (True, ("1", "2")): [
            pl.Series([1, 2], dtype=pl.UInt64),
            pl.Series([1, 2], dtype=pl.Int8),
            pd.Series(pd.array([1, 2], dtype="Int64")),
            pd.Series(pd.Categorical([1, 2])),
        ],
        (False, ("1", "2")): [
            pl.Series(["1", "2"], dtype=pl.Enum(["1", "2"])),
            pl.Series([1.0, 2.0]),
            pd.Series(["1", "2"], dtype="category"),
            pd.Series(["1", "2"], dtype=object),
            pd.Series(["1", "2"], dtype="string"),
        ],
        (False, (str(uuid.UUID(int=1)), str(uuid.UUID(int=2)))): [
            pl.Series([uuid.UUID(int=1), uuid.UUID(int=2)], dtype=pl.Object)
        ],
    }
    for (integers, expected), columns in rows.items():
        for column in columns:
            frame = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
            events = read_events(frame({"user": column, "item": column}), DataConfig())
            assert tuple(events.frame["user"]) == tuple(events.frame["item"]) == expected, column.dtype
            assert (events.integer_users, events.integer_items) == (integers, integers), column.dtype


def test_floats_too_large_to_hold_every_integer_are_no_ids() -> None:
    ids_above = pd.DataFrame({"user": [1.0, None, 2.0**53, 2.0**60, float("inf"), 1e300], "item": list("abcdef")})
    events = read_events(ids_above, ANY)
    assert ids(events) == [("1", "a")]
    rounded = "the user is a float too large to be exact. Write ids as integers or text."
    assert reasons(events) == [(2, "user", "the user is empty"), *((row, "user", rounded) for row in (3, 4, 5, 6))]


def test_pandas_without_pyarrow_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(frame: object) -> None:
        raise ImportError("pyarrow is required")

    monkeypatch.setattr(pl, "from_pandas", missing)
    with pytest.raises(DataError, match="needs pyarrow"):
        read_events(pd.DataFrame({"user": ["a"], "item": ["x"]}), ANY)


def test_the_public_function_refuses_bad_rows_and_keeps_integer_ids(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", HEADER + GOOD + "b\n")
    with pytest.raises(DataError, match=r"1 of 2 rows are bad.*\n  a\.csv:3: too few fields: 1 instead of 3"):
        sasrec.prepare(path, output=tmp_path / "out")
    assert pl.read_csv(tmp_path / "out" / "rejects.csv").height == 1
    with pytest.raises(SasrecError, match="time_unit"):
        sasrec.prepare(path, time_unit="fortnight")
    frame = pl.DataFrame(
        {"user": [7, 7, 8], "item": ["x", "y", "x"], "time": [date(2020, 1, n) for n in (1, 2, 3)]}
    )
    assert sasrec.prepare(frame).num_events == 3


def test_a_parquet_file_that_polars_panics_on_is_an_error_for_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds")

    monkeypatch.setattr(pl, "scan_parquet", panic)
    with pytest.raises(DataError, match=r"a\.parquet is not a valid Parquet file: index out of bounds"):
        read_events(file(tmp_path / "a.parquet", b"PAR1"), ANY)


@pytest.mark.parametrize("ending", ["csv", "tsv.gz", "jsonl", "ndjson.gz", "parquet"])
def test_files_split_at_any_row_give_one_table(ending: str, tmp_path: Path) -> None:
    times = ["2020-01-01", "5", "2020-01-01T10:00+02:00", "2020-01-02"]
    whole = pl.DataFrame({"user": ["007", "7", "é", "7"], "item": ["1", "2", "3.5", "4"], "time": times})

    def written(part: pl.DataFrame, name: str) -> Path:
        if ending == "parquet":
            part.write_parquet(tmp_path / f"{name}.parquet")
            return tmp_path / f"{name}.parquet"
        text = (
            part.write_ndjson() if "json" in ending else part.write_csv(separator="\t" if "tsv" in ending else ",")
        )
        data = gzip.compress(text.encode()) if ending.endswith("gz") else text.encode()
        return file(tmp_path / f"{name}.{ending}", data)

    expected = read_events(written(whole, "whole"), ANY)
    assert ids(expected) == [("007", "1"), ("7", "4")]
    for at in range(1, 4):
        parts = [written(whole.head(at), "first"), written(whole.tail(-at), "second")]
        events = read_events(parts, ANY)
        assert events.frame.equals(expected.frame)
        assert events.time_unit == expected.time_unit == "iso"
        assert events.rejects["reason"].to_list() == expected.rejects["reason"].to_list()


def test_empty_ids_do_not_hide_that_the_others_are_integers(tmp_path: Path) -> None:
    path = file(tmp_path / "a.csv", "user,item\na,1\na,2\na,3.5\na,\na,\na,\n")
    assert [line for line, _, _ in reasons(read_events(path, ANY))] == [4, 5, 6, 7]
