"""Raw files and frames -> one table of checked events; every bad row is counted, named and set aside.

What was read is always what was kept plus what was rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times
from sasrec.events.readers import REJECTS, Piece, read_file, read_frame

_LONGEST_ID = 512
_RAW_SHOWN = 200
_CONTROL = r"[\x00-\x1f\x7f]"
_INTEGER = r"(?-u)^-?\d+$"
_FRACTION = r"(?-u)^-?\d+\.\d+([eE][+-]?\d+)?$"


@dataclass(frozen=True, eq=False)
class Events:
    """Checked events, in the order of the source."""

    frame: pl.DataFrame
    """user: String, item: String, and, unless the source has no times, time: Int64 (microseconds, UTC)."""
    rejects: pl.DataFrame
    """file, line (from 1; row number for Parquet and frames), column ("" for the line), reason, raw."""
    read: int
    """Records of the sources, headers not counted: kept + rejected."""
    time_unit: str | None
    """s, ms, us, ns, iso (dates), or None without times."""
    integer_users: bool
    """The column was of an integer type, so ids may go out as integers."""
    integer_items: bool
    warnings: tuple[str, ...]
    """What the reader decided or noticed, in sentences."""
    sources: tuple[str, ...]
    """File names, or "frame"."""


def read_events(source: Any, config: DataConfig, rejects_path: Path | None = None) -> Events:
    """Read and check a file, several files (one after another), or a Polars or pandas frame.

    Rejects, if any, are written to `rejects_path` as CSV, also when the data is then refused.

    Raises: DataError for missing files, unknown formats and columns, for more bad rows than
    `config.max_rejects`, and where no row is left; each message names the remedy.
    """
    frames, rejects, names, notes = [], [], [], []
    integer, has_time = [True, True], set()
    for name, piece in _pieces(source, config):
        if name not in names:
            names.append(name)
        file = pl.lit(len(names) - 1, pl.Int32).alias("file")
        frames.append(_parsed(piece, config, file))
        rejects.append(piece.rejects.select(file, pl.all()))
        notes += [note for note in piece.notes if note not in notes]
        integer = [so_far and now for so_far, now in zip(integer, piece.integer_ids, strict=True)]
        has_time.add(piece.has_time)
    if has_time == {True, False}:
        raise DataError(f"some of the files have times and some have none: {', '.join(names)}")
    timed = has_time == {True}
    rows = pl.concat(frames)
    for role in ("user", "item"):
        rows, bad = _set_aside(rows.with_columns(reason=_id_fault(rows, role)), role, role)
        rejects.append(bad)
    unit = None
    if timed:
        # Only rows with sound ids have a say in what the times are.
        resolved, unit, more = times.resolve(rows.select(times.PARSED.keys()), config.time_unit)
        rows = rows.drop(times.PARSED.keys()).with_columns(resolved)
        rows, bad = _set_aside(rows, "time", "raw_time")
        rejects.append(bad)
        notes += more
    else:
        notes.append("no time column: the order of the file is taken as the order in time")
    all_rejects = _named(pl.concat(rejects).sort("file", "line"), names)
    events = Events(
        frame=rows.select("user", "item", *(["time"] if timed else [])),
        rejects=all_rejects,
        read=rows.height + all_rejects.height,
        time_unit=unit,
        integer_users=integer[0],
        integer_items=integer[1],
        warnings=tuple(notes),
        sources=tuple(Path(name).name for name in names),
    )
    _refuse_or_write(events, config, rejects_path)
    return events


def _pieces(source: Any, config: DataConfig) -> Iterator[tuple[str, Piece]]:
    try:
        if isinstance(source, pl.LazyFrame):
            source = source.collect()
        elif type(source).__module__.split(".")[0] == "pandas":
            source = pl.from_pandas(source)
    except ImportError as error:
        raise DataError(f"a pandas frame with this kind of column needs pyarrow: {error}") from None
    # Polars raises pyarrow's errors too, which are of both kinds below.
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"the frame cannot be read: {error}: give ids as text or integers") from None
    if isinstance(source, pl.DataFrame):
        yield "frame", read_frame(source, config, "the frame")
        return
    given = [source] if isinstance(source, str | Path) else source
    if not isinstance(given, Sequence) or not given or not all(isinstance(path, str | Path) for path in given):
        raise DataError(f"events come from a file, a list of files or a frame, not from {type(source).__name__}")
    paths = [Path(path) for path in given]
    bearers = Counter(path.name for path in set(paths))
    for path in paths:
        for piece in read_file(path, config):
            yield path.name if bearers[path.name] == 1 else str(path), piece


def _parsed(piece: Piece, config: DataConfig, file: pl.Expr) -> pl.DataFrame:
    rows = piece.rows.select(file, "line", pl.col("user", "item").str.strip_chars(), "time")
    if not piece.has_time:
        return rows.drop("time")
    # The text is kept only where it explains a reject: numbers are a third of its size.
    parsed = times.parse(rows["time"])
    return rows.drop("time").hstack(parsed)


def _id_fault(rows: pl.DataFrame, role: str) -> pl.Expr:
    """Why an id cannot be used, or null."""
    text = pl.col(role)
    # Where most are integers, 3.5 and 1.2E+9 are damaged integers; elsewhere they are as good as any id.
    integers, filled = rows.select(text.str.contains(_INTEGER).sum(), filled=(text != "").sum()).row(0)
    broken = text.str.contains(_FRACTION) if 2 * integers > filled else pl.lit(False)
    return (
        pl.when(text.fill_null("") == "").then(pl.lit(f"the {role} is empty"))
        .when(text.str.contains(_CONTROL)).then(pl.lit(f"the {role} has a control character"))
        .when(text.str.len_chars() > _LONGEST_ID)
        .then(pl.lit(f"the {role} is longer than {_LONGEST_ID} characters"))
        .when(broken).then(pl.lit(f"the {role} is not an integer as the others are"))
    )  # fmt: skip


def _set_aside(rows: pl.DataFrame, role: str, raw: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows without a `reason`, and the others as rejects."""
    bad = rows.filter(pl.col("reason").is_not_null())
    kept = rows.filter(pl.col("reason").is_null()) if bad.height else rows
    rejects = bad.select("file", "line", pl.lit(role).alias("column"), "reason", pl.col(raw).alias("raw"))
    return kept.drop("reason"), rejects


def _named(rejects: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    files = pl.Series(names, dtype=pl.String)
    return rejects.select(
        files.gather(rejects["file"]).alias("file"),
        *(name for name in REJECTS if name != "raw"),
        pl.col("raw").fill_null("").str.slice(0, _RAW_SHOWN),
    )


def _refuse_or_write(events: Events, config: DataConfig, rejects_path: Path | None) -> None:
    rejects = events.rejects
    listed = ""
    if rejects.height and rejects_path is not None:
        try:
            rejects_path.parent.mkdir(parents=True, exist_ok=True)
            rejects.write_csv(rejects_path)
        except OSError as error:
            raise DataError(f"the rejects cannot be written to {rejects_path}: {error}") from None
        listed = f" (all are listed in {rejects_path})"
    first = "".join(
        f"\n  {file}:{line}{' ' + column if column else ''}: {reason}"
        for file, line, column, reason, _ in rejects.head(5).iter_rows()
    )
    if rejects.height > config.max_rejects >= 0:
        raise DataError(
            f"{rejects.height} of {events.read} rows are bad{listed}:{first}\n"
            f"Mend them, or tolerate them with --max_rejects {rejects.height} (-1 for any number)."
        )
    if events.frame.is_empty():
        raise DataError(f"{', '.join(events.sources)}: no usable row among {events.read} read{listed}{first}")
