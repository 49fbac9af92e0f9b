"""Read plain or compressed text files as blocks of numbered lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import polars as pl

from sasrec.errors import DataError
from sasrec.events.pieces import REJECTS

_BLOCK = 2**25  # bytes of text at a time


def blocks_of_lines(path: Path) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, list[str]]]:
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
