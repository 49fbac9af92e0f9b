"""The server under load, with slow clients, and at its end."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import sasrec
from tests.serving.process import Served, serving
from tests.synthetic import chain_frame, small

pytest.importorskip("uvicorn")

BODY = {"history": ["item-03", "item-07", "item-01"] * 10, "k": 10}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    sasrec.train(chain_frame(), folder, **small(num_epochs=1, num_blocks=1))
    return folder


def clients(
    served: Served, count: int, stop: threading.Event, statuses: list[int], failed: list[str]
) -> list[threading.Thread]:
    """Threads that ask until the server refuses connections; what fails after a connection was made is noted."""

    def work() -> None:
        connection = None
        while not stop.is_set():
            try:
                if connection is None:
                    connection = served.connection()
                    connection.connect()
            except OSError:
                return  # the server has stopped
            try:
                status, _, headers = served.ask("/v1/recommend", BODY, connection)
            except (OSError, ValueError, Exception) as error:
                failed.append(repr(error))
                return
            statuses.append(status)
            if headers.get("connection") == "close":
                connection.close()
                connection = None

    threads = [threading.Thread(target=work) for _ in range(count)]
    for each in threads:
        each.start()
    return threads


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_no_accepted_request_is_lost_when_the_server_stops(run: Path, tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        with serving(run, "--events", tmp_path / "events", "--drain", "0.5", "--wait", "5") as served:
            stop, statuses, failed = threading.Event(), [], []
            threads = clients(served, 6, stop, statuses, failed)
            time.sleep(0.5 + 0.1 * (number % 7))
            before = len(statuses)
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            status, body, _ = served.ask("/readyz")
            assert (status, body["draining"]) == (503, True)
            assert served.process.wait(30) == 0
            for each in threads:
                each.join(30)
            assert failed == [], f"round {number}"
            assert set(statuses) == {200}
            assert len(statuses) > before > 0


def test_overload_is_refused_with_a_time_and_passes(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events", "--wait", "0.02") as served:
        served.ask("/v1/recommend", BODY)
        many = {"requests": [BODY] * 200}
        found: list[tuple[int, str | None]] = []

        def ask() -> None:
            for _ in range(5):
                status, _, headers = served.ask("/v1/recommend", many)
                found.append((status, headers.get("retry-after")))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert {status for status, _ in found} == {200, 429}
        assert all((retry is not None and int(retry) >= 1) == (status == 429) for status, retry in found)
        time.sleep(1)
        assert served.ask("/v1/recommend", BODY)[0] == 200
        assert served.ask("/readyz")[0] == 200


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_slow_clients_are_dropped_and_disturb_nobody(run: Path, tmp_path: Path, count: int) -> None:
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    beginnings = [
        b"",
        head,
        head + b"Content-Length: 1000\r\n\r\n{",
        b"GET /healthz HT",
        head + b"Content-Length: 10\r\n\r\n",
    ]
    with serving(run, "--events", tmp_path / "events") as served:
        slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(count)]
        for number, each in enumerate(slow):
            each.sendall(beginnings[number % len(beginnings)])
        began, taken = time.monotonic(), []
        for _ in range(50):
            start = time.monotonic()
            assert served.ask("/v1/recommend", BODY)[0] == 200
            taken.append(time.monotonic() - start)
        assert np.median(taken) < 0.5
        for each in slow:
            each.settimeout(max(0.1, 25 - (time.monotonic() - began)))
            answer = each.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408 "), answer
            each.close()
        assert time.monotonic() - began < 25


def test_wrong_http_and_large_headers_end_with_a_4xx_or_a_closed_connection(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events") as served:
        for content in (
            b"\x00\x01\x02\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /v1/users/%00%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /page/..%2f..%2fapp.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /page/../../app.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2**21 + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", served.port), timeout=15) as client:
                answer = b""
                try:
                    client.sendall(content)
                    answer = client.recv(65536)
                except ConnectionError:
                    pass
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]
            assert b"x-evil" not in answer.lower().split(b"\r\n\r\n")[0]
        assert served.ask("/healthz")[0] == 200


def test_the_log_has_no_user_and_no_history(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events", "--log", tmp_path / "log") as served:
        served.ask("/v1/recommend", {"user": "someone-secret", "k": 3})
        served.ask("/v1/users/someone-secret")
        served.ask("/v1/recommend", BODY)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(each["route"], each["status"]) for each in lines] == [
        ("/v1/recommend", 200), ("/v1/users/{id}", 404), ("/v1/recommend", 200),
    ]  # fmt: skip
    assert (lines[0]["k"], lines[0]["model"]) == (3, "model")
    assert "secret" not in (tmp_path / "log").read_text()
    assert "item-03" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "needs --tokens"),
        (["--port", "70000"], "--port"),
        (["--wait", "0"], "--wait must be above 0"),
        (["--share", "other=0.5"], "--share names other"),
        (["--rules", "cheap"], "not of the form NAME=VALUE"),
        (["--tokens", "missing"], "missing"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(
    run: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from sasrec.cli.main import main

    assert main(["serve", str(run), "--events", str(tmp_path / "events"), *arguments]) == 1
    assert said in capsys.readouterr().err.replace("\n", " ")
