"""Read tables whose columns have types: frames, Parquet and Arrow files."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times
from sasrec.events.explain import chosen
from sasrec.events.inputs import Input, refuse_wide
from sasrec.events.pieces import LINE, REJECTS, Piece
from sasrec.events.plan import histories_beside, plan_of
from sasrec.events.roles import Columns, choose, has_item
from sasrec.events.sequences import exploded, split_lists
from sasrec.events.streams import opened
from sasrec.untrusted import free_memory

_SAMPLE = 10_000  # rows in which to look for evidence of the roles
_AT_ONCE = 2_000_000  # rows that become text at once


def read_table_file(path: Path, kind: str, config: DataConfig, each: Input) -> Iterator[Piece]:
    """Yield the rows of a Parquet or Arrow (Feather) file; `kind`: "parquet" or "arrow".

    Raises: as `read_frame`, and DataError for a damaged file. Remedy: replace the file.
    """
    try:
        yield from read_frame(table_of(path, kind, each.name), config, each.name, each)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        words = {"parquet": "Parquet", "arrow": "Arrow"}[kind]
        raise DataError(f"{each.name} is not a valid {words} file: {reason}. Replace the file.") from None


def table_of(path: Path, kind: str, name: str) -> pl.LazyFrame:
    """Open a Parquet or Arrow file; one that is compressed as a whole is unpacked to memory."""
    with path.open("rb") as raw:
        packed = raw.read(4) not in (b"PAR1", b"ARRO")
    if kind == "parquet" and not packed:
        table = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        rows = table.select(pl.len()).collect().item()
        if 8 * rows > free_memory():  # a few bytes can stand for any number of equal values
            raise DataError(f"{name} claims {rows:,} rows, which do not fit into memory. Check the file.")
        return table
    with opened(path, name) as stream:
        content = io.BytesIO(stream.read())
    if kind == "parquet":
        return pl.read_parquet(content).lazy()
    if content.getvalue().startswith(b"ARROW1"):
        return pl.read_ipc(content).lazy()
    return pl.read_ipc_stream(content).lazy()


def read_frame(table: pl.LazyFrame, config: DataConfig, name: str, each: Input) -> Iterator[Piece]:
    """Yield the rows of a Polars frame; row numbers from 1 serve as line numbers.

    A list in the column of the items gives one event for each element. `name`: for messages.

    Raises: DataError for a column that cannot be used. Remedy: the message names one.
    """
    refuse_wide(len(table.collect_schema()), name)
    constants = [pl.lit(value, pl.String).alias(key) for key, value in each.constants.items()]
    table, unpacked = _flat(table.with_row_index(LINE, offset=1), config)
    table = table.with_columns(constants)
    sample = table.head(_SAMPLE).collect().drop(LINE)
    texts = {column: _sample(sample[column]) for column in sample.columns}
    columns, notes, facts = chosen(lambda: choose(texts, config, name), texts, config)
    lists = {
        key: sample[key].drop_nulls().head(1).to_list() for key, kind in sample.schema.items() if kind.is_nested()
    }
    notes += unpacked
    notes += histories_beside(columns, lists, config, name)
    if columns.item in lists:  # the type shows the lists, so their text need not
        columns = replace(columns, lists=False)
    plan = plan_of(
        columns, notes, texts, config, name, each.constants, dict(zip(sample.columns, sample, strict=True))
    )
    names = [role for role in (columns.user, columns.item, columns.time) if role is not None]
    needed = table.select(pl.col(LINE).cast(pl.Int64), *dict.fromkeys([*names, *plan.condition.columns])).collect()
    frame, unlike, left_out = plan.condition.keep(needed)
    _refuse_short_floats(frame, columns, name)
    for start in range(0, max(1, frame.height), _AT_ONCE):
        part, unfit = exploded(frame.slice(start, _AT_ONCE), columns.item, columns.time)
        rows, faults, integer = _rows(part, columns, name)
        found = [unfit, faults] if start else [unlike, unfit, faults]
        if plan.item_form is not None:
            rows, unfit = split_lists(rows, plan.item_form, plan.time_form)
            found.append(unfit)
        first = (0, ()) if start else (left_out, plan.notes)
        yield Piece(rows, pl.concat(found).sort("line"), columns.time is not None, integer, *first, facts)


def _flat(table: pl.LazyFrame, config: DataConfig) -> tuple[pl.LazyFrame, list[str]]:
    """Unpack a list of structs, such as the events of a session, and structs; their fields become columns.

    Returns the table, and a note on the list.
    """
    schema = table.collect_schema()
    structs = {name: kind for name, kind in schema.items() if isinstance(kind, pl.Struct)}
    if structs:
        inner = [
            pl.col(name).struct.field(field.name).alias(f"{name}.{field.name}")
            for name, kind in structs.items()
            for field in kind.fields
        ]
        return _flat(table.with_columns(inner).drop(structs), config)
    packed = [
        name for name, kind in schema.items() if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)
    ]
    if len(packed) != 1 or has_item([name for name in schema.names() if name not in packed], config):
        return table, []
    kind = schema[packed[0]]
    assert isinstance(kind, pl.List)
    assert isinstance(kind.inner, pl.Struct)
    # A field of an event, such as its ts, takes the place of that of the session.
    same = [field.name for field in kind.inner.fields if field.name in schema.names() and field.name != packed[0]]
    filled = table.drop(same).filter(pl.col(packed[0]).list.len() > 0)
    return filled.explode(packed[0]).unnest(packed[0]), [f"each element of {packed[0]} is an event"]


def _rows(
    frame: pl.DataFrame, columns: Columns, name: str
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[bool, bool]]:
    """Return rows and rejects as in pieces.py, and whether user and item are of an integer type."""
    roles = {"user": columns.user, "item": columns.item, "time": columns.time}
    good = pl.repeat(True, frame.height, eager=True)
    rejects = [pl.DataFrame(schema=REJECTS)]
    for role, column in roles.items():
        if column is None:
            continue
        bad, reason = _typed_faults(frame[column], role)
        bad &= good
        if bad.any():
            good &= ~bad
            raw = frame[column].filter(bad).to_physical().cast(pl.String)
            rejects.append(
                pl.DataFrame({"line": frame[LINE].filter(bad), "raw": raw}).select(
                    "line", pl.lit(role).alias("column"), pl.lit(reason).alias("reason"), "raw"
                )
            )
    frame = frame if good.all() else frame.filter(good)
    user, item = (id_text(frame[column], name) for column in (columns.user, columns.item))
    time = times.as_text(frame[columns.time], name) if columns.time else pl.lit(None, pl.String)
    rows = pl.select(frame[LINE].alias("line"), user=user, item=item, time=time)
    integer = (frame[columns.user].dtype.is_integer(), frame[columns.item].dtype.is_integer())
    return rows, pl.concat(rejects), integer


def _sample(series: pl.Series) -> pl.Series:
    """Return the first values of a column as text, by which roles are decided; of a list, its first elements.

    Structs and objects give nothing.
    """
    series = series.head(_SAMPLE)
    if isinstance(series.dtype, pl.List | pl.Array):
        series = series.cast(pl.List(series.dtype.inner)).list.first()
    if series.dtype.is_nested() or series.dtype in (pl.Object, pl.Binary):
        return pl.Series([], dtype=pl.String)
    if series.dtype == pl.Time:
        return series.dt.to_string("%H:%M:%S")
    if isinstance(series.dtype, pl.Duration):
        within_a_day = series.dt.total_seconds().is_between(0, 86_399)
        clock = (pl.lit(0).cast(pl.Datetime("us")) + series).dt.to_string("%H:%M:%S")
        return pl.select(pl.when(within_a_day).then(clock)).to_series()
    if series.dtype.is_temporal():
        return times.as_text(series.filter(~times.outside_calendar(series)), "")
    try:
        return times.float_text(series) if series.dtype.is_float() else series.cast(pl.String)
    except pl.exceptions.PolarsError:  # a type of another library
        return pl.Series([], dtype=pl.String)


def _typed_faults(series: pl.Series, role: str) -> tuple[pl.Series, str]:
    """Return which values of a column cannot be used, and why: inexact floats as ids, or times out of range."""
    if role == "time":
        return times.outside_calendar(series), "the time is out of range: it must be in the years 1 to 9999"
    if series.dtype.is_float():
        exact = 2 ** (24 if series.dtype == pl.Float32 else 53)
        bad = series.abs().fill_nan(None).fill_null(0) >= exact
        return bad, f"the {role} is a float too large to be exact. Write ids as integers or text."
    return pl.repeat(False, len(series), eager=True), ""


def _refuse_short_floats(frame: pl.DataFrame, columns: Columns, name: str) -> None:
    """Raise DataError if times are 32-bit floats that are too large to be exact. Remedy: integers."""
    if columns.time is None or frame.schema[columns.time] not in (pl.Float32, pl.List(pl.Float32)):
        return
    values = frame[columns.time] if frame.schema[columns.time] == pl.Float32 else frame[columns.time].explode()
    largest = values.abs().max()
    fractions = (values.is_finite() & (values != values.round())).any()
    if isinstance(largest, float) and (largest >= 2**24 or (largest >= 2**13 and fractions)):
        raise DataError(
            f"{name}: column {columns.time!r} is of type Float32, which rounds times such as {largest:.0f} to "
            "minutes. Read the times as integers or 64-bit floats from where they come."
        )


def _binary_text(series: pl.Series) -> pl.Series | None:
    """Return the text of bytes: UTF-8, or else UUIDs of 16 bytes; None for other bytes."""
    try:
        text = series.cast(pl.String)
        if not text.str.contains(r"[\x00-\x1f\x7f]").any():
            return text
    except pl.exceptions.PolarsError:
        pass
    values = series.to_list()
    if any(value is not None and len(value) != 16 for value in values):
        return None
    return pl.Series([None if value is None else str(uuid.UUID(bytes=value)) for value in values], dtype=pl.String)


def id_text(series: pl.Series, file: str) -> pl.Series:
    """Convert an id column of any type to text.

    Raises: DataError for a type that cannot be an id. Remedy: convert the ids to text or integers.
    """
    if series.dtype.is_float():
        # pandas turns integers into floats when a value is missing, so write 3.0 as "3" again.
        return times.float_text(series.fill_nan(None))
    if series.dtype == pl.Object:
        return pl.Series([None if value is None else str(value) for value in series], dtype=pl.String)
    if series.dtype.is_decimal():
        return series.cast(pl.String).str.replace(r"\.0*$", "")
    if series.dtype.is_integer() or series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    if series.dtype == pl.Binary and (text := _binary_text(series)) is not None:
        return text
    raise DataError(
        f"{file}: column {series.name!r} is of type {series.dtype}. Convert it; ids must be text or integers."
    )
