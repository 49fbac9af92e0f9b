"""Recommend for the histories of a file, batch by batch, so that memory does not grow with the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.data.items import look_up, shown
from sasrec.errors import ConfigError, DataError, SasrecWarning, amount
from sasrec.files import missing, whole_file
from sasrec.ranking.known import NothingLeft
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.requests import HistoryError, many
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import rank
from sasrec.untrusted import refuse_no_file

_AT_ONCE = 20_000  # rows; more is hardly faster
_COLUMNS = ("user", "items", "times")
_SOME = 3  # ids in a message


def write_lists(
    recommender: Recommender,
    histories: str | Path,
    output: str | Path,
    k: int = 10,
    *,
    log: RunLog | None = None,
    **options: Any,
) -> tuple[int, int, int]:
    """Write the k best items for each history of a Parquet file; return how many histories, lists, short lists.

    `histories`: a Parquet file with the columns of `Recommender.__call__`. `output`: a .parquet or .csv file with
    user, item, score and rank, which appears when it is whole. `options`: those of `recommend_many`. A history
    without a known item gets no list; a short list has fewer than k items. Under torchrun the processes share each
    batch, and rank 0 writes.

    Raises: DataError if the file cannot be read or lacks a column, or if no history has a known item and no
    fallback answers. ConfigError if pyarrow is missing, or for another ending of `output`. Remedy: as the message
    says.
    """
    source, output = Path(histories), Path(output)
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError('a file of histories needs pyarrow: pip install "sasrec[arrow]".') from None
    if output.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"lists are written as .parquet or .csv, not as {output.name}. Use one of the two.")
    if (rules := options.get("rules")) is not None:
        options["rules"] = rules = rules.at_present()  # all batches at one time
        rules.on(recommender.items)  # its warnings, before those of batches are silenced
    if not source.exists():
        raise DataError(f"{source} {missing(source)}. Name a Parquet file of histories.")
    try:
        refuse_no_file(source)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}. Name a Parquet file of histories.") from None
    kind = pyarrow.parquet.ParquetWriter if output.suffix == ".parquet" else None  # None: CSV
    with ExitStack() as opened:
        with _reading(source):
            file = opened.enter_context(pyarrow.parquet.ParquetFile(source))
        if not file.metadata.num_rows:
            raise DataError(f"{source} has no rows. Name a file with histories.")
        stream = opened.enter_context(whole_file(output)) if rank() == 0 else None
        target = (opened, stream, kind)
        read, lists, short = _written(recommender, file, source, target, k, log or RunLog(None), options)
        if not lists:  # an error keeps the old output
            _refuse_nothing(recommender, file, source)
        return read, lists, short


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Name the file of histories in errors of reading it. Raises: DataError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else "it is damaged"
        raise DataError(f"{source} cannot be read as Parquet: {reason}. Name a file with histories.") from None


def _batches(file: Any, source: Path) -> Iterator[Any]:
    # Without one of its columns, all are read, because the message lists them.
    names = file.schema_arrow.names
    columns = [name for name in _COLUMNS if name in names] if {"user", "items"} <= set(names) else None
    with _reading(source):
        yield from file.iter_batches(_AT_ONCE, columns=columns)


def _written(
    recommender: Recommender,
    file: Any,
    source: Path,
    target: tuple[ExitStack, Any, Any],
    k: int,
    log: RunLog,
    options: dict[str, Any],
) -> tuple[int, int, int]:
    opened, stream, kind = target
    read, lists, full, of_fallback, writer = 0, 0, 0, 0, None
    rules = options.get("rules")
    bans = {} if rules is None else rules.on(recommender.items).bans
    banned = not bans
    with log.bar("recommending", file.metadata.num_rows) as bar:
        for batch in _batches(file, source):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SasrecWarning)  # one for each batch; the caller gets the counts
                try:
                    found = recommender(batch, k, **options)
                except HistoryError as error:
                    row = f"row {read + error.row + 1:,} (user {shown(batch.column('user')[error.row])})"
                    raise DataError(f"{source}, {row}: {error.reason}") from None
                except DataError as error:
                    raise DataError(f"{source}: {error}") from None
            frame = pl.DataFrame(found)
            if stream is not None:
                if kind is None:
                    frame.write_csv(stream, include_header=not read)
                else:
                    writer = writer or opened.enter_context(kind(stream, found.schema))
                    writer.write_table(found)
            frame = frame.filter(pl.col("rank") == 1)
            read += batch.num_rows
            lists += frame.height
            full += int((found["rank"].to_numpy() == k).sum())
            if recommender.fallback is not None:
                of_fallback += frame.filter(source=recommender.fallback.name).height
            banned = banned or any(look_up(bans, user) is not None for user in batch.column("user").to_pylist())
            bar(batch.num_rows)
    if rank() == 0:
        if rules is not None and not banned:
            some = f"{amount(len(bans), 'user')}, such as {shown(next(iter(bans)))}"
            note = f"{rules.name}: bans name {some}, but no history of {source} is of one of them"
            warnings.warn(note, SasrecWarning, stacklevel=3)
        if of_fallback:
            note = f"{of_fallback:,} of {read:,} histories have no known item and get the items of the fallback"
            warnings.warn(note, SasrecWarning, stacklevel=3)
    return read, lists, lists - full


def _refuse_nothing(recommender: Recommender, file: Any, source: Path) -> None:
    """Say why no history got a list. Raises: DataError if no id is known. Remedy: write ids of the model."""
    some: list[str] = []
    for batch in _batches(file, source):
        histories, items = pl.DataFrame(batch)["items"], recommender.items
        rows, _, unknown = many(histories, None, items, recommender.known_items, timed=False, regular=True)
        if len(rows) or recommender.fallback is not None:
            warnings.warn("nothing is left to recommend for any history", NothingLeft, stacklevel=3)
            return
        some = list(dict.fromkeys([*some, *unknown]))[:_SOME]
    if not some:
        raise DataError(f"all lists of items in {source} are empty. Give histories with items.")
    own = ", ".join(map(shown, recommender.items.ids.head(_SOME)))
    raise DataError(
        f"no history of {source} has an item that the model knows: its ids are such as {', '.join(some)}, those "
        f"of the model such as {own}. Write the ids of the data that the model was trained on."
    )
