"""Run the server: uvicorn with a limit on slow clients, and an end in which no accepted request is lost."""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import selectors
import signal
import socket
import struct
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sasrec.errors import ConfigError
from sasrec.serving.app import build
from sasrec.serving.auth import tokens_of
from sasrec.serving.figures import Figures
from sasrec.serving.limits import Limited, Refused, body_of_error, to_stderr
from sasrec.serving.service import Service, spare_collections

_HEADER_SECONDS = 10.0
_HEADER_BYTES = 2**16
_BODY_SECONDS = 15.0  # more than limits.py waits for a body, so that its answer 408 comes first
_TAKE_SECONDS = 30.0  # for a client to take a part of its answer
_HANDSHAKE = 0.5  # seconds for a connection that begins as the server stops
_SO_ATTACH_FILTER = 26  # of Linux
_LINGER = 5.0  # seconds, at most, for the first request of a connection that was made at the last moment
_LOOK = 0.05  # seconds between two looks whether such a request has come
_LAST_SECONDS = 20.0  # for requests that are under way when the server stops


class PatientProtocol(HttpToolsProtocol):
    """HTTP in which a client must send each request, and take its answer, in time."""

    _sending: asyncio.TimerHandle | None = None
    """Ends the connection unless the client sends what is due: headers, or the rest of a body."""
    _taking: asyncio.TimerHandle | None = None
    """Ends the connection unless the client takes what waits to be sent."""
    has_asked = False
    """Whether a request has begun on this connection."""
    _in_message = _in_headers = False
    _received = 0  # bytes of the present headers, without their last part

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Pass data on; end the connection if headers become too large."""
        if not self._in_message and self._sending is None:
            self._expect_headers()  # also if a client sends nothing but empty lines after a request
        if self._in_headers and self._received > _HEADER_BYTES:
            self._give_up()
            return
        self._received += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to wait for the headers of a request."""
        super().on_message_begin()
        self.scope["state"]["is_gone"] = self.transport.is_closing
        self._in_message = self.has_asked = True
        if self._sending is None:  # the request before came with the same data
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """Begin to wait for the body, also for one that the application does not read."""
        self._in_headers = False
        self._expect(_BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the wait, because the request is there."""
        self._in_message = False
        self._end_sending()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP as everything else is answered, in JSON."""
        refused = Refused(400, "not_http", "The request is not HTTP that the server reads.")
        request_id = uuid.uuid4().hex
        body = body_of_error(refused, request_id)
        lines = ["HTTP/1.1 400 Bad Request", "content-type: application/json", "connection: close"]
        lines.append(f"x-request-id: {request_id}")
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def pause_writing(self) -> None:
        """Begin to wait until the client takes what was sent."""
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(_TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """End the wait."""
        super().resume_writing()
        self._end_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waits."""
        self._end_sending()
        self._end_taking()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._in_headers, self._received = True, 0
        self._expect(_HEADER_SECONDS)

    def _expect(self, seconds: float) -> None:
        self._end_sending()
        self._sending = self.loop.call_later(seconds, self._give_up)

    def _end_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _end_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _give_up(self) -> None:
        self._end_sending()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """On a signal, say for a while that it is not ready and end each connection after its answer; then stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        drain: float,
        renew: Callable[[], None],
        ready: Callable[[], None],
    ) -> None:
        """`drain`: seconds between the signal and the moment from which no connection is accepted.

        `renew`: called on SIGHUP. `ready`: called when signals are handled and requests are answered.
        """
        super().__init__(config)
        self._renew, self._ready = renew, ready
        self._service, self._drain = service, drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: list[socket.socket] = []

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, and then to the end of what is under way."""
        self._loop, self._sockets = asyncio.get_running_loop(), sockets or []
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, and say so."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT. Unlike uvicorn, do not raise them again: the store must still be closed."""
        handlers: dict[signal.Signals, Any] = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self.handle_exit)
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = lambda *_: self._loop and self._loop.call_soon_threadsafe(self._renew)
        before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; a second signal ends at once."""
        if self._service.draining or self._loop is None:
            self.should_exit, self.force_exit = True, self._service.draining
            return
        self._service.draining = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain, self._stop_listening, sig, frame)

    def _stop_listening(self, sig: int, frame: FrameType | None) -> None:
        """Let no connection begin, serve those that have begun, and stop.

        Closing a listening socket resets the connections that wait in its queue. So attempts are dropped for a
        moment, while the queue empties; an attempt that the client repeats finds the port closed.
        """
        assert self._loop is not None
        for each in self._sockets:
            drop_attempts(each)
        latest = self._loop.time() + _LINGER
        self._loop.call_later(_HANDSHAKE, self._close, latest, sig, frame)

    def _close(self, latest: float, sig: int, frame: FrameType | None) -> None:
        """Close the listening sockets as soon as no connection waits in their queues."""
        assert self._loop is not None
        if self._loop.time() < latest and have_connections(self._sockets):
            self._loop.call_later(_LOOK, self._close, latest, sig, frame)
            return
        for server in self.servers:
            server.close()
        self._end(self._loop.time() + _LINGER, sig, frame)

    def _end(self, latest: float, sig: int, frame: FrameType | None) -> None:
        """Stop as soon as every connection has sent a request, because stopping closes those that wait."""
        assert self._loop is not None
        connections: Any = self.server_state.connections
        if self._loop.time() < latest and not all(each.has_asked for each in connections):
            self._loop.call_later(_LOOK, self._end, latest, sig, frame)
        else:
            super().handle_exit(sig, frame)


def have_connections(listeners: list[socket.socket]) -> bool:
    """Whether a connection waits to be accepted."""
    with selectors.DefaultSelector() as selector:
        for each in listeners:
            selector.register(each, selectors.EVENT_READ)
        return bool(selector.select(0))


def drop_attempts(listener: socket.socket) -> None:
    """Drop packets that begin a connection; on Linux only, elsewhere nothing is done.

    A client repeats such a packet after a second. The filter is a classic BPF program (Linux's
    Documentation/networking/filter.rst) that reads the flags of the TCP header.
    """
    program = struct.pack(
        "=HBBI HBBI HBBI HBBI",
        *(0x30, 0, 0, 13),  # load the byte of flags
        *(0x45, 0, 1, 0x02),  # unless it has SYN, skip the next line
        *(0x06, 0, 0, 0),  # take nothing of the packet
        *(0x06, 0, 0, 2**32 - 1),  # take the packet
    )
    content = ctypes.create_string_buffer(program, len(program))
    with suppress(OSError):  # of a system without such filters
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(content)))


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises: ConfigError if the address cannot be used. Remedy: use another one."""
    with ExitStack() as failing:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            opened = failing.enter_context(socket.socket(family))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((host, port))
            opened.listen(2_048)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"{host} port {port} cannot be used: {reason}. Use another --port or --host."
            ) from None
        failing.pop_all()
    opened.setblocking(False)
    return opened


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, or every address of a name."""
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


def run(
    service: Service,
    opened: socket.socket,
    *,
    tokens: Path | None,
    figures: Figures,
    log: Path | None,
    drain: float,
    ready: Callable[[], None],
) -> int:
    """Serve on a socket until SIGTERM or SIGINT; return how many requests were given up. See `DrainingServer`.

    `tokens`: a file, see `tokens_of`; without one, see `Limited`. `log`: a file that gets a line of JSON for each
    request; `-` is stdout. On SIGHUP both are opened again. `ready`: see `DrainingServer`. The service is closed
    in the end, also if it fails.

    Raises: ConfigError if the file of tokens is wrong, or the log cannot be written. Remedy: as the message says.
    """

    def overload() -> int | None:
        seconds = service.overload()
        if seconds is not None:
            figures.refused()
        return seconds

    app: Limited | None = None
    try:
        app = Limited(
            build(service, figures),
            tokens=None if tokens is None else tokens_of(tokens),
            finished=figures.request,
            log=stream_of(log),
            draining=lambda: service.draining,
            overload=overload,
        )

        def renew() -> None:
            try:
                app.renew(None if tokens is None else tokens_of(tokens), stream_of(log))
            except ConfigError as error:
                to_stderr(f"{error} Until then, tokens and log stay as they are.")

        config = uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(_LAST_SECONDS),
            backlog=2_048,
        )
        spare_collections()
        DrainingServer(config, service, drain, renew, ready).run(sockets=[opened])
        return app.unanswered
    finally:
        service.close()
        if app is not None:
            app.close()


def stream_of(log: Path | None) -> Any:
    """Return the stream of the request log. Raises: ConfigError if it cannot be written. Remedy: name another."""
    if log is None or str(log) == "-":
        return None if log is None else sys.stdout
    try:
        return log.open("a", buffering=1, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the log {log} cannot be written: {error.strerror}. Use another --log.") from None
