"""Which column is the user, the item and the time: read right, or refused with the setting that says it."""

from __future__ import annotations

import random
import re
from itertools import permutations
from pathlib import Path

import polars as pl
import pytest

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.errors import ConfigError, DataError
from sasrec.events.events import Events, read_events

START = 1_600_000_000
NAMES = ("user", "item", "rating", "time")
Row = tuple[str, str, str, str]


def sessions() -> list[Row]:
    """Rows grouped by user in order of time: everybody comes for some minutes, and again a month later."""
    chance = random.Random(3)
    starts = chance.sample(range(0, 10**7, 1000), 40)
    return [
        (
            str(user + 100),
            str(item + 500),
            str(1 + item % 5),
            str(START + start + 20 * place + 2_600_000 * (place > 5)),
        )
        for user, start in enumerate(starts)
        for place, item in enumerate(chance.sample(range(25), 12))
    ]


def read(path: Path, rows: list[tuple[str, ...]], header: str | None = None, **options: object) -> Events:
    lines = [*([header] if header else []), *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return read_events(path, DataConfig(**options))


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("sorted_by", ["user", "item", "time"])
def test_any_order_of_columns_and_rows_is_read_right_or_refused(
    order: tuple[int, ...], sorted_by: str, tmp_path: Path
) -> None:
    rows = sorted(sessions(), key=lambda row: (row[NAMES.index(sorted_by)], row[3]))
    mixed = [tuple(row[place] for place in order) for row in rows]
    header = ",".join(NAMES[place] for place in order)
    expected = [(user, item, int(time) * 10**6) for user, item, _, time in rows]
    assert read(tmp_path / "a.csv", mixed, header).frame.rows() == expected
    columns = ",".join("-" if NAMES[place] == "rating" else NAMES[place] for place in order)
    assert read(tmp_path / "b.csv", mixed, columns=columns).frame.rows() == expected
    if sorted_by == "user":
        assert read(tmp_path / "c.csv", mixed).frame.rows() == expected
    else:
        with pytest.raises(DataError, match=r"the content does not show which column is which.*columns="):
            read(tmp_path / "c.csv", mixed)


def test_columns_of_a_file_without_a_header_are_named_by_number(tmp_path: Path) -> None:
    rows = [("0", "7", str(START)), ("1", "7", str(START + 1))]
    expected = [("7", "0", START * 10**6), ("7", "1", (START + 1) * 10**6)]
    named = {"user_column": "1", "item_column": "0"}
    assert read(tmp_path / "a.csv", rows, **named).frame.rows() == expected
    assert read(tmp_path / "a.csv", rows, **named, time_column="2").frame.rows() == expected
    assert read(tmp_path / "a.csv", rows, columns="0:item,1:user,2:time").frame.rows() == expected
    assert read(tmp_path / "a.csv", rows, **named, time_column="none").time_unit is None


@pytest.mark.parametrize(
    "name", ["invoice_date", "TRANSACTION_DT", "clickTime", "eventdate", "t_dat", "unix_ts", "时间", "Datum"]
)
def test_a_time_is_known_by_a_part_of_its_name(name: str, tmp_path: Path) -> None:
    events = read(tmp_path / "a.csv", [("a", "x", "2020-09-14")], f"user,item,{name}")
    assert events.time_unit == "iso"


def test_a_column_that_may_be_the_time_is_never_passed_over(tmp_path: Path) -> None:
    rows = [("a", "x", "2020-09-14", str(START * 1000 + place)) for place in range(3)]
    with pytest.raises(DataError, match=r"the column seen looks like times .*time_column='seen'"):
        read(tmp_path / "a.csv", [row[:3] for row in rows], "user,item,seen")
    with pytest.raises(DataError, match=r"could be the time \(date, time_ms\).*time_column='time_ms'"):
        read(tmp_path / "b.csv", rows, "user,item,date,time_ms")
    assert read(tmp_path / "b.csv", rows, "user,item,date,time_ms", time_column="none").time_unit is None


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["20200914", "20201231"], "yyyymmdd"),
        (["20200914004552", "20200914004553"], "yyyymmddhhmmss"),
        (["44088", "44089.5"], "excel"),
    ],
)
def test_calendar_numbers_are_read_as_such_and_said(texts: list[str], unit: str, tmp_path: Path) -> None:
    events = read(tmp_path / "a.csv", [("a", "x", text) for text in texts], "user,item,time")
    assert events.time_unit == unit
    assert events.frame["time"].is_sorted()
    assert any("times are read as" in note for note in events.warnings)


def test_months_and_days_have_no_year_unless_their_format_is_given(tmp_path: Path) -> None:
    rows = [("a", "x", "1231"), ("a", "y", "104")]
    with pytest.raises(DataError, match=r"months and days \(mmdd\): add the year, or use time_format='%m%d'"):
        read(tmp_path / "a.csv", rows, "user,item,date")
    days = read(tmp_path / "a.csv", rows, "user,item,date", time_format="%m%d").frame["time"]
    assert days.cast(pl.Datetime("us")).dt.to_string("%m-%d").to_list() == ["12-31", "01-04"]


@pytest.mark.parametrize("odd", ["0", "-1", str(START * 1000), "9999999999"])
def test_times_that_cannot_be_are_bad_rows_by_name(odd: str, tmp_path: Path) -> None:
    rows = [("a", "x", str(START + place)) for place in range(5)]
    with pytest.raises(
        DataError, match=r"1 of 6 rows are bad:\n  a\.csv:7 time: the time (is before|seems|is out of range)"
    ):
        read(tmp_path / "a.csv", [*rows, ("a", "y", odd)], "user,item,time")
    assert read(tmp_path / "a.csv", [("a", "x", "5"), ("a", "y", "7")], "user,item,time", time_unit="s").read == 2
    with pytest.raises(DataError, match=r"would be around 1970-01-01.*time_unit='s'"):
        read(tmp_path / "a.csv", [("a", "x", "5"), ("a", "y", "7")], "user,item,time")


def test_a_usual_format_of_dates_is_recognised_if_only_one_fits(tmp_path: Path) -> None:
    rows = [("a", "x", "9/14/2020"), ("a", "y", "10/2/2020")]
    events = read(tmp_path / "a.csv", rows, "user,item,time")
    assert any("%m/%d/%Y" in note for note in events.warnings)
    rows = [("a", "x", "9/4/2020"), ("a", "y", "10/2/2020")]
    with pytest.raises(DataError, match="time_format='%m/%d/%Y' or time_format='%d/%m/%Y'"):
        read(tmp_path / "a.csv", rows, "user,item,time")
    days = read(tmp_path / "a.csv", rows, "user,item,time", time_format="%d/%m/%Y").frame["time"]
    assert days[0] > days[1]


@pytest.mark.parametrize("value", ["NA", "n/a", "NULL", "\\N", "none", "NaN", ""])
@pytest.mark.parametrize("role", ["user", "item"])
def test_values_that_stand_for_none_are_missing_ids(value: str, role: str, tmp_path: Path) -> None:
    row = (value, "y", str(START)) if role == "user" else ("b", value, str(START))
    rows = [("a", "x", str(START)), row]
    with pytest.raises(DataError, match=rf"a\.csv:3 {role}: the {role} is (missing|empty)"):
        read(tmp_path / "a.csv", rows, "user,item,time")
    kept = read(tmp_path / "a.csv", rows, "user,item,time", missing="?", max_rejects=1).frame.height
    assert kept == (2 if value else 1)


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        ("user,item,ts", [40_000 + n for n in range(12)], r"days of Excel or a counter.*time_column='ts'"),
        ("user,item,date", [40_000 + n for n in range(12)], r"days of Excel or a counter.*time_column='date'"),
        ("user,item,event_day", [101 + n for n in range(12)], r"event_day says time.*time_column='event_day'"),
        ("user,item,year", [1990 + n for n in range(12)], r"year says time.*time_column='none'"),
        ("user,item,time", [101 + n for n in range(12)], r"would be around 1970.*time_column='none'"),
    ],
)
def test_numbers_that_may_be_a_counter_are_no_times(
    header: str, values: list[int], message: str, tmp_path: Path
) -> None:
    rows = [("a", "x", str(value)) for value in values]
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv", rows, header)


def test_days_of_excel_are_read_where_the_name_says_date_and_days_repeat(tmp_path: Path) -> None:
    rows = [("a", "x", str(44_000 + n // 2)) for n in range(12)]
    assert read(tmp_path / "a.csv", rows, "user,item,date").time_unit == "excel"


def test_durations_are_noted_and_never_times(tmp_path: Path) -> None:
    events = read(tmp_path / "a.csv", [("a", "x", str(n)) for n in range(12)], "user,item,watch_time")
    assert events.time_unit is None
    assert any("no time is read from watch_time" in note for note in events.warnings)


def test_a_time_that_belongs_to_the_item_or_lacks_its_time_of_day_is_refused(tmp_path: Path) -> None:
    rows = [(f"u{n}", f"i{n % 3}", f"2020-01-0{1 + n % 3}") for n in range(12)]
    with pytest.raises(DataError, match="release_date has one time for each item"):
        read(tmp_path / "a.csv", rows, "user,item,release_date")
    rows = [("a", f"i{n}", "2020-01-01", f"12:{n:02d}") for n in range(12)]
    with pytest.raises(DataError, match=r"date has dates, and time may have times of day.*Join both"):
        read(tmp_path / "a.csv", rows, "user,item,date,time")


def test_a_finer_column_under_another_name_is_not_passed_over(tmp_path: Path) -> None:
    rows = [("a", f"i{n}", "2020-01-01", str(START + n)) for n in range(12)]
    with pytest.raises(DataError, match=r"more than one column could be the time \(date, seen\)"):
        read(tmp_path / "a.csv", rows, "user,item,date,seen")


@pytest.mark.parametrize("odd", ["0", "0001-01-01", "2020-09-14"])
def test_one_odd_time_among_dates_in_a_usual_format_is_a_bad_row(odd: str, tmp_path: Path) -> None:
    rows = [("a", f"i{n}", f"{13 + n}.09.2020") for n in range(12)]
    with pytest.raises(
        DataError, match=r"1 of 13 rows are bad:\n  a\.csv:14 time: the time does not have the format"
    ):
        read(tmp_path / "a.csv", [*rows, ("a", "x", odd)], "user,item,time")


def test_times_rounded_by_a_spreadsheet_are_refused(tmp_path: Path) -> None:
    rows = [("a", f"i{n}", f"{START + n * 10_000:.4E}") for n in range(12)]
    with pytest.raises(DataError, match="are rounded, so their order is lost"):
        read(tmp_path / "a.csv", rows, "user,item,time")
    rows = [("a", f"i{n}", f"{START + n * 10_000:.9E}") for n in range(12)]
    assert read(tmp_path / "a.csv", rows, "user,item,time").frame["time"][1] == (START + 10_000) * 10**6


@pytest.mark.parametrize(
    "ids", [["7", "8", "7.0", "9.0", "8.0"], ["1.2E9", "1.3E9"], ["1,20000E+09"], ["\u200b"], ["<NA>"], ["#N/A"]]
)
def test_ids_that_a_program_spoilt_are_refused(ids: list[str], tmp_path: Path) -> None:
    rows = [(text, "x", str(START)) for text in ids]
    with pytest.raises(DataError, match="rows are bad"):
        read(tmp_path / "a.tsv", [*rows, ("other", "x", str(START))], "user,item,time")


def test_pairs_without_a_time_leave_the_time_to_be_found(tmp_path: Path) -> None:
    rows = [("u", "b", str(START + 2)), ("u", "a", str(START + 1))]
    pairs = {"columns": "who:user,what:item"}
    events = read(tmp_path / "a.csv", rows, "who,what,time", **pairs)
    assert events.frame["time"].to_list() == [(START + 2) * 10**6, (START + 1) * 10**6]
    with pytest.raises(DataError, match=r"column bought looks like times .*time_column='bought'"):
        read(tmp_path / "a.csv", rows, "who,what,bought", **pairs)
    assert read(tmp_path / "a.csv", rows, "who,what,bought", **pairs, time_column="bought").time_unit == "s"
    assert read(tmp_path / "a.csv", rows, "who,what,bought", **pairs, time_column="none").time_unit is None
    with pytest.raises(ConfigError, match="names this role, so `time_column` would do nothing"):
        RunConfig().replace(columns="user,item,time", time_column="2")


def test_one_refusal_names_all_columns_that_are_not_recognised(tmp_path: Path) -> None:
    rows = [(f"c{n % 3}", f"s{n}", f"2024-01-{n + 1:02d}", "1") for n in range(9)]
    header = "shopper no,thing code,bought on,count"
    with pytest.raises(DataError, match="no column is named like the user or the item") as refused:
        read(tmp_path / "a.csv", rows, header)
    found = re.search(r"columns='(.*)'\.$", str(refused.value))
    assert found is not None
    assert found[1] == "shopper no:user,thing code:item,bought on:time"
    assert read(tmp_path / "a.csv", rows, header, columns=found[1]).frame["user"].to_list()[:2] == ["c0", "c1"]


def test_a_part_whose_roles_are_not_clear_is_refused_with_the_reason_and_a_remedy_that_works(
    tmp_path: Path,
) -> None:
    for day, rows in (("14", "a,x,2025-09-14T10:00\na,y,2025-09-14T11:00\n"), ("15", "a,x,2025-09-15T10:00\n")):
        folder = tmp_path / "parts" / f"day=2025-09-{day}"
        folder.mkdir(parents=True)
        (folder / "part-0.csv").write_text(f"user,item,time\n{rows}")
    with pytest.raises(
        DataError, match=r"09-14/part-0\.csv show .*time = time, but .*09-15/part-0\.csv: .* time \(time, day\)"
    ) as refused:
        read_events(tmp_path / "parts", DataConfig())
    assert "time_column='time'" in str(refused.value)
    assert read_events(tmp_path / "parts", DataConfig(time_column="time")).coded.height == 3


def test_the_remedy_for_parts_with_other_roles_names_each_column(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, rows in {"a": "u1,i1\nu1,i2\nu2,i1\n", "b": "i3,u3\ni4,u3\ni3,u4\n"}.items():
        (tmp_path / "parts" / f"{name}.csv").write_text(rows)
    with pytest.raises(DataError, match=r"columns='0:user,1:item'"):
        read_events(tmp_path / "parts", DataConfig())
    assert read_events(tmp_path / "parts", DataConfig(columns="0:user,1:item")).coded.height == 6
