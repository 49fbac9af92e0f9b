"""Read text files with delimiters: CSV, TSV, `::` and blanks, with or without a header.

Each record is one line, so an unclosed quote damages only one line. Otherwise quotes follow RFC 4180. Blanks
around a field are ignored.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.lines import blocks_of_lines
from sasrec.events.pieces import REJECTS, ROWS, Piece
from sasrec.events.roles import Columns, by_content, choose, given, is_known, unlike_the_first

_SAMPLE = 10_000  # lines in which to look for evidence of the roles
_CSV_ERRORS = {
    "unexpected end": "a quote is not closed",
    "expected after": "text after a closing quote",
    "new-line": "a carriage return within the line",
}


@dataclass(frozen=True)
class _Dialect:
    separator: str
    """One character, or `::`; a blank means any run of blanks."""
    columns: Columns
    names: tuple[str, ...]
    header: str | None
    """The whole header line, or None without a header."""
    notes: tuple[str, ...]

    @property
    def may_quote(self) -> bool:
        return self.separator in ",;\t"


def read_delimited(path: Path, config: DataConfig, separator: str | None) -> Iterator[Piece]:
    """Yield the blocks of a file. `separator`: the usual one for the ending of the file; None for no usual one.

    Raises: DataError if the file has no rows, or its columns are not recognised. Remedy: the message names one.
    """
    dialect: _Dialect | None = None
    for lines, rejects, notes in blocks_of_lines(path):
        if dialect is None:
            if rejects.height and rejects["line"][0] == 1:
                raise DataError(f"{path.name}: the first line is not valid UTF-8. Save the file as UTF-8.")
            first = lines.filter(pl.col("text").str.strip_chars() != "")["text"]
            if not len(first):
                raise DataError(f"{path.name} has no rows. Check that the file is complete.")
            dialect = _dialect(first.head(_SAMPLE), config, separator, path.name)
            notes = [*dialect.notes, *notes]
            if dialect.header is not None:
                lines = lines.filter(pl.col("line") != lines.filter(pl.col("text") == first[0])["line"][0])
        rows, bad = _split(lines, dialect)
        bad = pl.concat([rejects, bad]).sort("line")
        yield Piece(rows, bad, dialect.columns.time is not None, notes=tuple(notes))


def _dialect(lines: pl.Series, config: DataConfig, separator: str | None, file: str) -> _Dialect:
    """Find the separator, the header if there is one, and the roles of the columns."""
    first = lines[0]
    if "\r" in first:
        raise DataError(
            f"{file}: lines end with a carriage return only. Save the file with line ends \\n or \\r\\n."
        )
    if separator is None or separator not in first:
        separator = next((s for s in ("\t", "::", ",", ";") if s in first), " ")
    try:
        names = [name.strip() for name in _fields(first, separator)]
    except csv.Error as error:
        raise DataError(f"{file}: the first line cannot be split ({error}). Fix its quotes.") from None
    if ".inter" in Path(file.lower()).suffixes:
        names = [name.split(":")[0] for name in names]  # RecBole's headers contain name:type
    sample = _sample(lines[1:], separator, len(names))
    if _is_header(names, sample, config):
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise DataError(
                f"{file}: more than one column is named {', '.join(twice)}. Rename one of the columns: "
                f"{', '.join(names)}"
            )
        columns, notes = choose(dict(zip(names, sample, strict=True)), config, file)
        return _Dialect(separator, columns, tuple(names), first, tuple(notes))
    places = [str(place) for place in range(len(names))]
    sample = [pl.concat([pl.Series([name]), rest]) for name, rest in zip(names, sample, strict=True)]
    if config.columns:
        columns, notes = given(config, places, file), []
    else:
        columns, notes = by_content(sample, separator, config, file)
    return _Dialect(separator, columns, tuple(places), None, tuple(notes))


def _is_header(names: list[str], sample: list[pl.Series], config: DataConfig) -> bool:
    """Whether the first line contains names.

    A header has a name that is given, or no number and either a known name or a word above a column of numbers or
    times. `sample`: the values of each column below the first line.
    """
    requested = {config.user_column, config.item_column, config.time_column}
    requested |= {pair.rpartition(":")[0] for pair in config.columns.split(",")}
    # A number is never the name of a column here: it is the place of a column in a file without a header.
    if any(name and name in names and not name.isdecimal() for name in requested):
        return True
    if any(map(_is_number, names)):
        return False
    return any(map(is_known, names)) or any(
        unlike_the_first(name, values) for name, values in zip(names, sample, strict=True)
    )


def _sample(lines: pl.Series, separator: str, width: int) -> list[pl.Series]:
    """Return the columns of the first lines, as text; lines that cannot be split are left to `_split`."""
    rows = []
    for text in lines:
        try:
            fields = _fields(text, separator)
        except csv.Error:
            continue
        if len(fields) == width:
            rows.append([field.strip() for field in fields])
    return [pl.Series([row[place] for row in rows], dtype=pl.String) for place in range(width)]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _split(lines: pl.DataFrame, dialect: _Dialect) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split lines into rows and rejects; only lines with a quote need the slow csv module."""
    width = len(dialect.names)
    blank = pl.col("text").str.strip_chars() == ""
    repeated = pl.lit(False) if dialect.header is None else pl.col("text") == dialect.header
    quoted = pl.col("text").str.contains('"', literal=True) if dialect.may_quote else pl.lit(False)
    separator = dialect.separator
    if separator == " ":
        lines = lines.with_columns(text=pl.col("text").str.strip_chars().str.replace_all(r"[ \t]+", " "))
    lines = lines.with_columns(
        reason=pl.when(blank).then(pl.lit("the line is blank"))
        .when(repeated).then(pl.lit("the header is repeated")),
        quoted=quoted,
        fields=pl.col("text").str.count_matches(separator, literal=True).cast(pl.Int64) + 1,
    )  # fmt: skip
    wrong = ~pl.col("quoted") & (pl.col("fields") != width)
    lines = lines.with_columns(reason=pl.coalesce("reason", pl.when(wrong).then(_wrong_width(width))))
    good = lines.filter(pl.col("reason").is_null())
    plain = good.filter(~pl.col("quoted"))
    split = plain.select("line", parts=pl.col("text").str.splitn(separator, width)).unnest("parts")
    chosen = [dialect.columns.user, dialect.columns.item, dialect.columns.time]
    rows = split.select(
        "line",
        *(
            (pl.lit(None, pl.String) if name is None else pl.col(f"field_{dialect.names.index(name)}")).alias(role)
            for role, name in zip(("user", "item", "time"), chosen, strict=True)
        ),
    )
    quoted_rows, quoted_rejects = _split_quoted(good.filter("quoted"), dialect)
    bad = lines.filter(pl.col("reason").is_not_null()).select(
        "line", pl.lit("").alias("column"), "reason", raw="text"
    )
    return pl.concat([rows, quoted_rows]).sort("line"), pl.concat([bad, quoted_rejects])


def _wrong_width(width: int) -> pl.Expr:
    kind = pl.when(pl.col("fields") < width).then(pl.lit("few")).otherwise(pl.lit("many"))
    return pl.format(f"too {{}} fields: {{}} instead of {width}", kind, "fields")


def _split_quoted(lines: pl.DataFrame, dialect: _Dialect) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows, rejects = [], []
    width = len(dialect.names)
    for line, text in lines.select("line", "text").iter_rows():
        try:
            fields = _fields(text, dialect.separator)
        except csv.Error as error:
            reason = next((reason for sign, reason in _CSV_ERRORS.items() if sign in str(error)), str(error))
            rejects.append((line, "", reason, text))
            continue
        if len(fields) != width:
            kind = "few" if len(fields) < width else "many"
            rejects.append((line, "", f"too {kind} fields: {len(fields)} instead of {width}", text))
            continue
        record = dict(zip(dialect.names, fields, strict=True))
        time = None if dialect.columns.time is None else record[dialect.columns.time]
        rows.append((line, record[dialect.columns.user], record[dialect.columns.item], time))
    return pl.DataFrame(rows, ROWS, orient="row"), pl.DataFrame(rejects, REJECTS, orient="row")


def _fields(text: str, separator: str) -> list[str]:
    if separator == " ":
        return text.split()
    if len(separator) > 1:
        return text.split(separator)
    return next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True), [])
