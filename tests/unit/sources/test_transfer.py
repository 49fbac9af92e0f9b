"""Downloads against servers on loopback that answer in raw bytes: too much, too slowly, something else, elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sasrec.errors import DownloadError
from sasrec.sources import download as retries
from sasrec.sources import transfer
from sasrec.sources.download import download

BODY = bytes(range(250)) * 4  # 1,000 bytes
SHA256 = hashlib.sha256(BODY).hexdigest()
Answer = Callable[[socket.socket], None]
PAUSE = threading.Event()  # never set; other tests replace time.sleep


class Server:
    """Gives each connection the next answer; the last answer is repeated."""

    def __init__(self, answers: list[Answer], context: ssl.SSLContext | None = None) -> None:
        self.asked: list[dict[str, str]] = []
        """The headers of each request, with names in lower case."""
        self._answers, self._context, self._ended = answers, context, threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self._socket.getsockname()[1]}/data.zip"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                connection.settimeout(10)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        if self._context:
            with contextlib.suppress(OSError), connection:
                connection = self._context.wrap_socket(connection, server_side=True)
        with contextlib.suppress(OSError), connection:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                received = connection.recv(4096)
                if not received:
                    return
                request += received
            lines = request.decode().split("\r\n")[1:-2]
            self.asked.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})
            self._answers[min(len(self.asked), len(self._answers)) - 1](connection)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)


def answer(body: bytes = BODY, status: str = "200 OK", etag: str = '"v1"', **headers: object) -> Answer:
    """A whole answer. Names of headers have _ for -; None leaves the header out."""
    given = {"ETag": etag, "Content_Length": len(body)} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value is not None]
    return lambda connection: connection.sendall(
        "\r\n".join([f"HTTP/1.1 {status}", *lines, "\r\n"]).encode() + body
    )


def cut(after: int) -> Answer:
    return answer(BODY[:after], Content_Length=len(BODY))


def chunked(body: bytes, **headers: object) -> Answer:
    text = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return answer(text, Content_Length=None, Transfer_Encoding="chunked", **headers)


def dripping(start: bytes, drop: bytes) -> Answer:
    """Sends `start`, and then `drop` twenty times a second for at most 20 seconds."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(400):
            connection.sendall(drop)
            PAUSE.wait(0.05)

    return drip


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    servers: list[Server] = []

    def start(*answers: Answer, context: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(list(answers), context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "data.zip"


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a https server on loopback that clients of this test trust."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *options.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def files(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} - {f"{target.name}.lock"}


def moved(url: str) -> Answer:
    return answer(b"", "302 Found", Location=url)


def test_redirect_from_https_to_http_is_refused(
    serve: Callable[..., Server], target: Path, certified: ssl.SSLContext
) -> None:
    plain = serve(answer())
    secure = serve(moved(plain.url), context=certified)
    with pytest.raises(
        DownloadError, match=rf"{secure.url} leads to {plain.url}, which is not https.*`local_copy`"
    ):
        download(secure.url, target, sha256=SHA256)
    assert plain.asked == []
    assert files(target) == set()
    upwards = serve(moved(secure.url))  # http, then https, then http
    with pytest.raises(DownloadError, match="which is not https"):
        download(upwards.url, target, sha256=SHA256)
    assert plain.asked == []


def test_redirects_to_https_and_among_http_are_followed(
    serve: Callable[..., Server], target: Path, certified: ssl.SSLContext
) -> None:
    secure = serve(answer(), context=certified)
    for first in (
        serve(moved(secure.url)),
        serve(moved(secure.url), context=certified),
        serve(moved(serve(answer()).url)),
    ):
        assert download(first.url, target, sha256=SHA256).read_bytes() == BODY
        target.unlink()


def test_redirect_to_another_protocol_is_refused(serve: Callable[..., Server], target: Path) -> None:
    with pytest.raises(DownloadError, match=r"leads to ftp://127\.0\.0\.1/x, which is not https"):
        download(serve(moved("ftp://127.0.0.1/x")).url, target, sha256=SHA256)


def test_endless_redirects_end(serve: Callable[..., Server], target: Path) -> None:
    server = serve(answer())
    server._answers[:] = [moved(server.url)]
    with pytest.raises(DownloadError, match="answered 302"):
        download(server.url, target, sha256=SHA256)
    assert len(server.asked) < 20


def test_announced_size_above_the_bound_is_refused_before_a_byte_is_written(
    serve: Callable[..., Server], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 999)
    server = serve(answer())
    with pytest.raises(
        DownloadError, match=r"announces 1,000 bytes; no public data set has more than 999\. .*`local_copy`"
    ):
        download(server.url, target, sha256=SHA256)
    assert len(server.asked) == 1
    assert files(target) == set()


def test_unannounced_size_above_the_bound_is_refused_and_deleted(
    serve: Callable[..., Server], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 999)
    server = serve(chunked(BODY))
    with pytest.raises(DownloadError, match=r"sent more than 999 bytes; all were deleted.*`local_copy`"):
        download(server.url, target, sha256=SHA256)
    assert len(server.asked) == 1
    assert files(target) == set()


def test_rest_that_is_longer_than_the_file_is_refused(serve: Callable[..., Server], target: Path) -> None:
    rest = chunked(BODY[300:] + b"!", status="206 Partial Content", Content_Range="bytes 300-999/1000")
    server = serve(cut(300), rest)
    with pytest.raises(DownloadError, match="sent more than the announced 1,000 bytes; all were deleted"):
        download(server.url, target, sha256=SHA256, attempts=2)
    assert files(target) == set()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"H", b"T"),  # the status
        (HEAD, b"X-A: b\r\n"[:1]),  # a header that never ends
        (HEAD + b'ETag: "v1"\r\nContent-Length: 1000\r\n\r\n', b"a"),
        (HEAD + b"\r\n", b"a"),  # without length: the end of the connection must not look like that of the file
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1"),  # the length of a chunk
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
)
def test_server_that_drips_is_given_up_with_a_sentence(
    serve: Callable[..., Server], target: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, drop: bytes
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.3)
    server, began = serve(dripping(start, drop)), time.monotonic()
    with pytest.raises(
        DownloadError,
        match=r"failed 2 times; last error: the server sent fewer than 30,720 bytes in 0\.3 s.*`local_copy`",
    ):
        download(server.url, target, sha256=SHA256, attempts=2, timeout=5)
    assert time.monotonic() - began < 5
    assert len(server.asked) == 2
    assert not target.exists()


def test_what_a_dripping_server_sent_is_kept_and_resumed(
    serve: Callable[..., Server], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.3)
    start = HEAD + b'ETag: "v1"\r\nContent-Length: 1000\r\n\r\n' + BODY[:400]
    rest = answer(BODY[400:], "206 Partial Content", Content_Range="bytes 400-999/1000")
    server = serve(dripping(start, b""), rest)
    assert download(server.url, target, sha256=SHA256).read_bytes() == BODY
    assert [each.get("range") for each in server.asked] == [None, "bytes=400-"]


def test_silent_server_is_given_up_by_the_time_out(serve: Callable[..., Server], target: Path) -> None:
    start = HEAD + b"Content-Length: 1000\r\n\r\n" + BODY[:400]
    server, began = serve(dripping(start, b"")), time.monotonic()
    with pytest.raises(DownloadError, match=r"failed 2 times; last error: .*timed out"):
        download(server.url, target, sha256=SHA256, attempts=2, timeout=0.2)
    assert time.monotonic() - began < 5


def test_server_that_is_just_fast_enough_is_heard_to_the_end(
    serve: Callable[..., Server], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(transfer, "SLOW_BYTES", 20)

    def slow(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        for first in range(0, 1000, 50):
            connection.sendall(BODY[first : first + 50])
            PAUSE.wait(0.05)

    server = serve(slow)
    assert download(server.url, target, sha256=SHA256).read_bytes() == BODY
    assert len(server.asked) == 1


def test_slow_disk_is_not_taken_for_a_slow_server(
    serve: Callable[..., Server], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(transfer.os, "fsync", lambda descriptor: PAUSE.wait(0.5))
    server = serve(chunked(BODY))
    assert download(server.url, target, sha256=SHA256).read_bytes() == BODY
    assert len(server.asked) == 1


PARTIAL = {"status": "206 Partial Content", "Content_Range": "bytes 300-999/1000"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"Content_Range": None},
        {"Content_Range": "bytes 0-999/1000"},
        {"Content_Range": "bytes 301-999/1000"},
        {"Content_Range": "bytes 300-998/1000"},
        {"Content_Range": "bytes 300-999/1001"},
        {"Content_Range": "bytes 300-999/*"},
        {"Content_Range": "bytes */1000"},
        {"Content_Range": "items 300-999/1000"},
        {"Content_Range": "bytes 300-1999/2000"},
        {"Content_Range": "bytes=300-999/1000"},
        {"Content_Length": 600},
        {"etag": '"v2"'},
        {"etag": 'W/"v1"'},
    ],
)
def test_partial_answer_that_does_not_continue_the_file_starts_it_again(
    serve: Callable[..., Server], target: Path, wrong: dict[str, object]
) -> None:
    forged = answer(b"x" * 700, **(PARTIAL | wrong))  # type: ignore[arg-type]
    server = serve(cut(300), forged, answer())
    assert download(server.url, target, sha256=SHA256).read_bytes() == BODY
    assert [each.get("range") for each in server.asked] == [None, "bytes=300-", None]
    assert [each.get("if-range") for each in server.asked] == [None, '"v1"', None]


def test_partial_answer_that_nobody_asked_for_is_refused(serve: Callable[..., Server], target: Path) -> None:
    server = serve(answer(BODY[300:], **PARTIAL))  # type: ignore[arg-type]
    with pytest.raises(DownloadError, match="does not continue the partial download"):
        download(server.url, target, sha256=SHA256, attempts=2)
    assert files(target) == set()


def test_resumed_file_of_unknown_length_ends_where_the_server_says(
    serve: Callable[..., Server], target: Path
) -> None:
    begun = answer(
        b"12c\r\n" + BODY[:300] + b"\r\n", Content_Length=None, Transfer_Encoding="chunked"
    )  # no last chunk
    short = answer(BODY[300:900], Content_Length=700, **PARTIAL)  # type: ignore[arg-type]
    rest = answer(BODY[900:], "206 Partial Content", Content_Range="bytes 900-999/1000")
    server = serve(begun, short, rest)
    assert download(server.url, target).read_bytes() == BODY
    assert [each.get("range") for each in server.asked] == [None, "bytes=300-", "bytes=900-"]


def test_file_whose_end_nobody_knows_needs_a_checksum(serve: Callable[..., Server], target: Path) -> None:
    server = serve(answer(Content_Length=None))
    with pytest.raises(
        DownloadError, match=r"does not say how long the file is, and its checksum is unknown.*`local_copy`"
    ):
        download(server.url, target)
    assert files(target) == set()
    assert download(server.url, target, sha256=SHA256).read_bytes() == BODY
    target.unlink()
    assert download(serve(chunked(BODY)).url, target).read_bytes() == BODY


def test_answer_without_a_file_is_refused(serve: Callable[..., Server], target: Path) -> None:
    server = serve(answer(b"", "204 No Content", Content_Length=None))
    with pytest.raises(DownloadError, match="answered 204 No Content without a file"):
        download(server.url, target)
    assert files(target) == set()


@pytest.mark.parametrize("length", ["+1000", "1_000", "1000, 1000", "\u00b2", "9" * 30])
def test_length_that_is_no_number_is_not_believed(serve: Callable[..., Server], target: Path, length: str) -> None:
    server = serve(answer(Content_Length=length.encode().decode("latin-1")))
    with contextlib.suppress(DownloadError):
        download(server.url, target, sha256=SHA256, attempts=2)
    assert not target.exists() or target.read_bytes() == BODY


@pytest.mark.parametrize(
    "sidecar",
    [
        {"etag": '"v1"\r\nX-Other: 1'},
        {"etag": 7},
        {"etag": 'W/"v1"'},
        {"length": "1000"},
        {"length": True},
        {"modified": "Mon, 01 Jan 2024 00:00:00 GMT"},  # of an older version of this package
        "[" * 100_000,
    ],
)
def test_partial_download_with_an_odd_description_starts_again(
    serve: Callable[..., Server], target: Path, sidecar: dict[str, object] | str
) -> None:
    server = serve(answer())
    target.parent.mkdir()
    target.with_name("data.zip.part").write_bytes(b"x" * 300)
    sound: dict[str, object] = {"url": server.url, "etag": '"v1"', "length": 1000}
    text = sidecar if isinstance(sidecar, str) else json.dumps(sound | sidecar)
    target.with_name("data.zip.part.json").write_text(text)
    assert download(server.url, target, sha256=SHA256).read_bytes() == BODY
    assert [each.get("range") for each in server.asked] == [None]
