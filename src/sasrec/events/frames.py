"""Read Polars frames, whose columns have types."""

from __future__ import annotations

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.events import times
from sasrec.events.columns import choose, id_text
from sasrec.events.pieces import REJECTS, Piece


def read_frame(frame: pl.DataFrame, config: DataConfig, name: str) -> Piece:
    """Read a Polars frame; row numbers from 1 serve as line numbers. Raises: DataError for an unusable column."""
    columns, notes = choose(frame.columns, config, name)
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
