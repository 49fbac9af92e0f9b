"""Requests of every size and with every kind of odd value: nothing beyond a 4xx, and no request harms the next."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

import sasrec
from sasrec.serving.limits import MOST_BYTES
from sasrec.serving.openapi import STATUSES
from tests.serving.process import Served, serving
from tests.synthetic import chain_frame, small

pytest.importorskip("uvicorn")

IDS = [f"item-{n:02d}" for n in range(25)]
USUAL = {"history": IDS[2:7], "k": 5, "model": "plain"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("extremes")
    for name, time in (("plain", False), ("timed", True)):
        sasrec.train(chain_frame(), folder / name, **small(num_epochs=1, num_blocks=1, time=time))
    paths = [f"plain={folder / 'plain'}", f"timed={folder / 'timed'}"]
    with serving(*paths, "--events", folder / "events", "--wait", "30") as found:
        yield found


def sent(server: Served, path: str, content: bytes | None) -> tuple[int, dict[str, Any]]:
    """Send bytes; return the status and the JSON. Every answer must be one that openapi.json names."""
    connection = server.connection()
    method, headers = ("GET", {}) if content is None else ("POST", {"content-type": "application/json"})
    connection.request(method, path, content, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert str(answer.status) in {"200", *STATUSES}, (answer.status, text[:300])
    assert answer.status < 500, text[:300]
    assert "x-evil" not in {name.lower() for name, _ in answer.getheaders()}
    return answer.status, json.loads(text)


def names(answer: dict[str, Any]) -> list[str]:
    """The items of a list, without scores, whose last digits depend on what shares the pass."""
    return [each["item"] for each in answer["items"]]


@pytest.fixture(autouse=True)
def unharmed(server: Served) -> Iterator[None]:
    """The list for a usual request is the same before and after each test."""
    before = server.ask("/v1/recommend", USUAL)
    yield
    after = server.ask("/v1/recommend", USUAL)
    assert (before[0], after[0], server.ask("/readyz")[0]) == (200, 200, 200)
    assert names(after[1]) == names(before[1])


@pytest.mark.parametrize("model", ["plain", "timed"])
@pytest.mark.parametrize("length", [0, 1, 8, 9, 1_000, 10_000])
def test_histories_of_any_length_have_lists(server: Served, model: str, length: int) -> None:
    history = [IDS[n % 7] for n in range(length)]
    body = {"history": history, "times": list(range(length)), "model": model, "k": 1_000}
    status, answer = sent(server, "/v1/recommend", json.dumps(body).encode())
    assert status == 200
    assert answer["known"] == length
    assert len(answer["items"]) == len(IDS) - min(length, 7)
    assert len({each["item"] for each in answer["items"]}) == len(answer["items"])


def test_lists_of_ids_of_any_length_are_answered_or_refused(server: Served) -> None:
    for field, count in itertools.product(("deny", "allow", "history"), (0, 1, 25, 9_000)):
        ids = [f"unknown {n}" for n in range(count)] + IDS[:3]
        body = USUAL | {field: ids} | ({"reasons": True} if field != "history" else {})
        assert sent(server, "/v1/recommend", json.dumps(body).encode())[0] == 200
    assert sent(server, "/v1/recommend", json.dumps(USUAL | {"allow": []}).encode())[1]["items"] == []
    many = {"requests": [USUAL | {"k": 1_000}] * 256}
    assert len(sent(server, "/v1/recommend", json.dumps(many).encode())[1]["answers"]) == 256
    many["requests"].append(USUAL)
    assert sent(server, "/v1/recommend", json.dumps(many).encode())[0] == 422
    assert sent(server, "/v1/recommend", b'{"history": ["' + b"x" * MOST_BYTES + b'"]}')[0] == 413
    assert sent(server, "/v1/items?query=" + "a" * 201, None)[0] == 422


ODD: list[Any] = [
    "", " ", "\0", "a\0b", "\ud800", "💥" * 2_000, "x" * 10_001, "../../etc/passwd", "%0d%0aX-Evil: 1", "\r\nX-Evil: 1",
    "'; DROP TABLE events; --", '" OR 1=1', "{{7*7}}", "${jndi:ldap://127.0.0.1/}", "file:///etc/passwd",
    0, -1, -(2**63), 2**63 - 1, 2**63, 10**400, 1.5, 1e308, -0.0, True, None, [], {}, [[["a"]]], {"a": {"b": 1}},
]  # fmt: skip


def test_odd_values_in_every_field_do_no_harm(server: Served) -> None:
    asked = 0
    for value in ODD:
        bodies: list[tuple[str, Any]] = [
            *(
                ("/v1/recommend", USUAL | {field: value})
                for field in (
                    "user",
                    "history",
                    "times",
                    "model",
                    "now",
                    "k",
                    "rules",
                    "per_group",
                    "reasons",
                    "x",
                )
            ),
            *(("/v1/recommend", USUAL | {field: [value]}) for field in ("history", "allow", "deny", "filters")),
            *(
                ("/v1/recommend", USUAL | {"filters": [{"column": column, "op": op, "value": other}]})
                for column, op, other in (
                    (value, "=", 1),
                    ("id", value, 1),
                    ("id", "=", value),
                    ("id", "in", [value]),
                )
            ),
            ("/v1/recommend", {"user": value}),
            ("/v1/recommend", {"requests": [USUAL, value]}),
            ("/v1/similar", {"item": value}),
            ("/v1/explain", {"item": value, "user": value}),
            ("/v1/explain", {"item": IDS[0], "history": [value, IDS[3]], "times": [1, value]}),
            ("/v1/events", {"events": [{"user": value, "item": value, "time": value, "id": value}]}),
            ("/v1/events", {"events": [{"user": "odd", "item": value}]}),
            ("/admin/reload", {"model": value} if value is not None else {"model": "none"}),
            ("/v1/recommend", value),
        ]
        for path, body in bodies:
            content = json.dumps(body).encode("utf-8", "surrogatepass")
            sent(server, path, content)
            asked += 1
        if isinstance(value, str):
            for path in ("/v1/users/", "/v1/items?query=", "/v1/items?id=", "/v1/items?limit=", "/page/", "/x/"):
                sent(server, path + quote(value.encode("utf-8", "surrogatepass"), safe=""), None)
    assert asked == 27 * len(ODD)


@pytest.mark.parametrize(
    "content",
    [
        b"{" * 100_000,
        b'{"history":' * 50_000,
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"history": ["item-03"], "history": ["item-04"], "k": 1, "k": 2}',
        b'{"history": ["item-03"], "k": 1e400}',
        b'{"history": ["item-03"], "k": ' + b"9" * 100_000 + b"}",
        b'{"history": [Infinity]}',
        b"\xef\xbb\xbf{}",
        b'{"history": ["\\ud800"]}',
        b"null",
        b"\x1f\x8b\x08\x00" + b"\0" * 1_000,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_odd_json_is_refused_or_answered(server: Served, content: bytes) -> None:
    for path in ("/v1/recommend", "/v1/similar", "/v1/explain", "/v1/events"):
        assert sent(server, path, content)[0] in (200, 404, 422)


def test_no_address_in_a_request_is_opened(server: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x"
        for field in ("user", "model", "now", "rules"):
            sent(server, "/v1/recommend", json.dumps(USUAL | {field: url}).encode())
        for field in ("history", "allow", "deny"):
            sent(server, "/v1/recommend", json.dumps(USUAL | {field: [url]}).encode())
        filters = [{"column": url, "op": "=", "value": url}]
        sent(server, "/v1/recommend", json.dumps(USUAL | {"filters": filters}).encode())
        sent(server, "/admin/reload", json.dumps({"model": url}).encode())
        sent(server, "/v1/users/" + quote(url, safe=""), None)
        sent(server, "/v1/items?query=" + quote(url, safe=""), None)
        with pytest.raises(TimeoutError):
            trap.accept()


def test_odd_requests_disturb_none_that_comes_with_them(server: Served) -> None:
    expected, wrong = names(server.ask("/v1/recommend", USUAL)[1]), []
    stop = threading.Event()

    def usual() -> None:
        while not stop.is_set():
            status, answer, _ = server.ask("/v1/recommend", USUAL)
            if status != 200 or names(answer) != expected:
                wrong.append(answer)

    threads = [threading.Thread(target=usual) for _ in range(3)]
    for each in threads:
        each.start()
    try:
        for value in ODD:
            body = USUAL | {"filters": [{"column": "id", "op": "=", "value": value}], "model": "plain"}
            sent(server, "/v1/recommend", json.dumps(body).encode("utf-8", "surrogatepass"))
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert wrong == []
