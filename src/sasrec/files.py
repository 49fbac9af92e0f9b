"""Write files atomically, compute their hashes, and read compressed files."""

from __future__ import annotations

import contextlib
import difflib
import errno
import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

TEMPORARY = re.compile(r"\..+\.tmp")
"""Names of the files that a killed process leaves of a `whole_file`."""
_OF_SYSTEM = re.compile(r"\(os error (\d+)\)")  # how libraries in Rust write the number of an error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream for an atomic write: `path` gets the bytes when the block ends without an error.

    If the process is killed, a temporary file `.NAME.PID.tmp` can remain in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path, unfinished):
            with unfinished.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # the bytes must be on disk before the name points to them
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the file is in place; some folders cannot be opened for reading
        sync_folder(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically. A reader sees the old content or the new, never a part, even after a crash."""
    with whole_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a file and wait until it is on disk.

    This is not atomic. The caller writes all files to a temporary folder, and renames it when they are complete.
    """
    with naming(path), path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def naming(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Give the errors of writing a file its name: a failed write knows no name, or that of a temporary file.

    Raises: OSError, also for the errors of the system that Polars reports as its own.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := _OF_SYSTEM.search(str(error))):
            number = int(found[1])
        if number is None or (isinstance(error, OSError) and error.filename not in (None, str(unfinished))):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def sync_folder(path: Path) -> None:
    """Wait until the names of the files in a folder are on disk, so a rename survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes, in lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file, in lower-case hexadecimal digits. Reads in blocks, to save memory."""
    with path.open("rb") as stream:
        # MD5 only detects damaged downloads here; it gives no security.
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def unicode_text(data: bytes) -> str:
    """Decode UTF-8, UTF-16 or UTF-32 text by its byte order mark; without a mark, it must be UTF-8.

    Raises: UnicodeDecodeError for other text; ValueError for bytes that are not text.
    """
    encodings = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}
    encodings |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # after UTF-32, whose mark begins the same way
    text = data.decode(next((name for mark, name in encodings.items() if data.startswith(mark)), "utf-8"))
    if "\0" in text:
        raise ValueError("it contains null bytes: it is not text, or UTF-16 without a byte order mark")
    return text


def missing(path: Path) -> str:
    """Return a verb and what is wrong with a path that leads to no file, such as "does not exist (NAME does)"."""
    try:
        link = os.readlink(path)
        os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            return f"is a link to {link}, which does not exist"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return f"is a link to {link}, which leads back to itself"
    return f"does not exist{_nearby(path)}"


def _nearby(path: Path) -> str:
    """Return " (NAME does)" if the folder of a missing file has one with a similar name, else ""."""
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" ({path.with_name(near[0])} does)" if near else ""


def decompressed(path: Path) -> IO[bytes]:
    """Open a file to read its bytes; decompress them if the name ends in .gz."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
