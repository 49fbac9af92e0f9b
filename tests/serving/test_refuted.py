"""What a hostile user of the server tried and found."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sasrec
from sasrec.errors import StoreError
from sasrec.serving.auth import tokens_of
from sasrec.serving.limits import Limited
from tests.serving.in_process import IDS, SECRET, client_of, served
from tests.serving.process import serving

pytest.importorskip("uvicorn")


def test_a_line_feed_after_a_path_opens_no_other_scope(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"})
    file = tmp_path / "tokens"
    file.write_text(f"read {SECRET}-r\n")
    headers = {"authorization": f"Bearer {SECRET}-r"}
    with client_of(found, figures, tokens=tokens_of(file)) as client:
        for path in ("/v1/events%0A", "/admin/reload%0A", "/v1/recommend%0A", "/healthz%00", "/%0A"):
            assert client.post(path, json={}, headers=headers).status_code == 404, path
        assert client.request("DELETE", "/v1/users/u1%0A", headers=headers).status_code == 403


@pytest.mark.parametrize("user", ["a\nb", "a\n", "\na", "a/b", "a//", "a?b", "a%b", " a", "a\tb", "a\u2028b"])
def test_every_user_that_can_send_events_can_be_read_and_forgotten(
    runs: Path,
    tmp_path: Path,
    user: str,
) -> None:
    from urllib.parse import quote

    found, figures = served(tmp_path, {"plain": runs / "plain"})
    with client_of(found, figures) as client:
        for each in (user, "a"):
            assert (
                client.post("/v1/events", json={"events": [{"user": each, "item": IDS[1]}]}).json()["stored"] == 1
            )
        path = "/v1/users/" + quote(user, safe="")
        assert client.get(path).json()["history"][0]["item"] == IDS[1]
        assert client.delete(path).status_code == 200
        assert client.get(path).status_code == 404
        assert client.get("/v1/users/a").status_code == (404 if user.strip() == "a" else 200)


def test_filters_on_top_of_rules_keep_their_time_their_groups_and_their_limits(
    runs: Path,
    tmp_path: Path,
) -> None:
    table = pl.DataFrame({"item": IDS, "price": range(40), "until": ["2021-01-01"] * 40})
    rules = {
        "then": sasrec.Rules(where="price < 30", items=table, now="2020-06-01"),
        "one": sasrec.Rules(per_group=1),
        "three": sasrec.Rules(per_group=3, where="price >= 5", items=table.drop("until")),
    }
    found, figures = served(tmp_path, {"plain": runs / "plain"}, events=None, rules=rules)

    def listed(**asked: Any) -> list[str]:
        body = {"history": [IDS[1]], "k": 40, "exclude_seen": False} | asked
        answer = client.post("/v1/recommend", json=body)
        assert answer.status_code == 200, answer.text
        return sorted(each["item"] for each in answer.json()["items"])

    cheap = [{"column": "price", "op": "<", "value": 30}]
    with client_of(found, figures) as client:
        assert listed(rules="then", filters=cheap) == listed(rules="then") == IDS[:30]
        assert len(listed(rules="one", per_group=3)) == 4
        assert len(listed(rules="three", per_group=1)) == 4
        both = listed(rules="three", filters=cheap)
        assert len(both) == 12
        assert set(both) <= set(IDS[5:30])


def test_filters_on_top_of_rules_read_no_file_again(runs: Path, tmp_path: Path) -> None:
    stock, bans = tmp_path / "stock.csv", tmp_path / "bans.csv"
    pl.DataFrame({"item": IDS, "stock": [1] * 20 + [0] * 20}).write_csv(stock)
    pl.DataFrame({"user": ["u"], "item": [IDS[5]]}).write_csv(bans)
    rules = {"stock": sasrec.Rules(where="stock > 0", items=stock, bans=bans)}
    found, figures = served(tmp_path, {"plain": runs / "plain"}, rules=rules)

    def listed(**asked: Any) -> list[str]:
        body = {"user": "u", "k": 40, "rules": "stock", "exclude_seen": False} | asked
        answer = client.post("/v1/recommend", json=body)
        assert answer.status_code == 200, answer.text
        return sorted(each["item"] for each in answer.json()["items"])

    with client_of(found, figures) as client:
        client.post("/v1/users/u/events", json={"events": [{"item": IDS[0], "time": 1.7e9, "id": "1"}]})
        allowed = [*IDS[:5], *IDS[6:20]]
        assert listed() == allowed
        stock.unlink()
        bans.unlink()
        assert listed(filters=[{"column": "stock", "op": "<", "value": 2}]) == allowed


def test_a_request_that_is_cut_off_at_the_end_gets_503_and_is_counted() -> None:
    sent: list[Any] = []

    async def app(*_: Any) -> None:
        await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def work(limited: Limited) -> None:
        scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": []}
        task = asyncio.ensure_future(limited(scope, receive, send))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    limited = Limited(app, tokens=None, finished=lambda *_: None)
    asyncio.run(work(limited))
    assert (sent[0]["status"], limited.unanswered) == (503, 1)
    assert json.loads(sent[1]["body"])["error"]["code"] == "ending"


def test_an_export_that_is_removed_while_it_is_served_still_answers(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    sasrec.export_onnx(runs / "plain", tmp_path / "graph")
    found, figures = served(tmp_path, {"graph": tmp_path / "graph"}, events=None)
    shutil.rmtree(tmp_path / "graph")
    with client_of(found, figures) as client:
        assert client.post("/v1/similar", json={"item": IDS[1], "k": 3}).status_code == 200
        assert client.post("/v1/recommend", json={"history": IDS[:2], "reasons": True}).status_code == 200
        assert client.post("/admin/reload", json={}).status_code == 409


def test_a_user_who_is_asked_for_many_times_at_once_is_read_once(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"})
    assert found.store is not None
    read, history = [], found.store.history
    found.store.history = lambda user: read.append(user) or history(user)  # type: ignore[method-assign]
    with client_of(found, figures) as client:
        requests = [{"user": user, "k": 1} for user in ("u001", "u002", "u001")] * 50
        assert client.post("/v1/recommend", json={"requests": requests}).status_code == 200
    assert sorted(read) == ["u001", "u002"]


def test_a_token_on_two_lines_has_the_scopes_of_both(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"read {SECRET}\nwrite {SECRET}\n")
    assert list(tokens_of(tmp_path / "tokens").values()) == [frozenset({"read", "write"})]


def test_events_with_blank_ids_or_in_the_future_are_refused(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"})
    with client_of(found, figures) as client:
        for wrong in ({"user": "  "}, {"item": "\t"}, {"id": ""}, {"time": time.time() + 90_000}):
            answer = client.post("/v1/events", json={"events": [{"user": "a", "item": IDS[1]} | wrong]})
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid"), wrong
        events = [{"user": "a", "item": item, "time": time.time() + 3_000} for item in (IDS[1], "not known")]
        answer = client.post("/v1/events", json={"events": events}).json()
        assert (answer["stored"], answer["unknown_items"]) == (2, 1)
        assert client.get("/v1/items?q=star").status_code == 422


def test_a_store_that_fails_is_told_to_those_who_run_the_server(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"})
    assert found.store is not None
    append = found.store.append

    def fails(_: Any) -> Any:
        raise StoreError("the disk is full")

    event = {"events": [{"user": "a", "item": IDS[1]}]}
    with client_of(found, figures) as client:
        assert client.get("/readyz").json()["store"] == {"ready": True}
        found.store.append = fails  # type: ignore[method-assign]
        for _ in range(3):
            assert client.post("/v1/events", json=event).status_code == 503
        assert client.get("/readyz").json()["store"] == {"ready": False}
        assert "sasrec_store_errors_total 3.0" in client.get("/metrics").text
        found.store.append = append  # type: ignore[method-assign]
        assert client.post("/v1/events", json=event).status_code == 200
        assert client.get("/readyz").json()["store"] == {"ready": True}
    assert capsys.readouterr().err.count("requests fail: the disk is full") == 1


def test_sighup_reads_the_tokens_again_and_opens_the_log_again(runs: Path, tmp_path: Path) -> None:
    tokens, log = tmp_path / "tokens", tmp_path / "log"
    tokens.write_text(f"read {SECRET}-1\n")
    options = ["--events", tmp_path / "events", "--tokens", tokens, "--log", log]
    with serving(runs / "plain", *options) as server:

        def status(token: str) -> int:
            connection = server.connection()
            connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        def until(token: str, expected: int) -> None:
            deadline = time.monotonic() + 10
            while status(token) != expected:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        assert (status(f"{SECRET}-1"), status(f"{SECRET}-2")) == (200, 401)
        log.rename(tmp_path / "log.1")
        tokens.write_text(f"read {SECRET}-2\n")
        server.process.send_signal(signal.SIGHUP)
        until(f"{SECRET}-2", 200)
        assert status(f"{SECRET}-1") == 401
        tokens.write_text("nonsense\n")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert status(f"{SECRET}-2") == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert '"code": "no_token"' in log.read_text()
    assert "no_token" not in (tmp_path / "log.1").read_text().splitlines()[0]


def test_a_wrong_start_leaves_no_file_and_names_the_fault(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sasrec.cli.main import main

    run = str(runs / "plain")
    for arguments, said in (
        ([str(tmp_path / "nothing")], "nothing does not exist"),
        ([f"={run}"], "names no run"),
        ([run, "--share", "model=nan"], "not model=nan"),
        ([run, "--log", str(tmp_path / "no" / "log")], "cannot be written"),
    ):
        assert main(["serve", *arguments]) == 1
        assert said in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
    assert not list(runs.glob("*.events.sqlite"))
