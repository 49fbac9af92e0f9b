"""The routes of the server: their answers are those of the recommender, and what is wrong is refused in words."""

from __future__ import annotations

import math
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.serving.auth import tokens_of
from sasrec.serving.figures import Figures
from sasrec.serving.limits import MOST_BYTES
from sasrec.serving.schemas import ROUTES
from sasrec.serving.service import Service
from tests.serving.in_process import IDS, RULES, SECRET, TABLE, client_of, served
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def service(runs: Path) -> Iterator[Service]:
    found, _ = served(
        runs, {"plain": runs / "plain", "timed": runs / "timed"}, shares={"plain": 1.0, "timed": 0.0}
    )
    yield found
    assert found.store is not None
    found.store.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Any]:
    with client_of(service, Figures()) as found:
        yield found


@pytest.fixture(scope="module")
def plain(runs: Path) -> sasrec.Recommender:
    return sasrec.load(runs / "plain", device="cpu", fallback="popular")


def pairs(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(each["item"], each["score"]) for each in answer["items"]]


def same(found: list[tuple[str, float]], expected: list[tuple[str | int, float]]) -> bool:
    """Equal items in equal order, scores within rounding."""
    return [item for item, _ in found] == [item for item, _ in expected] and np.allclose(
        [score for _, score in found], [score for _, score in expected], atol=1e-5
    )


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, {}),
        ({"exclude_seen": False}, {"exclude_seen": False}),
        ({"allow": IDS[:7]}, {"allow": IDS[:7]}),
        ({"deny": IDS[5:9]}, {"deny": IDS[5:9]}),
        ({"rules": "cheap"}, {"rules": RULES["cheap"]}),
        ({"rules": "two"}, {"rules": RULES["two"]}),
        ({"per_group": 1}, {"rules": sasrec.Rules(per_group=1)}),
        (
            {"filters": [{"column": "group", "op": "in", "value": ["g1", "g'2"]}]},
            {"rules": sasrec.Rules(where="\"group\" = 'g1'")},
        ),
        (
            {"rules": "cheap", "filters": [{"column": "price", "op": ">=", "value": 10}]},
            {"rules": sasrec.Rules(where="price < 20 AND price >= 10", items=TABLE)},
        ),
    ],
    ids=str,
)
def test_lists_are_those_of_the_recommender(
    client: Any, plain: sasrec.Recommender, asked: dict[str, Any], options: dict[str, Any]
) -> None:
    for history in (IDS[3:5], [IDS[7], IDS[1], IDS[20]] * 6):
        answer = client.post("/v1/recommend", json={"history": history, "k": 12} | asked)
        assert answer.status_code == 200, answer.text
        assert same(pairs(answer.json()), plain.recommend(history, 12, **options))
    user = client.post("/v1/recommend", json={"user": "u003", "k": 12} | asked).json()
    assert same(pairs(user), plain.recommend_user("u003", 12, **options))
    assert (user["user"], user["source"], user["model"]["name"]) == ("u003", "model", "plain")


def test_requests_that_are_answered_in_one_pass_do_not_disturb_each_other(client: Any) -> None:
    requests = [
        {"history": IDS[:1], "k": 3},
        {"user": "u001", "k": 20, "per_group": 2},
        {"history": ["nothing"], "k": 4, "deny": IDS[:30]},
        {"history": IDS[10:30], "allow": IDS[:12], "exclude_seen": False},
        {"user": "u002", "rules": "two", "k": 40},
        {"history": IDS[4:6], "titles": True, "reasons": True, "k": 2},
    ]
    together = client.post("/v1/recommend", json={"requests": requests}).json()["answers"]
    for request, answer in zip(requests, together, strict=True):
        alone = client.post("/v1/recommend", json=request).json()
        assert same(pairs(answer), pairs(alone))
        assert {**answer, "request_id": 0, "items": 0} == {**alone, "request_id": 0, "items": 0}


def test_all_users_get_the_lists_of_recommend_all(client: Any, runs: Path) -> None:
    for name in ("plain", "timed"):
        recommender = sasrec.load(runs / name, device="cpu")
        expected = recommender.recommend_all(5).group_by("user", maintain_order=True).agg("item", "score")
        requests = [{"user": user, "k": 5, "model": name} for user in expected["user"]]
        answers = client.post("/v1/recommend", json={"requests": requests}).json()["answers"]
        for answer, (_, items, scores) in zip(answers, expected.iter_rows(), strict=True):
            assert same(pairs(answer), list(zip(items, scores, strict=True)))


def test_titles_reasons_notes_and_unknown_ids(client: Any, plain: sasrec.Recommender) -> None:
    history = [IDS[3], "Star Wars", IDS[8]]
    answer = client.post(
        "/v1/recommend", json={"history": history, "k": 2, "titles": True, "reasons": True, "allow": IDS[9:10]}
    ).json()
    assert (answer["known"], answer["unknown"]) == (2, ["Star Wars"])
    assert answer["notes"] == ["Only 1 of 2 items are left by the history, the lists and the rules."]
    (item,) = answer["items"]
    assert (item["item"], item["title"], item["rank"]) == (IDS[9], "Thé n° 9", 1)
    expected = plain.explain([IDS[3], IDS[8]], IDS[9]).filter(pl.col("effect") > 0).sort("effect", descending=True)
    assert [each["item"] for each in item["reasons"]] == expected["item"].to_list()
    assert np.allclose([each["effect"] for each in item["reasons"]], expected["effect"], atol=1e-5)


def test_a_sent_event_is_served_at_once_and_a_forgotten_user_is_new(
    client: Any, plain: sasrec.Recommender
) -> None:
    event = {"user": "new", "item": IDS[11], "time": 1_700_000_000, "id": "a"}
    assert (
        client.post("/v1/events", json={"events": [event, {"user": "new", "item": IDS[12]}]}).json()["stored"] == 2
    )
    assert client.post("/v1/events", json={"events": [event]}).json()["repeated"] == 1
    answer = client.post("/v1/recommend", json={"user": "new"}).json()
    assert same(pairs(answer), plain.recommend(IDS[11:13]))
    known = client.get("/v1/users/new").json()
    assert [each["item"] for each in known["history"]] == IDS[11:13]
    client.post("/v1/events", json={"events": [{"user": "u005", "item": IDS[13]}]})
    before = plain.data.history("u005")  # type: ignore[union-attr]
    both = client.post("/v1/recommend", json={"user": "u005"}).json()
    assert same(pairs(both), plain.recommend([*before, IDS[13]]))
    assert client.delete("/v1/users/u005").json()["forgotten"] is True
    assert client.post("/v1/recommend", json={"user": "u005"}).json()["source"] == "popular"
    assert client.get("/v1/users/u005").status_code == 404


def test_a_sent_event_that_the_data_has_by_now_is_read_once(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"m": runs / "plain"})
    model = sasrec.load(runs / "plain", device="cpu")
    assert model.data is not None
    history = chain_frame(items=40).filter(pl.col("user") == "u005").select("item", "time").rows()
    with client_of(found, figures) as client:
        events = [{"user": "u005", "item": item, "time": time + 0.4} for item, time in history[-3:]]
        later = {"user": "u005", "item": history[-1][0], "time": history[-1][1] + 1}
        assert client.post("/v1/events", json={"events": [*events, later]}).json()["stored"] == 4
        told = client.get("/v1/users/u005").json()["history"]
        assert [each["from"] for each in told] == ["run"] * len(history) + ["events"]
        answer = client.post("/v1/recommend", json={"user": "u005", "k": 5}).json()
        assert answer["known"] == len(history) + 1
        ids = [item for item, _ in history] + [history[-1][0]]
        assert same(pairs(answer), model.recommend(ids, 5))


def test_a_model_with_time_reads_the_times_of_events(client: Any, runs: Path) -> None:
    timed = sasrec.load(runs / "timed", device="cpu")
    history, times = IDS[4:8], [0.0, 60.0, 3600.0, 7200.0]
    body = {"history": history, "times": times, "model": "timed"}
    assert same(pairs(client.post("/v1/recommend", json=body).json()), timed.recommend(history, times=times))
    explained = client.post("/v1/explain", json=body | {"item": IDS[9]}).json()["events"]
    expected = timed.explain(history, IDS[9], times=times)
    assert [each["item"] for each in explained] == history
    assert np.allclose([each["effect"] for each in explained], expected["effect"], atol=1e-5)
    assert "interval_effect" not in explained[0]
    assert np.isclose(explained[2]["interval_effect"], expected["interval_effect"][2], atol=1e-5)
    missing = client.post("/v1/recommend", json={"history": history, "model": "timed"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (422, "unfit_times")


def test_similar_items_search_and_facts(client: Any, plain: sasrec.Recommender) -> None:
    similar = client.post("/v1/similar", json={"item": IDS[9], "k": 4}).json()["items"]
    assert same([(each["item"], each["score"]) for each in similar], plain.similar(IDS[9], 4))
    found = client.get("/v1/items", params={"query": "the N° 1", "limit": 3}).json()
    assert (len(found["items"]), found["total"]) == (3, 13), "the numbers 1, 10 to 19, 21 and 31"
    assert found["items"][0]["group"].startswith("g")
    assert found["items"][0]["events"] >= found["items"][1]["events"] > 0
    exact = client.get("/v1/items", params={"id": [IDS[1], "?", IDS[9]]}).json()["items"]
    assert [(each["item"], each["title"]) for each in exact] == [(IDS[1], "Thé n° 1"), (IDS[9], "Thé n° 9")]
    facts = client.get("/v1/models").json()
    low, high = facts["models"][0]["intervals"]["ndcg@10"]
    assert low < facts["models"][0]["metrics"]["ndcg@10"] < high
    assert [each["name"] for each in facts["models"]] == ["plain", "timed"]
    assert facts["models"][0]["metrics"]["ndcg@10"] > 0
    assert "popularity" in facts["models"][0]["baselines"]
    assert (facts["rules"], facts["fallback"]) == (["cheap", "two"], "popular")
    assert client.get("/v1/items", params={"limit": "many"}).status_code == 422


SAID = "zzz-said-by-the-client-zzz"
WRONG: list[tuple[str, Any, int, str]] = [
    ("/v1/recommend", {}, 422, "nobody"),
    ("/v1/recommend", {"history": [IDS[1]], SAID: 1}, 422, "invalid"),
    ("/v1/recommend", {"history": SAID}, 422, "invalid"),
    ("/v1/recommend", {"history": [IDS[1]], "k": 0}, 422, "invalid"),
    ("/v1/recommend", {"history": [IDS[1]], "k": 10**30}, 422, "invalid"),
    ("/v1/recommend", {"history": [10**400]}, 422, "invalid"),
    ("/v1/recommend", {"history": [[[[]]]]}, 422, "invalid"),
    ("/v1/recommend", {"history": [IDS[1]], "model": SAID}, 404, "unknown"),
    ("/v1/recommend", {"history": [IDS[1]], "rules": SAID}, 404, "unknown"),
    (
        "/v1/recommend",
        {"history": [IDS[1]], "filters": [{"column": SAID, "op": "=", "value": 1}]},
        422,
        "unfit_rules",
    ),
    ("/v1/recommend", {"history": [IDS[1]], "now": SAID}, 422, "unfit_rules"),
    ("/v1/recommend", {"history": [IDS[1]], "times": [1, 2], "model": "timed"}, 422, "unfit_times"),
    ("/v1/recommend", {"requests": []}, 422, "invalid"),
    ("/v1/recommend", {"requests": [{"user": "u001"}], "k": 3}, 422, "invalid"),
    ("/v1/recommend", b'{"history": [NaN]}', 422, "not_json"),
    ("/v1/recommend", b"[" * 100_000, 422, "invalid"),
    ("/v1/recommend", b'{"history":' + b"[" * 100_000, 422, "invalid"),
    ("/v1/recommend", b"\xff\xfe", 422, "not_json"),
    ("/v1/recommend", b"", 422, "not_json"),
    ("/v1/similar", {"item": SAID}, 404, "unknown"),
    ("/v1/explain", {"item": SAID, "user": "u001"}, 404, "unknown"),
    ("/v1/explain", {"item": IDS[1], "history": [SAID]}, 404, "unknown"),
    ("/v1/events", {"events": [{"user": SAID}]}, 422, "invalid"),
    ("/v1/events", {"events": [{"user": "a", "item": "b", "time": 1e300}]}, 422, "invalid"),
    ("/v1/events", {"events": [{"user": "", "item": "b"}]}, 422, "invalid"),
    ("/v1/events", {"events": [{"user": "a", "item": ""}]}, 422, "invalid"),
    ("/v1/nothing", {}, 404, "not_found"),
    ("/healthz", {}, 405, "wrong_method"),
    ("/admin/reload", {"model": SAID}, 404, "unknown"),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_refused_in_words_that_repeat_nothing(
    client: Any, path: str, body: Any, status: int, code: str
) -> None:
    content = body if isinstance(body, bytes) else None
    sent = {"content": content} if content is not None else {"json": body}
    answer = client.post(path, headers={"content-type": "application/json"}, **sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert SAID not in answer.text
    assert answer.json()["error"]["message"].endswith(".")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("recommend", {"history": IDS[:1], "k": 5_000}, "`$.k`: expected `int` <= 1000."),
        ("recommend", {"requests": [{"k": 1}] * 257}, "`$.requests`: expected `array` of length <= 256."),
        (
            "similar",
            {"item": IDS[0], SAID: 1},
            "The body has a field that is not known. It may have item, k, model.",
        ),
        ("events", {"events": [{"user": "a"}]}, "`$.events[0]` needs the field `item`."),
        (
            "events",
            {"events": [{"user": "a", "item": "b", SAID: 1}]},
            "`$.events[0]` has a field that is not known.",
        ),
        (
            "events",
            {"events": [{"user": "a", "item": "b", "id": 17}]},
            "`$.events[0].id`: expected `str | null`, got",
        ),
        (
            "events",
            {"events": [{"user": "a", "item": "b", "time": 1_795_776_390_346}]},
            "`$.events[0].time`: expected `float` < 100000000000.0. Times are in seconds since 1970,",
        ),
        (
            "recommend",
            {"history": IDS[:1], "filters": [{"column": "id", "op": SAID, "value": 1}]},
            "The value at `$.filters[0].op` is not one of those that are allowed.",
        ),
        (
            "recommend",
            {"history": IDS[:1], "filters": [{"column": SAID, "op": "=", "value": 1}]},
            "`filters[0].column` is not a column here; these are: item, title, group.",
        ),
        (
            "recommend",
            {"history": IDS[:1], "rules": "cheap", "filters": [{"column": "price", "op": "<", "value": SAID}]},
            "A filter compares a column with a value of another kind. The columns are item (text), title (text), "
            "group (text), price (number).",
        ),
        (
            "recommend",
            {"history": IDS[:1], "now": SAID},
            "`now` is not a time. Send seconds since 1970, or ISO 8601",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_repeats_nothing(
    client: Any, path: str, body: dict[str, Any], said: str
) -> None:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(said)
    assert SAID not in answer.text


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({}, 422, "nobody"),
        ({"history": IDS[:1], "model": SAID}, 404, "unknown"),
        ({"history": IDS[:1], "rules": SAID}, 404, "unknown"),
        ({"history": IDS[:2], "times": [1], "model": "timed"}, 422, "unfit_times"),
        ({"history": IDS[:1], "filters": [{"column": SAID, "op": "=", "value": 1}]}, 422, "unfit_rules"),
    ],
)
def test_an_error_says_which_of_several_requests_is_wrong(
    client: Any, wrong: dict[str, Any], status: int, code: str
) -> None:
    right = {"history": IDS[:2], "model": "plain"}
    answer = client.post("/v1/recommend", json={"requests": [right, right, wrong, right]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"].startswith("`requests[2]`: ")
    assert SAID not in answer.text


def test_a_baseline_is_served_but_has_no_reasons(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"m": Path(f"{runs / 'plain'}:markov")}, events=None)
    with client_of(found, figures) as client:
        answer = client.post("/v1/recommend", json={"user": "u003", "reasons": True}).json()
        expected = sasrec.load(f"{runs / 'plain'}:markov").recommend_user("u003")
        assert (answer["source"], pairs(answer)) == ("markov", [(item, score) for item, score in expected])
        for path in ("similar", "explain"):
            refused = client.post(
                f"/v1/{path}", json={"item": IDS[1]} | ({"user": "u003"} if path == "explain" else {})
            )
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "baseline")
        (facts,) = client.get("/v1/models").json()["models"]
        assert facts["metrics"]["ndcg@10"] == facts["baselines"]["markov"]["ndcg@10"]
        low, high = facts["intervals"]["ndcg@10"]
        assert low < facts["metrics"]["ndcg@10"] < high


def test_an_unknown_user_without_a_fallback_is_refused(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"}, fallback=None, events=None)
    with client_of(found, figures) as client:
        assert client.post("/v1/recommend", json={"user": "nobody"}).status_code == 404
        answer = client.post("/v1/recommend", json={"history": ["nothing"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "nothing_known")
        stored = client.post("/v1/events", json={"events": [{"user": "a", "item": "b"}]})
        assert (stored.status_code, stored.json()["error"]["code"]) == (503, "store")


def test_bodies_of_other_types_and_sizes_are_refused(client: Any) -> None:
    body = b'{"history": ["item-01"]}'
    for headers, status in (
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ):
        assert client.post("/v1/recommend", content=body, headers=headers).status_code == status
    large = b'{"history": ["' + b"x" * MOST_BYTES + b'"]}'
    headers = {"content-type": "application/json"}
    assert client.post("/v1/recommend", content=large, headers=headers).status_code == 413
    assert (
        client.post(
            "/v1/recommend", content=(large[at : at + 999] for at in range(0, len(large), 999)), headers=headers
        ).status_code
        == 413
    )


def test_tokens_and_their_scopes(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# the shop\nread {SECRET}-r\nwrite {SECRET}-w  # events\nread,write,admin {SECRET}-a\n")
    with client_of(service, Figures(), tokens=tokens_of(file)) as client:
        asked: dict[str, tuple[str, str, Any]] = {
            "read": ("POST", "/v1/recommend", {"history": [IDS[1]]}),
            "write": ("POST", "/v1/events", {"events": [{"user": "t", "item": IDS[1]}]}),
            "admin": ("POST", "/admin/reload", {"model": "?"}),
        }
        for scope, (method, path, body) in asked.items():
            for header in (None, "Bearer wrong-token-here", f"Basic {SECRET}-a", "Bearer"):
                headers = {} if header is None else {"authorization": header}
                assert client.request(method, path, json=body, headers=headers).status_code == 401
            for letter, allowed in (("r", {"read"}), ("w", {"write"}), ("a", {"read", "write", "admin"})):
                answer = client.request(
                    method, path, json=body, headers={"authorization": f"Bearer {SECRET}-{letter}"}
                )
                expected = 404 if scope == "admin" else 200
                assert answer.status_code == (expected if scope in allowed else 403), (scope, letter)
        assert client.get("/healthz").status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/v1/users/..%2f..%2fetc").status_code == 401


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("read short", "line 1: a token needs at least 16"),
        ("\nall 0123456789abcdef", "line 2: 'all' is not a scope"),
        ("read", "line 1: write SCOPES TOKEN"),
        ("# none", "has no token"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(sasrec.SasrecError, match=said):
        tokens_of(tmp_path / "tokens")


def test_without_tokens_only_names_of_loopback_are_served(client: Any) -> None:
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/healthz", headers={"host": "127.0.0.1:8000"}).status_code == 200
    headers = client.get("/healthz", headers={"x-request-id": "of-the-client.1"}).headers
    assert headers["x-request-id"] == "of-the-client.1"
    assert client.get("/healthz", headers={"x-request-id": "a b\tc"}).headers["x-request-id"] != "a b\tc"
    assert "default-src 'self'" in headers["content-security-policy"]


def test_loopback_is_told_by_the_address_and_not_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    is_loopback = pytest.importorskip("sasrec.serving.server").is_loopback
    for host in ("127.0.0.1", "127.1.2.3", "::1"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.0.2.1", "", "no such name", "x" * 300):
        assert not is_loopback(host)
    family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    for address, expected in (("192.0.2.1", False), ("127.0.0.1", True)):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, address=address: [(*family, (address, 0))])
        assert is_loopback("127.example.org") is expected


def test_a_new_model_is_taken_over_only_if_it_is_sound(runs: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(runs / "plain")
    found, figures = served(tmp_path, {"current": link})
    with client_of(found, figures) as client:
        old = client.get("/v1/models").json()["models"][0]["hash"]
        damaged = tmp_path / "damaged"
        shutil.copytree(runs / "plain", damaged)
        for weights in damaged.glob("checkpoints/*/weights.safetensors"):
            weights.write_bytes(weights.read_bytes()[:-7])
        link.unlink()
        link.symlink_to(damaged)
        refused = client.post("/admin/reload", json={})
        assert refused.status_code == 409
        assert "current keeps its old model" in refused.json()["error"]["message"]
        body = {"history": IDS[1:3], "k": 3}
        assert client.post("/v1/recommend", json=body).json()["model"]["hash"] == old
        link.unlink()
        sasrec.train(runs / "data", tmp_path / "next", **small(num_epochs=1, seed=3))
        link.symlink_to(tmp_path / "next")
        (changed,) = client.post("/admin/reload", json={}).json()["reloaded"]
        assert changed["old"] == old
        answer = client.post("/v1/recommend", json=body).json()
        assert answer["model"]["hash"] == changed["new"] != old
        assert same(pairs(answer), sasrec.load(tmp_path / "next").recommend(IDS[1:3], 3))


def test_readiness_tells_the_truth(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"}, events=None)
    with client_of(found, figures) as client:
        assert client.get("/readyz").status_code == 200
        found.models["plain"].engine.recommender.model.item_embedding.weight.data.fill_(math.nan)
        time.sleep(0.6)  # the answer of a canary stands for half a second
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "weights diverged" in answer.json()["models"]["plain"]["reason"]
        for path, asked in (
            ("recommend", {"history": IDS[:1]}),
            ("similar", {"item": IDS[1]}),
            ("explain", {"history": IDS[:1], "item": IDS[1]}),
        ):
            assert client.post(f"/v1/{path}", json=asked).status_code == 503, path
        assert client.get("/healthz").status_code == 200


def test_a_model_that_hangs_is_not_ready_within_two_seconds_and_ready_again_after(
    runs: Path, tmp_path: Path
) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain", "b": runs / "plain"}, events=None)
    go_on = threading.Event()
    model = found.models["plain"].engine.recommender.model
    model.register_forward_pre_hook(lambda *_: go_on.wait(30) and None)
    with client_of(found, figures) as client:
        began = time.monotonic()
        answer = client.get("/readyz")
        assert time.monotonic() - began < 3
        assert answer.status_code == 503
        assert answer.json()["models"]["plain"]["reason"] == "it has not answered for 2 seconds"
        assert answer.json()["models"]["b"]["ready"] is True
        assert client.get("/healthz").status_code == 200
        go_on.set()
        deadline = time.monotonic() + 10
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline


def test_users_are_shared_between_models_always_alike(runs: Path, tmp_path: Path) -> None:
    paths = {"a": runs / "plain", "b": runs / "plain"}
    found, figures = served(tmp_path, paths, events=None, shares={"b": 0.25})
    with client_of(found, figures) as client:
        for _ in range(2):
            requests = [{"user": f"user {n}", "k": 1} for n in range(250)]
            answers = client.post("/v1/recommend", json={"requests": requests}).json()["answers"]
            assert 40 < sum(each["model"]["name"] == "b" for each in answers) < 85, "a quarter of 250 is 62"
        first = [each["model"]["name"] for each in answers]
        again = client.post("/v1/recommend", json={"requests": requests}).json()["answers"]
        assert [each["model"]["name"] for each in again] == first
        text = client.get("/metrics").text
        assert 'sasrec_lists_total{model="b",source="popular"}' in text
        assert 'sasrec_requests_total{route="/v1/recommend",status="200"} 3.0' in text


def test_the_interface_is_described(client: Any) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    assert {(method.upper(), path) for path, each in described["paths"].items() for method in each} == set(ROUTES)
    for path, each in described["paths"].items():
        for operation in each.values():
            assert operation["summary"].endswith("."), path
    body = described["components"]["schemas"]["RecommendBody"]["properties"]
    about = body["k"].pop("description")
    assert (about[-1], body["k"]) == (".", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10})


def test_a_replaced_model_names_its_own_items(runs: Path, tmp_path: Path) -> None:
    """Requests that wait while a model with another catalogue takes over get ids of the model that answers."""
    other = chain_frame(items=40).with_columns(item=pl.col("item").str.replace("item-", "thing-"))
    sasrec.train(other, tmp_path / "other", **small(num_epochs=1, num_blocks=1))
    link = tmp_path / "current"
    link.symlink_to(runs / "plain")
    found, figures = served(tmp_path, {"current": link}, rules={})
    model, free, answers = found.models["current"], threading.Event(), list[Any]()
    with client_of(found, figures) as client:
        model.batcher._worker.submit(free.wait, 20)  # what is asked now waits for this
        asked = [
            ("/v1/recommend", {"history": ["item-01"]}),
            ("/v1/recommend", {"history": ["thing-01"]}),
            ("/v1/similar", {"item": "thing-01"}),
            ("/v1/explain", {"item": "thing-03", "history": ["thing-01"]}),
        ]
        threads = [
            threading.Thread(target=lambda each=each: answers.append(client.post(each[0], json=each[1]).json()))
            for each in asked
        ]
        link.unlink()
        link.symlink_to(tmp_path / "other")
        for each in threads:
            each.start()
            time.sleep(0.1)
        reloaded = client.post("/admin/reload", json={})
        assert reloaded.status_code == 200, reloaded.text
        free.set()
        for each in threads:
            each.join()
        assert [answer["model"]["hash"] == model.engine.digest for answer in answers].count(True) == 3
        for answer in answers:
            names = {"thing" if answer["model"]["hash"] == model.engine.digest else "item"}
            assert {each["item"].split("-")[0] for each in answer.get("items", answer.get("events"))} == names
        assert client.get("/v1/items", params={"query": "thing"}).json()["total"] == 40


def test_paths_with_a_slash_too_many_are_not_found(client: Any) -> None:
    for path in ("/v1/models/", "/healthz/", "/v1/users"):
        assert client.get(path, follow_redirects=False).status_code == 404


def test_the_history_of_a_user_says_where_events_come_from(client: Any, plain: sasrec.Recommender) -> None:
    assert plain.data is not None
    before = plain.data.history("u010")
    client.post("/v1/events", json={"events": [{"user": "u010", "item": IDS[3], "time": 1_700_000_000}]})
    answer = client.get("/v1/users/u010").json()
    assert [each["item"] for each in answer["history"]] == [*before, IDS[3]]
    assert [each["from"] for each in answer["history"]] == ["run"] * len(before) + ["events"]
    assert answer["history"][-1]["time"] == 1_700_000_000
    assert (answer["model"], answer["total"]) == ("plain", len(before) + 1)


def test_a_store_that_does_not_answer_keeps_no_model_waiting(runs: Path, tmp_path: Path) -> None:
    found, figures = served(tmp_path, {"plain": runs / "plain"})
    assert found.store is not None
    free = threading.Event()
    history, found.store.history = found.store.history, lambda _: free.wait(20) and []  # type: ignore[method-assign]
    with client_of(found, figures) as client:
        asking = threading.Thread(target=lambda: client.post("/v1/recommend", json={"user": "u001"}))
        asking.start()
        time.sleep(0.1)
        began = time.monotonic()
        assert client.post("/v1/recommend", json={"history": IDS[:2]}).status_code == 200
        assert client.get("/readyz").status_code == 200
        assert time.monotonic() - began < 5
        free.set()
        asking.join()
        found.store.history = history  # type: ignore[method-assign]
        assert client.post("/v1/recommend", json={"user": "u001"}).status_code == 200


def test_a_request_log_that_cannot_be_written_disturbs_nobody(service: Service) -> None:
    class Full:
        def write(self, _: str) -> None:
            raise OSError(28, "No space left on device")

    with client_of(service, Figures(), log=Full()) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200


def test_under_overload_a_model_is_not_asked_and_the_body_is_not_read(service: Service) -> None:
    with client_of(service, Figures(), overload=lambda: 3) as client:
        for path in ("/v1/recommend", "/v1/similar", "/v1/explain"):
            answer = client.post(path, content="not JSON", headers={"content-type": "application/json"})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
            assert answer.json()["error"]["code"] == "overloaded"
        event = {"user": "overloaded", "item": IDS[0], "time": 1_700_000_000}
        assert client.post("/v1/events", json={"events": [event]}).status_code == 200
        assert client.get("/v1/items").status_code == 200


def test_the_service_is_overloaded_only_when_every_model_is(service: Service) -> None:
    first, second = (model.batcher for model in service.models.values())
    assert service.overload() is None
    first._ahead, first._seconds = 10_000, 1.0
    try:
        assert service.overload() is None
        second._ahead, second._seconds = 10_000, 0.1
        assert service.overload() == 16
    finally:
        first._ahead = second._ahead = 0
        first._seconds = second._seconds = 0.0
