"""Read text files as blocks of numbered lines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import polars as pl

from sasrec.errors import DataError
from sasrec.events.pieces import REJECTS
from sasrec.events.streams import opened

NOT_UTF8, BLANK = "not valid UTF-8", "the line is blank"  # reasons of rejects
_BLOCK = 2**25  # bytes of text at a time
LONGEST_LINE = 2**23


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file."""

    number: int
    """The number of the first line, from 1."""
    text: bytes
    last: bool = False
    """Whether no block follows."""

    @property
    def end(self) -> int:
        """The number of the line after the block."""
        return self.number + self.text.count(b"\n") + (not self.text.endswith(b"\n") and bool(self.text))

    def joined(self, following: Block) -> Block:
        """Return this block and the one that follows as one."""
        return Block(self.number, self.text + following.text, following.last) if self.text else following

    def head(self, lines: int) -> Block:
        """Return the first lines only."""
        text = self.text[: 2**23]
        whole = text if len(text) == len(self.text) else text[: text.rfind(b"\n") + 1]
        kept = whole.split(b"\n", lines)
        return Block(self.number, b"\n".join(kept[:lines]) + b"\n" if len(kept) > lines else whole)

    def after(self, line: int) -> Block:
        """Return the lines after a line."""
        text = self.text
        for _ in range(line - self.number + 1):
            text = text.partition(b"\n")[2]
        return Block(line + 1, text, self.last)

    def tail(self, line: int | None) -> Block:
        """Return the lines from a line on; none if `line` is None."""
        return Block(self.end, b"") if line is None else self.after(line - 1)

    def notes(self, name: str) -> tuple[str, ...]:
        """Return a note if the file ends within a line."""
        if not self.last or self.text.endswith(b"\n") or not self.text:
            return ()
        return (f"the last line of {name} has no line end; if the file was cut off, its last value is wrong",)


def blocks_of(path: Path, name: str, encoding: str = "utf-8", longest: int = LONGEST_LINE) -> Iterator[Block]:
    """Yield the blocks of a file, whose text is converted to UTF-8. `longest`: bytes that a line may have.

    Raises: DataError if the file is empty, has a longer line, or its bytes are not text of another `encoding` than
    UTF-8. Remedy: check the path, or correct `encoding`.
    """
    number, waiting = 1, b""
    for text in _whole_lines(path, name, encoding, longest):
        if waiting:
            yield Block(number, waiting)
            number += waiting.count(b"\n")
        waiting = text
    if not waiting:
        raise DataError(f"{name} is empty. Check the path.")
    yield Block(number, waiting, last=True)


def lines_of(block: Block) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the lines of a block (columns line and text), and rejects for lines that are not UTF-8."""
    try:
        texts = pl.Series([block.text.decode()]).str.split("\n").explode()
        invalid: dict[int, str] = {}
    except UnicodeDecodeError:
        decoded, invalid = _decode_lines(block.text)
        texts = pl.Series(decoded, dtype=pl.String)
    count = block.end - block.number
    # Joining files with `cat` leaves byte order marks inside the result, so strip one from every line.
    texts = texts.head(count).str.strip_suffix("\r").str.strip_prefix("\ufeff")
    numbers = pl.int_range(block.number, block.number + count, dtype=pl.Int64, eager=True)
    lines = pl.DataFrame({"line": numbers, "text": texts})
    bad = [(block.number + index, "", NOT_UTF8, raw) for index, raw in invalid.items()]
    return (
        lines.filter(~pl.col("line").is_in([row[0] for row in bad])) if bad else lines,
        pl.DataFrame(bad, REJECTS, orient="row"),
    )


def _decode_lines(text: bytes) -> tuple[list[str], dict[int, str]]:
    texts, invalid = [], {}
    for index, line in enumerate(text.split(b"\n")):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError:
            texts.append("")
            invalid[index] = line.decode(errors="backslashreplace")
    return texts, invalid


def _whole_lines(path: Path, name: str, encoding: str, longest: int) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8, in parts that end at a line end."""
    rest: list[bytes] = []
    with opened(path, name) as stream:
        for part in _utf8(stream, name, encoding):
            _refuse_long(part, name, longest)
            whole, newline, tail = part.rpartition(b"\n")
            if newline:
                yield b"".join([*rest, whole, newline])
                rest = [tail]
            else:
                rest.append(part)
                if sum(map(len, rest)) > longest:
                    raise DataError(_too_long(name, longest))
    if any(rest):
        yield b"".join(rest)


def _refuse_long(text: bytes, name: str, longest: int) -> None:
    """Raise DataError if a stretch of `longest` bytes has no line end. Remedy: check that the file is text."""
    for start in range(0, len(text) - longest, longest):
        if text.find(b"\n", start, start + longest) < 0:
            raise DataError(_too_long(name, longest))


def _too_long(name: str, longest: int) -> str:
    return f"{name} has a line of more than {longest:,} bytes. Check that it is text with line ends."


def _utf8(stream: IO[bytes], name: str, encoding: str) -> Iterator[bytes]:
    """Yield blocks of bytes, converted to UTF-8. Text that is UTF-8 already is checked later, line by line."""
    if encoding == "utf-8":
        while part := stream.read(_BLOCK):
            yield part
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while part := stream.read(_BLOCK):
            yield decoder.decode(part).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise DataError(f"{name} is not {encoding} text: {error}. Correct `encoding`.") from None
