"""What every request passes before a route sees it: name, token, size, type and time of its body."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import msgspec

from sasrec.serving.auth import scopes_of
from sasrec.serving.schemas import ROUTES

MOST_BYTES = 2**20  # of a body
_BODY_SECONDS = 10.0
_OWN_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d*)?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_USERS = "/v1/users/"
_OF_MODELS = {"/v1/recommend", "/v1/similar", "/v1/explain"}
_LOGGED = ("time", "request_id", "route", "status", "code", "milliseconds", "model", "k")
# The page loads only files of this server, and nothing may frame it.
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Refused(Exception):  # noqa: N818 - it is an answer
    """An answer other than 200. The message must not repeat what the client sent."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


NO_SUCH = Refused(404, "not_found", "There is nothing at this path. GET /openapi.json lists what there is.")
GONE = Refused(499, "gone", "The client has gone.")
"""Nobody gets this answer, but the log and the figures show it."""
_ENDING = Refused(503, "ending", "The server ends. Send the request to another one, or again later.")
FAULT = Refused(500, "fault", "The server has a fault, and its log tells more. Please report it.")


def too_many(seconds: int) -> Refused:
    """Return the answer to a request that would wait too long."""
    message = f"The server has more requests than it can answer. Send this one again in {seconds} s."
    return Refused(429, "overloaded", message, {"retry-after": str(seconds)})


def to_stderr(sentence: str) -> None:
    """Write to stderr, for those who run the server; nothing happens if it is closed."""
    with suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def body_of_error(refused: Refused, request_id: str) -> bytes:
    """Return the JSON of an error."""
    error = {"error": {"code": refused.code, "message": refused.message}, "request_id": request_id}
    return msgspec.json.encode(error)


class Limited:
    """An ASGI application around that of the routes."""

    def __init__(
        self,
        app: App,
        *,
        tokens: Mapping[bytes, frozenset[str]] | None,
        finished: Callable[[str, int, float, str], None],
        log: Any = None,
        draining: Callable[[], bool] = lambda: False,
        overload: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`tokens`: see `tokens_of`; None asks for none, and then only names of loopback are served.

        `finished`: called after each request with its route, status, seconds and model. `log`: a text stream that
        gets a line of JSON for each request. `draining`: whether connections should end.
        `overload`: in how many seconds to ask a model again, if each has too much to do; else None.
        """
        self._app, self._tokens, self._finished, self._log = app, tokens, finished, log
        self._draining, self._overload = draining, overload
        self.unanswered = 0
        """How many requests were given up at the end of the server."""

    def renew(self, tokens: Mapping[bytes, frozenset[str]] | None, log: Any) -> None:
        """Use other tokens, and another stream for the log, from the next request on."""
        self.close()
        self._tokens, self._log = tokens, log

    def close(self) -> None:
        """Close the log."""
        if self._log is not None and self._log is not sys.stdout:
            with suppress(OSError):  # of a full disk, which was reported
                self._log.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        route, needed = _route(scope["method"], scope["path"])
        state["request_id"], state["began"] = request_id, began
        started = False

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                own = [(b"x-request-id", request_id.encode()), *_HEADERS]
                if self._draining():
                    own.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        try:
            content = await self._passed(scope, headers, route, needed, receive)
            await self._app(scope, _of(content, receive), answer)
        except Refused as refused:
            state["code"] = refused.code
            await _refuse(answer, refused, request_id)
        except asyncio.CancelledError:  # the server ends and has waited long enough
            state["code"] = _ENDING.code
            self.unanswered += 1
            if not started:
                await _refuse(answer, _ENDING, request_id)
        except Exception:
            state["code"] = FAULT.code
            traceback.print_exc(file=sys.stderr)
            if not started:
                await _refuse(answer, FAULT, request_id)
        finally:
            self._end(route, state, status, time.monotonic() - began)

    async def _passed(
        self, scope: Scope, headers: Mapping[str, str], route: str, needed: str, receive: Receive
    ) -> bytes:
        """Return the body of a request that is let through. `needed`: the scope of its token. Raises: Refused."""
        # The router takes /admin/reload with a line feed at its end for /admin/reload, whose scope is another.
        if not scope["path"].isprintable() and not scope["path"].startswith(_USERS):
            raise NO_SUCH
        if self._tokens is None:
            # Other names may be those of a page elsewhere that had its name point to this machine.
            if not _OWN_HOST.fullmatch(headers.get("host", "localhost").lower()):
                message = "Without tokens, only localhost is served. Start the server with --tokens."
                raise Refused(421, "foreign_host", message)
        elif needed:
            scopes = scopes_of(self._tokens, headers.get("authorization", ""))
            if scopes is None:
                message = "Send the header Authorization: Bearer TOKEN with a token of this server."
                raise Refused(401, "no_token", message, {"www-authenticate": "Bearer"})
            if needed not in scopes and "admin" not in scopes:
                raise Refused(403, "wrong_scope", f"This needs a token with the scope {needed}.")
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return b""
        if route in _OF_MODELS and (seconds := self._overload()) is not None:
            raise too_many(seconds)  # before its body is read, because under overload most requests end here
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "encoded", "Send the body without compression.")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "not_json", "Send JSON, with the header Content-Type: application/json.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > MOST_BYTES:
            raise _too_large()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await _body(receive)
        except TimeoutError:
            message = f"The body did not arrive within {_BODY_SECONDS:.0f} seconds. Send it again."
            raise Refused(408, "slow_body", message, {"connection": "close"}) from None

    def _end(self, route: str, state: Mapping[str, Any], status: int, seconds: float) -> None:
        model = state.get("model", "")
        self._finished(route, status, seconds, model)
        if self._log is not None:
            values = (
                time.time(),
                state["request_id"],
                route,
                status,
                state.get("code"),
                round(1e3 * seconds, 2),
                model,
                state.get("k"),
            )
            try:
                self._log.write(json.dumps(dict(zip(_LOGGED, values, strict=True))) + "\n")
            except OSError as error:
                to_stderr(
                    f"the request log cannot be written: {error.strerror}. Requests are answered without it."
                )
                self._log = None


def _route(method: str, path: str) -> tuple[str, str]:
    """Return the name of a route, for figures and the log, and the scope that a token needs for it."""
    if path == "/" or path.startswith("/page/"):
        return "/page", ""
    name = "/v1/users/{id}" if path.startswith(_USERS) else path
    found = ROUTES.get(("GET" if method == "HEAD" else method, name))
    return ("other", "read") if found is None else (name, found[0])


def _too_large() -> Refused:
    return Refused(413, "too_large", f"A body may have at most {MOST_BYTES:,} bytes. Send fewer at once.")


async def _body(receive: Receive) -> bytes:
    content = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GONE
        content += message.get("body", b"")
        if len(content) > MOST_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(content)


def _of(content: bytes, receive: Receive) -> Receive:
    """Return what gives the body that was read, and then what `receive` gives."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    return again


async def _refuse(send: Send, refused: Refused, request_id: str) -> None:
    body = body_of_error(refused, request_id)
    headers = {"content-type": "application/json", "content-length": str(len(body))} | dict(refused.headers)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
