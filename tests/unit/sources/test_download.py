"""Downloads against a server on loopback that breaks off, changes its mind and lies on request."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from sasrec.errors import DataError, DownloadError
from sasrec.sources import download as module
from sasrec.sources import transfer
from sasrec.sources.download import download, download_wheel, reading

BODY = bytes(range(256)) * 4096  # 1 MiB: several blocks
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """One file, and how the next answers are to go wrong."""

    url: str = ""
    body: bytes = BODY
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    heeds_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    """Bytes to send before hanging up, one for each answer to come."""
    statuses: list[int] = field(default_factory=list)
    retry_after: str | None = None
    announced: int | None = None
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        span, condition = request.headers.get("Range"), request.headers.get("If-Range")
        self.asked.append((span, condition))
        if self.statuses:
            return self.refuse(request, self.statuses.pop(0))
        unchanged = not self.heeds_if_range or condition in (self.etag, self.modified)
        first = int(span.removeprefix("bytes=").rstrip("-")) if span and self.ranges and unchanged else 0
        if first >= len(self.body):
            return self.refuse(request, 416)
        rest = self.body[first:]
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(self.body) - 1}/{len(self.body)}")
        request.send_header("Content-Length", str(self.announced or len(rest)))
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if value:
                request.send_header(name, value)
        request.end_headers()
        request.wfile.write(rest[: self.cuts.pop(0)] if self.cuts else rest)
        return None

    def refuse(self, request: BaseHTTPRequestHandler, status: int) -> None:
        request.send_response(status)
        if self.retry_after:
            request.send_header("Retry-After", self.retry_after)
        request.send_header("Content-Length", "0")
        request.end_headers()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass  # Clients that hang up are the point.

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)
    yield site
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "data.zip"


def leftovers(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} - {target.name, f"{target.name}.lock"}


def test_whole_file_arrives_verified_and_leaves_nothing_behind(site: Site, target: Path) -> None:
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    assert download(site.url, target, sha256=SHA256, md5=md5) == target
    assert target.read_bytes() == BODY
    assert leftovers(target) == set()


def test_file_already_there_is_verified_and_not_fetched_again(site: Site, target: Path) -> None:
    download(site.url, target, sha256=SHA256)
    download(site.url, target, sha256=SHA256)
    assert len(site.asked) == 1


def test_damaged_file_already_there_is_fetched_again(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    download(site.url, target, sha256=SHA256)
    assert target.read_bytes() == BODY


def test_cut_connection_resumes_where_it_stopped(site: Site, target: Path) -> None:
    site.cuts = [300_000, 200_000]
    download(site.url, target, sha256=SHA256)
    assert target.read_bytes() == BODY
    assert site.asked == [(None, None), ("bytes=300000-", '"v1"'), ("bytes=500000-", '"v1"')]


@pytest.mark.parametrize("etag", ['W/"weak"', None, "unquoted", '"v1", "v2"'])
def test_only_a_strong_etag_resumes(site: Site, target: Path, etag: str | None) -> None:
    """Weak ETags and dates promise equal meaning, not equal bytes."""
    site.etag, site.modified, site.cuts = etag, "Mon, 01 Jan 2024 00:00:00 GMT", [300_000]
    told = Console(file=io.StringIO())
    download(site.url, target, sha256=SHA256, console=told)
    assert site.asked == [(None, None), (None, None)]
    assert "are kept" not in told.file.getvalue()  # type: ignore[attr-defined]
    assert target.read_bytes() == BODY


def test_server_without_range_support_restarts(site: Site, target: Path) -> None:
    site.ranges, site.cuts = False, [300_000]
    download(site.url, target, sha256=SHA256)
    assert target.read_bytes() == BODY


def test_server_without_validators_is_asked_for_the_whole_file(site: Site, target: Path) -> None:
    site.etag, site.cuts = None, [300_000]
    download(site.url, target, sha256=SHA256)
    assert site.asked == [(None, None), (None, None)]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_file_that_changed_between_attempts_is_not_spliced(site: Site, target: Path, heeds_if_range: bool) -> None:
    site.cuts = [300_000]
    with pytest.raises(DownloadError):
        download(site.url, target, attempts=1)
    site.body, site.etag, site.heeds_if_range = b"\x07" * len(BODY), '"v2"', heeds_if_range
    download(site.url, target)
    assert target.read_bytes() == site.body


def test_file_that_shrank_is_fetched_afresh(site: Site, target: Path) -> None:
    site.cuts = [300_000]
    with pytest.raises(DownloadError, match=r"the 300,000 bytes received so far are kept.*`local_copy`"):
        download(site.url, target, attempts=1)
    site.body = b"short"
    download(site.url, target)
    assert target.read_bytes() == b"short"


def test_checksum_mismatch_deletes_the_file_and_names_both(site: Site, target: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        download(site.url, target, sha256="0" * 64)
    assert SHA256 in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert "`local_copy`" in str(caught.value)
    assert not target.exists()
    assert leftovers(target) == set()


def test_md5_mismatch_is_refused(site: Site, target: Path) -> None:
    with pytest.raises(DownloadError, match="md5"):
        download(site.url, target, sha256=SHA256, md5="0" * 32)


def test_unknown_checksum_is_recorded_said_and_demanded_ever_after(site: Site, target: Path) -> None:
    told = Console(file=io.StringIO())
    download(site.url, target, console=told)
    assert SHA256 in told.file.getvalue()  # type: ignore[attr-defined]
    assert leftovers(target) == {"data.zip.sha256"}
    target.unlink()
    download(site.url, target)
    target.unlink()
    site.body = b"another release"
    with pytest.raises(DownloadError, match=r"delete .*data\.zip\.sha256 to accept"):
        download(site.url, target)


def test_404_names_address_status_and_remedy(site: Site, target: Path) -> None:
    site.statuses = [404]
    with pytest.raises(DownloadError, match=rf"{site.url} answered 404 .*`local_copy`"):
        download(site.url, target)
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [503, 500, 429])
def test_passing_faults_are_retried(site: Site, target: Path, status: int) -> None:
    site.statuses = [status]
    download(site.url, target, sha256=SHA256)
    assert len(site.asked) == 2


def test_retry_after_is_heeded_up_to_a_bound(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    site.statuses, site.retry_after = [503], "7"
    download(site.url, target)
    target.unlink()
    site.statuses, site.retry_after = [429], "3600"
    download(site.url, target)
    assert slept == [7.0, module.LONGEST_WAIT]


def test_truncated_body_is_never_taken_for_the_file(site: Site, target: Path) -> None:
    site.body, site.announced, site.ranges, site.etag = BODY[:1000], 5000, False, None
    with pytest.raises(
        DownloadError, match=r"failed 3 times; last error: the connection ended after 1,000 of 5,000 bytes"
    ):
        download(site.url, target, attempts=3)
    assert len(site.asked) == 3
    assert not target.exists()


def test_ctrl_c_leaves_a_part_that_resumes(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        """A response whose second block never comes, because the user lost patience."""

        def __init__(self, response: object) -> None:
            self.response, self.left = response, 1

        def __getattr__(self, name: str) -> object:
            return getattr(self.response, name)

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *exception: object) -> None:
            self.response.close()  # type: ignore[attr-defined]

        def read1(self, size: int) -> bytes:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return self.response.read1(size)  # type: ignore[attr-defined, no-any-return]

    real = urllib.request.OpenerDirector.open
    with monkeypatch.context() as patch:
        patch.setattr(urllib.request.OpenerDirector, "open", lambda *a, **k: Interrupted(real(*a, **k)))
        with pytest.raises(KeyboardInterrupt):
            download(site.url, target, sha256=SHA256)
    kept = target.with_name("data.zip.part").stat().st_size
    assert 0 < kept < len(BODY)
    download(site.url, target, sha256=SHA256)
    assert site.asked[-1] == (f"bytes={kept}-", '"v1"')
    assert target.read_bytes() == BODY


def test_part_that_is_whole_needs_no_request(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("data.zip.part").write_bytes(BODY)
    version = {"url": site.url, "etag": '"v1"', "length": len(BODY)}
    target.with_name("data.zip.part.json").write_text(json.dumps(version))
    download(site.url, target, sha256=SHA256)
    assert site.asked == []


def test_part_of_another_address_is_not_resumed(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("data.zip.part").write_bytes(b"other bytes")
    version = {"url": "http://elsewhere/", "etag": '"v1"', "length": len(BODY)}
    target.with_name("data.zip.part.json").write_text(json.dumps(version))
    download(site.url, target, sha256=SHA256)
    assert site.asked == [(None, None)]


def test_refused_connection_is_not_retried_and_names_the_remedy(target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
    with pytest.raises(DownloadError, match=r"cannot be reached.*`local_copy`"):
        download(url, target)


def test_reset_while_connecting_is_retried(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = urllib.request.OpenerDirector.open, [1]

    def reset_once(*arguments: object, **options: object) -> object:
        if left:
            left.pop()
            raise urllib.error.URLError(ConnectionResetError("reset by peer"))
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", reset_once)
    assert download(site.url, target, sha256=SHA256).is_file()


def test_silent_server_times_out_and_is_retried(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    answer = site.answer

    def silent_once(request: BaseHTTPRequestHandler) -> None:
        if not site.asked:
            site.asked.append((None, None))
            release.wait(5)
            return
        answer(request)

    monkeypatch.setattr(site, "answer", silent_once)
    download(site.url, target, sha256=SHA256, timeout=0.3)
    release.set()
    assert len(site.asked) == 2


def test_full_disk_names_the_remedy(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    opened = transfer.open_for_append
    monkeypatch.setattr(
        transfer, "open_for_append", lambda path: Full() if path.suffix == ".part" else opened(path)
    )
    with pytest.raises(DownloadError, match=r"No space left.*SASREC_CACHE"):
        download(site.url, target)


def test_unwritable_cache_names_the_remedy(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=r"cannot be written.*SASREC_CACHE"):
        download(site.url, tmp_path / "cache" / "data.zip")


def test_unwritable_sidecar_names_the_remedy(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DownloadError, match=r"No space left.*SASREC_CACHE"):
        download(site.url, target)


def test_second_process_waits_for_the_first(site: Site, target: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    target.parent.mkdir()
    told = io.StringIO()
    with target.with_name("data.zip.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.2, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        timer.start()
        download(site.url, target, sha256=SHA256, console=Console(file=told))
        timer.join(5)
    assert "another process" in told.getvalue()
    assert target.read_bytes() == BODY


def test_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"), reading(tmp_path):
        (tmp_path / "none").read_bytes()


@pytest.mark.parametrize("fault", [OSError("no python"), subprocess.TimeoutExpired("pip", 600), None])
def test_pip_that_cannot_run_hangs_or_gives_nothing_is_a_download_error(
    fault: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if fault:
            raise fault
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DownloadError, match=r"(could not|did not) download.*`local_copy`"):
        download_wheel("x==1", tmp_path / "x.whl", sha256=SHA256)
