"""Read files or frames into one table of checked events.

Every bad row becomes a reject with its line number and a reason. The number of rows read always equals the number
of accepted rows plus the number of rejects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError, amount
from sasrec.events import times
from sasrec.events.explain import RolesError
from sasrec.events.formats import has_year
from sasrec.events.furniture import furniture
from sasrec.events.ids import IdCodes
from sasrec.events.inputs import Input, inputs_of
from sasrec.events.lines import BLANK, NOT_UTF8
from sasrec.events.pieces import REJECTS, ColumnFacts, Piece
from sasrec.events.readers import read_input
from sasrec.events.rejected import with_rows, write_rejects
from sasrec.events.roles import pair_name
from sasrec.events.streams import is_empty

_RAW_SHOWN = 200
_NAMED = 6  # files that a note lists
_LOCATED = {"file": pl.Int32, **REJECTS}

FirstPart = tuple[str, tuple[str, ...], list[str]]
FirstParts = dict[str, FirstPart]
"""Folder or pattern -> the name of its first part, its columns and roles; its other parts must have these."""


@dataclass(frozen=True, eq=False)
class Events:
    """Checked events and rejected rows, both in the order of the source."""

    coded: pl.DataFrame
    """Columns user and item (UInt32, places in `user_ids` and `item_ids`) and, if the source has times, time
    (Int64, microseconds since 1970 UTC)."""
    user_ids: pl.Series
    """The text of the ids of the users that occur, in order of text."""
    item_ids: pl.Series
    """The text of the ids of the items that occur, in order of text."""
    rejects: pl.DataFrame
    """Rejected rows: file, line, column, reason, raw text of the column, and `row`, the text of the whole row.

    Lines count from 1; for Parquet files and frames the line is the row number. The column is "" if the reason
    concerns the whole line.
    """
    read: int
    """Number of rows read, without headers: accepted plus rejected rows."""
    time_unit: str | None
    """Unit of the times in the source: s, ms, us, ns or iso (dates); None without times."""
    integer_users: bool
    """Whether the user column had an integer type, so that results can show integer ids."""
    integer_items: bool
    """Whether the item column had an integer type, so that results can show integer ids."""
    warnings: tuple[str, ...]
    """Sentences on what was assumed while reading, such as which columns to use, and on suspicious input."""
    sources: tuple[str, ...]
    """Names of the files that were read, without their folders; ("frame",) for a frame."""
    left_out: int = 0
    """How many rows the condition `where` leaves out; they are not in `read`."""

    @property
    def frame(self) -> pl.DataFrame:
        """The events with the text of the ids, which takes far more memory than `coded`."""
        users, items = self.user_ids.gather(self.coded["user"]), self.item_ids.gather(self.coded["item"])
        return self.coded.with_columns(users.alias("user"), items.alias("item"))


def read_events(source: Any, config: DataConfig, rejects_path: Path | None = None) -> Events:
    """Read and check a file, a list of files (concatenated in this order), or a Polars or pandas frame.

    Rejects are written as CSV to `rejects_path` before any error about rejects is raised.

    Raises: DataError for a missing file, an unknown format or column, more than `config.max_rejects` bad rows, or
        no usable row. Each message names the remedy.
    """
    with inputs_of(source, config.query) as inputs:
        events = read_inputs(inputs, config)
    refuse_bad_rows(events.rejects, events.read, events.coded.height, events.sources, config, rejects_path)
    return events


def read_inputs(inputs: list[Input], config: DataConfig, first: FirstParts | None = None) -> Events:
    """Read inputs; `refuse_bad_rows` follows. `first`: first parts that were read before; gets those of these."""
    inputs, notes = with_content(inputs)
    frames, rejects, names = [], [], []
    named: set[tuple[str, str]] = set()
    integer_ids, has_time, left_out = [True, True], set(), 0
    codes = {"user": IdCodes(), "item": IdCodes()}
    for name, piece in _pieces(inputs, config, {} if first is None else first):
        if name not in names:
            names.append(name)
        file = pl.lit(len(names) - 1, pl.Int32).alias("file")
        frames.append(_parsed(piece, config, file, codes))
        rejects.append(piece.rejects.select(file, pl.all()))
        notes += [note for note in piece.notes if note not in notes]
        integer_ids = [so_far and now for so_far, now in zip(integer_ids, piece.integer_ids, strict=True)]
        has_time.add(piece.has_time)
        roles = {column.role: column.name for column in piece.facts}
        named.add((roles.get("user", ""), roles.get("item", "")))
        left_out += piece.left_out
    timed = all_timed(has_time, names)
    rows = pl.concat(frames, how="diagonal")
    frames.clear()
    rows, bad = _without_furniture(rows, codes, named)
    rejects.append(bad)
    for role, found in codes.items():
        rows, bad = _without_bad_ids(rows, role, found, config.missing)
        rejects.append(bad)
    unit = None
    if timed:
        # Rows with bad ids are already removed, so they cannot influence the choice of the time unit.
        parsed = rows.select(name for name in rows.columns if name in times.PARSED)
        resolved, unit, time_notes = times.resolve(parsed, config.time_unit, by_format=bool(config.time_format))
        rows = rows.drop(parsed.columns).with_columns(resolved)
        rows, bad = _set_aside(rows, "time", "raw_time")
        rejects.append(bad)
        notes += time_notes
        if config.time_format and not has_year(config.time_format):
            notes.append("the times have no year, so all are read as of one year: December is after January")
    else:
        notes.append(_untimed_note(names))
    if config.where:
        notes.append(where_note(left_out, rows.height))
    users, user_ids = codes["user"].sorted(rows["user"])
    items, item_ids = codes["item"].sorted(rows["item"])
    all_rejects = _with_file_names(pl.concat(rejects).sort("file", "line"), names)
    return Events(
        coded=rows.select(users.alias("user"), items.alias("item"), *(["time"] if timed else [])),
        user_ids=user_ids,
        item_ids=item_ids,
        rejects=with_rows(all_rejects, inputs, config),
        read=rows.height + all_rejects.height,
        time_unit=unit,
        integer_users=integer_ids[0],
        integer_items=integer_ids[1],
        warnings=tuple(notes),
        sources=tuple(Path(name).name for name in names),
        left_out=left_out,
    )


def _untimed_note(names: list[str]) -> str:
    listed = f" of {', '.join(names[:_NAMED])}" if len(names) > 1 else ""
    listed += " …" if len(names) > _NAMED else ""
    return f"no column is read as the time; the order of the rows{listed} is taken as the order in time"


def where_note(left_out: int, kept: int) -> str:
    """Return the note on how many rows the condition `where` leaves out."""
    return f"`where` leaves out {amount(left_out, 'row')}; {kept:,} {'is' if kept == 1 else 'are'} kept"


def explain(source: Any, config: DataConfig) -> tuple[str, tuple[ColumnFacts, ...], list[str], str]:
    """Read the first rows of a source. Return its name, facts on its columns, notes, and why it is refused, or "".

    Raises: DataError if the columns are not even found. Remedy: the message names one.
    """
    with inputs_of(source, config.query) as inputs:
        try:
            name, piece = next(_pieces(with_content(inputs)[0], config, {}))
        except RolesError as error:
            return inputs[0].name, error.columns, [], str(error)
    return name, piece.facts, list(piece.notes), ""


def _pieces(inputs: list[Input], config: DataConfig, first: FirstParts) -> Iterator[tuple[str, Piece]]:
    """Yield the pieces of all inputs with the name of each input. `first`: see `read_inputs`.

    Raises: DataError if the parts of a folder or pattern have different columns, or the values of the parts show
        different roles. Remedy: name the right files, or the roles.
    """
    for each in inputs:
        try:
            for piece in read_input(each, config):
                columns = tuple(column.name for column in piece.facts)
                found = [f"{column.name} = {column.role}" for column in piece.facts if column.role]
                before = first.setdefault(each.part_of, (each.name, columns, found))
                if each.part_of:
                    refuse_another_part(before, (each.name, columns, found), each.part_of)
                yield each.name, piece
        except RolesError as error:
            if each.part_of and each.part_of in first:
                name, _, roles = first[each.part_of]
                columns = tuple(column.name for column in error.columns)
                refuse_another_part(first[each.part_of], (each.name, columns, roles), each.part_of)
                shown = f"{each.part_of}: the values of {name} show {', '.join(roles)}, but "
                raise RolesError(f"{shown}{error}", error.columns) from None
            raise


def refuse_another_part(first: FirstPart, other: FirstPart, folder: str) -> None:
    """Raise DataError if a part has other columns or roles than the first. Each: its name, columns and roles."""
    (name, names, roles), (other_name, columns, found) = first, other
    numbered = all(map(str.isdecimal, columns)) and not all(map(str.isdecimal, names))
    if names != columns and numbered and len(names) == len(columns):
        raise DataError(
            f"{folder}: {other_name} has no line of names, but {name} has one ({', '.join(names)}). Join such "
            "parts first: cat PART1 PART2 … > FILE."
        )
    if names != columns:
        raise DataError(
            f"{folder} has files with different columns: {name} has {', '.join(names)}, but {other_name} has "
            f"{', '.join(columns)}. Name the files of the events."
        )
    if roles != found:
        named = [role.rpartition(" = ")[::2] for role in max(roles, found, key=len)]
        pairs = ",".join(f"{pair_name(column, columns)}:{role}" for column, role in named)
        raise DataError(
            f"{folder}: the values of {name} show {', '.join(roles)}, but those of {other_name} show "
            f"{', '.join(found)}. Name the roles, for example columns={pairs!r}."
        )


def with_content(inputs: list[Input]) -> tuple[list[Input], list[str]]:
    """Return the inputs without the empty parts of a folder, which Spark writes, and a note on these.

    If nothing is left, returns all inputs.
    """
    filled = [each for each in inputs if not (each.part_of and each.path and is_empty(each.path, each.name))]
    empty = [each.name for each in inputs if each not in filled]
    if not filled or not empty:
        return inputs, []
    return filled, [f"{len(empty):,} of {len(inputs):,} files are empty, such as {empty[0]}"]


def all_timed(has_time: set[bool], names: list[str]) -> bool:
    """Return whether all inputs have times. Raises: DataError if only some have. Remedy: as the message says."""
    if has_time == {True, False}:
        raise DataError(
            f"some of the files have times and others do not: {', '.join(names)}. "
            "Add times to all files, or remove the time columns."
        )
    return has_time == {True}


def _parsed(piece: Piece, config: DataConfig, file: pl.Expr, codes: dict[str, IdCodes]) -> pl.DataFrame:
    """Return the rows of a piece with codes for ids, and parsed times."""
    ids = [codes[role].encode(piece.rows[role]).alias(role) for role in codes]
    rows = piece.rows.select(file, "line", *ids)
    if not piece.has_time:
        return rows
    # Drop the text of the times here: the parsed numbers need a third of the memory.
    parsed = times.parse(piece.rows["time"], config.time_format)
    return rows.hstack(parsed if parsed["integer"].null_count() else parsed.select("integer"))


def _without_furniture(
    rows: pl.DataFrame, codes: dict[str, IdCodes], named: set[tuple[str, str]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows into events, and rejects for other lines, such as a repeated header."""
    reasons = furniture(rows, codes, named)
    if reasons.null_count() == len(reasons):
        return rows, pl.DataFrame(schema=_LOCATED)
    bad = reasons.is_not_null()
    found = rows.filter(bad)
    raw = pl.concat_str([codes[role].ids.gather(found[role]) for role in codes], separator=" ", ignore_nulls=True)
    rejects = found.select("file", "line").with_columns(
        pl.lit("").alias("column"), reasons.filter(bad).alias("reason"), raw.alias("raw")
    )
    return rows.filter(~bad), rejects.unique(["file", "line"], maintain_order=True)


def _without_bad_ids(
    rows: pl.DataFrame, role: str, codes: IdCodes, missing: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows into those with a usable id, and rejects."""
    faults = codes.faults(rows[role], role, missing)
    if not faults.count():
        return rows, pl.DataFrame(schema=_LOCATED)
    bad = faults.is_not_null().gather(rows[role])
    found = rows.filter(bad)
    rejects = found.select("file", "line").with_columns(
        pl.lit(role).alias("column"),
        faults.gather(found[role]).alias("reason"),
        codes.ids.gather(found[role]).alias("raw"),
    )
    return rows.filter(~bad), rejects


def _set_aside(rows: pl.DataFrame, role: str, raw: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows into good rows, whose `reason` is null, and rejects. Good rows lose the column `reason`."""
    bad = rows.filter(pl.col("reason").is_not_null())
    kept = rows.filter(pl.col("reason").is_null()) if bad.height else rows
    rejects = bad.select("file", "line", pl.lit(role).alias("column"), "reason", pl.col(raw).alias("raw"))
    return kept.drop("reason"), rejects


def _with_file_names(rejects: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    files = pl.Series(names, dtype=pl.String)
    return rejects.select(
        files.gather(rejects["file"]).alias("file"),
        *(name for name in REJECTS if name != "raw"),
        pl.col("raw").fill_null("").str.slice(0, _RAW_SHOWN),
    )


def _remedy(rejects: pl.DataFrame, read: int) -> str:
    """Return what to do about bad rows.

    If most are bad, apart from blank lines, the way of reading is wrong, so none is to be skipped.
    """
    count = rejects.height
    undecodable, blank = (int((rejects["reason"] == reason).sum()) for reason in (NOT_UTF8, BLANK))
    if 2 * (count - blank) > read - blank:
        if 2 * undecodable > count:
            return "Set the encoding, for example encoding='cp1252' for a file that Excel wrote on Windows."
        return "Correct the file, or how it is read: `columns`, `time_format`, `time_unit`, `encoding`."
    if 2 * blank > count:
        return f"Remove the blank lines, or skip them with max_rejects={count} (-1 skips any number of bad rows)."
    units = rejects.filter(pl.col("reason").str.starts_with(times.ANOTHER_UNIT)).height
    if 2 * units > count:
        return f"Convert these times to the unit of the others, or skip the rows with max_rejects={count}."
    other = "set `encoding` if the text is not UTF-8, " if undecodable else ""
    return f"Fix these rows, {other}or skip them with max_rejects={count} (-1 skips any number of bad rows)."


def refuse_bad_rows(
    rejects: pl.DataFrame,
    read: int,
    kept: int,
    sources: tuple[str, ...],
    config: DataConfig,
    rejects_path: Path | None,
) -> None:
    """Write rejects to `rejects_path`; then raise DataError for too many of them, or if no row is `kept`."""
    write_rejects(rejects, rejects_path)
    listed = f" (all are listed in {rejects_path})" if rejects.height and rejects_path else ""
    first = "".join(
        f"\n  {file}:{line}{' ' + column if column else ''}: {reason}"
        for file, line, column, reason, *_ in rejects.head(5).iter_rows()
    )
    if rejects.height > config.max_rejects >= 0:
        raise DataError(f"{rejects.height} of {read} rows are bad{listed}:{first}\n{_remedy(rejects, read)}")
    if not kept and config.where and not rejects.height:
        raise DataError(f"{', '.join(sources)}: no row fulfils where={config.where!r}. Correct `where`.")
    if not read:
        raise DataError(f"{', '.join(sources)}: no row was read. Check the query or export that wrote the events.")
    if not kept:
        raise DataError(
            f"{', '.join(sources)}: no usable row among {read} read{listed}{first}\n"
            "Fix the file, or name other columns."
        )
