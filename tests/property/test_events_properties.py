"""Whatever the bytes: read = kept + rejected, and no exception but the one for users."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import sasrec
from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.events import Events, read_events

# The profile ci draws the same inputs at every run, so more of them find less than new ones.
EXAMPLES = 50 if settings.default.derandomize else 150
FAST = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIELD = st.one_of(
    st.sampled_from(
        ["", " ", "1", "3.5", "a", '"', '"x"', '"x,y"', 'x"y', "2020-01-01", "1e9", "nan", "\x00", "\ufeff"]
    ),
    st.text(alphabet=st.characters(exclude_characters="\n\r"), max_size=6),
)
LINE = st.lists(FIELD, max_size=5).map(",".join)


def records(data: bytes) -> int:
    """Physical lines after the header."""
    return len(data.split(b"\n")) - data.endswith(b"\n") - 1


def read(data: bytes, path: Path, **columns: str) -> Events | None:
    path.write_bytes(data)
    try:
        return read_events(path, DataConfig(max_rejects=-1, **columns))
    except DataError:
        return None


@FAST
@given(lines=st.lists(LINE, max_size=12), good=st.integers(1, 3), end=st.booleans())
def test_read_is_kept_plus_rejected_for_any_lines(lines: list[str], good: int, end: bool, tmp_path: Path) -> None:
    text = "user,item,time\n" + "u,i,1600000000\n" * good + "\n".join(lines) + ("\n" if end else "")
    data = text.encode(errors="surrogatepass")
    events = read(data, tmp_path / "a.csv", columns="user:user,item:item,time:time")
    assert events is not None, "the good rows are usable whatever the others are"
    assert events.read == events.frame.height + events.rejects.height <= records(data)
    # A record with line breaks inside quotes has several lines.
    assert events.read == records(data) or '"' in text
    assert events.rejects["line"].is_sorted()
    assert events.rejects["line"].n_unique() == events.rejects.height
    assert events.frame.null_count().sum_horizontal().item() == 0


@FAST
@given(lines=st.lists(LINE, max_size=12), good=st.integers(1, 3))
def test_roles_that_are_not_told_never_crash_the_reader(lines: list[str], good: int, tmp_path: Path) -> None:
    text = "user,item,time\n" + "u,i,1600000000\n" * good + "\n".join(lines)
    events = read(text.encode(errors="surrogatepass"), tmp_path / "a.csv")
    assert events is None or events.read == events.frame.height + events.rejects.height


@FAST
@given(data=st.binary(max_size=80), ending=st.sampled_from(["csv", "tsv", "txt", "jsonl", "csv.gz", "parquet"]))
def test_arbitrary_bytes_never_crash_the_reader(data: bytes, ending: str, tmp_path: Path) -> None:
    events = read(data, tmp_path / f"a.{ending}")
    assert events is None or events.read == events.frame.height + events.rejects.height


@FAST
@given(
    lines=st.lists(
        st.one_of(LINE, st.sampled_from(['{"user": "a", "item": "b"}', '{"user": 1}', "[]", "{"])), max_size=10
    )
)
def test_read_is_kept_plus_rejected_for_json_lines(lines: list[str], tmp_path: Path) -> None:
    data = "\n".join(['{"user": "a", "item": "b"}', *lines, ""]).encode(errors="surrogatepass")
    events = read(data, tmp_path / "a.jsonl")
    assert events is not None
    assert events.read == events.frame.height + events.rejects.height == 1 + records(data)


VALID = {
    "csv": ["user,item,time", *(f'u{n % 3},"i,{n}",{1_600_000_000 + n}' for n in range(6))],
    "tsv": ["user\titem\ttime", *(f"u{n % 3}\té{n}\t2020-01-0{n + 1}T00:00Z" for n in range(6))],
    "jsonl": [f'{{"user": {n % 3}, "item": "é{n}", "time": {1_600_000_000 + n}.5}}' for n in range(7)],
}


@FAST
@example(ending="jsonl", changes=[(2, 0, b" ")])
@given(
    ending=st.sampled_from(sorted(VALID)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=2),
)
def test_every_line_of_a_damaged_file_is_kept_or_rejected(
    ending: str, changes: list[tuple[int, int, bytes]], tmp_path: Path
) -> None:
    header, *lines = [line.encode() for line in VALID[ending]]
    body = b"\n".join(lines) + b"\n"
    for at, removed, added in changes:
        body = body[: at % len(body)] + added + body[at % len(body) + removed :] or b"\n"
    path = tmp_path / f"a.{ending}"
    # The columns are named: a damaged key such as " user" would make two that could be meant.
    events = read(header + b"\n" + body, path, user_column="user", item_column="item", time_column="time")
    assert events is not None or not body.strip()
    if events is not None:
        numbers = []
        with path.open("rb") as stream:
            for number, _ in enumerate(stream, start=1):
                numbers.append(number)
        assert events.read == events.frame.height + events.rejects.height == len(numbers) - (ending != "jsonl")
        assert set(events.rejects["line"]) <= set(numbers)
        assert all(reason for reason in events.rejects["reason"])


NUMBER = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, 10**9, 2**53, -(2**62)]))
KINDS = [
    pl.Datetime("ms"),
    pl.Datetime("us", "Asia/Tokyo"),
    pl.Datetime("ns"),
    pl.Date,
    pl.Float64,
    pl.Float32,
    pl.Int8,
]


@FAST
@given(
    numbers=st.lists(NUMBER, min_size=1, max_size=5), ids=st.sampled_from(KINDS[4:]), kind=st.sampled_from(KINDS)
)
def test_every_row_of_a_typed_frame_is_kept_or_rejected(
    numbers: list[int | None], ids: pl.DataType, kind: pl.DataType
) -> None:
    column = pl.Series(numbers, dtype=pl.Int64)
    if kind == pl.Date:
        column = column.cast(pl.Int32, strict=False)
    frame = pl.DataFrame(
        {"user": column.cast(ids, strict=False), "item": "x", "time": column.cast(kind, strict=False)}
    )
    frame = pl.concat(
        [frame, frame.head(1).with_columns(user=pl.lit(1, ids), time=pl.lit(1, pl.Int32).cast(kind))]
    )
    unit = "iso" if kind.is_temporal() else "s"
    if kind == pl.Float32 and max(map(abs, filter(None, numbers)), default=0) >= 2**24:
        with pytest.raises(DataError, match="Float32, which rounds times"):
            read_events(frame, DataConfig(max_rejects=-1, time_unit=unit))
        return
    events = read_events(frame, DataConfig(max_rejects=-1, time_unit=unit))
    assert events.read == events.frame.height + events.rejects.height == frame.height
    assert events.frame.height >= 1
    assert events.rejects["line"].is_sorted()


@settings(FAST, max_examples=EXAMPLES // 3)
@given(
    users=st.lists(st.sampled_from("abc"), min_size=4, max_size=20),
    seed=st.integers(0, 10**6),
    where=st.integers(1, 19),
)
def test_rows_split_over_files_give_the_same_data(users: list[str], seed: int, where: int, tmp_path: Path) -> None:
    lines = [f"{user},i{(seed + 7 * at) % 5},{1_600_000_000 + (seed * at) % 3}" for at, user in enumerate(users)]
    header = "user,item,time"
    cut = min(where, len(lines) - 1)
    for name, part in (("whole", lines), ("first", lines[:cut]), ("second", lines[cut:])):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *part, ""]))
    whole = sasrec.prepare(tmp_path / "whole.csv")
    parts = sasrec.prepare([tmp_path / "first.csv", tmp_path / "second.csv"])
    assert whole.data_hash == parts.data_hash


@pytest.mark.parametrize("threads", ["1", "4"])
def test_the_hash_is_the_same_whatever_the_threads_locale_and_time_zone(threads: str, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [f"u{i * 37 % 50},é{i * 11 % 30},2020-01-{1 + i % 28:02d} 0{i % 10}:00" for i in range(2000)]
    path.write_text("\n".join(["user,item,time", *rows, ""]), encoding="utf-8")
    expected = sasrec.prepare(path).data_hash
    code = f"import sasrec; print(sasrec.prepare({str(path)!r}).data_hash)"
    changed = {"POLARS_MAX_THREADS": threads, "TZ": "America/New_York", "LC_ALL": "C", "PYTHONHASHSEED": threads}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **changed}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
