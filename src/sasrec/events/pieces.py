"""The rows and rejects that every reader yields."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

ROWS = {"line": pl.Int64, "user": pl.String, "item": pl.String, "time": pl.String}
LINE = "\x1fline"
"""The column of line numbers beside the columns of a source, which may have one that is called line."""
REJECTS = {"line": pl.Int64, "column": pl.String, "reason": pl.String, "raw": pl.String}


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a source."""

    name: str
    looks_like: str
    """What the values of the first rows look like, and one of them."""
    role: str
    """user, item, time or ""."""
    why: str
    """Why it has this role: "named in the settings", "its name" or "its values"; "" without a role."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One block of a source: rows split into fields, and rejected lines."""

    rows: pl.DataFrame
    """The rows not rejected, with the columns that ROWS lists; `time` is all null if the source has no times."""
    rejects: pl.DataFrame
    """The rejected lines, with the columns that REJECTS lists."""
    has_time: bool
    integer_ids: tuple[bool, bool] = (False, False)
    """Whether the user column and the item column have an integer type."""
    left_out: int = 0
    """How many rows the condition `where` leaves out; they are neither rows nor rejects."""
    notes: tuple[str, ...] = ()
    facts: tuple[ColumnFacts, ...] = ()
    """What each column of the source looks like, and its role."""
