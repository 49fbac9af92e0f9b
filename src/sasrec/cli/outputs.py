"""Files of tables that a command writes: .parquet or .csv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sasrec.errors import ConfigError
from sasrec.files import whole_file

if TYPE_CHECKING:  # help and refusals come without it
    import polars as pl


def refuse_output(option: str, path: Path, needed_by: str = "") -> None:
    """Raise ConfigError if a table cannot be written to this file, before the work that fills it.

    `path`: Path() if `option` was not given. `needed_by`: the option that needs it, for the message.
    """
    if path == Path():
        raise ConfigError(f"{needed_by} needs {option}. Add {option} FILE.parquet or {option} FILE.csv.")
    if path.suffix not in {".parquet", ".csv"}:
        raise ConfigError(f"the file of {option} must end in .parquet or .csv, and {path} does not. Rename it.")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder {path.parent} does not exist. Make it, or correct {option}.")


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a table whole, as the ending of the file says."""
    with whole_file(path) as stream:
        frame.write_csv(stream) if path.suffix == ".csv" else frame.write_parquet(stream)
