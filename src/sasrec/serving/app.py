"""The routes of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sasrec import __version__
from sasrec.errors import SasrecError
from sasrec.serving.answers import answer_of, name_and_hash, named_items, refusal
from sasrec.serving.batcher import Batcher, OverloadedError
from sasrec.serving.engine import Engine, Listed
from sasrec.serving.figures import Figures
from sasrec.serving.history_store import Event
from sasrec.serving.limits import FAULT, Refused, body_of_error
from sasrec.serving.schemas import (
    Events,
    Explain,
    RecommendBody,
    Reload,
    Similar,
    openapi,
)
from sasrec.serving.service import Model, Service, UnknownError

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_NO_SUCH = Refused(404, "not_found", "There is nothing at this path. GET /openapi.json lists what there is.")
_CANARY_SECONDS = 2.0
T = TypeVar("T")


def build(service: Service, figures: Figures) -> Starlette:
    """Return the application of the routes, without limits (limits.py)."""
    routes = _Routes(service, figures)
    table: list[tuple[str, str, Callable[..., Any]]] = [
        ("POST", "/v1/recommend", routes.recommend),
        ("POST", "/v1/similar", routes.similar),
        ("POST", "/v1/explain", routes.explain),
        ("POST", "/v1/events", routes.events),
        ("GET", "/v1/users/{id:path}", routes.user),
        ("DELETE", "/v1/users/{id:path}", routes.forget),
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
    handlers: dict[Any, Any] = {404: _not_found, 405: _not_allowed, Refused: _answer_refused, Exception: _fault}
    return Starlette(
        routes=[Route(path, _named(path, route), methods=[method]) for method, path, route in table],
        exception_handlers=handlers,
    )


def _named(path: str, route: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(request: Request) -> Response:
        request.scope["state"]["route"] = path.replace(":path", "")
        answer: Response = await route(request)
        return answer

    return handle


async def _answer_refused(request: Request, refused: Refused) -> Response:
    return _error(refused, request, refused.headers)


async def _fault(request: Request, _: Exception) -> Response:
    return _error(FAULT, request)


async def _not_found(request: Request, _: Exception) -> Response:
    return _error(_NO_SUCH, request)


async def _not_allowed(request: Request, error: Exception) -> Response:
    refused = Refused(405, "wrong_method", "This path has other methods. GET /openapi.json lists them.")
    return _error(refused, request, getattr(error, "headers", None))


def _error(refused: Refused, request: Request, headers: Any = None) -> Response:
    body = body_of_error(refused, request.scope["state"]["request_id"])
    return Response(body, refused.status, dict(headers or {}), media_type="application/json")


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _decoded(request: Request, kind: Any) -> Any:
    """Return the body as a type of schemas.py. Raises: Refused, with the place of the fault but not its value."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        # The words before " - at" can name a field of the client's; the path after it has only ours.
        _, _, at = str(error).rpartition(" - at ")
        where = f" at {at}" if at.startswith("`$") and len(at) < 100 else ""
        message = f"The body does not fit{where}. GET /openapi.json describes it."
        raise Refused(422, "invalid", message) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(422, "not_json", "The body cannot be read as JSON in UTF-8. Correct it.") from None


class _Routes:
    def __init__(self, service: Service, figures: Figures) -> None:
        self._service, self._figures = service, figures
        self._page = {each.name: each for each in files("sasrec.serving").joinpath("page").iterdir()}

    async def recommend(self, request: Request) -> Response:
        body: RecommendBody = await _decoded(request, RecommendBody)
        if body.requests is not None and body != RecommendBody(requests=body.requests):
            raise Refused(
                422, "invalid", "`requests` stands alone: put the other fields into each of its requests."
            )
        asked = [body] if body.requests is None else body.requests
        models: dict[str, Model] = {}
        places: dict[str, list[int]] = {}
        prepared = []
        try:
            for place, each in enumerate(asked):
                if (each.user is None) and (each.history is None):
                    raise Refused(422, "nobody", "Name a user, or give a history.")
                model = self._service.named(each.model, each.user, each.history)
                models[model.engine.name] = model
                places.setdefault(model.engine.name, []).append(place)
                prepared.append(self._service.to_ask(each))
        except SasrecError as error:
            raise refusal(error) from None
        state = request.scope["state"]
        state["model"], state["k"] = next(iter(models)), asked[0].k
        answers: list[Any] = [None] * len(asked)
        for name, rows in places.items():
            batcher, engine = models[name].batcher, models[name].engine
            found = await self._asked(batcher, [prepared[row] for row in rows])
            for row, listed in zip(rows, found, strict=True):
                if isinstance(listed, SasrecError):
                    raise refusal(listed)
                answers[row] = answer_of(engine, asked[row], listed, state["request_id"])
            self._figures.lists(name, len(rows))
        if body.requests is not None:
            return _json({"answers": answers, "request_id": state["request_id"]})
        return _json(answers[0])

    async def _asked(self, batcher: Batcher, prepared: Sequence[Any]) -> list[Listed | SasrecError]:
        try:
            return await batcher.ask(prepared)
        except OverloadedError as error:
            raise self._overloaded(error) from None

    async def _run(self, batcher: Batcher, work: Callable[[Engine], T]) -> T:
        try:
            return await batcher.run(work)
        except OverloadedError as error:
            raise self._overloaded(error) from None
        except SasrecError as error:
            raise refusal(error) from None

    def _overloaded(self, error: OverloadedError) -> Refused:
        self._figures.refused()
        message = f"The server has more requests than it can answer. Send this one again in {error.retry_after} s."
        return Refused(429, "overloaded", message, {"retry-after": str(error.retry_after)})

    async def similar(self, request: Request) -> Response:
        body: Similar = await _decoded(request, Similar)
        model = self._model(body.model, None)

        def work(engine: Engine) -> list[tuple[int, float]]:
            if engine.recommender.items.number_of(body.item) is None:
                raise UnknownError("the item is unknown. GET /v1/items finds items.")
            return engine.similar(body.item, body.k)

        found = await self._run(model.batcher, work)
        numbers = np.array([number for number, _ in found], np.int64)
        items = named_items(model.engine, numbers)
        for each, (_, cosine) in zip(items, found, strict=True):
            each["score"] = cosine
        return _json({"request_id": _id(request), "model": name_and_hash(model.engine), "items": items})

    async def explain(self, request: Request) -> Response:
        body: Explain = await _decoded(request, Explain)
        if body.user is None and body.history is None:
            raise Refused(422, "nobody", "Name a user, or give a history.")
        model = self._model(body.model, body.user)

        def work(engine: Engine) -> Any:
            if engine.recommender.items.number_of(body.item) is None:
                raise UnknownError("the item is unknown. GET /v1/items finds items.")
            known = self._service.read(engine, body).known
            if not len(known[0]):
                raise UnknownError("no item of the history is known, so nothing explains the item.")
            return engine.explain(known, body.item)

        numbers, effects, intervals = await self._run(model.batcher, work)
        events = named_items(model.engine, numbers)
        for place, each in enumerate(events):
            each["effect"] = float(effects[place])
            if intervals is not None and np.isfinite(intervals[place]):
                each["interval_effect"] = float(intervals[place])
        return _json(
            {"request_id": _id(request), "model": name_and_hash(model.engine), "item": body.item, "events": events}
        )

    async def events(self, request: Request) -> Response:
        body: Events = await _decoded(request, Events)
        store = self._service.store
        if store is None:
            raise Refused(503, "store", "This server keeps no events. Start it with --events.")
        rows = [Event(str(each.user), str(each.item), each.time, each.id) for each in body.events]
        try:
            stored = await asyncio.to_thread(store.append, rows)
        except SasrecError as error:
            raise refusal(error) from None
        self._figures.events(stored.stored)
        return _json({"request_id": _id(request), "stored": stored.stored, "repeated": stored.repeated})

    async def user(self, request: Request) -> Response:
        user = request.path_params["id"]
        model = self._model(None, user)

        def work(engine: Engine) -> tuple[list[dict[str, Any]], int]:
            newer, own = self._service.newer(user)
            numbers, times, of_data = engine.events_of(user, newer, own=own)
            if not len(numbers):
                raise UnknownError("the user has no events here.")
            data = engine.recommender.data
            dated = data is None or data.times is not None
            history = named_items(engine, numbers[-1_000:])
            for each, moment in zip(history, times[-1_000:], strict=True):
                if dated:
                    each["time"] = float(moment) / 1e6
            return history, of_data

        history, of_data = await self._run(model.batcher, work)
        answer = {"request_id": _id(request), "user": user, "model": model.engine.name, "history": history}
        return _json(answer | {"of_data": of_data})

    async def forget(self, request: Request) -> Response:
        store = self._service.store
        if store is None:
            raise Refused(503, "store", "This server keeps no events. Start it with --events.")
        try:
            await asyncio.to_thread(store.forget, request.path_params["id"])
        except SasrecError as error:
            raise refusal(error) from None
        return _json({"request_id": _id(request), "forgotten": True})

    async def items(self, request: Request) -> Response:
        query, ids = request.query_params.get("query", ""), request.query_params.getlist("id")
        limit, offset = _whole(request, "limit", 20, 1, 100), _whole(request, "offset", 0, 0, 10**6)
        if len(query) > 200 or len(ids) > 100:
            raise Refused(422, "invalid", "A query may have at most 200 characters, and 100 ids.")
        model = self._model(request.query_params.get("model"), None)
        if ids:
            numbers, _ = model.engine.recommender.items.numbers(ids)
            total = len(numbers)
        else:
            numbers, total = await asyncio.to_thread(model.search.find, query, limit, offset)
        items = named_items(model.engine, numbers)
        for each, count in zip(items, model.search.popular_V[numbers].tolist(), strict=True):
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
        body: Reload = await _decoded(request, Reload)
        names = list(self._service.models) if body.model is None else [body.model]
        self._model(names[0], None)
        changed = []
        for name in names:
            model = self._service.models[name]
            try:
                engine, search = await asyncio.to_thread(self._service.reloaded, name)
            except Exception as error:
                reason = str(error) if isinstance(error, SasrecError) else f"it fails with {type(error).__name__}"
                raise Refused(
                    409, "unsound", f"The old model of {name} stays, because the new one: {reason}"
                ) from None
            changed.append({"name": name, "old": model.engine.digest, "new": engine.digest})
            model.batcher.engine, model.search = engine, search
        return _json({"request_id": _id(request), "reloaded": changed})

    async def healthz(self, request: Request) -> Response:
        return _json({"request_id": _id(request), "status": "ok"})

    async def readyz(self, request: Request) -> Response:
        found: dict[str, Any] = {}
        for name, model in self._service.models.items():
            found[name] = {"ready": True}
            try:
                async with asyncio.timeout(_CANARY_SECONDS):
                    await model.batcher.run(Engine.canary)
            except OverloadedError:
                pass  # busy, but working
            except Exception as error:
                reason = str(error) if isinstance(error, SasrecError) else type(error).__name__
                found[name] = {"ready": False, "reason": reason}
        ready = not self._service.draining and all(each["ready"] for each in found.values())
        answer = {"request_id": _id(request), "ready": ready, "draining": self._service.draining, "models": found}
        return _json(answer, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        waiting = {name: model.batcher.waiting for name, model in self._service.models.items()}
        return Response(self._figures.text(waiting), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        return _json(openapi(__version__))

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        file = self._page.get(name)
        suffix = name[name.rfind(".") :]
        if file is None or suffix not in _TYPES:
            return _error(_NO_SUCH, request)
        return Response(file.read_bytes(), media_type=_TYPES[suffix])

    def _model(self, name: str | None, user: object) -> Model:
        try:
            return self._service.named(name, user) if name or user else next(iter(self._service.models.values()))
        except SasrecError as error:
            raise refusal(error) from None


def _id(request: Request) -> str:
    return str(request.scope["state"]["request_id"])


def _whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise Refused(422, "invalid", f"{name} must be a whole number from {least} to {most}.")
    return int(text)
