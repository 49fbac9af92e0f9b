"""Files and frames -> pieces of raw rows, every one with its line number; bad lines are set aside.

The dialect of text files is fixed. One record is one physical line, so that an unclosed quote spoils one line
and no more. Fields may be quoted as in RFC 4180, except across lines. Blanks around a field are dropped.
UTF-8, with or without a byte order mark; lines end with \\n or \\r\\n.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events import times
from sasrec.events.columns import Columns, choose, id_text, is_known

_BLOCK = 2**25  # bytes of text at a time
_JSON_SAMPLE = 1000  # objects that decide which keys there are
ROWS = {"line": pl.Int64, "user": pl.String, "item": pl.String, "time": pl.String}
REJECTS = {"line": pl.Int64, "column": pl.String, "reason": pl.String, "raw": pl.String}
_ENDINGS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".txt": None, ".dat": None, ".data": None}
_CSV_ERRORS = {
    "unexpected end": "a quote is not closed",
    "expected after": "text after a closing quote",
    "new-line": "a carriage return within the line",
}
FORMATS = ".csv .tsv .txt .dat .data .inter .jsonl .ndjson (each also .gz) .parquet .pq"


@dataclass(frozen=True, eq=False)
class Piece:
    """Some records of a source: those that could be split into fields, and those that could not."""

    rows: pl.DataFrame
    """Columns as ROWS; `time` is null throughout where the source has no times."""
    rejects: pl.DataFrame
    """Columns as REJECTS."""
    has_time: bool
    integer_ids: tuple[bool, bool] = (False, False)
    """Whether the user and item columns were of an integer type."""
    notes: tuple[str, ...] = ()


def read_file(path: Path, config: DataConfig) -> Iterator[Piece]:
    """Pieces of a file, in order. Raises: DataError naming the file and the remedy."""
    if not os.path.isfile(path):  # Path.is_file raises for names that no file can have
        raise DataError(f"there is no file {path}")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    if ending in {".parquet", ".pq"}:
        try:
            frame = pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise DataError(f"{path.name} is not a whole Parquet file: {str(error).splitlines()[0]}") from None
        yield read_frame(frame, config, path.name)
    elif ending in {".jsonl", ".ndjson"}:
        yield from _read_json_lines(path, config)
    elif ending in _ENDINGS:
        yield from _read_delimited(path, config, _ENDINGS[ending])
    else:
        raise DataError(f"{path.name}: the ending names no format known here; those are: {FORMATS}")


def read_frame(frame: pl.DataFrame, config: DataConfig, name: str) -> Piece:
    """A Polars frame; `line` is the row number from 1. Raises: DataError for a column of unusable type."""
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
    """Values of a typed column that no text can give faithfully, as rejects."""
    if role == "time":
        bad, reason = times.outside_calendar(series), "the time is out of range: outside the years 1 to 9999"
    elif series.dtype.is_float():
        bad = series.abs().fill_nan(None).fill_null(0) >= 2 ** (24 if series.dtype == pl.Float32 else 53)
        reason = f"the {role} is a float too large to be exact: give ids as integers or text"
    else:
        return _no_rejects()
    raw = series.filter(bad).to_physical().cast(pl.String) if bad.any() else pl.Series([], dtype=pl.String)
    return pl.DataFrame({"line": line.filter(bad), "raw": raw}).select(
        "line", pl.lit(role).alias("column"), pl.lit(reason).alias("reason"), "raw"
    )


@dataclass(frozen=True)
class _Dialect:
    separator: str
    """One character, `::`, or a blank for runs of blanks."""
    columns: Columns
    names: tuple[str, ...]
    header: str | None
    """The header line, or None."""
    notes: tuple[str, ...]

    @property
    def may_quote(self) -> bool:
        return self.separator in ",;\t"


def _read_delimited(path: Path, config: DataConfig, separator: str | None) -> Iterator[Piece]:
    dialect: _Dialect | None = None
    for lines, rejects, notes in _blocks_of_lines(path):
        if dialect is None:
            if rejects.height and rejects["line"][0] == 1:
                raise DataError(f"{path.name}: the first line is not valid UTF-8: save the file as UTF-8")
            first = lines.filter(pl.col("text").str.strip_chars() != "")["text"]
            if not len(first):
                raise DataError(f"{path.name} has no rows")
            dialect = _dialect(first[0], config, separator, path.name)
            notes = [*dialect.notes, *notes]
            if dialect.header is not None:
                lines = lines.filter(pl.col("line") != lines.filter(pl.col("text") == first[0])["line"][0])
        rows, bad = _split(lines, dialect)
        bad = pl.concat([rejects, bad]).sort("line")
        yield Piece(rows, bad, dialect.columns.time is not None, notes=tuple(notes))


def _dialect(first: str, config: DataConfig, separator: str | None, file: str) -> _Dialect:
    if "\r" in first:
        raise DataError(f"{file}: lines end with carriage returns alone: save the file with \\n or \\r\\n")
    if separator is None or separator not in first:
        separator = next((s for s in ("\t", "::", ",", ";") if s in first), " ")
    try:
        names = [name.strip() for name in _fields(first, separator)]
    except csv.Error as error:
        raise DataError(f"{file}: the first line cannot be split ({error}): mend its quotes") from None
    if ".inter" in Path(file.lower()).suffixes:
        names = [name.split(":")[0] for name in names]  # RecBole writes name:type
    named = config.user_column or config.item_column or config.time_column
    if named or any(map(is_known, names)):
        columns, notes = choose(names, config, file)
        return _Dialect(separator, columns, tuple(names), first, tuple(notes))
    if len(names) not in (2, 3, 4) or not any(map(_is_number, names)):
        raise DataError(
            f"{file}: the first line ({', '.join(names)}) is neither a header with known names nor "
            "`user item [time]`: name the columns with --user and --item (train: --user_column and --item_column)"
        )
    layout = {2: "user item", 3: "user item time", 4: "user item rating time"}[len(names)]
    columns = Columns("user", "item", "time" if len(names) > 2 else None)
    return _Dialect(separator, columns, tuple(layout.split()), None, (f"no header: columns read as `{layout}`",))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _split(lines: pl.DataFrame, dialect: _Dialect) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lines -> rows and rejects. Lines with a quote go one by one through the csv module, the others at once."""
    width = len(dialect.names)
    blank = pl.col("text").str.strip_chars() == ""
    repeated = pl.lit(False) if dialect.header is None else pl.col("text") == dialect.header
    quoted = pl.col("text").str.contains('"', literal=True) if dialect.may_quote else pl.lit(False)
    separator = dialect.separator
    if separator == " ":
        lines = lines.with_columns(text=pl.col("text").str.strip_chars().str.replace_all(r"[ \t]+", " "))
    lines = lines.with_columns(
        reason=pl.when(blank).then(pl.lit("the line is blank"))
        .when(repeated).then(pl.lit("the header again")),
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
    few = pl.format(f"too few fields: {{}} of {width}", "fields")
    return pl.when(pl.col("fields") < width).then(few).otherwise(
        pl.format(f"too many fields: {{}} instead of {width}", "fields")
    )  # fmt: skip


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
            kind = (
                f"few fields: {len(fields)} of"
                if len(fields) < width
                else f"many fields: {len(fields)} instead of"
            )
            rejects.append((line, "", f"too {kind} {width}", text))
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


def _read_json_lines(path: Path, config: DataConfig) -> Iterator[Piece]:
    columns: Columns | None = None
    for lines, rejects, notes in _blocks_of_lines(path):
        rows, bad = [], []
        integers = [True, True]
        if columns is None:
            keys = _json_keys(lines["text"])
            if not keys:
                raise DataError(
                    f"{path.name}: none of its lines is a JSON object with keys, which name the columns"
                )
            columns, found = choose(keys, config, path.name)
            notes = [*found, *notes]
        for line, text in lines.iter_rows():
            record, reason = _json_object(text)
            column = ""
            if record is not None:
                column, reason = _json_fault(record, columns)
            if record is None or reason:
                bad.append((line, column, reason, text))
                continue
            ids = [record[columns.user], record[columns.item]]
            integers = [known and isinstance(value, int) for known, value in zip(integers, ids, strict=True)]
            time = None if columns.time is None else str(record[columns.time])
            rows.append((line, str(ids[0]), str(ids[1]), time))
        yield Piece(
            pl.DataFrame(rows, ROWS, orient="row"),
            pl.concat([rejects, pl.DataFrame(bad, REJECTS, orient="row")]).sort("line"),
            columns.time is not None,
            (integers[0], integers[1]),
            tuple(notes),
        )


def _json_keys(texts: pl.Series) -> list[str]:
    """The keys that occur in any of the objects: a column may be missing from the first one."""
    objects = (record for record, _ in map(_json_object, texts) if record is not None)
    keys = dict.fromkeys(key for record in islice(objects, _JSON_SAMPLE) for key in record)
    return [key.encode(errors="backslashreplace").decode() for key in keys]


def _json_object(text: str) -> tuple[dict[str, Any] | None, str]:
    if not text.strip():
        return None, "the line is blank"
    try:
        record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return (record, "") if isinstance(record, dict) else (None, "not a JSON object")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key {twice!r} is given twice")
    return record


def _json_fault(record: dict[str, Any], columns: Columns) -> tuple[str, str]:
    for name in (columns.user, columns.item):
        value = record.get(name)
        if name not in record:
            return name, "the key is missing"
        if isinstance(value, bool) or not isinstance(value, int | str):
            return name, "the id is neither text nor an integer"
        if _has_half(value):
            return name, "the id has half a character (a lone surrogate)"
    if columns.time is not None:
        value = record.get(columns.time)
        if columns.time not in record:
            return columns.time, "the key is missing"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return columns.time, "the time is neither a number nor text"
        if _has_half(value):
            return columns.time, "the time has half a character (a lone surrogate)"
    return "", ""


def _has_half(value: object) -> bool:
    return isinstance(value, str) and not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value)


def _blocks_of_lines(path: Path) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, list[str]]]:
    """Blocks of a text file as (line, text), lines that are not UTF-8 as rejects, and notes."""
    number = 1
    for block in _blocks(path):
        notes = []
        if not block.endswith(b"\n"):
            notes = [f"the last line of {path.name} has no line end: if the file was cut, its last value is wrong"]
        try:
            texts = pl.Series([block.decode()]).str.split("\n").explode()
            broken: dict[int, str] = {}
        except UnicodeDecodeError:
            decoded, broken = _decode_each(block)
            texts = pl.Series(decoded, dtype=pl.String)
        count = len(texts) - block.endswith(b"\n")
        # Files joined by `cat` have byte order marks inside, too.
        texts = texts.head(count).str.strip_suffix("\r").str.strip_prefix("\ufeff")
        lines = pl.DataFrame(
            {"line": pl.int_range(number, number + count, dtype=pl.Int64, eager=True), "text": texts}
        )
        bad = [(number + at, "", "not valid UTF-8", raw) for at, raw in broken.items()]
        yield (
            lines.filter(~pl.col("line").is_in([row[0] for row in bad])),
            pl.DataFrame(bad, REJECTS, orient="row"),
            notes,
        )
        number += count
    if number == 1:
        raise DataError(f"{path.name} is empty")


def _decode_each(block: bytes) -> tuple[list[str], dict[int, str]]:
    texts, broken = [], {}
    for at, line in enumerate(block.split(b"\n")):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError:
            texts.append("")
            broken[at] = line.decode(errors="backslashreplace")
    return texts, broken


def _blocks(path: Path) -> Iterator[bytes]:
    """Bytes of a file or gzip stream, in blocks that end with a line."""
    opener = cast(Callable[..., IO[bytes]], gzip.open if path.suffix.lower() == ".gz" else open)
    rest = b""
    try:
        with opener(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                whole, newline, tail = block.rpartition(b"\n")
                if newline:
                    yield rest + whole + newline
                    rest = tail
                else:
                    rest += block
    except EOFError:
        raise DataError(f"{path.name} ends in the middle of its compressed stream: the file is cut") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path.name} is not a whole gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error}") from None
    if rest:
        yield rest


def _no_rejects() -> pl.DataFrame:
    return pl.DataFrame(schema=REJECTS)
