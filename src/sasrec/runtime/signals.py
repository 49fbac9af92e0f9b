"""SIGINT (Ctrl-C) and SIGTERM at a moment that suits: after a step, never in the middle of a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGTERM = signal.SIGTERM

_arrived = 0  # a process has one set of signal handlers, so there is one of this too


class InterruptedWorkError(Exception):
    """Work was left because a signal is pending somewhere; who catches it saves, then calls `raise_for`."""


@contextmanager
def deferred_interrupt(*, second_quits: bool) -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM is noted, for `pending` to tell.

    A second signal raises at once, as `raise_for` does, if `second_quits`; one that nobody asked about raises at
    the end of the block. Outside the main thread, where Python delivers no signals, nothing changes.
    """
    global _arrived
    _arrived = 0

    def note(signum: int, frame: FrameType | None) -> None:
        global _arrived
        if _arrived and second_quits:
            raise_for(signum)
        _arrived = signum

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
        arrived, _arrived = _arrived, 0
    if arrived:
        raise_for(arrived)


def pending() -> int:
    """The signal that was noted, 0 for none."""
    return _arrived


def raise_for(signum: int) -> NoReturn:
    """KeyboardInterrupt for SIGINT, SystemExit with 143 for SIGTERM, as shells report them."""
    if signum == signal.SIGTERM:
        raise SystemExit(128 + signum)
    raise KeyboardInterrupt
