"""The store of events in an SQLite file, in WAL mode: readers never wait for the writer."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from sasrec.errors import ConfigError, StoreError
from sasrec.serving.event_tables import COLUMNS, VERSION, Row

_PATIENCE = 10.0  # seconds for which a call waits while another process writes
_APPLICATION = 0x53415352  # "SASR" in the header of the file
_CREATE = (
    "CREATE TABLE events (number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, item_id TEXT NOT NULL, "
    "time REAL NOT NULL, user_key BLOB NOT NULL, event_key BLOB NOT NULL, UNIQUE (user_key, event_key))",
    "CREATE TABLE forgotten (user_key BLOB PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
_INSERT = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


class SqliteTables:
    """One connection for the writer, and one for each reader at a time."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = os.path.abspath(path)
        if not os.path.isdir(folder := os.path.dirname(self._path)):
            raise StoreError(
                f"the folder {folder} of the store of events does not exist. Make it, or name another."
            )
        self._idle: deque[sqlite3.Connection] = deque()
        self._is_closed = False
        with self._errors():
            self._writer = self._connect()
            try:
                self._prepare()
                self._inode = _inode_of(self._path)
            except BaseException:
                self._writer.close()
                raise

    def append(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Store rows in one transaction; return how many of each batch were new."""
        counts = []
        with self._transaction() as writer:
            for rows in batches:
                before = writer.total_changes
                writer.executemany(_INSERT, rows)
                counts.append(writer.total_changes - before)
        return counts

    def forget(self, user_key: bytes, now: float) -> bool:
        """Delete the rows of a user, and mark the user; return whether anything changed."""
        with self._transaction() as writer:
            before = writer.total_changes
            writer.execute("DELETE FROM events WHERE user_key = ?", (user_key,))
            writer.execute("INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO NOTHING", (user_key, now))
            changed = writer.total_changes > before
        self._empty_log()
        return changed

    def history(self, user_key: bytes) -> list[tuple[str, float]]:
        """Return item_id and time of the rows of a user, in order of time, then arrival."""
        query = "SELECT item_id, time FROM events WHERE user_key = ? ORDER BY time, number"
        with self._reader() as reader:
            return reader.execute(query, (user_key,)).fetchall()

    def is_forgotten(self, user_key: bytes) -> bool:
        """Whether a user is marked."""
        with self._reader() as reader:
            found = reader.execute("SELECT 1 FROM forgotten WHERE user_key = ?", (user_key,)).fetchone()
        return found is not None

    def close(self) -> None:
        """Close the connections; the last one of all processes moves the log into the file."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = FULL")  # WAL alone may lose the last commits with the power
            connection.execute("PRAGMA fullfsync = ON")  # for macOS, whose fsync does not reach the disk
            connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Make the tables if the file is empty. Raises: ConfigError if it is not a store of this version."""
        if self._version() == 0:
            self._writer.execute("BEGIN IMMEDIATE")
            if self._version() == 0:  # else another process was first
                for statement in _CREATE:
                    self._writer.execute(statement)
            self._writer.execute("COMMIT")
        deadline = time.monotonic() + _PATIENCE
        while True:  # SQLite does not wait for locks here
            try:
                self._writer.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
        self._writer.execute("BEGIN IMMEDIATE")  # fails if the file cannot be written
        self._writer.execute("ROLLBACK")

    def _version(self) -> int:
        """Return the version of the tables, 0 for an empty file."""
        application, version, tables = (
            self._writer.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if not (application or version or tables):
            return 0
        if application != _APPLICATION:
            raise ConfigError(f"{self.where} is the SQLite file of another program. Name another file.")
        if version != VERSION:
            raise ConfigError(
                f"{self.where} is a store of events of version {version}, but this sasrec reads version "
                f"{VERSION}. Install the sasrec that wrote it, or name another file."
            )
        return VERSION

    def _empty_log(self) -> None:
        """Move the log into the file, if no reader is in the way: the log has the rows that were deleted."""
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA busy_timeout = 100")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute(f"PRAGMA busy_timeout = {round(_PATIENCE * 1000)}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
        # What was committed into a deleted file is lost with the process, so it must not be acknowledged.
        if _inode_of(self._path) != self._inode:
            raise StoreError(
                f"{self.where} was deleted, moved or replaced while the store of events was open. Put the file "
                f"back, or start again, {_AGAIN}."
            )

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            try:
                reader = self._idle.pop()
            except IndexError:
                reader = self._connect()
            try:
                yield reader
            except BaseException:
                reader.close()
                raise
            self._idle.append(reader)
            if self._is_closed:
                reader.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of SQLite into a sentence with the remedy."""
        try:
            yield
        except (sqlite3.Error, ValueError) as error:  # ValueError: a path with a null byte
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits only say more
            problem, remedy = _SENTENCES.get(code, ("cannot be used", "Check the file and the disk"))
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            raise StoreError(f"the store of events {self.where} {problem}: {error} ({name}). {remedy}.") from None


_AGAIN = "then send the events again"
_PERMISSIONS = "Fix the path and its permissions, or name another file"
_RESTORE = "Move the file away with its -wal and -shm files, or put a copy in its place, and start again"
_SENTENCES = {
    sqlite3.SQLITE_BUSY: ("is locked by another program", f"End that program, {_AGAIN}"),
    sqlite3.SQLITE_LOCKED: ("is locked by another program", f"End that program, {_AGAIN}"),
    sqlite3.SQLITE_FULL: ("cannot be written", f"Free space on the disk, {_AGAIN}"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", f"Check the disk and its free space, {_AGAIN}"),
    sqlite3.SQLITE_READONLY: ("cannot be written", _PERMISSIONS),
    sqlite3.SQLITE_PERM: ("cannot be written", _PERMISSIONS),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", _PERMISSIONS),
    sqlite3.SQLITE_CORRUPT: ("is damaged", _RESTORE),
    sqlite3.SQLITE_NOTADB: ("is not an SQLite file", "Name another file"),
}
"""Error of SQLite -> what is wrong, and the remedy."""


def _inode_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
