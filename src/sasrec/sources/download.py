"""Download one file over HTTP or with pip; the file appears only when it is complete and its checksum is right."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from sasrec.errors import DataError, DownloadError
from sasrec.files import file_digest
from sasrec.sources.transfer import REMEDY, Part, TransientError, fetch, open_for_append

try:
    import fcntl
except ImportError:  # Windows lacks flock; two processes there must not download the same file
    fcntl = None  # type: ignore[assignment]

FIRST_WAIT = 1.0
"""Seconds before the second attempt; the wait doubles before each further attempt."""
LONGEST_WAIT = 30.0
"""Maximum seconds between attempts, even if the server requests more with Retry-After."""
PIP_TIMEOUT = 600.0
"""Maximum seconds for pip."""
_RETRY = "Run again, or download the file by hand and pass it as `local_copy`."


def download(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    attempts: int = 4,
    timeout: float = 30.0,
    console: Console | None = None,
) -> Path:
    """Download `url` to `destination`, which appears only when its length and checksum are right.

    The next call resumes an interrupted download if the server supports this and the file has not changed. An
    existing `destination` is verified and kept. Without a known checksum, the first download records its sha256 in
    `destination.sha256`, and later downloads must match this record. `timeout` is in seconds and limits both the
    connection and each wait for data; transfer.py has the bounds on size and slowness. An unreachable address is
    tried only once.

    Raises: DownloadError if the server cannot be reached or answers with an error, if all attempts fail, or if the
        checksum is wrong (the file is then deleted). Remedy: run again, or pass a copy to `train` as
        `local_copy`.
    """
    console = console or Console(stderr=True)
    with _locked(destination, console):
        if destination.exists():
            fault = _checksum_fault(destination, destination, sha256, md5)
            if fault is None:
                return destination
            say(console, f"{destination} is damaged or outdated ({fault}); downloading it again")
        part = Part(destination, url)
        verified = sha256 is not None or md5 is not None or _record_path(destination).exists()
        _fetch_with_retries(part, attempts, timeout, console, verified)
        fault = _checksum_fault(part.path, destination, sha256, md5)
        if fault is not None:
            part.discard()
            raise DownloadError(
                f"the file from {url} is damaged or has changed: {fault}. The file was deleted. {_RETRY}"
            )
        if sha256 is None and md5 is None:
            _record(part.path, destination, console)
        os.replace(part.path, destination)
        part.discard()
    return destination


def download_wheel(requirement: str, destination: Path, *, sha256: str, console: Console | None = None) -> Path:
    """Download a wheel with pip from the user's package index, without installing or importing it.

    `destination` must have the file name of the wheel. An existing `destination` is verified and kept.

    Raises: DownloadError if pip is missing or fails, or if the checksum is wrong. Remedy: pass a copy to `train`
        as `local_copy`.
    """
    console = console or Console(stderr=True)
    with _locked(destination, console), tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        if destination.exists() and _checksum_fault(destination, destination, sha256, None) is None:
            return destination
        say(console, f"downloading {destination.name} with pip")
        options = ["--no-deps", "--only-binary=:all:", "--dest", folder]
        _run_pip([sys.executable, "-m", "pip", "download", *options, requirement], requirement)
        wheel = Path(folder) / destination.name
        if not wheel.exists():
            raise DownloadError(f"pip did not download a file named {destination.name}. {REMEDY}")
        fault = _checksum_fault(wheel, wheel, sha256, None)
        if fault is not None:
            raise DownloadError(
                f"{destination.name}, downloaded with pip, is not the expected file: {fault}. {REMEDY}"
            )
        os.replace(wheel, destination)
    return destination


def say(console: Console, text: str) -> None:
    """Print a message to the user. Brackets are printed as they are; long paths and checksums are not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _run_pip(command: list[str], requirement: str) -> None:
    try:
        # Without standard input, pip cannot wait for a password while its prompt is hidden.
        completed = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip could not download {requirement} ({error}). {REMEDY}") from None
    if completed.returncode != 0:
        output = completed.stderr or completed.stdout or ""
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        # Prefer lines with ERROR, because the last lines may only advertise a newer pip.
        errors = (
            [line for line in lines if line.startswith("ERROR")] or lines or [f"status {completed.returncode}"]
        )
        raise DownloadError(f"pip could not download {requirement} ({errors[-1]}). {REMEDY}")


def _fetch_with_retries(part: Part, attempts: int, timeout: float, console: Console, verified: bool) -> None:
    for attempt in range(1, attempts + 1):
        try:
            return fetch(part, timeout, console, verified=verified)
        except TransientError as error:
            progress = f"; the {part.size:,} bytes received so far are kept" if part.version() else ""
            if attempt == attempts:
                raise DownloadError(
                    f"downloading {part.url} failed {attempts} times; last error: {error}{progress}. {_RETRY}"
                ) from None
            backoff = FIRST_WAIT * 2 ** (attempt - 1) if error.wait is None else error.wait
            wait = min(backoff, LONGEST_WAIT)
            say(
                console, f"{part.url}: {error}{progress}. Attempt {attempt + 1} of {attempts} starts in {wait:g} s"
            )
            time.sleep(wait)
    return None


def _checksum_fault(path: Path, destination: Path, sha256: str | None, md5: str | None) -> str | None:
    """Compare the file at `path` with its expected checksum; describe the difference, or return None if equal."""
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected is not None and (actual := file_digest(path, algorithm)) != expected:
            return f"its {algorithm} is {actual}, not {expected}"
    record = _record_path(destination)
    if sha256 is None and md5 is None and record.exists():
        expected = record.read_text(encoding="ascii").strip()
        if (actual := file_digest(path, "sha256")) != expected:
            return f"its sha256 is {actual}, but {record} contains {expected} (delete {record} to accept it)"
    return None


def _record(path: Path, destination: Path, console: Console) -> None:
    record = _record_path(destination)
    if record.exists():
        return
    digest = file_digest(path, "sha256")
    record.write_text(digest + "\n", encoding="ascii")
    say(console, f"{destination.name} has no published checksum; recorded its sha256 {digest} in {record}")


def recorded_sha256(destination: Path) -> str | None:
    """Return the SHA-256 that the first download of a file without a known checksum had; None if unrecorded."""
    try:
        text = _record_path(destination).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{64}", text) else None


def _record_path(destination: Path) -> Path:
    return destination.with_name(destination.name + ".sha256")


@contextlib.contextmanager
def _locked(destination: Path, console: Console) -> Iterator[None]:
    """Hold a lock on `destination`; a second process waits and then finds the complete file.

    Without the lock, two processes would append to the same partial download.
    """
    with open_for_append(destination.with_name(destination.name + ".lock")) as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(console, f"another process is downloading {destination.name}; waiting until it ends")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the exceptions of a damaged, encrypted or unreadable archive into DataError with a remedy."""
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        remedy = "Delete it and run again, or pass another copy as `local_copy`."
        raise DataError(f"{path} is damaged ({error}). {remedy}") from None
    except OSError as error:
        remedy = "Check the disk, or pass another copy as `local_copy`."
        raise DataError(f"{path} cannot be read or converted ({error}). {remedy}") from None
