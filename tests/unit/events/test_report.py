"""The data report doubts times that lie decades apart or in the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from tests.synthetic import chain_frame

_DAY = 86_400


def notes_of(times: list[datetime]) -> list[str]:
    """The notes on times in the report of data that has them. A stated unit admits all years."""
    frame = pl.DataFrame({"user": ["a"] * len(times), "item": list(map(str, range(len(times)))), "time": times})
    report = sasrec.prepare(frame, time_unit="iso").report
    return [note for note in report["warnings"] if "years older" in note or "future" in note]


def days(start: datetime, count: int, step: int = 30) -> list[datetime]:
    return [start + timedelta(days=step * day) for day in range(count)]


def test_a_few_events_decades_before_the_others_are_named() -> None:
    times = [datetime(1970, 1, 1), datetime(1970, 1, 2), *days(datetime(2015, 1, 1), 60)]
    (note,) = notes_of(times)
    assert note.startswith("2 events are at least 20 years older than three quarters of all")
    assert "the earliest is of 1970-01-01" in note


def test_events_in_the_future_are_named() -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    assert notes_of([*days(datetime(2020, 1, 1), 9), now + timedelta(hours=20)]) == []
    (note,) = notes_of([*days(datetime(2020, 1, 1), 9), now + timedelta(days=3), datetime(2090, 5, 6)])
    assert note.startswith("2 events lie in the future (the latest is of 2090-05-06)")


@pytest.mark.parametrize("times", [days(datetime(1997, 9, 20), 8, 27), days(datetime(1951, 1, 1), 75, 365)])
def test_months_and_a_long_time_get_no_note(times: list[datetime]) -> None:
    assert notes_of(times) == []


def test_times_that_are_only_an_order_get_no_note() -> None:
    frame = chain_frame().with_columns(time=pl.int_range(pl.len()))
    report = sasrec.prepare(frame, time_unit="s").report
    assert not [note for note in report["warnings"] if "years older" in note or "future" in note]


def test_the_note_reaches_the_file(tmp_path: Path) -> None:
    frame = chain_frame().with_columns(pl.from_epoch("time"))
    frame[0, "time"] = datetime(1970, 1, 1)
    data = sasrec.prepare(frame, time_unit="iso", output=tmp_path / "data")
    assert [note for note in data.report["warnings"] if note.startswith("1 event is at least 20 years older")]


def test_the_report_counts_one_and_several_as_english_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.csv").write_text("user,item,kind\na,x,buy\na,y,view\n")
    assert (
        main(["prepare", str(tmp_path / "one.csv"), "--where", "kind = 'buy'", "--output", str(tmp_path / "d")])
        == 0
    )
    said = capsys.readouterr().out
    assert "1 row read from one.csv: 0 rejected" in said
    assert "1 user, 1 item, 1 event (density" in said
    assert "leaves out 1 row; 1 is kept" in said
