"""The description of the server's interface, OpenAPI 3.1, from which clients can be generated."""

from __future__ import annotations

from typing import Any

import msgspec

from sasrec.serving.answer_schemas import (
    EventsAnswer,
    ExplainAnswer,
    ForgetAnswer,
    ItemsAnswer,
    ListAnswer,
    ListsAnswer,
    SimilarAnswer,
    UserAnswer,
)
from sasrec.serving.limits import MOST_BYTES
from sasrec.serving.schemas import ROUTES
from sasrec.serving.state_schemas import Error, Health, ModelsAnswer, Readiness, ReloadAnswer

STATUSES = {
    "400": "The request is not valid HTTP. `code`: not_http.",
    "401": "The server was started with tokens, and the request sends none of these. `code`: no_token.",
    "403": "The token lacks the scope that the route needs. `code`: wrong_scope.",
    "404": "The request names something that does not exist. `code`: unknown (a user, an "
    "item, a model or rules; or in POST /v1/explain, a history without a known item) or "
    "not_found (a path).",
    "405": "The path exists, but not with this method, such as GET. `code`: wrong_method.",
    "408": "The body did not arrive in time. `code`: slow_body.",
    "409": "The model that a reload read does not work, so the old model stays. `code`: unsound.",
    "413": f"The body has more than {MOST_BYTES:,} bytes. `code`: too_large.",
    "415": "The header Content-Type does not say that the body is JSON (`code`: not_json), or "
    "the body is compressed (`code`: encoded).",
    "421": "A server without tokens answers only requests to names of the same machine, such "
    "as localhost. `code`: foreign_host.",
    "422": (
        "The server understands the request, but cannot answer it. `code`: not_json (the "
        "body is not JSON), invalid (a field is wrong), nobody (the request has neither "
        "`user` nor `history`), nothing_known (no item of the history is known, and the "
        "server has no fallback), unfit_times (the model reads times, and `times` is "
        "absent or wrong), unfit_rules (`filters` or `per_group` do not fit the "
        "catalogue, or `now` is not a time), baseline (POST /v1/explain or POST /v1/similar "
        "needs a model, and this is a baseline)."
    ),
    "429": "The server has more requests than it can answer in time. Send the request again "
    "after the seconds of the header Retry-After. `code`: overloaded.",
    "500": "The server has a fault, which it writes to stderr. `code`: fault.",
    "503": (
        "The store of events (`code`: store) or the model (`code`: model) cannot be used now, or the server "
        "stopped before the answer (`code`: ending). Send the request again later."
    ),
}
"""Every status of an error, on any path, and the codes that it comes with."""
_OF_ALL = ("400", "421", "500")
_OF_TOKENS = ("401", "403")
_OF_BODIES = ("408", "413", "415", "422")
_JSON = "application/json"
_ANSWERS: dict[tuple[str, str], tuple[tuple[Any, ...], tuple[str, ...]]] = {
    ("POST", "/v1/recommend"): ((ListAnswer, ListsAnswer), ("404", "429", "503")),
    ("POST", "/v1/similar"): ((SimilarAnswer,), ("404", "429", "503")),
    ("POST", "/v1/explain"): ((ExplainAnswer,), ("404", "429", "503")),
    ("POST", "/v1/events"): ((EventsAnswer,), ("429", "503")),
    ("GET", "/v1/users/{id}"): ((UserAnswer,), ("404", "429", "503")),
    ("DELETE", "/v1/users/{id}"): ((ForgetAnswer,), ("429", "503")),
    ("GET", "/v1/items"): ((ItemsAnswer,), ("404", "422", "429", "503")),
    ("GET", "/v1/models"): ((ModelsAnswer,), ()),
    ("POST", "/admin/reload"): ((ReloadAnswer,), ("404", "409", "503")),
    ("GET", "/healthz"): ((Health,), ()),
    ("GET", "/readyz"): ((Readiness,), ("503",)),
}
"""Route -> the types of its answer, and the statuses that it gives beside those of all routes of its kind."""
_OTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "/metrics": (
        "text/plain",
        {"type": "string", "description": "The figures of the server, in the text format of Prometheus."},
    ),
    "/openapi.json": (_JSON, {"type": "object", "description": "A document of OpenAPI 3.1."}),
}
_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_USER = {
    "id": (
        "The id of a user, with special characters encoded for a URL, such as %2F for a slash.",
        {"type": "string", "maxLength": 1_000},
    ),
}
_SEARCH = {
    "query": (
        "Words to search for. The title and the id of an item together must have all of "
        "them. Case and accents do not matter. Only the first ten words count.",
        {"type": "string", "maxLength": 200, "default": ""},
    ),
    "id": (
        "Ids of items to look up, instead of a search. `query`, `limit` and `offset` are then ignored.",
        {"type": "array", "items": {"type": "string"}, "maxItems": 100},
    ),
    "limit": (
        "The most items that the answer may have.",
        {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    ),
    "offset": (
        "How many found items to skip, to read further pages.",
        {"type": "integer", "minimum": 0, "maximum": 10**6, "default": 0},
    ),
    "model": (
        "The name of the model whose catalogue is searched, as GET /v1/models lists it. "
        "Absent: the server chooses; with several models, always the same one.",
        {"type": "string"},
    ),
}
_HEADERS = {
    "X-Request-Id": (
        "The id of the request in the log of the server. It is the header X-Request-Id of "
        "the request, if this header has 1 to 64 letters, digits, dots, underscores and "
        "hyphens. Otherwise the server makes an id.",
        _TEXT,
    ),
    "Retry-After": ("Send the request again after this many seconds.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("The kind of token that the server expects: Bearer.", _TEXT),
}


def openapi(version: str) -> dict[str, Any]:
    """Return the description of the server's interface, OpenAPI 3.1."""
    bodies = {route: body for route, (_, body, _) in ROUTES.items() if body is not None}
    kinds = [*bodies.values(), *(kind for answers, _ in _ANSWERS.values() for kind in answers), Error]
    references, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(kinds, references, strict=True))
    paths: dict[str, Any] = {}
    used: set[str] = set()
    for (method, path), (scope, body, summary) in ROUTES.items():
        errors = statuses(method, path)
        used |= set(errors)
        operation: dict[str, Any] = {
            "summary": summary,
            "operationId": f"{method.lower()}{path.replace('/', '_').replace('{', '').replace('}', '')}",
            "parameters": _parameters(path),
            "responses": {
                "200": _done(method, path, schema_of),
                **{code: {"$ref": f"#/components/responses/Error{code}"} for code in errors},
            },
        }
        if path == "/readyz":
            text = "A model does not answer, or the server is about to stop."
            operation["responses"]["503"] = _response(text, _JSON, schema_of[Readiness])
        if scope:
            operation["description"] = f"If the server has tokens, it needs one with the scope {scope}."
            operation["security"] = [{"token": []}, {}]
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema_of[body]}}}
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "sasrec", "version": version, "description": "Lists of a sequential recommender."},
        "paths": paths,
        "components": {
            "schemas": dict(schemas),
            "responses": {f"Error{code}": _error(code, schema_of[Error]) for code in sorted(used)},
            "headers": {
                name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def statuses(method: str, path: str) -> list[str]:
    """Return the statuses of the errors that a route of `ROUTES` can give."""
    scope, body, _ = ROUTES[method, path]
    own = _ANSWERS[method, path][1] if (method, path) in _ANSWERS else ()
    found = {*_OF_ALL, *own, *(_OF_TOKENS if scope else ()), *(_OF_BODIES if body is not None else ())}
    return sorted(found)


def _done(method: str, path: str, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    if path in _OTHER:
        return _response("Done.", *_OTHER[path])
    found = [schema_of[kind] for kind in _ANSWERS[method, path][0]]
    return _response("Done.", _JSON, found[0] if len(found) == 1 else {"oneOf": found})


def _error(code: str, schema: dict[str, Any]) -> dict[str, Any]:
    more = {"429": ["Retry-After"], "401": ["WWW-Authenticate"]}.get(code, [])
    return _response(STATUSES[code], _JSON, schema, more)


def _response(text: str, kind: str, schema: dict[str, Any], headers: list[str] | None = None) -> dict[str, Any]:
    names = ["X-Request-Id", *(headers or [])]
    return {
        "description": text,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {kind: {"schema": schema}},
    }


def _parameters(path: str) -> list[dict[str, Any]]:
    where, named = ("path", _USER) if path.endswith("{id}") else ("query", _SEARCH if path == "/v1/items" else {})
    return [
        {"name": name, "in": where, "required": where == "path", "description": text, "schema": schema}
        for name, (text, schema) in named.items()
    ]
