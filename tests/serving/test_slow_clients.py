"""A client that sends or reads too slowly loses its connection, whatever it is slow at."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")

from sasrec.serving import limits, server  # noqa: E402
from sasrec.serving.limits import Limited  # noqa: E402

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/similar HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


gone = threading.Event()


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """An application with a large answer at /large, and at /wait one that comes when the client has gone."""
    while scope["path"] == "/wait" and not gone.is_set():
        await asyncio.sleep(0.01)
        if scope["state"]["is_gone"]():
            gone.set()
    content = b"x" * (50_000_000 if scope["path"] == "/large" else 2)
    length = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def serving() -> Iterator[int]:
    """Serve `answering` in a thread; yield the port."""
    app = Limited(answering, tokens=None, finished=lambda *_: None)
    config = uvicorn.Config(app, http=server.PatientProtocol, lifespan="off", log_config=None)
    running = uvicorn.Server(config)
    opened = server.listening("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield opened.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(20)
        opened.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "_HEADER_SECONDS", 0.5)
        patched.setattr(server, "_BODY_SECONDS", 1.0)
        patched.setattr(server, "_TAKE_SECONDS", 1.0)
        patched.setattr(limits, "_BODY_SECONDS", 0.5)
        with serving() as found:
            yield found


@pytest.mark.parametrize(
    ("beginning", "drop", "status"),
    [
        (b"", b"", b""),
        (b"", b"\r\n", b""),
        (GET, b"X: y\r\n", b""),
        (GET + b"\r\n", b"\r\n", b"200"),
        (GET + b"\r\n" + GET, b"X: y\r\n", b"200"),
        (GET + b"Content-Length: 9999\r\n\r\n", b"x", b"200"),
        (POST + b"Content-Length: 9999\r\n\r\n", b"x", b"408"),
        (POST + b"Content-Length: 99999999\r\n\r\n", b"x", b"413"),
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 9999\r\n\r\n", b"x", b"415"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"408"),
    ],
    ids=["silent", "empty lines", "headers", "after a request", "second request", "body of GET", "body", "too large",
         "encoded", "chunks"],
)  # fmt: skip
def test_a_request_that_does_not_end_ends_the_connection(
    port: int, beginning: bytes, drop: bytes, status: bytes
) -> None:
    began, answer = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(0.2)
        client.sendall(beginning)
        while time.monotonic() < began + 8:
            try:
                client.sendall(drop)
                content = client.recv(65_536)
                if not content:
                    break
                answer += content
            except TimeoutError:
                pass
            except OSError:
                break
    assert time.monotonic() < began + 6, "the connection was still open"
    assert answer[:12].partition(b" ")[2] == status, answer


def test_an_answer_that_is_not_taken_ends_the_connection(port: int) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(3)
        received = 0
        with suppress(ConnectionError):
            while content := client.recv(2_000_000):
                received += len(content)
    assert received < 50_000_000


def test_a_client_that_reads_steadily_gets_a_large_answer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = 0
        while content := client.recv(2_000_000):
            received += len(content)
    assert received > 50_000_000


def test_large_headers_end_the_connection(port: int) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", port)) as client, suppress(ConnectionError):
        client.sendall(GET)
        for _ in range(100):
            sent += 1
            client.sendall(b"X: " + b"a" * 30_000 + b"\r\n")
            time.sleep(0.01)
    assert sent < 50


def test_a_route_knows_when_its_client_has_gone(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not gone.wait(0.3)
    assert gone.wait(5)
