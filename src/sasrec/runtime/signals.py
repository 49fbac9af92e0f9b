"""Delay SIGINT (Ctrl-C), SIGTERM and what schedulers send until the current step or save is finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGTERM = signal.SIGTERM
# A closed terminal, and the warnings of Slurm (--signal) before a job ends. By default they end a process at once.
_WARNINGS = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]

_arrived = 0  # the delayed signal, 0 for none; global, because signal handlers belong to the whole process


class InterruptedWorkError(Exception):
    """Work stopped early because a signal arrived on this or another rank.

    The code that catches this error saves its own state, then calls `raise_for`, which raises KeyboardInterrupt or
    SystemExit.
    """


@contextmanager
def deferred_interrupt(*, second_quits: bool) -> Iterator[None]:
    """Delay signals until the block ends; then raise the exception of the last one (`raise_for`).

    These are SIGINT and SIGTERM, and SIGHUP, SIGUSR1 and SIGUSR2 where the caller neither handles nor ignores them
    (nohup ignores SIGHUP). Inside the block, `pending` returns the delayed signal. With `second_quits`, a second
    signal raises at once. Outside the main thread the block changes nothing, because Python runs signal handlers
    only in the main thread.
    """
    global _arrived
    _arrived = 0

    def record(signum: int, frame: FrameType | None) -> None:
        global _arrived
        if _arrived and second_quits:
            raise_for(signum)
        _arrived = signum

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    warned = [signum for signum in _WARNINGS if signal.getsignal(signum) == signal.SIG_DFL]
    previous = {signum: signal.signal(signum, record) for signum in (signal.SIGINT, signal.SIGTERM, *warned)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        arrived, _arrived = _arrived, 0
    # After `finally`: an exception from the block takes precedence over the delayed signal.
    if arrived:
        raise_for(arrived)


@contextmanager
def raised_sigterm() -> Iterator[None]:
    """Raise SystemExit (143) for SIGTERM in the block, which otherwise ends the process before files are removed.

    Outside the main thread, or if the caller handles SIGTERM, the block changes nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda signum, _: raise_for(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pending() -> int:
    """Return the number of the delayed signal, or 0 if no signal is delayed."""
    return _arrived


def raise_for(signum: int) -> NoReturn:
    """Raise KeyboardInterrupt for SIGINT; SystemExit with the usual status for others, such as 143 for SIGTERM."""
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)
