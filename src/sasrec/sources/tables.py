"""Read a table of unknown format into records: text with any separator, JSON Lines, a JSON array, or Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.errors import DataError
from sasrec.events.streams import Unpacked
from sasrec.files import decompressed, missing, unicode_text
from sasrec.untrusted import parquet_of, refuse_large

SAMPLE = 10_000  # records that decide how a file is read
_KEYS_FROM = 1000  # JSON objects that are searched for keys
# Fields of these are quoted in some files only: where a field in quotes is empty, or has a doubled quote or the
# separator.
_SOMETIMES_QUOTED = ("\t", "|")
_QUOTED = r'(?:^|{0})"(?:(?:[^"\r\n]|"")*(?:""|{0})(?:[^"\r\n]|"")*)?"(?={0}|[\r\n]|$)'

Record = Sequence[str | None]


@dataclass(frozen=True)
class Reading:
    """One way to read a file."""

    kind: str
    """For messages, such as "separated by tabs"."""
    names: tuple[str, ...] | None
    """Names of the columns; None for text, whose first record can be a header."""
    records: Callable[[], Iterator[tuple[int, Record | None]]]
    """Yields (line, fields) of each record; the fields are None if the line cannot be split."""

    def first(self) -> Record | None:
        """Return the first record that can be split, if any is near the beginning."""
        return next((fields for _, fields in islice(self.records(), SAMPLE) if fields is not None), None)


@dataclass(frozen=True)
class TableFile:
    """The content of a file, with the ways in which it can be read."""

    path: Path
    readings: tuple[Reading, ...]
    """One reading for each separator that occurs in the first line; one for JSON and Parquet."""
    guessed_encoding: bool = False
    """Whether the file is not Unicode, and was read as Windows-1252."""


def open_table(path: Path) -> TableFile:
    """Read a file into memory, and list the ways to split it.

    Raises: DataError if the file is missing, is not text, or has no separator. Remedy: save it as UTF-8 CSV.
    """
    if not path.exists():
        raise DataError(f"the items file {path} {missing(path)}. Check the path.")
    try:
        size = refuse_large(path)
        if path.suffix.lower() in (".parquet", ".pq"):
            return TableFile(path, (_parquet(path),))
        with decompressed(path) as stream:
            data = Unpacked(stream, size, f"the items file {path}").read()
        text, guessed = _decoded(data)
        if not text.strip("\ufeff \t\r\n"):
            raise ValueError("it is empty")
    # Polars can panic on damaged Parquet files; gzip raises EOFError for a file that is cut off.
    except (OSError, EOFError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0]
        raise DataError(
            f"the items file {path} cannot be read ({reason}). Give a CSV, TSV, JSON Lines or Parquet file; save "
            "text as UTF-8 (Excel: CSV UTF-8)."
        ) from None
    text = text.lstrip("\ufeff")
    if (objects := _objects(text)) is not None:
        return TableFile(path, (objects,), guessed)
    first = next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")
    readings = [_delimited(text, separator) for separator in ("\t", "::", ",", ";", "|") if separator in first]
    if not readings:
        raise DataError(
            f"the items file {path} has one column: its first line is {first[:80]!r}. Give a file with ids and "
            "titles separated by tabs, commas, semicolons, :: or |."
        )
    return TableFile(path, tuple(readings), guessed)


def _decoded(data: bytes) -> tuple[str, bool]:
    """Return the text, and whether its encoding was guessed: Windows-1252, of which Latin-1 is a part.

    The guess is refused where special letters are not isolated as in Western European text, such as in GBK and
    Cyrillic text. Raises: ValueError.
    """
    try:
        return unicode_text(data), False
    except UnicodeDecodeError as error:
        special = re.findall(rb"[\x80-\xff]+", data)
        if re.search(rb"[\0-\x08\x0e-\x1f]", data) or sum(len(run) > 1 for run in special) > len(special) / 10:
            raise ValueError(f"it is not UTF-8 text: {error}") from None
        return data.decode("cp1252"), True


def _delimited(text: str, separator: str) -> Reading:
    quoted = separator in (",", ";")
    if separator in _SOMETIMES_QUOTED:
        quoted = re.search(_QUOTED.format(re.escape(separator)), text, re.MULTILINE) is not None

    def plain() -> Iterator[tuple[int, Record | None]]:
        for number, line in enumerate(_lines(text), start=1):
            if line.strip():
                yield number, [_clean(_unquoted(field.strip())) for field in line.split(separator)]

    def with_quotes() -> Iterator[tuple[int, Record | None]]:
        reader = csv.reader(_lines(text), delimiter=separator, strict=True, skipinitialspace=True)
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error:  # an unclosed quote reaches over several lines
                yield from ((line, None) for line in range(number, reader.line_num + 1))
                continue
            if fields is None:
                return
            if any(field.strip() for field in fields):
                yield number, [_clean(field) for field in fields]

    named = {"\t": "tabs", ",": "commas", ";": "semicolons"}.get(separator, separator)
    return Reading(f"separated by {named}", None, with_quotes if quoted else plain)


def _unquoted(field: str) -> str:
    """Return a field without quotes that some program added, as the doubled ones inside show."""
    sure = '""' in field[1:-1] and re.fullmatch('"(?:[^"]|"")*"', field)
    return field[1:-1].replace('""', '"') if sure else field


def _lines(text: str) -> Iterator[str]:
    """Return the lines of a text, with their line ends: \\n, \\r\\n or \\r."""
    return io.StringIO(text, newline="")


def _clean(field: str) -> str | None:
    """Remove blanks around a field, as the reader of events does; an empty field is missing."""
    return field.strip() or None


def _objects(text: str) -> Reading | None:
    """Return the reading of JSON Lines or of a JSON array of objects; None for other text."""
    begin = text.lstrip()[:1]
    lines: list[Any] = []
    if begin == "[":
        try:
            array = json.loads(text)
        except (ValueError, RecursionError):
            return None
        lines = array if isinstance(array, list) else []
    elif begin == "{":
        lines = list(_lines(text))
    keys = list(dict.fromkeys(key for line in lines[:_KEYS_FROM] for key in _object(line) or ()))
    if not keys:
        return None

    def records() -> Iterator[tuple[int, Record | None]]:
        for number, line in enumerate(lines, start=1):
            found = _object(line)
            if found is not None:
                yield number, [field_text(found.get(key)) for key in keys]
            elif not isinstance(line, str) or line.strip():
                yield number, None

    return Reading("JSON objects", tuple(keys), records)


def _object(line: Any) -> dict[str, Any] | None:
    """Return a JSON object, from its text if it is not parsed yet; None if it is not an object."""
    try:
        found = json.loads(line) if isinstance(line, str) else line
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _parquet(path: Path) -> Reading:
    frame = parquet_of(path)

    def records() -> Iterator[tuple[int, Record | None]]:
        for number, row in enumerate(frame.iter_rows(), start=1):
            yield number, [field_text(value) for value in row]

    return Reading("Parquet", tuple(frame.columns), records)


def field_text(value: object) -> str | None:
    """Return a typed value as text, None if it is missing or empty. A float with a whole value is an integer."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if value is None or isinstance(value, bool) or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, list | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value).strip() or None
