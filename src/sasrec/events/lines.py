"""Read plain or compressed text files as blocks of numbered lines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl

from sasrec.errors import DataError
from sasrec.events.pieces import REJECTS
from sasrec.events.streams import opened

_BLOCK = 2**25  # bytes of text at a time


def blocks_of_lines(
    path: Path, name: str, encoding: str = "utf-8"
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, list[str]]]:
    """Yield, for each block: its lines (line number, text), rejects for lines not in UTF-8, notes to the user.

    Raises: DataError if the file is empty, or its bytes are not text of another `encoding` than UTF-8. Remedy:
    check the path, or correct `encoding`.
    """
    number = 1
    for block in _blocks(path, name, encoding):
        notes = []
        if not block.endswith(b"\n"):
            notes = [
                f"the last line of {name} has no line end; if the file was cut off, its last value is wrong"
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
        raise DataError(f"{name} is empty. Check the path.")


def _decode_lines(block: bytes) -> tuple[list[str], dict[int, str]]:
    texts, invalid = [], {}
    for index, line in enumerate(block.split(b"\n")):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError:
            texts.append("")
            invalid[index] = line.decode(errors="backslashreplace")
    return texts, invalid


def _blocks(path: Path, name: str, encoding: str) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8, in blocks that end at a line end."""
    rest = b""
    with opened(path, name) as stream:
        for block in _utf8(stream, name, encoding):
            whole, newline, tail = block.rpartition(b"\n")
            if newline:
                yield rest + whole + newline
                rest = tail
            else:
                rest += block
    if rest:
        yield rest


def _utf8(stream: IO[bytes], name: str, encoding: str) -> Iterator[bytes]:
    """Yield blocks of bytes, converted to UTF-8. Text that is UTF-8 already is checked later, line by line."""
    if encoding == "utf-8":
        while block := stream.read(_BLOCK):
            yield block
        return
    text = io.TextIOWrapper(stream, encoding, newline="")
    try:
        while characters := text.read(_BLOCK):
            yield characters.encode()
    except UnicodeError as error:
        raise DataError(f"{name} is not {encoding} text: {error}. Correct `encoding`.") from None
