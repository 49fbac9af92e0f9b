"""Find the inputs that a source names: a file, a folder or pattern of parts, several files, stdin, or a table."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from sasrec.errors import DataError

STDIN = "-"
MOST_COLUMNS = 2_000
_NO_DATA = re.compile(r"(?i)^(readme|licen[sc]e|changelog)(\.(txt|rst))?$|\.(md|pdf|html?|crc|png|jpg)$|^[._]")
_COPY = re.compile(r"(?i)^copy of |( ?\(\d+\)|[ _-]+(copy|kopie|copie|copia)( \d+)?|\.(old|bak|orig))(?=\.|$)")
_SPLITS = frozenset({"train", "training", "valid", "validation", "val", "dev", "test"})
_PACKED = re.compile(r"(?i)\.(gz|bz2|xz|zst|zip)$")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, eq=False)
class Input:
    """One file or table to read."""

    name: str
    """The name in messages."""
    path: Path | None = None
    frame: pl.DataFrame | None = None
    """The table, if the input is not a file."""
    constants: dict[str, str | None] = field(default_factory=dict)
    """Columns that the folder names give, such as day=2024-01-31 in Hive partitions."""
    part_of: str = ""
    """The folder or pattern that the file was found by. All parts of one must have the same columns."""


@contextmanager
def inputs_of(source: Any, query: str = "") -> Iterator[list[Input]]:
    """Give the inputs of a source in order; the parts of a folder are in order of their names, 2 before 10.

    `query`: in SQL, if the source is the URL of a database.

    Raises: DataError if the source is of an unknown type, or a folder or pattern has no readable part. Remedy: the
    message names one.
    """
    sources = source if isinstance(source, list | tuple) else [source]
    if not sources:
        raise DataError("the list of files is empty. Name at least one file.")
    with tempfile.TemporaryDirectory() as scratch:
        found = [each for one in sources for each in _inputs(one, Path(scratch), query)]
        yield _named(found)


def _inputs(source: Any, scratch: Path, query: str) -> Iterator[Input]:
    if isinstance(source, str | Path):
        if "\0" in str(source):
            raise DataError(f"the file {str(source)!r} does not exist. Check the path.")
        if is_database(source):
            yield Input("database", frame=_queried(str(source), query))
        elif query:
            shown = without_password(str(source))
            raise DataError(f"`query` is for the URL of a database, but {shown} is not one. Remove `query`.")
        elif str(source) == STDIN:
            yield Input("stdin", _spooled(scratch))
        elif os.path.isdir(source):
            yield from _parts(Path(source))
        elif _is_pattern(source) and not os.path.lexists(source):
            matches = sorted(glob.glob(str(source), recursive=True), key=_natural)
            files = [Path(match) for match in matches if os.path.isfile(match)]
            if not files:
                raise DataError(f"no file matches the pattern {source}. Check the path.")
            _refuse_foreign(Path(os.path.commonpath([file.parent for file in files])), files)
            yield from (Input(path.name, path, part_of=str(source)) for path in files)
        else:
            yield Input(Path(source).name, Path(source))
    else:
        yield Input("frame", frame=_as_frame(source))


def is_database(source: str | Path) -> bool:
    """Whether a source is the URL of a database that can be read."""
    return isinstance(source, str) and source.startswith(("sqlite://", "postgresql://", "postgres://"))


def refuse_wide(columns: int, name: str) -> None:
    """Raise DataError for a table of very many columns, each of which would be profiled. Remedy: keep three."""
    if columns > MOST_COLUMNS:
        raise DataError(
            f"{name} has {columns:,} columns, more than {MOST_COLUMNS:,}. Keep only the columns of user, item and "
            "time; if each line is a user with the user's items, use columns='user,items'."
        )


def without_password(source: str) -> str:
    """Return a source without the name and password that the URL of a database can have."""
    return re.sub(r"^([a-z0-9+]+://)[^@/]*@", r"\1…@", source)


def _queried(url: str, query: str) -> pl.DataFrame:
    """Return the rows of a query. Raises: DataError if it fails. Remedy: correct the URL or the query."""
    shown = without_password(url)
    if not query:
        raise DataError(
            f"{shown} is a database. Set `query`, such as 'SELECT user_id, item_id, time FROM events'."
        )
    try:
        if url.startswith("sqlite://"):
            path = url.removeprefix("sqlite://").removeprefix("/") if url.startswith("sqlite:///") else url[9:]
            if not os.path.isfile(path):
                raise DataError(f"the database {path} does not exist. Check the path: sqlite:///FILE.")
            with closing(sqlite3.connect(path)) as connection:
                return pl.read_database(query, connection, infer_schema_length=None)
        import psycopg

        with psycopg.connect(url) as server:
            return pl.read_database(query, server, infer_schema_length=None)
    except ImportError:
        raise DataError("PostgreSQL needs psycopg. Run `pip install 'psycopg[binary]'`.") from None
    except DataError:
        raise
    except Exception as error:  # the classes of errors differ by driver
        raise DataError(f"the query of {shown} failed: {error}. Correct `query` or the URL.") from None


def _spooled(scratch: Path) -> Path:
    """Copy stdin to a file, because finding out its format takes more than one look."""
    path = scratch / "stdin"
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    return path


def _is_pattern(source: str | Path) -> bool:
    return any(sign in str(source) for sign in "*?[")


_ENOUGH, _MOST_SUFFIXES = 1_000, 20  # so many files tell whether a folder is one of events


def _parts(folder: Path) -> Iterator[Input]:
    """Yield the data files of a folder and of its subfolders, without hidden files and texts for people.

    Raises: DataError if the folder has no such file, or the files have several formats. Remedy: name the files.
    """
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        paths += [Path(parent) / name for name in names if not _NO_DATA.search(name)]
        # A whole disk, say, is refused before all its files are listed.
        if len(paths) > _ENOUGH and len({path.suffix for path in paths[:_ENOUGH]}) > _MOST_SUFFIXES:
            break
    paths.sort(key=lambda path: _natural(str(path.relative_to(folder))))
    if not paths:
        raise DataError(f"the folder {folder} contains no data. Check the path.")
    _refuse_foreign(folder, paths)
    suffixes = Counter(Path(_PACKED.sub("", path.name)).suffix for path in paths)
    if len({suffix.lower() for suffix in suffixes}) > 1:
        listed = ", ".join(path.name for path in paths[:6]) + (" …" if len(paths) > 6 else "")
        raise DataError(
            f"the folder {folder} contains files of several formats ({listed}). Name the file with the events, or "
            f"a pattern such as '{folder}/*{max(suffixes, key=lambda each: suffixes[each])}'."
        )
    for path in paths:
        inner = path.relative_to(folder)
        pairs = [part.partition("=") for part in inner.parts[:-1] if "=" in part]
        constants = {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, _, value in pairs}
        yield Input(str(inner), path, constants=constants, part_of=str(folder))


def _refuse_foreign(folder: Path, paths: list[Path]) -> None:
    """Raise DataError for a folder whose files are not simply parts. Remedy: export it, or name the files."""
    if (folder / "_delta_log").is_dir() or list(folder.glob("metadata/*.metadata.json")):
        raise DataError(
            f"{folder} is a table of Delta Lake or Iceberg, which also keeps files that are deleted from it. "
            "Export it as Parquet, or pass it as a frame."
        )
    stems: dict[Path, Path] = {}
    for path in paths:
        stem = path.with_name(_COPY.sub("", _PACKED.sub("", path.name)))
        if stem in stems:
            raise DataError(
                f"{folder} has {stems[stem].name} and {path.name}, which may be the same events twice. Remove "
                "one, or name the files."
            )
        stems[stem] = path
    inner = [str(path.relative_to(folder)).lower() if folder in path.parents else path.name for path in paths]
    splits = {word for name in inner for word in re.split(r"[^a-z]+", name)} & _SPLITS
    if len(splits) > 1:
        raise DataError(
            f"{folder} has files of a split ({', '.join(sorted(splits))}), which are not parts in this order. "
            "Name the training file as the data, and the others as `valid` and `test`."
        )


def _as_frame(source: Any) -> pl.DataFrame:
    """Convert a table of another library: pandas, pyarrow, DuckDB, or anything with the Arrow C stream."""
    kind = f"{type(source).__module__.split('.')[0]} {type(source).__name__}"
    if isinstance(source, pl.DataFrame):
        return source
    try:
        if isinstance(source, pl.LazyFrame):
            return source.collect()
        if kind == "pandas DataFrame":
            return _from_pandas(source)
        if kind.startswith("duckdb"):
            found = source.pl()
            assert isinstance(found, pl.DataFrame)
            return found
        if hasattr(source, "__arrow_c_stream__") and not kind.endswith(" Series"):
            return pl.DataFrame(pl.from_arrow(source))
    except ImportError as error:
        raise DataError(f"the {kind} needs pyarrow: {error}. Install pyarrow.") from None
    # Polars passes on errors of pyarrow, which have several classes, and can panic on types it does not know.
    except (Exception, pl.exceptions.PanicException) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the {kind} cannot be read: {reason}. Convert columns of unusual types to text, integers or dates."
        ) from None
    raise DataError(
        f"events must be a file, a folder, a frame or a list of these; got {type(source).__name__}. Pass one of "
        "these."
    )


def _from_pandas(frame: Any) -> pl.DataFrame:
    """Convert a pandas frame. Objects of one type that Arrow does not have, such as UUIDs, become text.

    An index with names becomes columns, too.

    Raises: DataError if two columns have one name. Remedy: rename one.
    """
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise DataError(f"more than one column of the frame is named {', '.join(twice)}. Rename one of them.")
    try:
        return pl.from_pandas(frame)
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        columns: dict[str, Any] = {}
        for name in frame.columns:
            values = frame[name]
            if values.dtype != object:
                columns[str(name)] = pl.from_pandas(values)
                continue
            filled = [value if full else None for value, full in zip(values, values.notna(), strict=True)]
            if len({type(value) for value in filled if value is not None}) > 1:
                raise  # the number 1 and the text 1 would become one id
            columns[str(name)] = [None if value is None else str(value) for value in filled]
        return pl.DataFrame(columns)


def _named(found: list[Input]) -> list[Input]:
    """Return the inputs with distinct names: the whole path where two files have the same name."""
    counts = Counter(name for name, _ in {(each.name, each.path) for each in found})
    named = []
    for place, each in enumerate(found):
        name = each.name
        if counts[name] > 1:
            name = str(each.path) if each.path is not None else f"frame {place + 1}"
        named.append(Input(name, each.path, each.frame, each.constants, each.part_of))
    return named


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that orders numbers in names by size, so part-2 comes before part-10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]
