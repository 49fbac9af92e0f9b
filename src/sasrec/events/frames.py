"""Read tables whose columns have types: frames, Parquet and Arrow files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times
from sasrec.events.inputs import Input
from sasrec.events.pieces import REJECTS, Piece, with_constants
from sasrec.events.roles import Columns, choose
from sasrec.events.sequences import exploded
from sasrec.events.streams import opened

_SAMPLE = 10_000  # rows in which to look for evidence of the roles
_AT_ONCE = 2_000_000  # rows that become text at once


def read_table_file(path: Path, kind: Literal["parquet", "arrow"], config: DataConfig, each: Input) -> Iterator[Piece]:
    """Yield the rows of a Parquet or Arrow (Feather) file. Raises: as `read_frame`, and DataError for damage."""
    words = {"parquet": "Parquet", "arrow": "Arrow"}[kind]
    try:
        with path.open("rb") as raw:
            plain = raw.read(4) in (b"PAR1", b"ARRO")
        if plain and kind == "parquet":
            table = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        elif kind == "parquet":
            with opened(path, each.name) as stream:
                table = pl.read_parquet(io.BytesIO(stream.read())).lazy()
        else:
            with opened(path, each.name) as stream:
                content = io.BytesIO(stream.read())
            is_file = content.getvalue().startswith(b"ARROW1")
            table = (pl.read_ipc(content) if is_file else pl.read_ipc_stream(content)).lazy()
        yield from read_frame(table, config, each.name, each.constants)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{each.name} is not a valid {words} file: {reason}. Replace the file.") from None


def read_frame(
    table: pl.LazyFrame, config: DataConfig, name: str, constants: dict[str, str | None]
) -> Iterator[Piece]:
    """Yield the rows of a Polars frame; row numbers from 1 serve as line numbers.

    A list in the column of the items becomes one event for each element.

    Raises: DataError for a column that cannot be used. Remedy: the message names one.
    """
    table = with_constants(_flat(table), constants)
    sample = table.head(_SAMPLE).collect()
    columns, notes = choose({each: _sample(sample[each]) for each in sample.columns}, config, name)
    names = [each for each in (columns.user, columns.item, columns.time) if each is not None]
    frame = table.select(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("line"), *names).collect()
    for start in range(0, max(1, frame.height), _AT_ONCE):
        part, faults = exploded(frame.slice(start, _AT_ONCE), columns)
        yield _piece(part, faults, columns, name, tuple(notes) if start == 0 else (), tuple(sample.columns))


def _piece(
    frame: pl.DataFrame, faults: pl.DataFrame, columns: Columns, name: str, notes: tuple[str, ...], names: tuple[str, ...]
) -> Piece:
    roles = {"user": columns.user, "item": columns.item, "time": columns.time}
    chosen = {role: column for role, column in roles.items() if column is not None}
    typed = pl.concat(_typed_faults(frame[column], role, frame["line"]) for role, column in chosen.items())
    typed = typed.unique("line", keep="first", maintain_order=True)
    frame = frame.filter(~frame["line"].is_in(typed["line"].implode())) if typed.height else frame
    user, item = (id_text(frame[column], name) for column in (columns.user, columns.item))
    time = times.as_text(frame[columns.time], name) if columns.time else pl.lit(None, pl.String)
    rows = pl.select(frame["line"], user=user, item=item, time=time)
    integer = tuple(frame[column].dtype.is_integer() for column in (columns.user, columns.item))
    rejects = pl.concat([faults, typed]).sort("line")
    return Piece(rows, rejects, columns.time is not None, (integer[0], integer[1]), notes, names)


def _flat(table: pl.LazyFrame) -> pl.LazyFrame:
    """Unpack a list of structs, such as the events of a session; its fields become columns."""
    schema = table.collect_schema()
    packed = [name for name, kind in schema.items() if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)]
    if len(packed) != 1 or is_item_named(schema.names()):
        return table
    return table.explode(packed[0]).unnest(packed[0])
