"""/openapi.json tells the truth: all that the server sends fits it, and it says what each field means."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import sasrec
from sasrec.serving.app import build
from sasrec.serving.auth import tokens_of
from sasrec.serving.figures import Figures
from sasrec.serving.history_store import open_store
from sasrec.serving.limits import MOST_BYTES, Limited
from sasrec.serving.openapi import STATUSES, openapi
from sasrec.serving.schemas import ROUTES
from sasrec.serving.service import Service
from tests.serving.process import serving
from tests.synthetic import chain_frame, small

TestClient = pytest.importorskip("starlette.testclient").TestClient

IDS = [f"item-{n:02d}" for n in range(25)]
TIMES = [60.0 * n for n in range(25)]
DESCRIBED = openapi("1.0")
REGISTRY: Registry[Any] = Registry().with_resource("urn:api", Resource(DESCRIBED, DRAFT202012))
JSON = {"content-type": "application/json"}
SECRET = "sesame-opens-the-mountain"
OF_ALL, OF_TOKENS, OF_BODIES = {200, 400, 421, 500}, {401, 403}, {408, 413, 415, 422}
GIVES = {
    ("POST", "/v1/recommend"): OF_ALL | OF_TOKENS | OF_BODIES | {404, 429, 503},
    ("POST", "/v1/similar"): OF_ALL | OF_TOKENS | OF_BODIES | {404, 429, 503},
    ("POST", "/v1/explain"): OF_ALL | OF_TOKENS | OF_BODIES | {404, 429, 503},
    ("POST", "/v1/events"): OF_ALL | OF_TOKENS | OF_BODIES | {429, 503},
    ("GET", "/v1/users/{id}"): OF_ALL | OF_TOKENS | {404, 429, 503},
    ("DELETE", "/v1/users/{id}"): OF_ALL | OF_TOKENS | {429, 503},
    ("GET", "/v1/items"): OF_ALL | OF_TOKENS | {404, 422, 429, 503},
    ("GET", "/v1/models"): OF_ALL | OF_TOKENS,
    ("POST", "/admin/reload"): OF_ALL | OF_TOKENS | OF_BODIES | {404, 409, 503},
    ("GET", "/healthz"): OF_ALL,
    ("GET", "/readyz"): OF_ALL | {503},
    ("GET", "/metrics"): OF_ALL | OF_TOKENS,
    ("GET", "/openapi.json"): OF_ALL | OF_TOKENS,
}
RIGHT: dict[tuple[str, str], Any] = {
    ("POST", "/v1/recommend"): {"user": "u003", "model": "plain"},
    ("POST", "/v1/similar"): {"item": IDS[3], "model": "plain"},
    ("POST", "/v1/explain"): {"item": IDS[3], "user": "u003", "model": "plain"},
    ("POST", "/v1/events"): {"events": [{"user": "new", "item": IDS[2], "id": "a"}]},
    ("POST", "/admin/reload"): {"model": "plain"},
}
"""A body for each route that has one."""


def validator(place: str) -> Draft202012Validator:
    """Checks against the schema at a place of the document."""
    return Draft202012Validator({"$ref": f"urn:api#{place}"}, registry=REGISTRY)


def escaped(path: str) -> str:
    return path.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


class Checked:
    """Sends requests; each answer must fit the schema of its status. Keeps which statuses each route gave."""

    def __init__(self) -> None:
        self.seen: defaultdict[tuple[str, str], set[int]] = defaultdict(set)

    def fits(self, method: str, path: str, answer: Any) -> None:
        """`path`: as the document has it."""
        at = f"/paths/{escaped(path)}/{method.lower()}/responses/{answer.status_code}"
        response = DESCRIBED["paths"][path][method.lower()]["responses"][str(answer.status_code)]
        if "$ref" in response:
            at = response["$ref"].removeprefix("#")
            response = DESCRIBED["components"]["responses"][at.rpartition("/")[2]]
        kind = answer.headers["content-type"].partition(";")[0]
        assert list(response["content"]) == [kind]
        content = answer.json() if kind == "application/json" else answer.text
        validator(f"{at}/content/{kind.replace('/', '~1')}/schema").validate(content)
        for name in response.get("headers", {}):
            given = answer.headers[name]
            validator(f"/components/headers/{name}/schema").validate(int(given) if given.isdecimal() else given)
        self.seen[method, path].add(answer.status_code)

    def ask(self, client: Any, method: str, path: str, body: Any = None, **sent: Any) -> Any:
        """Send a request and check its answer. `body`: JSON."""
        if body is not None:
            sent["json"] = body
        answer = client.request(method, path.replace("{id}", "u009"), **sent)
        name = re.sub(r"^/v1/users/.*", "/v1/users/{id}", path).partition("?")[0]
        self.fits(method, name, answer)
        return answer


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Models with and without time, one without times, titles and texts as ids, and a baseline."""
    folder = tmp_path_factory.mktemp("openapi")
    pl.DataFrame({"item": IDS, "title": [None, *IDS[1:]], "kind": ["g", None] * 12 + ["h"]}).write_csv(
        folder / "items.csv"
    )
    catalogue = {"items": folder / "items.csv", "items_id": "item", "items_title": "title", "items_group": "kind"}
    data = sasrec.prepare(chain_frame(), output=folder / "data", **catalogue)
    few = small(num_epochs=1, num_blocks=1)
    sasrec.train(data, folder / "plain", **few)
    sasrec.train(data, folder / "timed", **few, time=True)
    bare = chain_frame().select("user", item=pl.col("item").str.slice(5).cast(pl.Int64))
    sasrec.train(bare, folder / "bare", **few)
    rules = {"two": sasrec.Rules(per_group=2)}
    found = Service(open_store(folder / "events.sqlite"), rules, "popular", 5.0, Figures().a_pass)
    for name, path in (
        ("plain", folder / "plain"),
        ("timed", folder / "timed"),
        ("markov", Path(f"{folder / 'plain'}:markov")),
    ):
        found.add(name, path, 1.0 if name == "plain" else 0.0)
    found.rules = {}  # they need groups, which this one lacks
    found.add("bare", folder / "bare", 0.0)
    found.rules = rules
    yield found
    found.close()


def client_of(service: Service, **options: Any) -> Any:
    figures = Figures()
    return TestClient(
        Limited(
            options.pop("app", build(service, figures)),
            tokens=options.pop("tokens", None),
            finished=figures.request,
            **options,
        ),
        "http://localhost",
        raise_server_exceptions=False,
    )


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    with client_of(service) as found:
        yield found


RECOMMEND: list[dict[str, Any]] = [
    {"user": "u003"},
    {"user": 3, "history": IDS[:3], "titles": True, "reasons": True},
    {"history": ["?", IDS[4], "a b"], "k": 1_000, "titles": True},
    {"history": ["?"], "reasons": True, "deny": IDS[:20]},
    {"history": IDS[:5], "times": TIMES[:5], "model": "timed", "reasons": True},
    {"user": "u001", "model": "markov", "reasons": True},
    {"history": [1, 2, 3], "model": "bare", "titles": True, "reasons": True},
    {"user": "u002", "model": "bare"},
    {"history": IDS[:2], "rules": "two", "filters": [{"column": "group", "op": "in", "value": ["g", "h"]}]},
    {"history": IDS[:2], "allow": [], "now": "2030-12-31", "exclude_seen": False},
]


def test_every_list_and_every_explanation_fits_its_schema(client: Any) -> None:
    checked = Checked()
    for body in RECOMMEND:
        answer = checked.ask(client, "POST", "/v1/recommend", body)
        assert answer.status_code == 200, answer.text
    together = checked.ask(client, "POST", "/v1/recommend", {"requests": RECOMMEND})
    assert len(together.json()["answers"]) == len(RECOMMEND)
    for model, item in (("plain", IDS[1]), ("timed", IDS[1]), ("bare", 1)):
        checked.ask(client, "POST", "/v1/similar", {"item": item, "model": model})
    for body in (
        {"history": IDS[:3], "model": "plain"},
        {"history": IDS[:3], "times": TIMES[:3], "model": "timed"},
        {"user": "u001", "model": "timed"},
        {"user": "u001", "model": "bare", "item": 4},
    ):
        answer = checked.ask(client, "POST", "/v1/explain", {"item": IDS[4]} | body)
        assert answer.status_code == 200, answer.text
    assert (
        "interval_effect"
        in checked.ask(client, "POST", "/v1/explain", {"item": IDS[4], "user": "u001", "model": "timed"}).json()[
            "events"
        ][-1]
    )


def test_every_answer_on_events_users_items_and_models_fits_its_schema(
    client: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Checked()
    events = [{"user": "mine", "item": IDS[5], "id": "1"}, {"user": "mine", "item": "?", "time": 1_700_000_000.5}]
    for repeated in (0, 1):
        answer = checked.ask(client, "POST", "/v1/events", {"events": events})
        assert answer.json()["repeated"] == repeated
    assert checked.ask(client, "GET", "/v1/users/u003").json()["history"][0]["from"] == "run"
    assert checked.ask(client, "GET", "/v1/users/mine").json()["history"][0]["from"] == "events"
    with monkeypatch.context() as only:
        only.setattr(service, "models", {"bare": service.models["bare"]})
        assert set(checked.ask(client, "GET", "/v1/users/u003").json()["history"][0]) == {"item", "from"}
    checked.ask(client, "DELETE", "/v1/users/mine")
    assert checked.ask(client, "GET", "/v1/users/mine").status_code == 404
    for query in ("query=item", "id=item-03&id=?", "limit=3&offset=20", "model=bare", "query=nothing"):
        assert checked.ask(client, "GET", f"/v1/items?{query}").status_code == 200
    models = checked.ask(client, "GET", "/v1/models").json()["models"]
    assert [each["maxlen"] is None for each in models] == [False, False, True, False]
    assert all({"data", "metrics", "intervals", "baselines", "protocol"} <= set(each) for each in models)


@pytest.mark.slow
def test_the_facts_of_an_export_fit_their_schema(service: Service, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    sasrec.export_onnx(service.models["plain"].path, tmp_path / "export")
    found = Service(None, {}, None, 5.0, Figures().a_pass)
    found.add("graph", tmp_path / "export", 1.0)
    with client_of(found) as client:
        (facts,) = Checked().ask(client, "GET", "/v1/models").json()["models"]
        assert {"check"} <= set(facts)
        assert "data" not in facts
        Checked().ask(client, "POST", "/v1/recommend", {"history": IDS[:3]})
    found.close()


def wrong_bodies(checked: Checked, client: Any) -> None:
    """Statuses 404, 413, 415 and 422, and 200 for what is right."""
    for (method, path), body in RIGHT.items():
        assert checked.ask(client, method, path, body).status_code == 200
        checked.ask(client, method, path, content=b"{}", headers={"content-type": "text/plain"})
        checked.ask(client, method, path, content=b"{}", headers=JSON | {"content-encoding": "gzip"})
        checked.ask(client, method, path, content=b" " * (MOST_BYTES + 1), headers=JSON)
        checked.ask(client, method, path, content=b"{", headers=JSON)
        checked.ask(client, method, path, body | {"odd": 1})
        if "model" in body:
            checked.ask(client, method, path, body | {"model": "?"})
    for method, path in [route for route in GIVES if route not in RIGHT]:
        assert checked.ask(client, method, path).status_code == 200
    for body in (
        {},
        {"history": IDS[:1], "model": "timed"},
        {"history": IDS[:1], "filters": [{"column": "?", "op": "=", "value": 1}]},
        {"history": IDS[:1], "rules": "?"},
    ):
        checked.ask(client, "POST", "/v1/recommend", body)
    checked.ask(client, "POST", "/v1/similar", {"item": IDS[3], "model": "markov"})
    for path in ("/v1/users/nobody", "/v1/items?model=?", "/v1/items?limit=many"):
        checked.ask(client, "GET", path)


def refused_by_tokens(checked: Checked, service: Service, file: Path) -> None:
    """Statuses 401 and 403."""
    file.write_text(f"read {SECRET}-r\nwrite {SECRET}-w\n")
    with client_of(service, tokens=tokens_of(file)) as client:
        for (method, path), (scope, _, _) in ROUTES.items():
            if scope:
                wrong = {"authorization": f"Bearer {SECRET}-{'w' if scope == 'read' else 'r'}"}
                assert checked.ask(client, method, path).status_code == 401
                assert checked.ask(client, method, path, headers=wrong).status_code == 403


def slow_bodies(checked: Checked, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 408."""
    monkeypatch.setattr("sasrec.serving.limits._BODY_SECONDS", 0.01)
    limited = Limited(build(service, Figures()), tokens=None, finished=Figures().request)

    async def waiting() -> Any:
        await asyncio.sleep(10)

    for method, path in RIGHT:
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        asyncio.run(limited(scope, waiting, send))
        found = httpx_response(sent)
        assert found.status_code == 408
        checked.fits(method, path, found)


def httpx_response(sent: list[Any]) -> Any:
    httpx = pytest.importorskip("httpx")
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])


def overloaded(checked: Checked, client: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 429."""
    for model in service.models.values():
        monkeypatch.setattr(model.batcher, "_wait", -1.0)
    for path in ("recommend", "similar", "explain"):
        body = RIGHT["POST", f"/v1/{path}"]
        assert checked.ask(client, "POST", f"/v1/{path}", body).status_code == 429
    for threads in (service._of_store, service._of_search):
        monkeypatch.setattr(threads, "_most", 0)
    for method, path in (("GET", "/v1/users/{id}"), ("DELETE", "/v1/users/{id}"), ("GET", "/v1/items")):
        assert checked.ask(client, method, path).status_code == 429
    assert checked.ask(client, "POST", "/v1/events", RIGHT["POST", "/v1/events"]).status_code == 429


def unusable(checked: Checked, client: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 503, and 409."""

    def fail(*_: Any) -> Any:
        raise sasrec.errors.StoreError("the disk is full. Free some of it.")

    for name in ("history", "append", "forget"):
        monkeypatch.setattr(service.store, name, fail)
    for path in ("/v1/recommend", "/v1/explain", "/v1/events"):
        assert checked.ask(client, "POST", path, RIGHT["POST", path]).status_code == 503
    for method in ("GET", "DELETE"):
        assert checked.ask(client, method, "/v1/users/{id}").status_code == 503
    monkeypatch.setattr(service, "draining", True)
    assert checked.ask(client, "GET", "/readyz").json()["draining"] is True
    monkeypatch.setattr(service.models["plain"], "path", Path("/nowhere"))
    assert checked.ask(client, "POST", "/admin/reload", {"model": "plain"}).status_code == 409


def cut_off(checked: Checked, service: Service) -> None:
    """Status 503 for requests that the end of the server cuts off."""

    async def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    client = client_of(service, app=cancelled)
    for method, path in GIVES:
        if 503 in GIVES[method, path] and path != "/readyz":
            answer = checked.ask(client, method, path, RIGHT.get((method, path)))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ending")


def foreign_and_faulty(checked: Checked, client: Any, service: Service) -> None:
    """Statuses 421 and 500."""

    async def faulty(*_: Any) -> None:
        raise RuntimeError("a fault")

    broken = client_of(service, app=faulty)
    for method, path in GIVES:
        body = RIGHT.get((method, path))
        assert checked.ask(broken, method, path, body).status_code == 500
        assert checked.ask(client, method, path, body, headers={"host": "evil.example"}).status_code == 421


def not_http(checked: Checked, run: Path, events: Path) -> None:
    """Status 400, which the application does not see."""
    with serving(run, "--events", events) as served:
        for method, path in GIVES:
            with socket.create_connection(("127.0.0.1", served.port), 10) as opened:
                opened.sendall(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nno header\r\n\r\n".encode())
                head, _, body = opened.makefile("rb").read().partition(b"\r\n\r\n")
            status, _, lines = head.partition(b"\r\n")
            assert b" 400 " in status
            headers = [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")]
            checked.fits(method, path, httpx_response([{"status": 400, "headers": headers}, {"body": body}]))


def test_each_route_gives_the_statuses_that_it_documents_and_no_others(
    client: Any, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    checked = Checked()
    wrong_bodies(checked, client)
    refused_by_tokens(checked, service, tmp_path / "tokens")
    foreign_and_faulty(checked, client, service)
    cut_off(checked, service)
    not_http(checked, service.models["plain"].path, tmp_path / "events")
    for provoke in (overloaded, unusable):
        with monkeypatch.context() as changed:
            provoke(checked, client, service, changed)
    slow_bodies(checked, service, monkeypatch)
    assert checked.seen == GIVES
    documented = {
        (method.upper(), path): {int(status) for status in operation["responses"]}
        for path, each in DESCRIBED["paths"].items()
        for method, operation in each.items()
    }
    assert documented == GIVES
    assert set(DESCRIBED["components"]["responses"]) == {f"Error{code}" for code in STATUSES} - {"Error405"}


def test_every_code_of_an_error_is_in_the_enum_and_in_the_text_of_its_status() -> None:
    source = Path(sasrec.__file__).parent / "serving"
    texts = [each.read_text(encoding="utf-8") for each in source.glob("*.py")]
    found = {each for text in texts for each in re.findall(r'Refused\(\s*(\d+),\s*"(\w+)"', text)}
    found -= {("499", "gone")}  # nobody gets it
    codes = DESCRIBED["components"]["schemas"]["ErrorFacts"]["properties"]["code"]["enum"]
    assert {code for _, code in found} == set(codes)
    assert [(status, code) for status, code in found if not re.search(rf"\b{code}\b", STATUSES[status])] == []


def test_every_field_is_described_and_answers_have_no_others() -> None:
    schemas = DESCRIBED["components"]["schemas"]
    bare = []
    for name, schema in schemas.items():
        assert schema["additionalProperties"] is False, name
        assert schema["description"].endswith("."), name
        for field, of_field in schema["properties"].items():
            target = schemas[of_field["$ref"].rpartition("/")[2]] if "$ref" in of_field else of_field
            if not target.get("description", "").endswith("."):
                bare.append(f"{name}.{field}")
    for path, each in DESCRIBED["paths"].items():
        for operation in each.values():
            bare += [f"{path} {one['name']}" for one in operation["parameters"] if "description" not in one]
    assert bare == []


def test_bodies_that_the_document_allows_are_those_that_the_server_takes(client: Any) -> None:
    """At the bounds of times; 1e11 seconds look like milliseconds."""
    check = validator(f"/paths/{escaped('/v1/events')}/post/requestBody/content/application~1json/schema")
    for time, allowed in (
        (None, True),
        (0, True),
        (1_700_000_000, True),
        (1e11, False),
        (-1e11, False),
        ("0", False),
    ):
        body = {"events": [{"user": "bounds", "item": IDS[0], "time": time}]}
        answer = client.post("/v1/events", json=body)
        assert check.is_valid(body) is allowed
        assert answer.status_code == (200 if allowed else 422)
        if not allowed:
            assert "events[0].time" in answer.json()["error"]["message"]
