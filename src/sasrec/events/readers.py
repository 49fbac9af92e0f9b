"""Choose the reader for a file by its ending."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.delimited import read_delimited
from sasrec.events.frames import read_frame
from sasrec.events.json_lines import read_json_lines
from sasrec.events.pieces import Piece

_ENDINGS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".txt": None, ".dat": None, ".data": None}
FORMATS = ".csv .tsv .txt .dat .data .inter .jsonl .ndjson (each also .gz) .parquet .pq"


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
        yield from read_json_lines(path, config)
    elif ending in _ENDINGS:
        yield from read_delimited(path, config, _ENDINGS[ending])
    else:
        raise DataError(f"{path.name} has an unknown file format. Use one of these endings: {FORMATS}")
