"""The routes of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sasrec import __version__
from sasrec.errors import SasrecError, StoreError
from sasrec.serving.answers import answer_of, name_and_hash, named_items, refusal
from sasrec.serving.batcher import HEAVY, GoneError, OverloadedError
from sasrec.serving.bodies import decoded, whole
from sasrec.serving.engine import Engine, UnknownError
from sasrec.serving.figures import Figures
from sasrec.serving.history_store import Event
from sasrec.serving.limits import FAULT, GONE, NO_SUCH, Refused, body_of_error, to_stderr, too_many
from sasrec.serving.openapi import openapi
from sasrec.serving.schemas import (
    Events,
    Explain,
    Of,
    Recommend,
    RecommendBody,
    Reload,
    Similar,
)
from sasrec.serving.service import Model, Service

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_EVENTS = 1_000  # of an answer on a user
_DAY = 86_400.0
_OF_ITEMS = {"query", "id", "limit", "offset", "model"}


def build(service: Service, figures: Figures) -> Starlette:
    """Return the application of the routes, without limits (limits.py)."""
    routes = _Routes(service, figures)
    table: list[tuple[str, str, Callable[..., Any]]] = [
        ("POST", "/v1/recommend", routes.recommend),
        ("POST", "/v1/similar", routes.similar),
        ("POST", "/v1/explain", routes.explain),
        ("POST", "/v1/events", routes.events),
        ("GET", "/v1/users/{id:anything}", routes.user),
        ("DELETE", "/v1/users/{id:anything}", routes.forget),
        ("GET", "/v1/items", routes.items),
        ("GET", "/v1/models", routes.models),
        ("POST", "/admin/reload", routes.reload),
        ("GET", "/healthz", routes.healthz),
        ("GET", "/readyz", routes.readyz),
        ("GET", "/metrics", routes.metrics),
        ("GET", "/openapi.json", routes.openapi),
        ("GET", "/", routes.page),
        ("GET", "/page/{name}", routes.page),
    ]

    async def overloaded(request: Request, error: OverloadedError) -> Response:
        figures.refused()
        return await _answer_refused(request, too_many(error.retry_after))

    async def failed(request: Request, error: SasrecError) -> Response:
        refused = refusal(error)
        if refused.status == 503:
            service.complain(str(error))
        if isinstance(error, StoreError):
            figures.store_error()
        return _error(refused, request)

    handlers: dict[Any, Any] = {
        404: _not_found,
        405: _not_allowed,
        Refused: _answer_refused,
        GoneError: _answer_gone,
        OverloadedError: overloaded,
        SasrecError: failed,
        Exception: _fault,
    }
    app = Starlette(
        routes=[Route(path, route, methods=[method]) for method, path, route in table],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False  # /v1/models/ is not found, as openapi.json says
    return app


async def _answer_refused(request: Request, refused: Refused) -> Response:
    return _error(refused, request, refused.headers)


async def _answer_gone(request: Request, _: GoneError) -> Response:
    return _error(GONE, request)


async def _fault(request: Request, _: Exception) -> Response:
    return _error(FAULT, request)


async def _not_found(request: Request, _: Exception) -> Response:
    return _error(NO_SUCH, request)


async def _not_allowed(request: Request, error: Exception) -> Response:
    refused = Refused(405, "wrong_method", "This path has other methods. GET /openapi.json lists them.")
    return _error(refused, request, getattr(error, "headers", None))


def _error(refused: Refused, request: Request, headers: Any = None) -> Response:
    body = body_of_error(refused, request.scope["state"]["request_id"])
    request.scope["state"]["code"] = refused.code
    return Response(body, refused.status, dict(headers or {}), media_type="application/json")


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class _Routes:
    def __init__(self, service: Service, figures: Figures) -> None:
        self._service, self._figures = service, figures
        self._page = {each.name: each for each in files("sasrec.serving").joinpath("page").iterdir()}

    async def recommend(self, request: Request) -> Response:
        body: RecommendBody = await decoded(request, RecommendBody)
        if body.requests is not None and body != RecommendBody(requests=body.requests):
            raise Refused(
                422, "invalid", "`requests` stands alone: put the other fields into each of its requests."
            )
        asked: Sequence[Recommend] = [body] if body.requests is None else body.requests
        places: dict[str, list[int]] = {}
        for place, each in enumerate(asked):
            with _which(body, place):
                model = self._model_of(each)
            places.setdefault(model.engine.name, []).append(place)
        state = request.scope["state"]
        state["model"], state["k"] = next(iter(places)), asked[0].k
        newer = await self._service.newer(asked)
        prepared = []
        for row, (each, of_user) in enumerate(zip(asked, newer, strict=True)):
            with _which(body, row):
                prepared.append(self._service.to_ask(each, of_user))
        lists: list[Any] = [None] * len(asked)
        for name, rows in places.items():
            weights = [HEAVY if asked[row].reasons else 1 for row in rows]
            batcher = self._service.models[name].batcher
            found = await batcher.ask(
                [prepared[row] for row in rows], weights, _is_gone(request), state.get("began")
            )
            for row, listed in zip(rows, found, strict=True):
                with _which(body, row):
                    if isinstance(listed, SasrecError):
                        raise listed
                lists[row] = listed
            self._figures.lists(name, [lists[row].source for row in rows])
        if body.requests is None:
            return _json(answer_of(body, lists[0], state["request_id"]))

        def encoded() -> bytes:  # one by one, because an encoder stops all other threads
            answers = [
                msgspec.Raw(msgspec.json.encode(answer_of(each, listed, state["request_id"])))
                for each, listed in zip(asked, lists, strict=True)
            ]
            return msgspec.json.encode({"answers": answers, "request_id": state["request_id"]})

        # Many long lists take a second, in which other requests must be answered.
        return Response(await asyncio.to_thread(encoded), media_type="application/json")

    async def similar(self, request: Request) -> Response:
        body: Similar = await decoded(request, Similar)

        def work(engine: Engine) -> dict[str, Any]:
            found = engine.similar(body.item, body.k)
            items = named_items(engine, [number for number, _ in found])
            scored = [item | {"score": cosine} for item, (_, cosine) in zip(items, found, strict=True)]
            return {"model": name_and_hash(engine), "items": scored}

        model = self._service.named(body.model, None)
        return _json({"request_id": _id(request)} | await model.batcher.run(work, is_gone=_is_gone(request)))

    async def explain(self, request: Request) -> Response:
        body: Explain = await decoded(request, Explain)
        model = self._model_of(body)
        (newer,) = await self._service.newer([body])

        def work(engine: Engine) -> dict[str, Any]:
            engine.number(body.item)  # an unknown item is the first thing to say
            known = self._service.read(engine, body, newer).known
            if not len(known[0]):
                raise UnknownError("no item of the history is known, so nothing explains the item.")
            numbers, effects, intervals = engine.explain(known, body.item)
            events = named_items(engine, numbers)
            for place, each in enumerate(events):
                each["effect"] = float(effects[place])
                if intervals is not None and np.isfinite(intervals[place]):
                    each["interval_effect"] = float(intervals[place])
            return {"model": name_and_hash(engine), "item": body.item, "events": events}

        return _json({"request_id": _id(request)} | await model.batcher.run(work, is_gone=_is_gone(request)))

    async def events(self, request: Request) -> Response:
        body: Events = await decoded(request, Events)
        latest = time.time() + _DAY
        if ahead := [at for at, each in enumerate(body.events) if each.time is not None and each.time > latest]:
            message = f"`$.events[{ahead[0]}].time` is more than a day ahead. Times are in seconds since 1970."
            raise Refused(422, "invalid", message)
        rows = [Event(str(each.user), str(each.item), each.time, each.id) for each in body.events]
        stored = await self._service.stored(lambda store: store.append(rows))
        self._figures.events(stored.stored)
        answer = {"request_id": _id(request), "stored": stored.stored, "repeated": stored.repeated}
        return _json(answer | {"unknown_items": sum(map(self._service.is_unknown, body.events))})

    async def user(self, request: Request) -> Response:
        user = request.path_params["id"]
        model = self._service.named(None, user)
        (newer,) = await self._service.newer([Of(user=user)])

        def work(engine: Engine) -> tuple[list[dict[str, Any]], int]:
            past = engine.past(user, newer.events, own=newer.own)
            if not len(past.items):
                raise UnknownError("the user has no events here.")
            data = engine.recommender.data
            dated = data is None or data.times is not None
            history = named_items(engine, past.items[-_MOST_EVENTS:])
            for each, moment, stored in zip(
                history, past.times[-_MOST_EVENTS:], past.stored[-_MOST_EVENTS:], strict=True
            ):
                each["from"] = "events" if stored else "run"
                if stored or dated:
                    each["time"] = float(moment) / 1e6
            return history, len(past.items)

        history, total = await model.batcher.run(work, is_gone=_is_gone(request))
        answer = {"request_id": _id(request), "user": user, "model": model.engine.name}
        return _json(answer | {"history": history, "total": total})

    async def forget(self, request: Request) -> Response:
        user = request.path_params["id"]
        await self._service.stored(lambda store: store.forget(user))
        return _json({"request_id": _id(request), "forgotten": True})

    async def items(self, request: Request) -> Response:
        query, ids = request.query_params.get("query", ""), request.query_params.getlist("id")
        limit, offset = whole(request, "limit", 20, 1, 100), whole(request, "offset", 0, 0, 10**6)
        if unknown := set(request.query_params) - _OF_ITEMS:
            named = ", ".join(sorted(_OF_ITEMS))
            raise Refused(422, "invalid", f"{len(unknown)} parameters are not known; these are: {named}.")
        if len(query) > 200 or len(ids) > 100:
            raise Refused(422, "invalid", "A query may have at most 200 characters, and 100 ids.")
        engine = self._service.named(request.query_params.get("model"), None).engine
        if ids:
            numbers, _ = engine.recommender.items.numbers(ids)
            total = len(numbers)
        else:
            numbers, total = await self._service.found(engine, query, limit, offset)
        items = named_items(engine, numbers)
        for each, count in zip(items, engine.search.popular_V[numbers].tolist(), strict=True):
            each["events"] = count
        return _json({"request_id": _id(request), "items": items, "total": total})

    async def models(self, request: Request) -> Response:
        models = [
            {"name": name, "hash": each.engine.digest, "share": each.share} | each.engine.facts
            for name, each in self._service.models.items()
        ]
        facts = {"rules": list(self._service.rules), "fallback": self._service.fallback}
        return _json({"request_id": _id(request), "models": models} | facts)

    async def reload(self, request: Request) -> Response:
        body: Reload = await decoded(request, Reload)
        changed = []
        for name in self._service.models if body.model is None else [body.model]:
            self._service.named(name, None)
            try:
                old, new = await self._service.reload(name)
            except Exception as error:
                reason = str(error) if isinstance(error, SasrecError) else f"it fails with {type(error).__name__}"
                message = f"{name} keeps its old model, because the new one cannot be used: {reason}"
                self._figures.reload(name, "refused")
                to_stderr(message)
                raise Refused(409, "unsound", message) from None
            self._figures.reload(name, "new")
            to_stderr(f"{name} has a new model with the weights {new}, after {old}")
            changed.append({"name": name, "old": old, "new": new})
        return _json({"request_id": _id(request), "reloaded": changed})

    async def healthz(self, request: Request) -> Response:
        return _json({"request_id": _id(request), "status": "ok"})

    async def readyz(self, request: Request) -> Response:
        models = self._service.models
        troubles = await asyncio.gather(*(model.trouble() for model in models.values()))
        found = {
            name: {"ready": True} if trouble is None else {"ready": False, "reason": trouble}
            for name, trouble in zip(models, troubles, strict=True)
        }
        ready = not self._service.draining and not any(troubles)
        answer = {"request_id": _id(request), "ready": ready, "draining": self._service.draining, "models": found}
        if self._service.store is not None:  # lists for histories need no store, so it does not decide
            answer["store"] = {"ready": self._service.store_works}
        return _json(answer, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        waiting = {name: model.batcher.waiting for name, model in self._service.models.items()}
        loaded = {
            (name, model.engine.digest): datetime.fromisoformat(model.engine.facts["loaded"]).timestamp()
            for name, model in self._service.models.items()
        }
        return Response(self._figures.text(waiting, loaded), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        return _json(openapi(__version__))

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        file = self._page.get(name)
        suffix = name[name.rfind(".") :]
        if file is None or suffix not in _TYPES:
            return _error(NO_SUCH, request)
        return Response(file.read_bytes(), media_type=_TYPES[suffix])

    def _model_of(self, asked: Of) -> Model:
        if asked.user is None and asked.history is None:
            raise Refused(422, "nobody", "Name a user, or give a history.")
        return self._service.named(asked.model, asked.user, asked.history)


@contextmanager
def _which(body: RecommendBody, row: int) -> Iterator[None]:
    """Say in an error which of several requests is wrong."""
    try:
        yield
    except (Refused, SasrecError) as error:
        if body.requests is None:
            raise
        found = error if isinstance(error, Refused) else refusal(error)
        message = f"`requests[{row}]`: {found.message}"
        raise Refused(found.status, found.code, message, found.headers) from None


def _is_gone(request: Request) -> Callable[[], bool]:
    """Return what tells whether the client has gone, where the server says so (`PatientProtocol`)."""
    found: Callable[[], bool] = request.scope["state"].get("is_gone", bool)
    return found


def _id(request: Request) -> str:
    return str(request.scope["state"]["request_id"])
