"""Read files and frames into blocks of raw rows with line numbers; lines that cannot be split become rejects.

Text files must be UTF-8, with or without a byte order mark, with line ends \\n or \\r\\n. Each record is one line,
so an unclosed quote damages only one line. Otherwise quotes follow RFC 4180. Blanks around a field are ignored.
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
_JSON_SAMPLE = 1000  # number of objects searched for keys, which become the columns
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
    """One block of a source: rows split into fields, and rejected lines."""

    rows: pl.DataFrame
    """The rows not rejected, with the columns that ROWS lists; `time` is all null if the source has no times."""
    rejects: pl.DataFrame
    """The rejected lines, with the columns that REJECTS lists."""
    has_time: bool
    integer_ids: tuple[bool, bool] = (False, False)
    """Whether the user column and the item column have an integer type."""
    notes: tuple[str, ...] = ()


def read_file(path: Path, config: DataConfig) -> Iterator[Piece]:
    """Yield the rows of a file, in pieces, in order. Raises: DataError for a missing, damaged or unknown file."""
    if not os.path.isfile(path):  # Path.is_file raises on impossible names, such as one with a null byte
        raise DataError(f"the file {path} does not exist. Check the path.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    if ending in {".parquet", ".pq"}:
        try:
            frame = pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path.name} is not a valid Parquet file: {reason}. Replace the file.") from None
        yield read_frame(frame, config, path.name)
    elif ending in {".jsonl", ".ndjson"}:
        yield from _read_json_lines(path, config)
    elif ending in _ENDINGS:
        yield from _read_delimited(path, config, _ENDINGS[ending])
    else:
        raise DataError(f"{path.name} has an unknown file format. Use one of these endings: {FORMATS}")


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


def _read_delimited(path: Path, config: DataConfig, separator: str | None) -> Iterator[Piece]:
    dialect: _Dialect | None = None
    for lines, rejects, notes in _blocks_of_lines(path):
        if dialect is None:
            if rejects.height and rejects["line"][0] == 1:
                raise DataError(f"{path.name}: the first line is not valid UTF-8. Save the file as UTF-8.")
            first = lines.filter(pl.col("text").str.strip_chars() != "")["text"]
            if not len(first):
                raise DataError(f"{path.name} has no rows. Check that the file is complete.")
            dialect = _dialect(first[0], config, separator, path.name)
            notes = [*dialect.notes, *notes]
            if dialect.header is not None:
                lines = lines.filter(pl.col("line") != lines.filter(pl.col("text") == first[0])["line"][0])
        rows, bad = _split(lines, dialect)
        bad = pl.concat([rejects, bad]).sort("line")
        yield Piece(rows, bad, dialect.columns.time is not None, notes=tuple(notes))


def _dialect(first: str, config: DataConfig, separator: str | None, file: str) -> _Dialect:
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
    named = config.user_column or config.item_column or config.time_column
    if named or any(map(is_known, names)):
        columns, notes = choose(names, config, file)
        return _Dialect(separator, columns, tuple(names), first, tuple(notes))
    if len(names) not in (2, 3, 4) or not any(map(_is_number, names)):
        raise DataError(
            f"{file}: the first line ({', '.join(names)}) is neither a header with known names nor "
            "`user item [time]`. Name the columns with `user_column` and `item_column` "
            "(in `prepare`: `user` and `item`)."
        )
    layout = {2: "user item", 3: "user item time", 4: "user item rating time"}[len(names)]
    columns = Columns("user", "item", "time" if len(names) > 2 else None)
    return _Dialect(
        separator,
        columns,
        tuple(layout.split()),
        None,
        (f"the file has no header; its columns are read as `{layout}`",),
    )


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


def _read_json_lines(path: Path, config: DataConfig) -> Iterator[Piece]:
    columns: Columns | None = None
    for lines, rejects, notes in _blocks_of_lines(path):
        rows, bad = [], []
        integers = [True, True]
        if columns is None:
            keys = _json_keys(lines["text"])
            if not keys:
                raise DataError(f"{path.name}: no line is a non-empty JSON object. Write one object on each line.")
            columns, column_notes = choose(keys, config, path.name)
            notes = [*column_notes, *notes]
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
    """Collect the keys of the first 1,000 objects, because the first object may lack a key."""
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
    raise ValueError(f"the value {name} is not a JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        duplicate = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {duplicate!r} occurs twice")
    return record


def _json_fault(record: dict[str, Any], columns: Columns) -> tuple[str, str]:
    for name in (columns.user, columns.item):
        value = record.get(name)
        if name not in record:
            return name, "the key is missing"
        if isinstance(value, bool) or not isinstance(value, int | str):
            return name, "the id is neither text nor an integer"
        if _has_surrogate(value):
            return name, "the id contains an invalid character (a lone surrogate)"
    if columns.time is not None:
        value = record.get(columns.time)
        if columns.time not in record:
            return columns.time, "the key is missing"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return columns.time, "the time is neither a number nor text"
        if _has_surrogate(value):
            return columns.time, "the time contains an invalid character (a lone surrogate)"
    return "", ""


def _has_surrogate(value: object) -> bool:
    # JSON can escape half of a UTF-16 pair (D800), which UTF-8 cannot encode.
    return isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)


def _blocks_of_lines(path: Path) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, list[str]]]:
    """Yield, for each block: its lines (line number, text), rejects for lines not in UTF-8, notes to the user."""
    number = 1
    for block in _blocks(path):
        notes = []
        if not block.endswith(b"\n"):
            notes = [
                f"the last line of {path.name} has no line end; if the file was cut off, its last value is wrong"
            ]
        try:
            texts = pl.Series([block.decode()]).str.split("\n").explode()
            invalid: dict[int, str] = {}
        except UnicodeDecodeError:
            decoded, invalid = _decode_lines(block)
            texts = pl.Series(decoded, dtype=pl.String)
        count = len(texts) - block.endswith(b"\n")
        # Joining files with `cat` leaves byte order marks inside the result, so strip one from every line.
        texts = texts.head(count).str.strip_suffix("\r").str.strip_prefix("\ufeff")
        lines = pl.DataFrame(
            {"line": pl.int_range(number, number + count, dtype=pl.Int64, eager=True), "text": texts}
        )
        bad = [(number + index, "", "not valid UTF-8", raw) for index, raw in invalid.items()]
        yield (
            lines.filter(~pl.col("line").is_in([row[0] for row in bad])),
            pl.DataFrame(bad, REJECTS, orient="row"),
            notes,
        )
        number += count
    if number == 1:
        raise DataError(f"{path.name} is empty. Check the path.")


def _decode_lines(block: bytes) -> tuple[list[str], dict[int, str]]:
    texts, invalid = [], {}
    for index, line in enumerate(block.split(b"\n")):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError:
            texts.append("")
            invalid[index] = line.decode(errors="backslashreplace")
    return texts, invalid


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a plain or gzip file in blocks that end at a line end."""
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
        raise DataError(f"the gzip file {path.name} is cut off. Copy or download it again.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path.name} is not a valid gzip file: {error}. Compress or download it again.") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error}. Check the disk and the permissions.") from None
    if rest:
        yield rest
