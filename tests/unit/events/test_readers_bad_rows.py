"""Every kind of bad row, in every format that can hold it: named by file, line and reason, the rest kept."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.events import read_events

GOOD = [("1", "10", "1000000000"), ("1", "11", "1000000100"), ("2", "10", "1000000200"), ("2", "12", "1000000300")]
BAD_AT = 3  # the bad record is the third


def delimited(separator: str, pack: Callable[[bytes], bytes] = lambda data: data) -> Callable[[list, Path], Path]:
    def write(records: list, path: Path) -> Path:
        lines = [("user", "item", "time"), *records]
        raw = [line if isinstance(line, bytes) else separator.join(line).encode() for line in lines]
        raw = [line.replace(b"<sep>", separator.encode()) for line in raw]
        path.write_bytes(pack(b"\n".join(raw) + b"\n"))
        return path

    return write


def json_lines(records: list, path: Path) -> Path:
    raw = [
        r if isinstance(r, bytes) else json.dumps(dict(zip(("user", "item", "time"), r, strict=True))).encode()
        for r in records
    ]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def parquet(records: list, path: Path) -> Path:
    pl.DataFrame(records, schema=dict.fromkeys(("user", "item", "time"), pl.String), orient="row").write_parquet(
        path
    )
    return path


FORMATS = {
    "csv": (delimited(","), 1),
    "tsv": (delimited("\t"), 1),
    "csv.gz": (delimited(",", gzip.compress), 1),
    "jsonl": (json_lines, 0),
    "jsonl.gz": (
        lambda records, path: (path.write_bytes(gzip.compress(json_lines(records, path).read_bytes())), path)[1],
        0,
    ),
    "parquet": (parquet, 0),
}
TEXT = ["csv", "tsv", "csv.gz"]
JSON = ["jsonl", "jsonl.gz"]
EVERY = list(FORMATS)

KINDS: list[tuple[str, object, str, list[str]]] = [
    ("too few fields", (b"1<sep>13"), "too few fields: 2 instead of 3", TEXT),
    ("too many fields", (b"1<sep>13<sep>1000000150<sep>7"), "too many fields: 4 instead of 3", TEXT),
    ("too few fields, quoted", (b'1<sep>"13"'), "too few fields: 2 instead of 3", TEXT),
    ("too many fields, quoted", (b'1<sep>"13"<sep>1000000150<sep>7'), "too many fields: 4 instead of 3", TEXT),
    ("empty user", ("", "13", "1000000150"), "the user is empty", EVERY),
    ("blank item", ("1", "  ", "1000000150"), "the item is empty", EVERY),
    ("null user", (None, "13", "1000000150"), "the user is empty", ["parquet"]),
    ("null time", ("1", "13", None), "the time is empty", ["parquet"]),
    ("empty time", ("1", "13", ""), "the time is empty", EVERY),
    ("time that is none", ("1", "13", "yesterday"), "neither a number nor an ISO 8601 date", EVERY),
    ("NaN time", ("1", "13", "nan"), "the time is not finite", EVERY),
    ("infinite time", ("1", "13", "-inf"), "the time is not finite", EVERY),
    ("time beyond the calendar", ("1", "13", "99999999999999999999"), "out of range for s", EVERY),
    ("milliseconds among seconds", ("1", "13", "1000000150000"), "another unit than s", EVERY),
    ("date among numbers", ("1", "13", "2001-09-09"), "a date, but most others are numbers", EVERY),
    ("year 0", ("1", "13", "0000-01-01"), "most others are numbers", EVERY),
    ("impossible offset", ("1", "13", "2001-09-09T00:00+99:99"), "neither a number nor an ISO 8601 date", EVERY),
    ("impossible date", ("1", "13", "2001-13-45"), "does not exist", EVERY),
    ("control character", ("1", "1\x003", "1000000150"), "the item has a control character", EVERY),
    ("long id", ("u" * 513, "13", "1000000150"), "longer than 512 characters", EVERY),
    (
        "fraction among integers",
        ("1", "3.5", "1000000150"),
        "the item is not an integer, unlike most others",
        EVERY,
    ),
    ("invalid UTF-8", b"1<sep>\xff\xfe<sep>1000000150", "not valid UTF-8", TEXT),
    ("invalid UTF-8", b'{"user": "1", "item": "\xff"}', "not valid UTF-8", JSON),
    ("unclosed quote", b'1<sep>"13<sep>1000000150', "a quote is not closed", TEXT),
    ("text after a quote", b'1<sep>"1"3<sep>1000000150', "text after a closing quote", TEXT),
    ("blank line", b"  ", "the line is blank", [*TEXT, *JSON]),
    ("repeated header", b"user<sep>item<sep>time", "the header is repeated", TEXT),
    ("not JSON", b'{"user": "1", "item": ', "not JSON", JSON),
    ("no object", b'["1", "13", 1000000150]', "not a JSON object", JSON),
    ("missing key", b'{"user": "1", "time": 1000000150}', "the key is missing", JSON),
    ("missing time", b'{"user": "1", "item": "13"}', "the key is missing", JSON),
    ("half a character", b'{"user": "\\ud800", "item": "13", "time": 1000000150}', "invalid character", JSON),
    ("boolean id", b'{"user": true, "item": "13", "time": 1000000150}', "neither text nor an integer", JSON),
    ("fractional id", b'{"user": "1", "item": 3.5, "time": 1000000150}', "neither text nor an integer", JSON),
    ("list as id", b'{"user": "1", "item": ["13"], "time": 1000000150}', "neither text nor an integer", JSON),
    ("null as id", b'{"user": null, "item": "13", "time": 1000000150}', "the id is missing", JSON),
    ("null as time", b'{"user": "1", "item": "13", "time": null}', "neither a number nor text", JSON),
    ("NaN constant", b'{"user": "1", "item": "13", "time": NaN}', "not a JSON number", JSON),
]
CASES = [
    pytest.param(ending, bad, reason, id=f"{kind}-{ending}")
    for kind, bad, reason, endings in KINDS
    for ending in endings
]


def test_there_are_at_least_sixteen_kinds_for_every_text_format_and_ten_for_parquet() -> None:
    for ending in FORMATS:
        kinds = {kind for kind, _, _, endings in KINDS if ending in endings}
        assert len(kinds) >= (10 if ending == "parquet" else 16), ending


@pytest.mark.parametrize(("ending", "bad", "reason"), CASES)
def test_a_bad_row_is_named_and_the_others_are_kept(ending: str, bad: object, reason: str, tmp_path: Path) -> None:
    write, header_lines = FORMATS[ending]
    path = write([*GOOD[: BAD_AT - 1], bad, *GOOD[BAD_AT - 1 :]], tmp_path / f"events.{ending}")
    line = BAD_AT + header_lines
    rejects_path = tmp_path / "rejects.csv"

    with pytest.raises(DataError) as refused:
        read_events(path, DataConfig(), rejects_path)
    assert f"1 of {len(GOOD) + 1} rows" in str(refused.value)
    assert f"events.{ending}:{line}" in str(refused.value)
    assert reason in str(refused.value)
    assert "max_rejects=1" in str(refused.value)

    events = read_events(path, DataConfig(max_rejects=1), rejects_path)
    assert events.rejects.select("file", "line").rows() == [(f"events.{ending}", line)]
    assert reason in events.rejects["reason"][0]
    if isinstance(bad, tuple):
        faulty = {"user": 0, "item": 1, "time": 2}[events.rejects["column"][0]]
        assert events.rejects["raw"][0] == (bad[faulty] or "").strip()[:200]
    assert events.frame.select("user", "item").rows() == [row[:2] for row in GOOD]
    assert events.frame["time"].to_list() == [int(row[2]) * 10**6 for row in GOOD]
    assert events.read == events.frame.height + events.rejects.height == len(GOOD) + 1
    assert pl.read_csv(rejects_path, infer_schema=False).height == 1


def test_a_number_among_dates_is_the_minority_too(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user,item,time\na,x,2020-01-01\na,y,1577836800\na,z,2020-01-02T00:00:00Z\n")
    with pytest.raises(DataError, match=r"events\.csv:3 time: the time is a number, but most others are dates"):
        read_events(path, DataConfig())
    with pytest.raises(DataError, match="Use time_unit='auto'"):
        read_events(path, DataConfig(time_unit="s"))


def test_dates_outside_the_calendar_are_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    for bad in ("0000-01-01", "0001-01-01T00:00+01:00"):
        path.write_text(f"user,item,time\na,x,2020-01-01\na,y,{bad}\n")
        with pytest.raises(DataError, match=r"events\.csv:3 time: the time is out of range"):
            read_events(path, DataConfig())


def test_only_the_first_five_are_shown_and_any_number_can_be_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user,item\n" + "a\n" * 7 + "a,x\n")
    with pytest.raises(DataError, match="7 of 8 rows") as refused:
        read_events(path, DataConfig(max_rejects=6))
    assert str(refused.value).count("too few") == 5
    assert read_events(path, DataConfig(max_rejects=-1)).frame.height == 1
    path.write_text("user,item\n" + "a\n" * 7)
    with pytest.raises(DataError, match="no usable row among 7"):
        read_events(path, DataConfig(max_rejects=-1))


@pytest.mark.parametrize(
    "ending", ["csv", pytest.param("tsv", marks=pytest.mark.slow), "jsonl", "csv.gz", "jsonl.gz", "parquet"]
)
def test_a_file_cut_anywhere_is_noticed(ending: str, tmp_path: Path) -> None:
    write, header_lines = FORMATS[ending]
    whole = write(GOOD, tmp_path / f"whole.{ending}").read_bytes()
    cut = tmp_path / f"cut.{ending}"
    unnoticed = []
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        try:
            events = read_events(cut, DataConfig(max_rejects=-1))
        except DataError:
            continue
        if not events.rejects.height and not any("no line end" in warning for warning in events.warnings):
            unnoticed.append(size)
    # A text file that ends where a line ends is a whole file: nothing in it says otherwise.
    line_ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert unnoticed == ([] if ending in {"csv.gz", "jsonl.gz", "parquet"} else line_ends[header_lines:-1])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("blank", [1, 9])
def test_the_remedy_for_blank_lines_works(blank: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    FORMATS[ending][0]([GOOD[0], *[b" "] * blank, *GOOD[1:]], path)
    with pytest.raises(DataError, match=rf"Remove the blank lines, or skip them with max_rejects={blank} "):
        read_events(path, DataConfig())
    assert read_events(path, DataConfig(max_rejects=blank)).coded.height == len(GOOD)


def test_blank_lines_do_not_hide_that_most_other_rows_are_bad(tmp_path: Path) -> None:
    path = FORMATS["csv"][0]([GOOD[0], *[b" "] * 9, *[(*row[:2], "soon") for row in GOOD[1:]]], tmp_path / "a.csv")
    with pytest.raises(DataError, match="Correct the file, or how it is read"):
        read_events(path, DataConfig())
