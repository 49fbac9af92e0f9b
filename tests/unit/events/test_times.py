"""Times in every form a file or frame can hold them, up to the ends of the calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.errors import ConfigError, DataError
from sasrec.events.events import Events, read_events

ANY = DataConfig(max_rejects=-1)
NO_ZONE = "dates without a time zone are read as UTC"


def read(times: object, **options: object) -> Events:
    series = times if isinstance(times, pl.Series) else pl.Series(times)
    frame = pl.DataFrame({"user": "a", "item": [f"i{n}" for n in range(len(series))], "time": series})
    return read_events(frame, DataConfig(max_rejects=-1, **options))


def microseconds(events: Events) -> list[int]:
    return events.frame["time"].to_list()


def reasons(events: Events) -> list[tuple[int, str, str]]:
    return events.rejects.select("line", "reason", "raw").rows()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_datetimes_outside_the_calendar_are_bad_rows(unit: str, zone: str | None) -> None:
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    events = read(
        pl.Series([5 * per_second, 2**62, -(2**62), None]).cast(pl.Datetime(unit, zone)), time_unit="iso"
    )
    assert microseconds(events)[0] == 5 * 10**6
    assert events.time_unit == "iso"
    if unit == "ns":
        assert microseconds(events)[1:] == [2**62 // 1000, -(2**62) // 1000]
    else:
        assert [line for line, _, _ in reasons(events)] == [2, 3, 4]
        assert [("range" in reason) for _, reason, _ in reasons(events)] == [True, True, False]
        assert all(raw for _, reason, raw in reasons(events) if "range" in reason)


def test_days_outside_the_calendar_are_bad_rows() -> None:
    events = read(pl.Series([5, 2**31 - 1, -(2**31)], dtype=pl.Int32).cast(pl.Date), time_unit="iso")
    assert microseconds(events) == [5 * 86400 * 10**6]
    assert [line for line, _, _ in reasons(events)] == [2, 3]


def test_the_first_and_last_moments_of_the_calendar_are_times() -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    texts = [first.isoformat(), last.isoformat()]
    expected = [-62_135_596_800_000_000, 253_402_300_799_999_999]
    for column in (pl.Series([first, last]), texts):
        events = read(column, time_unit="iso")
        assert microseconds(events) == expected
        assert not events.rejects.height
    assert microseconds(read([-62_135_596_800, 253_402_300_799], time_unit="s")) == [
        -62_135_596_800 * 10**6,
        253_402_300_799 * 10**6,
    ]
    events = read([-62_135_596_801, 5, 253_402_300_800], time_unit="s")
    assert microseconds(events) == [5 * 10**6]
    assert [line for line, _, _ in reasons(events)] == [1, 3]


def test_floats_that_are_not_finite_are_named_as_such() -> None:
    events = read([1.0, float("inf"), float("-inf"), float("nan"), None, 1e300, 2.5], time_unit="s")
    assert microseconds(events) == [10**6, 2_500_000]
    found = reasons(events)
    assert [reason for _, reason, _ in found[:4]] == ["the time is not finite"] * 3 + ["the time is empty"]
    assert [raw for _, _, raw in found[:4]] == ["inf", "-inf", "NaN", ""]
    assert "out of range" in found[4][1]
    assert float(found[4][2]) == 1e300


def test_dates_without_a_zone_are_reported_in_every_format() -> None:
    moment = datetime(2020, 1, 1, 12)
    for column in ([moment], [date(2020, 1, 1)], ["2020-01-01"], ["2020-01-01T12:00"]):
        assert NO_ZONE in read(column).warnings, column
    for column in ([moment.replace(tzinfo=UTC)], ["2020-01-01T12:00Z"], [1_600_000_000]):
        assert NO_ZONE not in read(column).warnings, column


def test_digits_of_other_scripts_are_no_digits() -> None:
    arabic = ["2020-01-01T00:00+0\u0663:00", "2020-01-01T00:00+00:\u0663\u0663", "\u0662020-01-01"]
    events = read(["2020-01-01T00:00Z", *arabic])
    assert microseconds(events) == [1_577_836_800_000_000]
    assert [(reason, raw) for _, reason, raw in reasons(events)] == [
        ("the time is neither a number nor an ISO 8601 date", text) for text in arabic
    ]
    assert microseconds(read(["1600000005", "\u0663"])) == [1_600_000_005_000_000]


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("2020-02-29", True),
        ("2021-02-29", False),
        ("2020-01-01T24:00", False),
        ("2020-01-01T23:59:61", False),
        ("2020-01-01T12:60", False),
        ("2020-01-01T12:00+24:00", False),
        ("2020-01-01T12:00+23:59", True),
        ("2020-01-01 12:00:00.1 +02:00", True),
        ("2020-01-01T12:00:00.1234567890", False),
        ("2020-1-1", False),
        ("01/02/2020", False),
        ("20200101T120000", False),
        ("12:00", False),
        ("2020-01-01T12:00\n", True),
        ("2020-01-01\n2020-01-01", False),
    ],
)
def test_a_text_is_a_date_that_exists_or_a_bad_row(text: str, taken: bool) -> None:
    events = read(["2020-01-01", text])
    assert events.frame.height == 1 + taken
    assert events.rejects.height == 1 - taken


def test_numbers_are_read_in_one_unit_over_all_files_and_the_minority_kind_is_refused(tmp_path: Path) -> None:
    parts = []
    for name, rows in (
        ("a", "u,i,1600000000000\nu,j,1600000000005\n"),
        ("b", "u,k,1600000000001\nu,l,2020-01-01\n"),
    ):
        parts.append(tmp_path / f"{name}.csv")
        parts[-1].write_text("user,item,time\n" + rows)
    events = read_events(parts, ANY)
    assert events.time_unit == "ms"
    assert microseconds(events) == [1_600_000_000_000_000, 1_600_000_000_005_000, 1_600_000_000_001_000]
    assert events.rejects.select("file", "line", "reason", "raw").rows() == [
        ("b.csv", 3, "the time is a date, but most others are numbers", "2020-01-01")
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_number_among_dates_is_refused_in_every_format(ending: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": "a", "item": ["x", "y", "z"], "time": ["2020-01-01", "1577836800", "2020-01-02T00:00:00Z"]}
    )
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        frame.write_parquet(path)
    elif ending == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="," if ending == "csv" else "\t")
    line = 3 if ending in ("csv", "tsv") else 2
    with pytest.raises(
        DataError, match=rf"a\.{ending}:{line} time: the time is a number, but most others are dates"
    ):
        read_events(path, DataConfig())
    events = read_events(path, ANY)
    assert events.frame["item"].to_list() == ["x", "z"]
    assert events.rejects["raw"].to_list() == ["1577836800"]


@pytest.mark.parametrize(("unit", "size"), [("s", 10**6), ("ms", 10**3), ("us", 1)])
def test_an_explicit_unit_holds_for_integers_and_fractions_alike(unit: str, size: int) -> None:
    events = read(["7", "7.5", "-7", "1e1", " 8 "], time_unit=unit)
    assert microseconds(events) == [7 * size, round(7.5 * size), -7 * size, 10 * size, 8 * size]
    assert events.time_unit == unit


def test_nanoseconds_keep_their_microseconds_exactly() -> None:
    assert microseconds(read([1_600_000_000_123_456_789, 1_600_000_000_123_457_000])) == [
        1_600_000_000_123_456,
        1_600_000_000_123_457,
    ]


def test_rows_refused_for_their_ids_have_no_say_in_what_the_times_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time\nu,i,1600000000\n,i,2020-01-01\nu,,2020-01-02\n")
    events = read_events(path, ANY)
    assert events.frame.rows() == [("u", "i", 1_600_000_000_000_000)]
    assert events.rejects.select("line", "column").rows() == [(3, "user"), (4, "item")]


def test_a_format_that_is_given_is_taken_and_nothing_else() -> None:
    frame = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"], "time": ["12/25/1985", "12/24/1985"]})
    events = read_events(frame, DataConfig(time_format="%m/%d/%Y"))
    assert [row[-1] for row in events.frame.iter_rows()] == [504_316_800_000_000, 504_230_400_000_000]
    recent = frame.with_columns(time=pl.Series(["9/14/2020", "9/15/2020"]))
    with pytest.raises(DataError, match="the time does not have the format %Y-%d-%m"):
        read_events(recent, DataConfig(time_format="%Y-%d-%m"))
    with pytest.raises(ConfigError, match="time_format=%Y is for dates, and time_unit=ms for numbers"):
        RunConfig().replace(time_format="%Y", time_unit="ms")
    with pytest.raises(
        ConfigError, match="columns='user,item' names this role, so `time_column` would do nothing"
    ):
        RunConfig().replace(columns="user,item", time_column="t")
