"""Read text files with delimiters: CSV, TSV, `::` and blanks, with or without a header.

A record is one line, so an unclosed quote damages only one line; where the lines that follow close it and give a
sound record, it is one record, as in RFC 4180. Blanks around a field are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.explain import chosen
from sasrec.events.header import header_of, is_unclear, separator_of
from sasrec.events.inputs import Input, refuse_wide
from sasrec.events.lines import Block, blocks_of, lines_of
from sasrec.events.pieces import REJECTS, ColumnFacts, Piece
from sasrec.events.plan import Plan, plan_of
from sasrec.events.preamble import what_precedes
from sasrec.events.records import Splitter
from sasrec.events.roles import Columns, by_content, choose, given
from sasrec.events.sequences import is_one_line_a_user

_SEP = re.compile(r'(?i)^"?sep=(.)"?$')  # how a file tells Excel its separator
_SAMPLE = 10_000  # lines in which to look for evidence of the roles


@dataclass(frozen=True, eq=False)
class _Dialect:
    plan: Plan
    splitter: Splitter
    header: str | None
    """The whole header line, or None without a header."""
    facts: tuple[ColumnFacts, ...]


def read_delimited(
    path: Path, config: DataConfig, separator: str | None, each: Input, encoding: str
) -> Iterator[Piece]:
    """Yield the blocks of a file. `separator`: the usual one for the ending of the file; None for no usual one.

    Raises: DataError if the file has no rows, or its columns are not recognised. Remedy: the message names one.
    """
    dialect: _Dialect | None = None
    carried = Block(1, b"")
    for block in blocks_of(path, each.name, encoding):
        notes: tuple[str, ...] = ()
        if dialect is None:
            dialect, block = _begun(block, config, separator, each)
            notes = dialect.plan.notes
        block = carried.joined(block)
        frame = dialect.splitter.fast(block, dialect.plan.needed, dialect.header)
        rejects = pl.DataFrame(schema=REJECTS)
        carried = Block(block.end, b"")
        if frame is None:
            lines, undecodable = lines_of(block)
            frame, bad, rest = dialect.splitter.split(lines, dialect.plan.needed, dialect.header, last=block.last)
            if rest is not None:  # the next block has these lines again
                undecodable = undecodable.filter(pl.col("line") < rest)
            rejects = pl.concat([undecodable, bad])
            carried = block.tail(rest)
        rows, unlike, left_out = dialect.plan.rows(frame)
        rejects = pl.concat([rejects, unlike]).sort("line")
        notes = (*notes, *block.notes(each.name))
        timed = dialect.plan.columns.time is not None
        yield Piece(rows, rejects, timed, left_out=left_out, notes=notes, facts=dialect.facts)


def _begun(block: Block, config: DataConfig, separator: str | None, each: Input) -> tuple[_Dialect, Block]:
    """Return the dialect that the first block shows, and the block without its header."""
    lines, rejects = lines_of(block.head(_SAMPLE))
    if rejects.height and rejects["line"][0] == 1:
        raise DataError(
            f"{each.name}: the first line is not valid UTF-8. Set `encoding`, for example encoding='cp1252'."
        )
    filled = lines.filter(pl.col("text").str.strip_chars() != "")
    said = _SEP.match(filled["text"][0]) if filled.height else None
    if said:
        block, filled = block.after(filled["line"][0]), filled.slice(1)
    if not filled.height:
        raise DataError(f"{each.name} has no rows. Check that the file is complete.")
    separator = said[1] if said else separator_of(filled["text"], separator)
    try:
        dialect = _dialect(filled["text"], config, separator, each, block)
    except DataError:
        if preamble := what_precedes(filled["text"], each.name):
            raise DataError(preamble) from None
        raise
    return dialect, block if dialect.header is None else block.after(filled["line"][0])


def _dialect(lines: pl.Series, config: DataConfig, separator: str, each: Input, block: Block) -> _Dialect:
    """Find the header, if there is one, and the roles of the columns."""
    first, file = lines[0], each.name
    if "\r" in first:
        raise DataError(
            f"{file}: lines end with a carriage return only. Save the file with line ends \\n or \\r\\n."
        )
    splitter = Splitter(separator, ())
    names = splitter.fields(first)
    if names is None:
        raise DataError(f"{file}: the first line cannot be split. Fix its quotes.")
    names = [name.strip() for name in names]
    if config.columns.replace(" ", "") != "user,items":
        refuse_wide(len(names), file)
    if ".inter" in Path(file.lower()).suffixes:
        names = [name.split(":")[0] for name in names]  # RecBole's headers contain name:type
    rows = [fields for fields in map(splitter.fields, lines) if fields is not None]
    sample = _columns(rows[1:], len(names))
    if kind := header_of(names, sample, config):
        if names.count("") > 1:  # Excel writes empty columns, too
            names = [name or str(place) for place, name in enumerate(names)]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise DataError(
                f"{file}: more than one column is named {', '.join(twice)}. Rename one of the columns: "
                f"{', '.join(names)}"
            )
        sampled = _with_constants(dict(zip(names, sample, strict=True)), each)
        columns, notes, facts = chosen(lambda: choose(sampled, config, file), sampled, config)
        if kind == "words" and config.columns:
            notes = [*notes, f"the first line of {file} ({first[:60]}) is read as the names of the columns"]
        plan = plan_of(columns, notes, sampled, config, file, each.constants)
        return _Dialect(plan, Splitter(separator, tuple(names)), first, facts)
    if _is_sequence(rows, names, config):
        sampled = {
            "0": pl.Series([row[0] for row in rows]),
            "1": pl.Series([separator.join(row[1:]) for row in rows]),
        }
        note = "the file has no header, and each line is a user followed by the user's items"
        columns, notes, facts = chosen(lambda: (Columns("0", "1", None, lists=True), [note]), sampled, config)
        plan = plan_of(columns, notes, sampled, config, file, {})
        return _Dialect(plan, Splitter(separator, ("0", "1"), rest_is_list=True), None, facts)
    return _headerless(rows, config, separator, each, block, first if is_unclear(names, sample) else "")


def _headerless(
    rows: list[list[str]], config: DataConfig, separator: str, each: Input, block: Block, unclear: str
) -> _Dialect:
    """Find the roles of columns without names. `unclear`: the first line, if it may be one of names after all."""
    file = each.name
    places = [str(place) for place in range(len(rows[0]))]
    # How often ids occur is evidence, and it needs all of their rows.
    found = Splitter(separator, tuple(places)).split(lines_of(block)[0], places, None, last=False)[0]
    sample = [found[name].str.strip_chars() for name in places]
    sampled = _with_constants(dict(zip(places, sample, strict=True)), each)

    def roles() -> tuple[Columns, list[str]]:
        if not config.columns:
            _refuse_various_widths(rows, file)
            return by_content(sampled, separator, config, file)
        columns, notes = given(sampled, config, file)
        if unclear:
            notes.append(
                f"the first line of {file} ({unclear[:60]}) is read as a row. If it has the names of the columns, "
                "use these names, as in columns='NAME:user,NAME:item'"
            )
        return columns, notes

    columns, notes, facts = chosen(roles, sampled, config)
    plan = plan_of(columns, notes, sampled, config, file, each.constants)
    return _Dialect(plan, Splitter(separator, tuple(places)), None, facts)


def _refuse_various_widths(rows: list[list[str]], file: str) -> None:
    """Raise DataError if many lines have another number of fields than the first. Remedy: the role `items`."""
    widths = [len(row) for row in rows]
    if sum(width != widths[0] for width in widths) > len(widths) / 5:
        raise DataError(
            f"{file}: lines have {min(widths)} to {max(widths)} fields. If each line is a user with the user's "
            "items, use columns='user,items'; otherwise correct the lines."
        )


def _is_sequence(rows: list[list[str]], names: list[str], config: DataConfig) -> bool:
    """Whether each line is a user followed by items: the settings say so, or the content shows it."""
    if config.columns:
        return config.columns.replace(" ", "") == "user,items" and max(map(len, rows)) > 2
    named = (config.user_column, config.item_column, config.time_column)
    return named in ((None, None, None), (None, None, "none")) and is_one_line_a_user(rows)


def _columns(rows: list[list[str]], width: int) -> list[pl.Series]:
    """Return the columns of the rows that have this width, as text."""
    whole = [row for row in rows if len(row) == width]
    return [pl.Series([row[place].strip() for row in whole], dtype=pl.String) for place in range(width)]


def _with_constants(sample: Mapping[str, pl.Series], each: Input) -> dict[str, pl.Series]:
    rows = max((len(values) for values in sample.values()), default=0)
    constants = {name: pl.Series([value] * rows, dtype=pl.String) for name, value in each.constants.items()}
    return {**sample, **constants}
