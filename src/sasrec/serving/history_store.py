"""The events that a server has received: durable, in order, each stored once.

All writes of a process pass one thread, which stores what waits in one transaction (group commit), so many callers
share one wait for the disk. A call returns after the commit, so an acknowledged event survives a crash.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sasrec.data.items import id_text
from sasrec.errors import ConfigError, DataError, StoreError
from sasrec.serving.event_tables import Row, Tables

_MOST_EVENTS = 10_000  # of a transaction: a reader of SQLite, or another server, must not wait for seconds
_PATIENCE = 30.0  # seconds for a write, however long the disk or the server takes
_LARGEST_TIME = 1e11  # seconds; the year 5138, and in milliseconds 1973
# The characters that a text of PostgreSQL or of UTF-8 cannot have, and the one that marks them.
_UNSTORABLE = re.compile("[\0\x1b\ud800-\udfff]")
_MARKED = re.compile("\x1b(....)")
T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """An interaction of a user with an item."""

    user: str
    item: str
    time: float | None = None
    """Seconds since 1970 UTC; None: the moment at which the store receives the event."""
    id: str | None = None
    """The client's own id of the event. A second event of the user with this id is not stored."""


@dataclass(frozen=True)
class Stored:
    """What became of the events of a call."""

    stored: int
    repeated: int
    """How many had an id that the store had for the user before."""


@dataclass(frozen=True)
class _Append:
    rows: Sequence[Row]
    done: Future[int]


@dataclass(frozen=True)
class _Forget:
    user_key: bytes
    done: Future[bool]


class HistoryStore:
    """The durable events of users. Methods may be called from any thread; they block."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._waiting: deque[_Append | _Forget] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._writer = threading.Thread(target=self._write, name="sasrec events", daemon=True)
        self._writer.start()

    @property
    def where(self) -> str:
        """The file, or the URL without user and password, for messages."""
        return self._tables.where

    def append(self, events: Sequence[Event]) -> Stored:
        """Store events, all or none; return after the commit.

        If the call fails, send the events again with the same ids: those that are stored already
        count as repeated.

        Raises: DataError if a time is not a number of seconds. Remedy: correct it. StoreError if the store cannot
        be written now. Remedy: see the message; then send the events again.
        """
        now = time.time()
        rows = [_row(place, event, now) for place, event in enumerate(events, start=1)]
        if not rows:
            return Stored(0, 0)
        done: Future[int] = Future()
        self._enqueue(_Append(rows, done))
        stored = self._result(done)
        return Stored(stored, len(rows) - stored)

    def history(self, user: str) -> list[tuple[str, float]]:
        """Return (item, time) of the stored events of a user, in order of time, then arrival.

        Raises: StoreError if the store cannot be read now. Remedy: see the message.
        """
        self._refuse_closed()
        found = self._tables.history(_key(id_text(user)))
        return [(_decoded(item), moment) for item, moment in found]

    def forget(self, user: str) -> bool:
        """Delete the events of a user, and mark the user, so the events of the run are not used either.

        Returns whether anything changed. The mark is a hash of the id. Later events are stored again, but the mark
        stays; the ids of deleted events are not remembered.

        Raises: StoreError if the store cannot be written now. Remedy: see the message.
        """
        done: Future[bool] = Future()
        self._enqueue(_Forget(_key(id_text(user)), done))
        return self._result(done)

    def is_forgotten(self, user: str) -> bool:
        """Whether `forget` was called for a user, ever. Raises: StoreError, as `history`."""
        self._refuse_closed()
        return self._tables.is_forgotten(_key(id_text(user)))

    def close(self) -> None:
        """Store what waits, then close the store. Later calls raise StoreError."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._writer.join()
        self._tables.close()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise StoreError(f"the store of events {self.where} is closed. Open it again.")

    def _enqueue(self, job: _Append | _Forget) -> None:
        with self._changed:
            self._refuse_closed()
            self._waiting.append(job)
            self._changed.notify()

    def _result(self, done: Future[T]) -> T:
        try:
            return done.result(_PATIENCE)
        except TimeoutError:
            if done.done():  # at the last moment
                return done.result()
            done.cancel()  # if it has not begun, it never will
            raise StoreError(
                f"the store of events {self.where} has not answered for {_PATIENCE:.0f} seconds. Check its disk "
                "or server, then send the events again with the same ids."
            ) from None

    def _write(self) -> None:
        while jobs := self._next():
            first = jobs[0]
            if isinstance(first, _Forget):
                _fulfil([first.done], partial(self._forgotten, first.user_key))
            else:
                appends = [job for job in jobs if isinstance(job, _Append)]
                rows = [job.rows for job in appends]
                _fulfil([job.done for job in appends], partial(self._tables.append, rows))

    def _forgotten(self, user_key: bytes) -> list[bool]:
        return [self._tables.forget(user_key, time.time())]

    def _next(self) -> list[_Append | _Forget]:
        """Wait for jobs; return the next ones for one transaction, none at the end: appends, or one forget."""
        jobs: list[_Append | _Forget] = []
        events = 0
        with self._changed:
            while not jobs and (self._waiting or not self._is_closed):
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                while self._waiting:
                    job = self._waiting[0]
                    events += len(job.rows) if isinstance(job, _Append) else _MOST_EVENTS
                    if jobs and events > _MOST_EVENTS:
                        break
                    self._waiting.popleft()
                    if job.done.set_running_or_notify_cancel():
                        jobs.append(job)
        return jobs


def open_store(where: str | Path) -> HistoryStore:
    """Open the store of events in an SQLite file, which is made if it is missing, or in PostgreSQL by its URL.

    Several processes may open the same store.

    Raises: ConfigError if `where` is not a store, or psycopg is missing; StoreError if it cannot be reached or
    written. Remedy: see the message.
    """
    text = os.fspath(where)
    if text.startswith(("postgresql://", "postgres://")):
        from sasrec.serving.postgres_tables import PostgresTables

        return HistoryStore(PostgresTables(text))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ConfigError(
            f"events can be stored in an SQLite file or PostgreSQL, not in {text.partition('://')[0]}. Name a "
            "file, or a URL such as postgresql://HOST/DATABASE."
        )
    from sasrec.serving.sqlite_tables import SqliteTables

    return HistoryStore(SqliteTables(Path(where)))


def _fulfil(done: Sequence[Future[T]], work: Callable[[], Sequence[T]]) -> None:
    """Give each future its result, or all of them the error; the writing thread must survive every error."""
    try:
        results = work()
    except BaseException as error:
        for each in done:  # a copy, because each caller's thread adds its traceback
            each.set_exception(StoreError(*error.args) if isinstance(error, StoreError) else error)
        return
    for each, result in zip(done, results, strict=True):
        each.set_result(result)


def _row(place: int, event: Event, now: float) -> Row:
    """Return an event, the `place`-th of its call, as the tables have it. Raises: DataError for its time."""
    user, item = id_text(event.user), id_text(event.item)
    # An event without an id gets a key of its own, so the store can repeat a write whose answer was lost.
    key = os.urandom(16) if event.id is None else _key(str(event.id))
    return (
        _encoded(user),
        _encoded(item),
        now if event.time is None else _seconds(place, event.time),
        _key(user),
        key,
    )


def _seconds(place: int, given: object) -> float:
    try:
        seconds = float(given)  # type: ignore[arg-type]
    except OverflowError:
        seconds = math.inf
    except (TypeError, ValueError):
        seconds = math.nan
    if not abs(seconds) < _LARGEST_TIME:  # also NaN
        # Texts of the caller are not repeated: messages reach logs.
        shown = f"{seconds:g}" if isinstance(given, int | float) else f"a {type(given).__name__}"
        verb = "looks like milliseconds" if _LARGEST_TIME <= abs(seconds) < 1e14 else "is not such a number"
        raise DataError(
            f"times of events must be seconds since 1970, below 1e11; that of event {place} is {shown}, "
            f"which {verb}. Correct it, or omit it for the present moment."
        )
    return seconds


def _key(text: str) -> bytes:
    """Return a hash of an id: indexes have a limit on length, which ids do not."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _encoded(text: str) -> str:
    """Return an id with the characters marked that a table cannot store, almost always the id itself."""
    if text.isprintable():
        return text
    return _UNSTORABLE.sub(lambda found: f"\x1b{ord(found[0]):04x}", text)


def _decoded(text: str) -> str:
    return text if text.isprintable() else _MARKED.sub(lambda found: chr(int(found[1], 16)), text)
