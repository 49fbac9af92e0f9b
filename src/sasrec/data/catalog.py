"""The public data sets: where each comes from, on what terms, and how its files become plain event files.

No data is part of this package: `locate` fetches it from its publisher, or takes a copy the user has.
"""

from __future__ import annotations

import ast
import csv
import difflib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from rich.console import Console
from rich.progress import Progress

from sasrec.data.download import decompressed, download, download_wheel, published, reading, say
from sasrec.errors import DataError, DownloadError

Form: TypeAlias = Literal["tab", "comma", "colons", "pipe", "inter", "json", "literal"]
"""How a file is written. json and literal: a review a line, as a JSON object (Amazon) or as a Python literal
(Steam), which JSON cannot read. The others are tables; events in them are user, item, rating and seconds."""
CONNECT_TIMEOUT = 10.0
"""Seconds to wait for an official address, then for each of its blocks."""
_COLUMNS = {"user_column": "user", "item_column": "item"}
# How the events of a downloaded data set are read, once converted.
DOWNLOADED = {**_COLUMNS, "time_column": "time", "time_unit": "s"}
_SEPARATORS = {"tab": b"\t", "inter": b"\t", "comma": b",", "colons": b"::", "pipe": b"|"}
_RECORDS: dict[str, tuple[Callable[[str], Any], tuple[str, str, str]]] = {
    "json": (json.loads, ("reviewerID", "asin", "unixReviewTime")),
    "literal": (ast.literal_eval, ("username", "product_id", "date")),
}
TABLES = (".tsv", ".csv", ".txt", ".dat", ".inter", ".jsonl", ".parquet")
"""What the events reader takes by itself, also with .gz after it."""
_LONGEST_LINE = 1 << 24


@dataclass(frozen=True)
class Source:
    """One place to fetch a data set from."""

    address: str
    """A web address, or what pip is asked for."""
    file: str
    """Name of the file it gives."""
    sha256: str | None = None
    """None where no checksum is known: then the first download's is recorded beside it and checked after."""
    md5: str | None = None
    """As its publisher states it."""
    pip: bool = False
    """Whether pip fetches it, as a wheel that is read as a zip and never installed."""

    @property
    def told(self) -> str:
        """In words, for the user."""
        return f"the examples in the wheel of {self.address}" if self.pip else self.address


@dataclass(frozen=True)
class Member:
    """A file of a data set by its own name, wherever it lies in an archive or folder; perhaps with .gz."""

    file: str
    form: Form


@dataclass(frozen=True)
class PublicDataset:
    """A data set that `sasrec` knows by name."""

    name: str
    title: str
    homepage: str
    terms: str
    sources: tuple[Source, ...]
    """Tried in this order."""
    events: tuple[Member, ...]
    """Files of events that are understood; the first one found is taken."""
    items: tuple[Member, ...] = ()
    max_bytes: int = 1 << 31
    """Most that one member of a zip may unpack to: several times the largest there is, ML-20M's 0.5 GB."""
    note: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        """The file names that `--from` takes; a folder with one of them will do too."""
        named = [source.file for source in self.sources] + [member.file for member in self.events]
        return (*dict.fromkeys(named), f"{self.name}.tsv.gz")


@dataclass(frozen=True)
class Located:
    """Files on disk, ready for the events reader."""

    events: Path
    data_config_overrides: dict[str, Any]
    """Fields of DataConfig that this file needs."""
    items: Path | None
    """Tab-separated, UTF-8, with a header, without quoting; None where there are no titles."""
    item_column: str | None
    """The column of `items` with the ids that the events use."""
    title_column: str | None
    source: str
    """Where the events came from, to be told to the user."""


_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_STEAM = "https://mcauleylab.ucsd.edu/public_datasets/data/steam"
_MCAULEY_TERMS = "McAuley Lab: research use by convention; cite the papers that its page names."


def _amazon(name: str, category: str) -> PublicDataset:
    ratings = f"ratings_{category}.csv"
    return PublicDataset(
        name=name,
        title=f"Amazon {category.replace('_', ' ')}, 2014: all ratings",
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        terms=_MCAULEY_TERMS,
        sources=(Source(f"{_AMAZON}/{ratings}", ratings),),
        events=(Member(ratings, "comma"), Member(f"reviews_{category}_5.json", "json")),
        note="most papers report its 5-core: set k_core = 5",
    )


def _movielens(
    size: str, sha256: str, md5: str, events: tuple[Member, ...], items: tuple[Member, ...], *more: Source
) -> PublicDataset:
    name = f"ml-{size.lower()}"
    zipped = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    return PublicDataset(
        name=name,
        title=f"MovieLens {size}",
        homepage=f"https://grouplens.org/datasets/movielens/{size.lower()}/",
        terms="GroupLens: research use; no commercial use without permission; no redistribution.",
        sources=(Source(zipped, f"{name}.zip", sha256, md5), *more),
        events=events,
        items=items,
        note=f"or from the examples in the wheel of {more[0].address}" if more else "",
    )


_RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_DATASETS = (
    _movielens(
        "100K",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "0e33842e24a9c977be4e0107933c0723",
        (Member("u.data", "tab"), Member("ml-100k.inter", "inter")),
        (Member("u.item", "pipe"), Member("ml-100k.item", "inter")),
        Source("recbole==1.2.1", "recbole-1.2.1-py3-none-any.whl", _RECBOLE_SHA256, pip=True),
    ),
    _movielens(
        "1M",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "c4d9eecfca2ab87c1945afe126590906",
        (Member("ratings.dat", "colons"),),
        (Member("movies.dat", "colons"),),
    ),
    _movielens(
        "20M",
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "cd245b17a1ae2cc31bb14903e1204af3",
        (Member("ratings.csv", "comma"),),
        (Member("movies.csv", "comma"),),
    ),
    _amazon("amazon-beauty", "Beauty"),
    _amazon("amazon-games", "Video_Games"),
    PublicDataset(
        name="steam",
        title="Steam reviews",
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        terms=_MCAULEY_TERMS,
        sources=(
            Source("https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz", "steam_reviews.json.gz"),
            Source(f"{_STEAM}/steam_reviews.json.gz", "steam_reviews.json.gz"),
        ),
        events=(Member("steam_reviews.json", "literal"), Member("steam_new.json", "literal")),
        note="1.3 GB to download; times are days",
    ),
)
CATALOG: dict[str, PublicDataset] = {dataset.name: dataset for dataset in _DATASETS}


def find(name: str) -> PublicDataset:
    """The data set of that name.

    Raises: DataError listing the names there are, and the closest.
    """
    if name in CATALOG:
        return CATALOG[name]
    close = difflib.get_close_matches(name.lower(), CATALOG, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"there is no public data set {name!r}: the names are {', '.join(CATALOG)}{hint}")


def cache_root() -> Path:
    """Where downloads are kept: $SASREC_CACHE, or ~/.cache/sasrec."""
    return Path(os.environ.get("SASREC_CACHE") or "~/.cache/sasrec").expanduser()


def locate(name: str, *, cache: Path, local_copy: Path | None = None, console: Console | None = None) -> Located:
    """Event and title files of a public data set, downloaded and converted at the first call only.

    `local_copy` stands in for the download: the archive, the folder it unpacks to, or one file of events.

    Raises: DataError for an unknown name, or a copy that is damaged or none of the files expected;
        DownloadError if no source could be fetched. Remedy: `--from FILE`.
    """
    dataset = find(name)
    console = console or Console(stderr=True)
    raw = cache / name / "raw"
    if local_copy is not None:
        return _from_local_copy(dataset, local_copy.expanduser(), raw, console)
    for source in dataset.sources:
        if kept := _kept(raw / Path(source.file).stem, f"{source.told}, fetched earlier"):
            return kept
    say(console, f"{dataset.title}: {dataset.terms} See {dataset.homepage}")
    failures: list[str] = []
    for source in dataset.sources:
        try:
            archive = _fetch(source, cache / name, console)
        except DownloadError as error:
            failures.append(str(error))
            if source is not dataset.sources[-1]:
                say(console, f"{error}. Trying the next source")
            continue
        if found := _convert(dataset, archive, raw / Path(source.file).stem, source.told, console):
            return found
        raise DataError(f"{archive} holds none of: {', '.join(m.file for m in dataset.events)}; delete it")
    remedy = f"--from takes any of {', '.join(dataset.accepted)} (see {dataset.homepage})"
    raise DownloadError(f"{name} could not be fetched: {'; '.join(failures)}. {remedy}")


def _fetch(source: Source, folder: Path, console: Console) -> Path:
    place = folder / source.file
    if source.pip:
        assert source.sha256 is not None, "a wheel from just any index must be a known one"
        return download_wheel(source.address, place, sha256=source.sha256, console=console)
    sha256, md5 = source.sha256, source.md5
    return download(source.address, place, sha256=sha256, md5=md5, timeout=CONNECT_TIMEOUT, console=console)


def _kept(into: Path, told: str) -> Located | None:
    """The result of an earlier conversion. Events are written last: where they are, all is."""
    events, items = _table(into, "events"), _table(into, "items")
    if not events.exists():
        return None
    return Located(events, DOWNLOADED, *_titled(items if items.exists() else None, "item"), told)


def _from_local_copy(dataset: PublicDataset, copy: Path, raw: Path, console: Console) -> Located:
    expected = f"expected one of {', '.join(dataset.accepted)}, or a folder with one of them"
    if not copy.exists():
        raise DataError(f"there is no {copy}: {expected}")
    told, stat = f"local copy {copy}", copy.stat()
    stamp = f"{copy.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    into = raw / f"local-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    # The date of a folder does not tell whether its files changed.
    kept = _kept(into, told) if copy.is_file() else None
    if found := kept or _convert(dataset, copy, into, told, console):
        return found
    names = (f"{dataset.name}{suffix}{gz}" for suffix in TABLES for gz in ("", ".gz"))
    for table in [copy / name for name in names] if copy.is_dir() else [copy]:
        if table.is_file() and table.name.removesuffix(".gz").endswith(TABLES):
            return _plain_table(dataset, table, _table(into, "pairs"), told)
    raise DataError(f"{copy} is not a copy of {dataset.name}: {expected}")


def _table(into: Path, kind: str) -> Path:
    return into.with_name(f"{into.name}.{kind}.tsv")


def _plain_table(dataset: PublicDataset, table: Path, rewritten: Path, told: str) -> Located:
    """A table that the events reader takes as it is, but for two columns without a name: those get one."""
    with reading(table), decompressed(table) as stream:
        first = stream.readline(_LONGEST_LINE).split()
        bare_pairs = len(first) == 2 and all(field.isdigit() for field in first)
        if bare_pairs:
            with published(rewritten) as out:
                out.write(b"user\titem\n" + b"\t".join(first) + b"\n")
                shutil.copyfileobj(stream, out)
    stem = Path(table.name.removesuffix(".gz")).stem
    beside = (table.with_name(f"{name}.items.tsv") for name in (stem, dataset.name))
    items = next((path for path in beside if path.is_file()), None)
    header = items.read_text(encoding="utf-8").partition("\n")[0].split("\t") if items else []
    # SASRec's authors numbered the films of ML-1M anew; their file has no times.
    names = ("item", "kang205_item" if bare_pairs else "movie_id", "movie_id")
    column = next((name for name in names if name in header), None)
    events, overrides = (rewritten, dict(_COLUMNS)) if bare_pairs else (table, {})
    return Located(events, overrides, *_titled(items if "title" in header else None, column), told)


def _titled(items: Path | None, column: str | None) -> tuple[Path | None, str | None, str | None]:
    return (items, column, "title") if items and column else (None, None, None)


def _convert(dataset: PublicDataset, copy: Path, into: Path, told: str, console: Console) -> Located | None:
    """Write the tables of an archive, folder or file; None if it has no events of this data set."""
    alone = copy.is_file() and not zipfile.is_zipfile(copy)
    with reading(copy):
        for member in dataset.events:
            stream = _open(copy, member.file, dataset)
            if stream is None:
                continue
            for titles in dataset.items:
                if source := _open(copy.parent if alone else copy, titles.file, dataset):
                    with source, published(_table(into, "items")) as out:
                        _write_titles(source.read(), titles.form, out)
                    break
            with stream, published(_table(into, "events")) as out:
                _write_events(stream, member, out, console)
            return _kept(into, told)
    return None


def _open(copy: Path, file: str, dataset: PublicDataset) -> IO[bytes] | None:
    """The bytes of a file by name, from a zip, a folder, or the file itself; None where it is not."""
    if copy.is_file() and zipfile.is_zipfile(copy):
        with zipfile.ZipFile(copy) as archive:
            for info in archive.infolist():
                if info.filename.rpartition("/")[2] != file:
                    continue
                if info.file_size > dataset.max_bytes:
                    raise DataError(f"{copy}: {file} unpacks to {info.file_size:,} bytes: not the original")
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
        first = stream.readline(_LONGEST_LINE).strip()
        if len(first.split(separator)) != 4:
            raise DataError(f"{member.file} does not begin with user, item, rating, time: not the original")
        out.write(b"user\titem\trating\ttime\n")
        if first.rpartition(separator)[2].isdigit():  # No header, then.
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
            wanted = ", ".join(names)
            raise DataError(f"{member.file}, line {number}: no {wanted} ({error}): get a whole copy") from None


def _field(text: str) -> str:
    text = text.translate({9: " ", 10: " ", 13: " "})
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


def _write_titles(data: bytes, form: Form, out: IO[bytes]) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:  # As GroupLens wrote the older ones.
        text = data.decode("latin-1")
    lines = [line.rstrip("\r") for line in text.split("\n") if line]
    if form == "comma":
        rows = list(csv.reader(lines))[1:]
    else:
        rows = [line.split(_SEPARATORS[form].decode()) for line in lines]
    if form == "inter":  # RecBole has a header, and the year apart from the title.
        rows = [[row[0], f"{row[1]} ({row[2]})" if row[2] else row[1]] for row in rows[1:] if len(row) > 2]
    out.write(b"item\ttitle\n")
    for row in rows:
        if len(row) > 1:
            out.write("\t".join(" ".join(field.split()) for field in row[:2]).encode() + b"\n")
