"""SIGINT (Ctrl-C) and SIGTERM at a moment that suits: after a step, never in the middle of a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sasrec.training.distributed import launched


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], int]]:
    """Within the block the first SIGINT or SIGTERM is noted; the function yielded tells which came, 0 for none.

    A second signal raises at once, as `raise_for` does, unless torchrun is there: it passes on what the terminal
    has sent already. Outside the main thread, where Python delivers no signals, nothing changes.
    """
    arrived = 0

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal arrived
        if arrived and not launched():
            raise_for(signum)
        arrived = signum

    if threading.current_thread() is not threading.main_thread():
        yield lambda: arrived
        return
    previous = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: arrived
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def raise_for(signum: int) -> None:
    """KeyboardInterrupt for SIGINT, SystemExit with 143 for SIGTERM, as shells report them."""
    if signum == signal.SIGTERM:
        raise SystemExit(128 + signum)
    raise KeyboardInterrupt
