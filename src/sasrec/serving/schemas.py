"""What clients send, checked strictly: a field that is not here, or out of bounds, is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=10_000)]
Id = _Text | _Number
"""An id of the caller's own, as text or as an integer."""
_NotEmpty = Annotated[str, Meta(min_length=1, max_length=1_000, pattern=r"\S")] | _Number
_Ids = Annotated[list[Id], Meta(max_length=100_000)]
_K = Annotated[int, Meta(ge=1, le=1_000)]
_Name = Annotated[str, Meta(max_length=100)]
_Seconds = Annotated[float, Meta(ge=-1e11, le=1e11)]
_Values = Annotated[list[_Text | _Number | float], Meta(min_length=1, max_length=1_000)]


class Filter(Struct, forbid_unknown_fields=True):
    """Keep items whose column compares so with the value; `in` takes a list."""

    column: _Name
    op: Literal["=", "!=", "<", "<=", ">", ">=", "in"]
    value: _Text | _Number | float | _Values


class Of(Struct, forbid_unknown_fields=True, kw_only=True):
    """Whose history: that of a user, or the one given, oldest first, with times for models that read them."""

    user: Id | None = None
    history: _Ids | None = None
    times: Annotated[list[_Seconds], Meta(max_length=100_000)] | None = None
    model: _Name | None = None


class Recommend(Of, forbid_unknown_fields=True, kw_only=True):
    """A request for a list."""

    now: _Seconds | Annotated[str, Meta(max_length=40)] | None = None
    k: _K = 10
    allow: _Ids | None = None
    deny: _Ids = []
    exclude_seen: bool | None = None
    rules: _Name | None = None
    filters: Annotated[list[Filter], Meta(max_length=20)] = []
    per_group: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    titles: bool = False
    reasons: bool = False


class RecommendBody(Recommend, forbid_unknown_fields=True, kw_only=True):
    """A request for a list, or several in `requests`, which then stands alone."""

    requests: Annotated[list[Recommend], Meta(min_length=1, max_length=256)] | None = None


class Similar(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for the items most like an item."""

    item: Id
    k: _K = 10
    model: _Name | None = None


class Explain(Of, forbid_unknown_fields=True, kw_only=True):
    """A request for the reasons of an item."""

    item: Id


class NewEvent(Struct, forbid_unknown_fields=True, kw_only=True):
    """An interaction; `id` lets a client send it again without storing it twice."""

    user: _NotEmpty
    item: _NotEmpty
    time: _Seconds | None = None
    id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class Events(Struct, forbid_unknown_fields=True):
    """Events to store, all or none."""

    events: Annotated[list[NewEvent], Meta(min_length=1, max_length=1_000)]


class Reload(Struct, forbid_unknown_fields=True):
    """Which model to load again from its path; all if none is named."""

    model: _Name | None = None


_READ, _WRITE, _ADMIN = "read", "write", "admin"
ROUTES: dict[tuple[str, str], tuple[str, Any, str]] = {
    ("POST", "/v1/recommend"): (_READ, RecommendBody, "The best items for a user or a history."),
    ("POST", "/v1/similar"): (_READ, Similar, "The items most like an item."),
    ("POST", "/v1/explain"): (_READ, Explain, "Which events of a history speak for an item."),
    ("POST", "/v1/events"): (_WRITE, Events, "Store events; the answer comes after they are durable."),
    ("GET", "/v1/users/{id}"): (_READ, None, "The history of a user."),
    ("DELETE", "/v1/users/{id}"): (_WRITE, None, "Forget a user."),
    ("GET", "/v1/items"): (_READ, None, "Search items by words of their titles and ids, or look up ids."),
    ("GET", "/v1/models"): (_READ, None, "The models, how they were measured, and the names of rules."),
    ("POST", "/admin/reload"): (_ADMIN, Reload, "Load a model again from its path."),
    ("GET", "/healthz"): ("", None, "Whether the process answers."),
    ("GET", "/readyz"): ("", None, "Whether every model answers its canary."),
    ("GET", "/metrics"): (_READ, None, "Figures for Prometheus."),
    ("GET", "/openapi.json"): (_READ, None, "This document."),
}
"""(method, path) -> the scope of a token that it needs, the type of its body, and what it does."""
STATUSES = {
    "400": "The request is not HTTP that the server reads.",
    "401": "A token is missing or unknown.",
    "403": "The token has not the scope that the route needs.",
    "404": "There is nothing of this name.",
    "405": "The path has other methods.",
    "408": "The body did not arrive in time.",
    "409": "The new model is not sound; the old one stays.",
    "413": "The body is too large.",
    "415": "The body is not uncompressed JSON.",
    "421": "Without tokens, only the names of loopback are served.",
    "422": "The body does not fit.",
    "429": "The server has more requests than it can answer in time.",
    "503": "The store of events, or a model, cannot be used now.",
}


def openapi(version: str) -> dict[str, Any]:
    """Return the description of the server's interface, OpenAPI 3.1."""
    bodies = [body for _, body, _ in ROUTES.values() if body is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    of_body = iter(schemas)
    paths: dict[str, Any] = {}
    of_error = {_JSON: {"schema": _ERROR}}
    refusals = {code: {"description": text, "content": of_error} for code, text in STATUSES.items()}
    for (method, path), (scope, body, summary) in ROUTES.items():
        operation: dict[str, Any] = {
            "summary": summary,
            "operationId": f"{method.lower()}{path.replace('/', '_').replace('{', '').replace('}', '')}",
            "responses": {"200": {"description": "Done.", "content": {_TYPES.get(path, _JSON): {}}}} | refusals,
        }
        if scope:
            operation["security"] = [{"token": []}, {}]
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": next(of_body)}}}
        if path.endswith("{id}"):
            operation["parameters"] = [_parameter("id", "path", {"type": "string", "maxLength": 1_000})]
        if path == "/v1/items":
            operation["parameters"] = [
                _parameter("query", "query", {"type": "string", "maxLength": 200}),
                _parameter("id", "query", {"type": "array", "items": {"type": "string"}, "maxItems": 100}),
                _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100}),
                _parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": 10**6}),
            ]
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "sasrec", "version": version, "description": "Lists of a sequential recommender."},
        "paths": paths,
        "components": {
            "schemas": dict(components),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_JSON = "application/json"
_TYPES = {"/metrics": "text/plain"}
_ERROR = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}
