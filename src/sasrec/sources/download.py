"""Download one file over HTTP or with pip; the file appears only when it is complete and its checksum is right.

During a download, `FILE.part` contains the bytes received so far, and `FILE.part.json` identifies the version of
the file on the server, so that a later call can resume.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sasrec.errors import DataError, DownloadError
from sasrec.files import file_digest

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
_BLOCK = 1 << 18
_REMEDY = "Download the file by hand and pass it as `local_copy`."
_RETRY = "Run again, or download the file by hand and pass it as `local_copy`."


class _TransientError(Exception):
    """A failure that another attempt may fix; `wait` is the seconds that the server requests, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Version:
    """Identifies one version of the file at an address."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None

    @property
    def validator(self) -> str | None:
        """The value for If-Range, with which the server confirms that the file is unchanged."""
        # A weak ETag promises equal meaning, not equal bytes: RFC 9110 forbids it in If-Range.
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _Part:
    """A partial download on disk: the bytes received so far and the version of the file."""

    def __init__(self, destination: Path, url: str) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self.sidecar = destination.with_name(destination.name + ".part.json")
        self.url = url

    def version(self) -> _Version | None:
        """Return the version of the file whose bytes are on disk, or None if the download must start again."""
        try:
            version = _Version(**json.loads(self.sidecar.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        same = version.url == self.url and version.validator is not None and self.size > 0
        return version if same else None

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def start(self, version: _Version) -> None:
        # Delete the old bytes first: a kill must not leave old bytes beside the description of a new version.
        self.discard()
        try:
            self.sidecar.write_text(json.dumps(asdict(version)), encoding="utf-8")
        except OSError as error:
            raise _write_error(self.sidecar, error) from None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)


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
    connection and each wait for data. An unreachable address is tried only once.

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
        part = _Part(destination, url)
        _fetch_with_retries(part, attempts, timeout, console)
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
            raise DownloadError(f"pip did not download a file named {destination.name}. {_REMEDY}")
        fault = _checksum_fault(wheel, wheel, sha256, None)
        if fault is not None:
            raise DownloadError(
                f"{destination.name}, downloaded with pip, is not the expected file: {fault}. {_REMEDY}"
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
        raise DownloadError(f"pip could not download {requirement} ({error}). {_REMEDY}") from None
    if completed.returncode != 0:
        output = completed.stderr or completed.stdout or ""
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        # Prefer lines with ERROR, because the last lines may only advertise a newer pip.
        errors = (
            [line for line in lines if line.startswith("ERROR")] or lines or [f"status {completed.returncode}"]
        )
        raise DownloadError(f"pip could not download {requirement} ({errors[-1]}). {_REMEDY}")


def _fetch_with_retries(part: _Part, attempts: int, timeout: float, console: Console) -> None:
    for attempt in range(1, attempts + 1):
        try:
            return _fetch(part, timeout, console)
        except _TransientError as error:
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


def _fetch(part: _Part, timeout: float, console: Console) -> None:
    """Try once to download the file of `part`; resume a partial download if the server's file is unchanged."""
    resumable = part.version()
    if resumable is not None and part.size == resumable.length:
        return  # a previous run received all bytes but stopped before the rename
    headers = {"User-Agent": "sasrec"}
    if resumable is not None:
        assert resumable.validator is not None
        headers |= {"Range": f"bytes={part.size}-", "If-Range": resumable.validator}
    try:
        request = urllib.request.Request(part.url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            version = _version_of(part.url, response.headers)
            if response.status == 206:
                # Status 206 means partial content: the server continues where the partial download ends.
                if resumable is None or not _continues(response.headers, version, resumable, part.size):
                    part.discard()
                    raise _TransientError(
                        "the server's answer does not continue the partial download, so the partial download was "
                        "deleted; the file on the server may have changed"
                    )
                version = resumable
            else:
                part.start(version)
            _stream(response, part, version.length, console)
    except urllib.error.HTTPError as error:
        error.close()
        raise _http_error(error, part) from None
    except urllib.error.URLError as error:
        # Connecting failed. Only a reset connection is worth another attempt; an unknown host stays unknown.
        if isinstance(error.reason, ConnectionError) and not isinstance(error.reason, ConnectionRefusedError):
            raise _TransientError(str(error.reason)) from None
        raise DownloadError(f"{part.url} cannot be reached ({error.reason}). {_REMEDY}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(str(error) or type(error).__name__) from None


def _stream(response: BinaryIO, part: _Part, length: int | None, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    hidden = not console.is_terminal
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden)
    with bar, _open_for_append(part.path) as file:
        name = part.path.name.removesuffix(".part")
        task = bar.add_task(name, total=length, completed=part.size)
        while block := response.read(_BLOCK):
            try:
                file.write(block)
            except OSError as error:
                raise _write_error(part.path, error) from None
            bar.advance(task, len(block))
        file.flush()
        os.fsync(file.fileno())
    if length is not None and part.size < length:
        raise _TransientError(f"the connection ended after {part.size:,} of {length:,} bytes")
    if length is not None and part.size > length:
        part.discard()
        raise _TransientError(f"the server sent more than the announced {length:,} bytes; all were deleted")


def _open_for_append(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise _write_error(path, error) from None


def _write_error(path: Path, error: OSError) -> DownloadError:
    remedy = "Free disk space, or set SASREC_CACHE to another folder."
    return DownloadError(f"{path} cannot be written ({error.strerror}). {remedy}")


def _version_of(url: str, headers: Message) -> _Version:
    announced = headers.get("Content-Length", "")
    length = int(announced) if announced.isdigit() else None
    return _Version(url, headers.get("ETag"), headers.get("Last-Modified"), length)


def _continues(headers: Message, sent: _Version, resumable: _Version, size: int) -> bool:
    """Return whether a partial response begins where the partial download ends, in the same version of the file.

    The request demands this by its header If-Range, but some servers and proxies ignore If-Range.
    """
    span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    same_length = resumable.length is None or total == str(resumable.length)
    same_etag = sent.etag is None or sent.etag == resumable.etag
    same_date = sent.modified is None or sent.modified == resumable.modified
    return span.partition("-")[0] == str(size) and same_length and same_etag and same_date


def _http_error(error: urllib.error.HTTPError, part: _Part) -> Exception:
    answer = f"{error.code} {error.reason}"
    if error.code == 416:  # Range not satisfiable: the partial download is longer than the file on the server.
        part.discard()
        return _TransientError(f"the server answered {answer}")
    if error.code == 429 or error.code >= 500:
        wait = (error.headers.get("Retry-After") or "").strip()
        return _TransientError(f"the server answered {answer}", float(wait) if wait.isdigit() else None)
    return DownloadError(f"{part.url} answered {answer}; the file may have moved. {_REMEDY}")


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


def _record_path(destination: Path) -> Path:
    return destination.with_name(destination.name + ".sha256")


@contextlib.contextmanager
def _locked(destination: Path, console: Console) -> Iterator[None]:
    """Hold a lock on `destination`; a second process waits and then finds the complete file.

    Without the lock, two processes would append to the same partial download.
    """
    with _open_for_append(destination.with_name(destination.name + ".lock")) as lock:
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
