"""Open files as bytes, compressed or not, and find out their format from their first bytes."""

from __future__ import annotations

import bz2
import codecs
import errno
import gzip
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

from sasrec.errors import DataError
from sasrec.files import missing
from sasrec.untrusted import free_memory, refuse_no_file

_HEAD = 4096
_BLOCK = 2**25
_MOST_UNPACKED, _MOST_RATIO = 2**28, 200  # a bomb exceeds both
_PACKED = [
    (rb"\x1f\x8b", "gzip"),
    (rb"BZh[1-9]1AY", "bzip2"),
    (rb"\xfd7zXZ\x00", "xz"),
    (rb"\x28\xb5\x2f\xfd", "zstd"),
    (rb"PK\x03\x04", "zip"),
]
_BOMS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Formats that hold no table that can be read here, by their first bytes, and what to do.
_FOREIGN = [
    (rb"SQLite format 3\x00", "an SQLite database", "Name it by a URL (sqlite:///FILE) and a query"),
    (rb"\x80[\x02-\x05]", "a pickle, which can run code when it is read", "Save the table as Parquet or CSV"),
    (rb"\x89HDF", "an HDF5 file", "Save the table as Parquet or CSV"),
    (rb"\x93NUMPY", "a NumPy array", "Save the table as Parquet or CSV"),
    (rb"%PDF", "a PDF", "Name a file of events"),
    (rb"(?i)\s*(<!doctype html|<html|<\?xml)", "a page of HTML or XML", "If it was downloaded, download it again"),
    (rb"Rar!|7z\xbc\xaf", "a rar or 7z archive", "Unpack it"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel file", "Save the sheet as CSV"),
    (rb"PK\x05\x06", "an empty archive", "Name a file of events"),
    (rb"Obj\x01", "an Avro file", "Save the table as Parquet"),
]
Kind = Literal["parquet", "arrow", "json lines", "json", "text"]


@contextmanager
def opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a file as the bytes that were compressed; the first bytes tell how, not the ending of the name.

    A compressed file is refused as a bomb once it has given more than 256 MiB and 200 times its size; events
    usually compress to between a fifth and a fiftieth. What is read as a whole must also fit into the free memory.

    Raises: DataError if the file is missing or damaged, a bomb, an archive of several files, of a foreign format,
    or no regular file (a pipe, a device). Remedy: the message names one.
    """
    try:
        refuse_no_file(path)
        with path.open("rb") as raw:
            head = raw.read(_HEAD)
            raw.seek(0)
            method = next((each for magic, each in _PACKED if re.match(magic, head)), "")
            with _decompressed(raw, method, name) as stream:
                yield stream
    except FileNotFoundError:
        raise DataError(f"the file {path} {missing(path)}. Check the path.") from None
    except EOFError:
        raise DataError(f"the compressed file {name} is cut off. Copy or download it again.") from None
    except _damage() as error:
        raise DataError(f"{name} is not a valid {method} file: {error}. Copy or download it again.") from None
    except OSError as error:
        raise DataError(unreadable(name, error)) from None


def unreadable(name: str, error: OSError) -> str:
    """Return a sentence on a file that cannot be read."""
    if error.errno == errno.EINVAL and error.strerror:  # the name of a pipe can be a number, as in /dev/fd/63
        name = error.filename or name
        return f"{name} cannot be read: {error.strerror}. Copy its content to a file, or pass it to stdin (-)."
    return f"{name} cannot be read: {error}. Check the disk and the permissions."


class Unpacked(io.RawIOBase):
    """The bytes of a compressed file, counted while they are read."""

    def __init__(self, inner: IO[bytes], size: int, name: str) -> None:
        self._inner, self._size, self._name = inner, size, name
        self._given = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; all that are left if it is negative. Raises: DataError for a bomb."""
        if size < 0:
            parts, free = [], free_memory()
            while part := self.read(_BLOCK):
                parts.append(part)
                if 2 * self._given > free:  # the parts, and the same bytes joined
                    raise DataError(f"{self._name} does not fit into memory once it is unpacked. Unpack it.")
            return b"".join(parts)
        data = self._inner.read(size)
        self._given += len(data)
        if self._given > max(_MOST_UNPACKED, _MOST_RATIO * self._size):
            raise DataError(
                f"{self._name} is {self._size:,} bytes, but unpacks to more than {_MOST_RATIO} times as many, as "
                "no table of events does. Unpack it yourself if it is sound."
            )
        return data


def _damage() -> tuple[type[Exception], ...]:
    """Return the errors that a damaged compressed file raises; that of zstd only if its package is there."""
    known: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
    try:
        from backports.zstd import ZstdError
    except ImportError:
        return known
    return (*known, ZstdError)


@contextmanager
def _decompressed(raw: IO[bytes], method: str, name: str) -> Iterator[IO[bytes]]:
    size = os.fstat(raw.fileno()).st_size
    if method == "zip":
        with zipfile.ZipFile(raw) as archive, _opened_member(archive, name) as member:
            yield cast(IO[bytes], Unpacked(member, size, name))
    else:
        openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open, "zstd": _open_zstd}
        opener = openers.get(method)
        yield raw if opener is None else cast(IO[bytes], Unpacked(opener(raw, "rb"), size, name))


def _open_zstd(raw: IO[bytes], mode: Literal["rb"]) -> Any:
    try:
        from backports import zstd
    except ImportError:
        raise DataError(
            "the file is compressed with zstd. Run `pip install backports.zstd`, or unpack it."
        ) from None
    return zstd.open(raw, mode)


def is_empty(path: Path, name: str) -> bool:
    """Return whether a file, once unpacked, has nothing but blanks."""
    with opened(path, name) as stream:
        return not stream.read(_HEAD).strip(b"\xef\xbb\xbf \t\r\n")


def _opened_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open the one file of an archive. Raises: DataError for a password or an odd method. Remedy: unpack it."""
    member = _member(archive, name)
    try:
        return archive.open(member)
    except (RuntimeError, NotImplementedError) as error:  # zipfile has no classes of its own for these
        raise DataError(f"{name} cannot be unpacked here: {error}. Unpack it, and name the file.") from None


def _member(archive: zipfile.ZipFile, name: str) -> str:
    """Return the one file of an archive. Raises: DataError for several. Remedy: unpack it."""
    names = archive.namelist()
    if "[Content_Types].xml" in names:
        raise DataError(f"{name} is an Excel workbook. Save the sheet as CSV.")
    files = [each for each in names if not each.endswith("/") and not re.search(r"(^|/)(__MACOSX|\.)", each)]
    if len(files) != 1:
        listed = ", ".join(files[:6]) + (" …" if len(files) > 6 else "")
        raise DataError(f"{name} is an archive of {len(files)} files ({listed}). Unpack it, and name one file.")
    return files[0]


def sniffed(path: Path, name: str, encoding: str | None) -> tuple[Kind, str]:
    """Return the format of a file, and the encoding of its text, from the first bytes.

    `encoding`: the one that the caller states, or None.

    Raises: DataError for a format that cannot be read. Remedy: the message names one.
    """
    with opened(path, name) as stream:
        head = stream.read(_HEAD)
    if head.startswith(b"PAR1"):
        return "parquet", ""
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow", ""
    if head[257:262] == b"ustar":
        raise DataError(f"{name} is a tar archive. Unpack it, and name one file.")
    for pattern, what, remedy in _FOREIGN:
        if re.match(pattern, head):
            raise DataError(f"{name} is {what}. {remedy}.")
    found = encoding or next((each for bom, each in _BOMS.items() if head.startswith(bom)), "utf-8")
    if found == "utf-8" and head.count(0) > len(head) // 5:
        guess = "utf-16-le" if head[1:2] == b"\x00" else "utf-16-be"
        raise DataError(f"{name} seems to be UTF-16 without a byte order mark. Set encoding={guess!r}.")
    try:
        if not codecs.lookup(found)._is_text_encoding:
            raise LookupError
        text = codecs.getincrementaldecoder(found)("replace").decode(head).lstrip("\ufeff \t\r\n")
    except (LookupError, ValueError):  # UnicodeError is a ValueError
        raise DataError(
            f"the encoding {encoding!r} is unknown, or does not fit {name}. Use one such as utf-8, cp1252 or "
            "utf-16-le."
        ) from None
    if re.match(r"\[\s*(\{|\]\s*$)", text):
        return "json", found
    return ("json lines" if re.match(r"\{\s*(\"|\}|$)", text) else "text"), found
