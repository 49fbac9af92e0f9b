"""Choose the reader for a file by its first bytes; its ending only says what the separator usually is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sasrec.config.settings import DataConfig
from sasrec.errors import DataError
from sasrec.events.delimited import read_delimited
from sasrec.events.frames import read_frame, read_table_file
from sasrec.events.inputs import Input
from sasrec.events.json_records import read_json
from sasrec.events.pieces import Piece
from sasrec.events.streams import sniffed
from sasrec.files import missing

# The usual separator of an ending; None where files of this ending have various ones.
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}
_TABLES = {".parquet": "Parquet", ".pq": "Parquet", ".arrow": "Arrow", ".feather": "Feather", ".ipc": "Arrow"}
_FOREIGN = frozenset(
    {".xls", ".xlsx", ".ods", ".pkl", ".pickle", ".h5", ".hdf5", ".npy", ".npz", ".mat", ".sav", ".dta", ".db"}
    | {".sqlite", ".tar"}
)
_PACKED = re.compile(r"(?i)\.(gz|bz2|xz|zst|zip)$")


def read_input(each: Input, config: DataConfig) -> Iterator[Piece]:
    """Yield the rows of an input, in pieces, in order.

    Raises: DataError for a missing, damaged or unknown file, or if the roles of the columns are not clear. Remedy:
    the message names one.
    """
    if each.frame is not None:
        yield from read_frame(each.frame.lazy(), config, f"the {each.name}", each)
        return
    path = each.path
    if path is None or not os.path.exists(path):  # Path.exists raises on impossible names, as one with a null byte
        raise DataError(f"the file {path} {missing(Path(str(path)))}. Check the path.")
    ending = Path(_PACKED.sub("", path.name)).suffix.lower()
    if ending in _FOREIGN:
        raise DataError(f"{each.name} has a format that cannot be read. Save the table as CSV or Parquet.")
    kind, encoding = sniffed(path, each.name, config.encoding)
    if kind in ("parquet", "arrow"):
        yield from read_table_file(path, kind, config, each)
    elif ending in _TABLES:
        raise DataError(f"{each.name} is not a valid {_TABLES[ending]} file. Copy or download it again.")
    elif kind in ("json", "json lines") or ending in (".jsonl", ".ndjson", ".json"):
        yield from read_json(path, config, each, encoding, whole=kind == "json")
    else:
        yield from read_delimited(path, config, _SEPARATORS.get(ending), each, encoding)
