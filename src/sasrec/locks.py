"""One writer a folder: runs, data sets and exports are claimed before anything is written into them.

A claimed folder has the file `.sasrec.lock`, which marks it as one of ours and is locked while somebody writes;
`.sasrec.writer` then says who and since when. The system releases the lock of a process that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sasrec.errors import FolderError, SasrecWarning
from sasrec.files import write_whole

_LOCK, _WRITER = ".sasrec.lock", ".sasrec.writer"
_WAIT = 600.0  # seconds
OWN_FILES = frozenset({_LOCK, _WRITER})
_held: dict[Path, tuple[int, int]] = {}
"""Folder that this process writes into -> the thread that does, and the inode of its lock."""


class BusyError(FolderError):
    """Another process writes into the folder now."""


@contextlib.contextmanager
def only_writer(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder, which is made if it is missing, for one writer. `doing`: what is being done, for the others.

    A thread that holds the folder already holds it on. A new folder that stays empty is removed again.

    Raises: FolderError if somebody else writes into the folder, or it cannot be made. Remedy: wait, or name
    another folder.
    """
    place = Path(os.path.realpath(folder))
    if place in _held and _held[place][0] == threading.get_ident():
        yield
        return
    new = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / _LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(_busy(folder)) from None
    except NotImplementedError:
        warnings.warn(
            f"the file system of {folder} has no locks, so nothing stops a second writer",
            SasrecWarning,
            stacklevel=3,
        )
        yield
        return
    except OSError as error:
        raise FolderError(
            f"the folder {folder} cannot be written: {error.filename or place / _LOCK}: {error.strerror}. Fix its "
            "permissions, or name another folder."
        ) from None
    _held[place] = (threading.get_ident(), (place / _LOCK).stat().st_ino)
    try:
        _sign(place, doing)
        yield
    finally:
        ours = _is_same(place)
        del _held[place]
        with contextlib.suppress(OSError):
            if ours:
                (place / _WRITER).unlink(missing_ok=True)
            if ours and new and {each.name for each in place.iterdir()} <= OWN_FILES:
                (place / _LOCK).unlink()
                place.rmdir()
        lock.release()


@contextlib.contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder like `only_writer`, but wait for another process, for work that takes it seconds.

    Raises: FolderError after ten minutes, or if the folder cannot be made.
    """
    deadline = time.monotonic() + _WAIT
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(only_writer(folder, doing))
                break
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield


def refuse_busy(folder: Path) -> None:
    """Raise BusyError if somebody writes into a folder now. Remedy: wait, or name another folder."""
    if writer_of(folder):
        raise BusyError(_busy(folder))


def refuse_lost(folder: Path) -> None:
    """Check before a write that a folder which this process holds is still the same one.

    Raises: FolderError if it was deleted, moved or replaced. Remedy: leave the folder where it is.
    """
    place = Path(os.path.realpath(folder))
    if place in _held and not _is_same(place):
        raise FolderError(
            f"{folder} was deleted, moved or replaced while it was written into, so nothing more is written "
            "there. Start again, and leave the folder where it is."
        )


def _is_same(place: Path) -> bool:
    """Whether the lock in a folder is still the one that this process holds."""
    try:
        return (place / _LOCK).stat().st_ino == _held[place][1]
    except OSError:
        return False


def is_claimed(folder: Path) -> bool:
    """Whether a folder was made by us, or is new or empty."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return True
    return not names or _LOCK in names


def writer_of(folder: Path) -> str:
    """Return who writes into a folder now, and since when, as text; "" if nobody does.

    A process of another machine that was killed still counts.
    """
    try:
        writer = json.loads((folder / _WRITER).read_text(encoding="utf-8"))
        if writer["host"] == socket.gethostname():
            os.kill(int(writer["process"]), 0)
        return f"{writer['doing']} on {writer['host']} since {writer['since']}"
    except PermissionError:  # a process of another user
        return "another user's process"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""


def _sign(place: Path, doing: str) -> None:
    """Write down who holds a folder. Without it, only the message to a second writer says less."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with contextlib.suppress(OSError):
        content = {"doing": doing, "since": since, "process": os.getpid(), "host": socket.gethostname()}
        write_whole(place / _WRITER, json.dumps(content))


def _busy(folder: Path) -> str:
    try:
        writer = json.loads((folder / _WRITER).read_text(encoding="utf-8"))
        who = (
            f"process {writer['process']} on {writer['host']} writes into it since {writer['since']} "
            f"({writer['doing']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process writes into it"
    return f"{folder} is in use: {who}. Wait until it ends, or name another folder."
