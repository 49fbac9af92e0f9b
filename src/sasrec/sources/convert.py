"""Convert the original files of a public data set to tab-separated files of events and titles."""

from __future__ import annotations

import ast
import csv
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress

from sasrec.errors import DataError
from sasrec.files import decompressed, whole_file
from sasrec.sources.download import reading
from sasrec.sources.registry import COLUMNS, DOWNLOADED, Form, Member, PublicDataset

_SEPARATORS = {"tab": b"\t", "inter": b"\t", "comma": b",", "colons": b"::", "pipe": b"|"}
_RECORDS: dict[str, tuple[Callable[[str], Any], tuple[str, str, str]]] = {
    "json": (json.loads, ("reviewerID", "asin", "unixReviewTime")),
    "literal": (ast.literal_eval, ("username", "product_id", "date")),
}
_LONGEST_LINE = 1 << 24  # bytes in one read, so that a damaged file without line ends cannot fill the memory


@dataclass(frozen=True)
class Located:
    """The converted files of a data set, and the options for reading them."""

    events: Path
    data_config_overrides: dict[str, Any]
    """Settings of DataConfig with which to read `events`."""
    items: Path | None
    """Tab-separated UTF-8 file of titles, with a header and without quoting; None if titles are unknown."""
    item_column: str | None
    """Name of the column in the file `items` that contains the item ids used in `events`; None without `items`."""
    title_column: str | None
    """Name of the column in the file `items` that contains the titles; None without `items`."""
    source: str
    """Description of the origin of the events, shown to the user."""


def converted_earlier(into: Path, origin: str) -> Located | None:
    """Return the files of an earlier conversion to `into` (paths: `table_path`), or None if they are missing.

    `origin`: the text for `Located.source`.
    """
    # `convert` writes the events last, so an existing events file means a complete conversion.
    events, items = table_path(into, "events"), table_path(into, "items")
    if not events.exists():
        return None
    return Located(events, DOWNLOADED, *_titled(items if items.exists() else None, "item"), origin)


def table_path(into: Path, kind: str) -> Path:
    """Return the path of a converted table, INTO.KIND.tsv; `kind` is events, items or pairs."""
    return into.with_name(f"{into.name}.{kind}.tsv")


def plain_table(dataset: PublicDataset, table: Path, rewritten: Path, origin: str) -> Located:
    """Use a table that the events reader can read without conversion.

    A table of two integer columns without a header is copied to `rewritten` with the header user, item.
    """
    with reading(table), decompressed(table) as stream:
        first = stream.readline(_LONGEST_LINE).split()
        bare_pairs = len(first) == 2 and all(field.isdigit() for field in first)
        if bare_pairs:
            with whole_file(rewritten) as out:
                out.write(b"user\titem\n" + b"\t".join(first) + b"\n")
                shutil.copyfileobj(stream, out)
    stem = Path(table.name.removesuffix(".gz")).stem
    candidates = (table.with_name(f"{name}.items.tsv") for name in (stem, dataset.name))
    items = next((path for path in candidates if path.is_file()), None)
    header = items.read_text(encoding="utf-8").partition("\n")[0].split("\t") if items else []
    # The ML-1M file of SASRec's authors lacks times and numbers the films differently from GroupLens.
    names = ("item", "kang205_item" if bare_pairs else "movie_id", "movie_id")
    column = next((name for name in names if name in header), None)
    events, overrides = (rewritten, dict(COLUMNS)) if bare_pairs else (table, {})
    return Located(events, overrides, *_titled(items if "title" in header else None, column), origin)


def _titled(items: Path | None, column: str | None) -> tuple[Path | None, str | None, str | None]:
    return (items, column, "title") if items and column else (None, None, None)


def convert(dataset: PublicDataset, copy: Path, into: Path, origin: str, console: Console) -> Located | None:
    """Convert the events and titles in `copy` to tables (paths: `table_path`); return their location.

    `copy`: an archive, a folder or a file. Return None if `copy` contains no events of this data set.
    """
    # For a single file of events, look for the titles in the same folder.
    single_file = copy.is_file() and not zipfile.is_zipfile(copy)
    with reading(copy):
        for member in dataset.events:
            stream = _open(copy, member.file, dataset)
            if stream is None:
                continue
            for titles in dataset.items:
                if source := _open(copy.parent if single_file else copy, titles.file, dataset):
                    with source, whole_file(table_path(into, "items")) as out:
                        _write_titles(source.read(), titles.form, out)
                    break
            with stream, whole_file(table_path(into, "events")) as out:
                _write_events(stream, member, out, console)
            return converted_earlier(into, origin)
    return None


def _open(copy: Path, file: str, dataset: PublicDataset) -> IO[bytes] | None:
    """Open a file by name in a zip or folder, or the copy itself if it has this name; return None if missing."""
    if copy.is_file() and zipfile.is_zipfile(copy):
        with zipfile.ZipFile(copy) as archive:
            for info in archive.infolist():
                if info.filename.rpartition("/")[2] != file:
                    continue
                if info.file_size > dataset.max_bytes:
                    raise DataError(
                        f"{copy} is not the original archive: its {file} unpacks to {info.file_size:,} bytes, "
                        "more than any original file. Download the archive again."
                    )
                return archive.open(info)
        return None
    places = (copy, copy / dataset.name) if copy.is_dir() else (copy.parent,)
    for path in (place / name for place in places for name in (file, f"{file}.gz")):
        if path.is_file() and (copy.is_dir() or path == copy):
            return decompressed(path)
    return None


def _write_events(stream: IO[bytes], member: Member, out: IO[bytes], console: Console) -> None:
    if member.form in _SEPARATORS:
        separator = _SEPARATORS[member.form]
        # Tables are converted line by line as bytes; only the separator changes.
        first = stream.readline(_LONGEST_LINE).strip()
        if len(first.split(separator)) != 4:
            raise DataError(
                f"{member.file} is not the original file: its first line is not user, item, rating, time. "
                "Download the data set again."
            )
        out.write(b"user\titem\trating\ttime\n")
        if first.rpartition(separator)[2].isdigit():  # The first line is an event, not a header.
            out.write(first.replace(separator, b"\t") + b"\n")
        for line in stream:
            out.write(line.replace(separator, b"\t"))
        return
    out.write(b"user\titem\ttime\n")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        records = bar.track(_records(stream, member), description=f"converting {member.file}")
        for user, item, seconds in records:
            out.write(f"{_field(user)}\t{_field(item)}\t{seconds}\n".encode())


def _records(stream: IO[bytes], member: Member) -> Iterator[tuple[str, str, int]]:
    parse, names = _RECORDS[member.form]
    for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), 1):
        try:
            record = parse(line.decode())
            user, item, when = (record[name] for name in names)
            if isinstance(when, str):
                when = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
            yield str(user), str(item), int(when)
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
            fields = ", ".join(names)
            raise DataError(
                f"{member.file}, line {number}: cannot read {fields} ({error}). Use a complete copy of the file."
            ) from None


def _field(text: str) -> str:
    """Quote a field for the events reader; replace tabs and line ends, which would split the row."""
    text = text.translate({9: " ", 10: " ", 13: " "})
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


def _write_titles(data: bytes, form: Form, out: IO[bytes]) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:  # GroupLens wrote its older files in Latin-1.
        text = data.decode("latin-1")
    lines = [line.rstrip("\r") for line in text.split("\n") if line]
    if form == "comma":
        rows = list(csv.reader(lines))[1:]
    else:
        rows = [line.split(_SEPARATORS[form].decode()) for line in lines]
    if form == "inter":  # RecBole's files have a header and a separate year column.
        rows = [[row[0], f"{row[1]} ({row[2]})" if row[2] else row[1]] for row in rows[1:] if len(row) > 2]
    out.write(b"item\ttitle\n")
    for row in rows:
        if len(row) > 1:
            out.write("\t".join(" ".join(field.split()) for field in row[:2]).encode() + b"\n")
