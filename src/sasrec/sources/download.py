"""Fetching one file, over the web or through pip, so that it is either whole and verified or not there.

A download in progress is `FILE.part`, and `FILE.part.json` says which version of the file it is a part of.
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

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; there, two runs must not download at once
    fcntl = None  # type: ignore[assignment]
from sasrec.files import file_digest

FIRST_WAIT = 1.0
"""Seconds before the second attempt; doubled for each one after it."""
LONGEST_WAIT = 30.0
"""Seconds, also where the server asks for more with Retry-After."""
PIP_TIMEOUT = 600.0
"""Seconds that pip may take."""
_BLOCK = 1 << 18
_REMEDY = "download it by hand and name the file with --from FILE"


class _TransientError(Exception):
    """Worth another attempt, after `wait` seconds if the server named them."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Version:
    """What tells one version of the file at an address from the next."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None

    @property
    def validator(self) -> str | None:
        # A weak ETag promises equal meaning, not equal bytes: RFC 9110 forbids it in If-Range.
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _Part:
    """The bytes fetched so far, and the version they belong to."""

    def __init__(self, destination: Path, url: str) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self.sidecar = destination.with_name(destination.name + ".part.json")
        self.url = url

    def version(self) -> _Version | None:
        """The version that can be resumed, None where a fresh start is the only safe one."""
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
        # The old bytes go first: dying between the two steps must not pair them with the new version.
        self.discard()
        try:
            self.sidecar.write_text(json.dumps(asdict(version)), encoding="utf-8")
        except OSError as error:
            raise _unwritable(self.sidecar, error) from None

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
    """Fetch `url` into `destination`, which appears only once its length and checksum are right.

    An interrupted download is resumed by the next call, if the server can and the file has not changed. A
    `destination` already there is verified and kept. Where neither checksum is given, the sha256 of the first
    download is said, written to `destination.sha256` and demanded ever after. `timeout` is in seconds, for
    connecting and for each wait for bytes; an address that cannot be reached at all is tried once only.

    Raises: DownloadError if the address answers with an error, cannot be reached, keeps breaking off, or
    sends a file with another checksum (it is deleted). Remedy: run again, or `--from FILE`.
    """
    console = console or Console(stderr=True)
    with _alone(destination, console):
        if destination.exists():
            wrong = _checksum_fault(destination, destination, sha256, md5)
            if wrong is None:
                return destination
            say(console, f"{destination} is not as expected ({wrong}): it is fetched again")
        part = _Part(destination, url)
        _fetch_with_retries(part, attempts, timeout, console)
        wrong = _checksum_fault(part.path, destination, sha256, md5)
        if wrong is not None:
            part.discard()
            raise DownloadError(
                f"what {url} sent is damaged or has changed: {wrong}; it was deleted. Run again, or {_REMEDY}"
            )
        if sha256 is None and md5 is None:
            _record(part.path, destination, console)
        os.replace(part.path, destination)
        part.discard()
    return destination


def download_wheel(requirement: str, destination: Path, *, sha256: str, console: Console | None = None) -> Path:
    """Fetch a wheel with pip, from whichever index the user has set up. It is neither installed nor imported.

    `destination` must have the file name of the wheel; one already there is verified and kept.

    Raises: DownloadError if pip is missing or fails, or the checksum differs. Remedy: `--from FILE`.
    """
    console = console or Console(stderr=True)
    with _alone(destination, console), tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        if destination.exists() and _checksum_fault(destination, destination, sha256, None) is None:
            return destination
        say(console, f"fetching {destination.name} with pip")
        options = ["--no-deps", "--only-binary=:all:", "--dest", folder]
        _run_pip([sys.executable, "-m", "pip", "download", *options, requirement], requirement)
        wheel = Path(folder) / destination.name
        if not wheel.exists():
            raise DownloadError(f"pip fetched no file named {destination.name}: {_REMEDY}")
        wrong = _checksum_fault(wheel, wheel, sha256, None)
        if wrong is not None:
            raise DownloadError(f"pip's {destination.name} is not the known file: {wrong}; {_REMEDY}")
        os.replace(wheel, destination)
    return destination


def say(console: Console, text: str) -> None:
    """Tell the user, leaving brackets, long paths and checksums as they are."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _run_pip(command: list[str], requirement: str) -> None:
    try:
        # No input: pip would otherwise wait for a password that nobody is asked for.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip could not fetch {requirement} ({error}): {_REMEDY}") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout or "").splitlines() if line.strip()]
        # After its errors pip may advertise a newer pip.
        told = [line for line in lines if line.startswith("ERROR")] or lines or [f"status {done.returncode}"]
        raise DownloadError(f"pip could not fetch {requirement} ({told[-1]}): {_REMEDY}")


def _fetch_with_retries(part: _Part, attempts: int, timeout: float, console: Console) -> None:
    for attempt in range(1, attempts + 1):
        try:
            return _fetch(part, timeout, console)
        except _TransientError as error:
            kept = f"; the {part.size:,} bytes that arrived are kept" if part.version() else ""
            if attempt == attempts:
                raise DownloadError(
                    f"{part.url} failed {attempts} times, last: {error}{kept}. Run again later, or {_REMEDY}"
                ) from None
            backoff = FIRST_WAIT * 2 ** (attempt - 1) if error.wait is None else error.wait
            wait = min(backoff, LONGEST_WAIT)
            say(console, f"{part.url}: {error}{kept}; attempt {attempt + 1} of {attempts} in {wait:g} s")
            time.sleep(wait)
    return None


def _fetch(part: _Part, timeout: float, console: Console) -> None:
    """One attempt, from where the last one stopped if that is safe."""
    resumable = part.version()
    if resumable is not None and part.size == resumable.length:
        return
    headers = {"User-Agent": "sasrec"}
    if resumable is not None:
        assert resumable.validator is not None
        headers |= {"Range": f"bytes={part.size}-", "If-Range": resumable.validator}
    try:
        request = urllib.request.Request(part.url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            version = _version_sent(part.url, response.headers)
            if response.status == 206:
                if resumable is None or not _continues(response.headers, version, resumable, part.size):
                    part.discard()
                    raise _TransientError("the server would continue another version of the file")
                version = resumable
            else:
                part.start(version)
            _stream(response, part, version.length, console)
    except urllib.error.HTTPError as error:
        error.close()
        raise _http_fault(error, part) from None
    except urllib.error.URLError as error:
        # Raised while connecting: no such host, refused, no route. Only a reset is likely to pass by itself.
        if isinstance(error.reason, ConnectionError) and not isinstance(error.reason, ConnectionRefusedError):
            raise _TransientError(str(error.reason)) from None
        raise DownloadError(f"{part.url} cannot be reached ({error.reason}): {_REMEDY}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(str(error) or type(error).__name__) from None


def _stream(response: BinaryIO, part: _Part, length: int | None, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    shown = console.is_terminal
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown)
    with bar, _opened_for_append(part.path) as file:
        name = part.path.name.removesuffix(".part")
        task = bar.add_task(name, total=length, completed=part.size)
        while block := response.read(_BLOCK):
            try:
                file.write(block)
            except OSError as error:
                raise _unwritable(part.path, error) from None
            bar.advance(task, len(block))
        file.flush()
        os.fsync(file.fileno())
    if length is not None and part.size < length:
        raise _TransientError(f"it broke off after {part.size:,} of {length:,} bytes")
    if length is not None and part.size > length:
        part.discard()
        raise _TransientError(f"more than the {length:,} bytes announced arrived")


def _opened_for_append(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> DownloadError:
    remedy = "make room there, or set SASREC_CACHE to another folder"
    return DownloadError(f"{path} cannot be written ({error.strerror}): {remedy}")


def _version_sent(url: str, headers: Message) -> _Version:
    announced = headers.get("Content-Length", "")
    length = int(announced) if announced.isdigit() else None
    return _Version(url, headers.get("ETag"), headers.get("Last-Modified"), length)


def _continues(headers: Message, sent: _Version, resumable: _Version, size: int) -> bool:
    """Whether a partial answer goes on where the part ends, in the same version of the file.

    Checked here too because some servers and proxies ignore If-Range.
    """
    span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    same_length = resumable.length is None or total == str(resumable.length)
    same_etag = sent.etag is None or sent.etag == resumable.etag
    same_date = sent.modified is None or sent.modified == resumable.modified
    return span.partition("-")[0] == str(size) and same_length and same_etag and same_date


def _http_fault(error: urllib.error.HTTPError, part: _Part) -> Exception:
    answer = f"{error.code} {error.reason}"
    if error.code == 416:  # The part is longer than the file now is.
        part.discard()
        return _TransientError(f"it answered {answer}")
    if error.code == 429 or error.code >= 500:
        wait = (error.headers.get("Retry-After") or "").strip()
        return _TransientError(f"it answered {answer}", float(wait) if wait.isdigit() else None)
    return DownloadError(f"{part.url} answered {answer}: the file may have moved; {_REMEDY}")


def _checksum_fault(path: Path, destination: Path, sha256: str | None, md5: str | None) -> str | None:
    """What is wrong with the file at `path`, in words with both checksums; None if it is as expected."""
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected is not None and (found := file_digest(path, algorithm)) != expected:
            return f"its {algorithm} is {found}, not {expected}"
    record = _record_of(destination)
    if sha256 is None and md5 is None and record.exists():
        expected = record.read_text(encoding="ascii").strip()
        if (found := file_digest(path, "sha256")) != expected:
            return f"its sha256 is {found}, not {expected} as in {record} (delete that to accept a change)"
    return None


def _record(path: Path, destination: Path, console: Console) -> None:
    record = _record_of(destination)
    if record.exists():
        return
    found = file_digest(path, "sha256")
    record.write_text(found + "\n", encoding="ascii")
    say(console, f"{destination.name} has no published checksum; its sha256 {found} is now kept in {record}")


def _record_of(destination: Path) -> Path:
    return destination.with_name(destination.name + ".sha256")


@contextlib.contextmanager
def _alone(destination: Path, console: Console) -> Iterator[None]:
    """Two processes must not append to one part: the second waits, then finds the file there."""
    with _opened_for_append(destination.with_name(destination.name + ".lock")) as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(console, f"another process is downloading {destination.name}: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a damaged or locked archive raises into a DataError with the remedy."""
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        remedy = "delete it and fetch it again, or give another with --from FILE"
        raise DataError(f"{path} is damaged ({error}): {remedy}") from None
    except OSError as error:
        remedy = "look at the disk, or give another copy with --from FILE"
        raise DataError(f"{path} cannot be read or converted ({error}): {remedy}") from None
