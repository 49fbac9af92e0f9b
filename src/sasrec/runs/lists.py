"""Recommend for the histories of a file, batch by batch, so that memory does not grow with the file."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sasrec.errors import ConfigError, DataError, SasrecWarning
from sasrec.files import missing, whole_file
from sasrec.ranking.recommender import Recommender
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import rank

_AT_ONCE = 20_000  # rows; more is hardly faster
_COLUMNS = ("user", "items", "times")


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

    Raises: DataError if the file cannot be read or lacks a column. ConfigError if pyarrow is missing, or for
    another ending of `output`. Remedy: as the message says.
    """
    source, output = Path(histories), Path(output)
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise ConfigError('a file of histories needs pyarrow: pip install "sasrec[arrow]".') from None
    if output.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"lists are written as .parquet or .csv, not as {output.name}. Use one of the two.")
    if (rules := options.get("rules")) is not None:
        options["rules"] = rules = rules.at_present()  # all batches at one time
        rules.on(recommender.items)  # its warnings, before those of batches are silenced
    if not source.is_file():
        raise DataError(f"{source} {missing(source)}. Name a Parquet file of histories.")
    kind = pyarrow.parquet.ParquetWriter if output.suffix == ".parquet" else pyarrow.csv.CSVWriter
    try:
        with ExitStack() as opened:
            file = opened.enter_context(pyarrow.parquet.ParquetFile(source))
            if not file.metadata.num_rows:
                raise DataError(f"{source} has no rows. Name a file with histories.")
            stream = opened.enter_context(whole_file(output)) if rank() == 0 else None
            return _written(recommender, file, stream, kind, k, log or RunLog(None), options)
    except pyarrow.ArrowException as error:
        raise DataError(f"{source} cannot be read as Parquet: {error}. Name a file with histories.") from None


def _written(
    recommender: Recommender, file: Any, stream: Any, kind: Any, k: int, log: RunLog, options: dict[str, Any]
) -> tuple[int, int, int]:
    read, lists, full, writer = 0, 0, 0, None
    columns = [name for name in _COLUMNS if name in file.schema_arrow.names] or None
    with log.bar("recommending", file.metadata.num_rows) as bar:
        for batch in file.iter_batches(_AT_ONCE, columns=columns):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SasrecWarning)  # one for each batch; the caller gets the counts
                found = recommender(batch, k, **options)
            if stream is not None:
                writer = writer or kind(stream, found.schema)
                writer.write_table(found)
            read += batch.num_rows
            ranks = found["rank"].to_numpy()
            lists += int((ranks == 1).sum())
            full += int((ranks == k).sum())
            bar(batch.num_rows)
    if writer is not None:
        writer.close()
    return read, lists, lists - full
