"""Read Polars frames, whose columns have types."""

from __future__ import annotations

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times
from sasrec.events.pieces import REJECTS, Piece
from sasrec.events.roles import choose

_SAMPLE = 10_000  # rows in which to look for evidence of the roles


def read_frame(frame: pl.DataFrame, config: DataConfig, name: str) -> Piece:
    """Read a Polars frame; row numbers from 1 serve as line numbers. Raises: DataError for an unusable column."""
    columns, notes = choose({each: _sample(frame[each]) for each in frame.columns}, config, name)
    line = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True).alias("line")
    roles = {"user": columns.user, "item": columns.item, "time": columns.time}
    chosen = {role: column for role, column in roles.items() if column is not None}
    faults = pl.concat(_typed_faults(frame[column], role, line) for role, column in chosen.items())
    faults = faults.unique("line", keep="first", maintain_order=True)
    good = ~line.is_in(faults["line"].to_list())
    frame = frame.filter(good)
    user, item = (id_text(frame[column], name) for column in (columns.user, columns.item))
    time = times.as_text(frame[columns.time], name) if columns.time else pl.lit(None, pl.String)
    rows = pl.select(line.filter(good), user=user, item=item, time=time)
    integer = tuple(frame[column].dtype.is_integer() for column in (columns.user, columns.item))
    return Piece(rows, faults, columns.time is not None, (integer[0], integer[1]), tuple(notes))


def _sample(series: pl.Series) -> pl.Series:
    """Return the first values of a column as text, by which roles are decided; nothing for lists and structs."""
    series = series.head(_SAMPLE)
    if series.dtype.is_nested() or series.dtype in (pl.Object, pl.Binary):
        return pl.Series([], dtype=pl.String)
    if series.dtype.is_temporal() and series.dtype not in (pl.Duration, pl.Time):
        return times.as_text(series.filter(~times.outside_calendar(series)), "")
    return times.float_text(series) if series.dtype.is_float() else series.cast(pl.String)


def _typed_faults(series: pl.Series, role: str, line: pl.Series) -> pl.DataFrame:
    """Return rejects for one column of a frame: floats too large to be exact ids, or times out of range."""
    if role == "time":
        bad, reason = times.outside_calendar(series), "the time is out of range: it must be in the years 1 to 9999"
    elif series.dtype.is_float():
        bad = series.abs().fill_nan(None).fill_null(0) >= 2 ** (24 if series.dtype == pl.Float32 else 53)
        reason = f"the {role} is a float too large to be exact. Write ids as integers or text."
    else:
        return pl.DataFrame(schema=REJECTS)
    raw = series.filter(bad).to_physical().cast(pl.String) if bad.any() else pl.Series([], dtype=pl.String)
    return pl.DataFrame({"line": line.filter(bad), "raw": raw}).select(
        "line", pl.lit(role).alias("column"), pl.lit(reason).alias("reason"), "raw"
    )


def id_text(series: pl.Series, file: str) -> pl.Series:
    """Convert an id column of any type to text.

    Raises: DataError for a type that cannot be an id. Remedy: convert the ids to text or integers.
    """
    if series.dtype.is_float():
        # pandas turns integers into floats when a value is missing, so write 3.0 as "3" again.
        return times.float_text(series.fill_nan(None))
    if series.dtype == pl.Object:
        return pl.Series([None if value is None else str(value) for value in series], dtype=pl.String)
    if series.dtype.is_integer() or series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    raise DataError(
        f"{file}: column {series.name!r} is of type {series.dtype}. Convert it; ids must be text or integers."
    )
