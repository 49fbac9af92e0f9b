"""The server under load, with slow clients, and at its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import sasrec
from tests.serving.process import Served, serving
from tests.synthetic import chain_frame, small

pytest.importorskip("uvicorn")
have_connections = pytest.importorskip("sasrec.serving.server").have_connections

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
            except Exception as error:
                failed.append(repr(error))
                connection.close()
                return
            statuses.append(status)
            if headers.get("connection") == "close":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for each in threads:
        each.start()
    return threads


def attempt(port: int) -> bool:
    """Whether a connection could be made."""
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_no_accepted_request_is_lost_when_the_server_stops(run: Path, tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        with serving(run, "--events", tmp_path / "events", "--drain", "1.5", "--wait", "5") as served:
            stop, statuses, failed = threading.Event(), [], []
            threads = clients(served, 6, stop, statuses, failed)
            time.sleep(0.5 + 0.1 * (number % 7))
            before = len(statuses)
            served.process.send_signal(signal.SIGTERM)
            if number == 0:
                status, body, _ = served.ask("/readyz")
                assert (status, body["draining"]) == (503, True)
            assert served.process.wait(30) == 0
            for each in threads:
                each.join(30)
            assert failed == [], f"round {number}"
            assert set(statuses) == {200}
            assert len(statuses) > before > 0


@pytest.mark.skipif(sys.platform != "linux", reason="a system without socket filters resets late connections")
def test_a_connection_that_was_made_before_the_end_gets_its_answer(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events", "--drain", "0") as served:
        served.ask("/healthz")
        early = served.connection()
        early.connect()
        served.process.send_signal(signal.SIGTERM)
        while attempt(served.port):
            pass
        assert served.ask("/v1/recommend", BODY, early)[0] == 200
        assert served.process.wait(30) == 0


def test_a_connection_that_waits_to_be_accepted_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not have_connections([listener])
        with socket.create_connection(listener.getsockname()):
            assert have_connections([listener])
            listener.accept()[0].close()
            assert not have_connections([listener])


def test_a_server_that_says_it_is_ready_ends_well_at_the_next_moment(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events", "--drain", "0") as served:
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0


def test_a_second_signal_ends_at_once(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events", "--drain", "60") as served:
        served.ask("/healthz")
        served.process.send_signal(signal.SIGTERM)
        while not served.ask("/readyz")[1]["draining"]:
            time.sleep(0.02)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_reloads_under_load_fail_no_request(run: Path, tmp_path: Path, rounds: int) -> None:
    other, link = tmp_path / "other", tmp_path / "current"
    sasrec.train(chain_frame(), other, **small(num_epochs=1, num_blocks=1, seed=1))
    link.symlink_to(run)
    with serving(link, "--events", tmp_path / "events", "--wait", "5") as served:
        stop, statuses, failed = threading.Event(), [], []
        threads = clients(served, 3, stop, statuses, failed)
        hashes = []
        for number in range(rounds):
            link.unlink()
            link.symlink_to(run if number % 2 else other)
            status, body, _ = served.ask("/admin/reload", {})
            assert status == 200, body
            hashes.append(body["reloaded"][0]["new"])
        stop.set()
        for each in threads:
            each.join(30)
        assert failed == []
        assert set(statuses) == {200}
        assert len(set(hashes)) == 2
        assert hashes[0] == hashes[0::2][-1]


@pytest.mark.slow
def test_the_server_gives_the_lists_of_the_batch_for_ten_thousand_histories_with_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('deny = ["item-07"]\n[bans]\nu00003 = ["item-01", "item-02"]\n')
    frame = chain_frame(users=10_000, items=60)
    recommender = sasrec.train(frame, tmp_path / "run", **small(num_epochs=1, num_blocks=1))
    with serving(
        tmp_path / "run", "--events", tmp_path / "events", "--rules", f"r={rules}", "--wait", "60"
    ) as served:
        for options, asked in (({}, {}), ({"rules": sasrec.Rules.load(rules)}, {"rules": "r"})):
            lists = (
                recommender.recommend_all(10, **options).group_by("user", maintain_order=True).agg("item", "score")
            )
            users, connection, differ = lists["user"].to_list(), served.connection(), 0
            assert len(users) == 10_000
            for start in range(0, len(users), 250):
                requests = [{"user": user, "k": 10} | asked for user in users[start : start + 250]]
                status, body, _ = served.ask("/v1/recommend", {"requests": requests}, connection)
                assert status == 200, body
                for answer, row in zip(body["answers"], lists[start : start + 250].iter_rows(), strict=True):
                    scores = [each["score"] for each in answer["items"]]
                    assert np.allclose(scores, row[2], atol=1e-5)
                    differ += [each["item"] for each in answer["items"]] != row[1]
            connection.close()
            assert differ == 0


@pytest.mark.slow
def test_no_request_that_the_interface_describes_makes_a_fault(tmp_path: Path) -> None:
    """At least 20,000 requests, made by schemathesis from /openapi.json."""
    pytest.importorskip("schemathesis")
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=1, num_blocks=1))
    with serving(tmp_path / "run", "--events", tmp_path / "events", "--wait", "10") as served:
        words = ["run", f"http://127.0.0.1:{served.port}/openapi.json", "--max-examples", "4000"]
        checks = "not_a_server_error,status_code_conformance,content_type_conformance"
        checks += ",response_schema_conformance,response_headers_conformance"
        words += ["--checks", checks, "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"]
        script = "import sys; from schemathesis.cli import schemathesis; sys.argv[0] = 'st'; schemathesis()"
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=3_000
        )
        found = re.search(r"([\d,]+) generated, ([\d,]+) passed", done.stdout)
        assert found is not None, done.stdout[-3_000:] + done.stderr[-1_000:]
        assert done.returncode == 0, done.stdout[-3_000:]
        assert int(found[1].replace(",", "")) >= 20_000, done.stdout[-3_000:]
        assert served.ask("/readyz")[0] == 200


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
    with serving(run, "--events", tmp_path / "events", impatient=count == 20) as served:
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
    with serving(run, "--events", tmp_path / "events", impatient=True) as served:
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
        served.process.send_signal(signal.SIGTERM)  # its log is whole then
        assert served.process.wait(30) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(each["route"], each["status"]) for each in lines] == [
        ("/v1/recommend", 200), ("/v1/users/{id}", 404), ("/v1/recommend", 200),
    ]  # fmt: skip
    assert (lines[0]["k"], lines[0]["model"]) == (3, "model")
    assert "secret" not in (tmp_path / "log").read_text()
    assert "item-03" not in (tmp_path / "log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_disturbs_neither_requests_nor_the_end(run: Path, tmp_path: Path) -> None:
    with serving(run, "--events", tmp_path / "events", "--drain", "0", "--log", "/dev/full") as served:
        for _ in range(3):
            assert served.ask("/v1/recommend", BODY)[0] == 200
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        assert served.process.stderr is not None
        said = served.process.stderr.read()
        assert said.count("the request log cannot be written") == 1
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "needs --tokens"),
        (["--port", "70000"], "--port"),
        (["--wait", "0"], "--wait must be above 0"),
        (["--share", "other=0.5"], "--share names other"),
        (["--rules", "cheap"], "Write --rules NAME=FILE"),
        (["--tokens", "missing"], "missing"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(
    run: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from sasrec.cli.main import main

    assert main(["serve", str(run), "--events", str(tmp_path / "events"), *arguments]) == 1
    assert said in capsys.readouterr().err.replace("\n", " ")
