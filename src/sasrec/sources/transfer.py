"""One attempt to receive a file over HTTP, with bounds on its size and on slowness. `download` repeats attempts.

During a download, `FILE.part` contains the bytes received so far, and `FILE.part.json` identifies the version of
the file on the server, so that a later attempt can resume.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, replace
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sasrec.errors import DownloadError

MAX_BYTES = 4 << 30
"""Maximum size of a download. The largest public data set, Steam, has 1.3 GB."""
SLOW_SECONDS = 30.0
SLOW_BYTES = 30 << 10
"""An attempt ends if fewer than SLOW_BYTES arrive in SLOW_SECONDS, the connection and the headers included."""
REMEDY = "Download the file by hand and pass it as `local_copy`."
_BLOCK = 1 << 18


class TransientError(Exception):
    """A failure that another attempt may fix; `wait` is the seconds that the server requests, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Version:
    """Identifies one version of the file at an address."""

    url: str
    etag: str | None
    """The strong ETag, or None. Weak ETags and dates promise equal meaning, not equal bytes (RFC 9110)."""
    length: int | None


class Part:
    """A partial download on disk: the bytes received so far and the version of the file."""

    def __init__(self, destination: Path, url: str) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self.sidecar = destination.with_name(destination.name + ".part.json")
        self.url = url

    def version(self) -> Version | None:
        """Return the version of the file whose bytes are on disk, or None if the download must start again."""
        try:
            version = Version(**json.loads(self.sidecar.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        whole_number = version.length is None or type(version.length) is int
        same = version.url == self.url and _strong(version.etag) is not None and whole_number and self.size > 0
        return version if same else None

    @property
    def size(self) -> int:
        """Number of bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def start(self, version: Version) -> None:
        """Begin with no bytes of this version."""
        # Delete the old bytes first: a kill must not leave old bytes beside the description of a new version.
        self.discard()
        try:
            self.sidecar.write_text(json.dumps(asdict(version)), encoding="utf-8")
        except OSError as error:
            raise _write_error(self.sidecar, error) from None

    def discard(self) -> None:
        """Delete the bytes and the version."""
        self.path.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)


def fetch(part: Part, timeout: float, console: Console, *, verified: bool) -> None:
    """Try once to download the file of `part`; resume a partial download if the server's file is unchanged.

    `timeout`: seconds for the connection and for each wait for data. `verified`: whether the checksum is known.

    Raises: TransientError if another attempt may succeed. DownloadError if it cannot. Remedy: pass a local copy.
    """
    with _Watchdog() as watchdog:
        try:
            _receive(part, timeout, console, watchdog, verified)
        except TransientError:
            if watchdog.too_slow:
                raise TransientError(
                    f"the server sent fewer than {SLOW_BYTES:,} bytes in {SLOW_SECONDS:g} s"
                ) from None
            raise


def _receive(part: Part, timeout: float, console: Console, watchdog: _Watchdog, verified: bool) -> None:
    resumable = part.version()
    if resumable is not None and part.size == resumable.length:
        return  # a previous run received all bytes but stopped before the rename
    headers = {"User-Agent": "sasrec"}
    if resumable is not None:
        assert resumable.etag is not None
        headers |= {"Range": f"bytes={part.size}-", "If-Range": resumable.etag}
    try:
        request = urllib.request.Request(part.url, headers=headers)
        with watchdog.opener().open(request, timeout=timeout) as response:
            if response.status == 206:
                # Status 206 means partial content: the server continues where the partial download ends.
                version = None if resumable is None else _continued(response.headers, resumable, part.size)
                if version is None:
                    part.discard()
                    raise TransientError(
                        "the server's answer does not continue the partial download, so the partial download was "
                        "deleted; the file on the server may have changed"
                    )
            else:
                version = Version(
                    part.url,
                    _strong(response.headers.get("ETag")),
                    _number(response.headers.get("Content-Length")),
                )
                _refuse(response, version, verified)
                part.start(version)
            _stream(response, part, version.length, console, watchdog)
    except urllib.error.HTTPError as error:
        error.close()
        raise _http_error(error, part) from None
    except urllib.error.URLError as error:
        # Connecting failed. Only a reset connection is worth another attempt; an unknown host stays unknown.
        if isinstance(error.reason, ConnectionError) and not isinstance(error.reason, ConnectionRefusedError):
            raise TransientError(str(error.reason)) from None
        raise DownloadError(f"{part.url} cannot be reached ({error.reason}). {REMEDY}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(str(error) or type(error).__name__) from None


def _refuse(response: Any, version: Version, verified: bool) -> None:
    """Refuse an answer before its first byte. Raises: DownloadError. Remedy: pass a local copy."""
    if response.status not in (200, 203):
        raise DownloadError(f"{version.url} answered {response.status} {response.reason} without a file. {REMEDY}")
    if (version.length or 0) > MAX_BYTES:
        raise DownloadError(
            f"{version.url} announces {version.length:,} bytes; no public data set has more than {MAX_BYTES:,}. "
            f"{REMEDY}"
        )
    if version.length is None and not response.chunked and not verified:
        raise DownloadError(
            f"{version.url} does not say how long the file is, and its checksum is unknown, so a cut file would "
            f"look complete. {REMEDY}"
        )


def _stream(response: Any, part: Part, length: int | None, console: Console, watchdog: _Watchdog) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    hidden = not console.is_terminal
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden)
    size, most = part.size, MAX_BYTES if length is None else length
    with bar, open_for_append(part.path) as file:
        task = bar.add_task(part.path.name.removesuffix(".part"), total=length, completed=size)
        # read1 returns what has arrived; read would wait for a whole block, however slowly it comes.
        while size <= most and (block := response.read1(_BLOCK)):
            try:
                file.write(block)
            except OSError as error:
                raise _write_error(part.path, error) from None
            size += len(block)
            watchdog.received += len(block)
            bar.advance(task, len(block))
        watchdog.end()  # a slow disk is not a slow server
        file.flush()
        os.fsync(file.fileno())
    if size > most:
        part.discard()
        if length is None:
            raise DownloadError(f"{part.url} sent more than {most:,} bytes; all were deleted. {REMEDY}")
        raise TransientError(f"the server sent more than the announced {length:,} bytes; all were deleted")
    if length is not None and size < length:
        raise TransientError(f"the connection ended after {size:,} of {length:,} bytes")
    if length is None and watchdog.too_slow:  # the end of the connection was the watchdog's
        raise TransientError("the connection ended")


class _Watchdog:
    """Ends an attempt at which the server is too slow, by shutting down its connections.

    Time-outs of sockets do not suffice: a server that sends a byte a second, of the headers or of the file, never
    exceeds them.
    """

    def __init__(self) -> None:
        self.received, self.too_slow = 0, False
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Watch no longer; `too_slow` then stays as it is."""
        self._ended.set()
        self._thread.join()

    def opener(self) -> urllib.request.OpenerDirector:
        """Return an opener for addresses; this watchdog can end its connections."""
        watch = self._add

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch(self.sock)

        class SecureConnection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch(self.sock)

        class Handler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Connection, req)

        class SecureHandler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(SecureConnection, req)

        return urllib.request.build_opener(Handler, SecureHandler, _Redirects)

    def _add(self, connected: socket.socket) -> None:
        self._sockets.append(connected)
        if self.too_slow:
            raise TimeoutError("too slow")

    def _watch(self) -> None:
        before = 0
        while not self._ended.wait(SLOW_SECONDS):
            if self.received - before < SLOW_BYTES:
                self.too_slow = True  # before the loop, so that a connection made during it ends in _add
                for connected in list(self._sockets):
                    with contextlib.suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
                return
            before = self.received


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to an address that anybody on the way could answer for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes[1] != "https" and schemes != ("http", "http"):
            fp.close()
            raise DownloadError(
                f"{req.full_url} leads to {newurl}, which is not https, so the file could be anybody's. {REMEDY}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_for_append(path: Path) -> BinaryIO:
    """Open a file, and make its folder. Raises: DownloadError. Remedy: another cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise _write_error(path, error) from None


def _write_error(path: Path, error: OSError) -> DownloadError:
    remedy = "Free disk space, or set SASREC_CACHE to another folder."
    return DownloadError(f"{path} cannot be written ({error.strerror}). {remedy}")


def _strong(etag: object) -> str | None:
    """Return a strong ETag, or None for a weak, missing or malformed one."""
    return etag if isinstance(etag, str) and re.fullmatch(r'"[\x21\x23-\x7e\x80-\xff]*"', etag) else None


def _number(text: str | None) -> int | None:
    """Return the number of a header, or None if it has no number. int() alone also takes +1, 1_0 and ١."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text.strip()) else None


def _continued(headers: Message, resumable: Version, size: int) -> Version | None:
    """Return the version if a partial response continues the partial download and ends the file; else None.

    The request demands this by its header If-Range, but some servers and proxies ignore If-Range.
    """
    span = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", headers.get("Content-Range", "").strip()
    )
    if span is None:
        return None
    first, last, total = map(int, span.groups())
    same_length = resumable.length in (None, total) and total <= MAX_BYTES
    same_body = _number(headers.get("Content-Length")) in (None, last + 1 - first)
    same_etag = headers.get("ETag") in (None, resumable.etag)
    fits = first == size and last == total - 1 and same_length and same_body and same_etag
    return replace(resumable, length=total) if fits else None


def _http_error(error: urllib.error.HTTPError, part: Part) -> Exception:
    answer = f"{error.code} {error.reason}"
    if error.code == 416:  # Range not satisfiable: the partial download is longer than the file on the server.
        part.discard()
        return TransientError(f"the server answered {answer}")
    if error.code == 429 or error.code >= 500:
        return TransientError(f"the server answered {answer}", _number(error.headers.get("Retry-After")))
    return DownloadError(f"{part.url} answered {answer}; the file may have moved. {REMEDY}")
