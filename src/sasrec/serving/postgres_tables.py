"""The store of events in PostgreSQL, which several servers may share.

Each call is one statement outside a transaction block, so a cut connection leaves nothing half done. The keys of
the rows make a write safe to repeat if its answer was lost.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sasrec.errors import ConfigError, StoreError
from sasrec.serving.event_tables import COLUMNS, VERSION, Row

try:
    import psycopg
    from psycopg import errors
    from psycopg.conninfo import conninfo_to_dict
except ImportError:
    raise ConfigError(
        'a store of events in PostgreSQL needs psycopg. Install it: pip install "sasrec[postgresql]"'
    ) from None

_MOST_CONNECTIONS = 8
_PATIENCE = 10.0  # seconds for a statement, for example while another program locks a table
_PAUSE = 1.0  # seconds without another attempt after a failed one, so calls fail fast while the server is away
_ATTEMPTS = 5
# A cut cable says nothing: these find out within seconds.
_LIVENESS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
    "application_name": "sasrec",
}
_LOCK = 0x53415352  # number of the lock under which the tables are made
_CREATE = (
    "CREATE TABLE sasrec_events (number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id TEXT NOT NULL, "
    "item_id TEXT NOT NULL, time DOUBLE PRECISION NOT NULL, user_key BYTEA NOT NULL, event_key BYTEA NOT NULL, "
    "UNIQUE (user_key, event_key))",
    "CREATE TABLE sasrec_forgotten (user_key BYTEA PRIMARY KEY, time DOUBLE PRECISION NOT NULL)",
    "CREATE TABLE sasrec_store (version INTEGER NOT NULL)",
    f"INSERT INTO sasrec_store VALUES ({VERSION})",
)
_NAMES = ", ".join(COLUMNS)
_INSERT = (
    f"INSERT INTO sasrec_events ({_NAMES}) SELECT {_NAMES} "
    "FROM unnest(%b::text[], %b::text[], %b::float8[], %b::bytea[], %b::bytea[]) WITH ORDINALITY "
    f"AS new ({_NAMES}, place) ORDER BY place ON CONFLICT DO NOTHING RETURNING user_key, event_key"
)
_FORGET = (
    "WITH gone AS (DELETE FROM sasrec_events WHERE user_key = %b RETURNING 1), "
    "mark AS (INSERT INTO sasrec_forgotten VALUES (%b, %b) ON CONFLICT DO NOTHING RETURNING 1) "
    "SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM mark)"
)
_HISTORY = "SELECT item_id, time FROM sasrec_events WHERE user_key = %b ORDER BY time, number"
_REPEATABLE = (errors.DeadlockDetected, errors.SerializationFailure)  # two servers stored the same ids
T = TypeVar("T")


class PostgresTables:
    """A few connections, which are made when they are needed, and again after they were lost."""

    def __init__(self, url: str) -> None:
        self._options = _options(url)
        host, port, name = (self._options.get(key, "") for key in ("host", "port", "dbname"))
        self.where = f"postgresql://{host}{port and ':'}{port}/{name}"  # no user, no password
        self._idle: deque[psycopg.Connection[Any]] = deque()
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._is_open, self._closed = False, threading.Event()
        self._deadlines: dict[psycopg.Connection[Any], float] = {}
        threading.Thread(target=self._watch, name="sasrec connections", daemon=True).start()
        self._failed: tuple[float, psycopg.Error] | None = None
        try:
            self._run(self._prepare)
            # Both change nothing, but fail without the right to them.
            self._run(lambda connection: connection.execute("DELETE FROM sasrec_events WHERE false"))
            self.append([])
        except BaseException:
            self.close()
            raise
        self._is_open = True

    def append(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Store rows in one transaction; return how many of each batch were new."""
        batch_of = {row[3:]: batch for batch in reversed(range(len(batches))) for row in batches[batch]}
        columns = list(zip(*(row for rows in batches for row in rows), strict=True)) or [()] * len(COLUMNS)
        arrays = [list(column) for column in columns]
        new = self._run(lambda connection: connection.execute(_INSERT, arrays).fetchall())
        counts = [0] * len(batches)
        for user_key, event_key in new:
            counts[batch_of[user_key, event_key]] += 1
        return counts

    def forget(self, user_key: bytes, now: float) -> bool:
        """Delete the rows of a user, and mark the user; return whether anything changed."""
        values = (user_key, user_key, now)
        changes = self._run(lambda connection: connection.execute(_FORGET, values).fetchone())
        return changes is not None and changes[0] > 0

    def history(self, user_key: bytes) -> list[tuple[str, float]]:
        """Return item_id and time of the rows of a user, in order of time, then arrival."""
        return self._run(lambda connection: connection.execute(_HISTORY, (user_key,)).fetchall())

    def is_forgotten(self, user_key: bytes) -> bool:
        """Whether a user is marked."""
        query = "SELECT 1 FROM sasrec_forgotten WHERE user_key = %b"
        return self._run(lambda connection: connection.execute(query, (user_key,)).fetchone()) is not None

    def close(self) -> None:
        """Close the connections."""
        self._closed.set()
        self._close_idle()

    def _run(self, statement: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Return what a statement returns; repeat it if the connection turns out to be lost."""
        with self._errors():
            if not self._free.acquire(timeout=_PATIENCE):
                raise psycopg.OperationalError(f"all {_MOST_CONNECTIONS} connections have been busy for seconds")
            try:
                return self._repeated(statement)
            finally:
                self._free.release()

    def _repeated(self, statement: Callable[[psycopg.Connection[Any]], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            connection, is_new = self._connection()
            self._deadlines[connection] = time.monotonic() + 1.5 * _PATIENCE
            try:
                result = statement(connection)
            except psycopg.Error as error:
                del self._deadlines[connection]
                # After a failover, the server that was left cannot be written.
                is_lost = connection.closed or isinstance(error, errors.ReadOnlySqlTransaction)
                if is_lost:
                    connection.close()
                    self._close_idle()  # lost with it
                else:
                    self._give_back(connection)
                repeats = not is_new if is_lost else isinstance(error, _REPEATABLE)
                if not repeats or attempt == _ATTEMPTS:
                    raise
            except BaseException:
                del self._deadlines[connection]
                connection.close()
                raise
            else:
                del self._deadlines[connection]
                self._give_back(connection)
                return result
        raise AssertionError

    def _watch(self) -> None:
        """Cut the connections to a server that is frozen: it does not even end a statement after its time."""
        while not self._closed.wait(_PATIENCE / 10):
            for connection, deadline in self._deadlines.copy().items():
                if time.monotonic() > deadline:
                    # The waiting thread owns the connection; it sees an error as soon as the socket is shut down.
                    with (
                        contextlib.suppress(OSError, psycopg.Error),
                        socket.socket(fileno=os.dup(connection.fileno())) as shared,
                    ):
                        shared.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> tuple[psycopg.Connection[Any], bool]:
        """Return a connection, and whether it is new."""
        with contextlib.suppress(IndexError):
            return self._idle.pop(), False
        if self._failed is not None and time.monotonic() < self._failed[0] + _PAUSE:
            raise self._failed[1].with_traceback(None)  # which would grow with each call
        try:
            # Poolers between here and the server cannot keep prepared statements.
            connection = psycopg.connect(**self._options, autocommit=True, prepare_threshold=None)
            connection.execute(f"SET statement_timeout = {round(_PATIENCE * 1000)}")
            # An acknowledged event must survive a crash of the server, whatever its default is.
            connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        except psycopg.Error as error:
            self._failed = time.monotonic(), error
            raise
        self._failed = None
        return connection, True

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        self._idle.append(connection)
        if self._closed.is_set():
            self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        """Make the tables if they are missing. Raises: ConfigError if the database cannot have them."""
        encoding = connection.execute("SHOW server_encoding").fetchone()
        if encoding not in (("UTF8",), ("SQL_ASCII",)):
            raise ConfigError(
                f"the data base {self.where} stores texts as {encoding and encoding[0]}. Name one that was "
                "created with ENCODING 'UTF8'."
            )
        with connection.transaction():
            # The lock comes before the first look: a transaction remembers that a table was missing.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if connection.execute("SELECT to_regclass('sasrec_store')").fetchone() == (None,):
                for statement in _CREATE:
                    connection.execute(statement)
            found = connection.execute("SELECT max(version) FROM sasrec_store").fetchone()
        if found != (VERSION,):
            raise ConfigError(
                f"{self.where} is a store of events of version {found and found[0]}, but this sasrec reads "
                f"version {VERSION}. Install the sasrec that wrote it, or name another data base."
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of psycopg into a sentence with the remedy."""
        try:
            yield
        except psycopg.Error as error:
            # Only the main message: the details can quote ids of users.
            reason = " ".join((error.diag.message_primary or str(error)).split())[:300].rstrip(".?")
            if isinstance(error, psycopg.ProgrammingError) and not self._is_open:
                raise ConfigError(
                    f"the data base {self.where} cannot store events: {reason}. Correct the URL, the tables or "
                    "the rights of the user."
                ) from None
            raise StoreError(
                f"the store of events {self.where} cannot be read or written: {reason}. Start or repair the data "
                "base, or correct its URL, then send the events again."
            ) from None


def _options(url: str) -> dict[str, Any]:
    """Return the options of a connection. Raises: ConfigError, without the URL, which can have a password."""
    with contextlib.suppress(psycopg.Error, ValueError):
        options = conninfo_to_dict(url)
        # An @ or / in a password that is not escaped makes a part of the password the host or the name.
        if not any("@" in str(options.get(key, "")).removeprefix("@") for key in ("host", "port", "dbname")):
            return _LIVENESS | options | {"client_encoding": "UTF8"}
    raise ConfigError(
        "the URL of the data base for events is malformed. Write postgresql://USER@HOST:PORT/DATABASE, with %40 "
        "for @ and %2F for / in a password."
    )
