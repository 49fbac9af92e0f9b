"""Signs of life: each process of a launch sends heartbeats, and watches for processes that fall silent."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sasrec.runtime.connection import SILENT, connected

if TYPE_CHECKING:
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

FAILED = "failed"
"""The key for the sentence that says which process failed first, and why."""
_PULSE = 0.5  # seconds between two heartbeats
_NOTICE = 2.0  # seconds for the main thread to end by itself, once another process has failed


@contextmanager
def alive(number: int, size: int, prefix: str) -> Iterator[None]:
    """Send heartbeats of this process to the key-value store, and watch the others, until the block ends.

    Rank 0 watches all others, which watch rank 0 and what it writes under FAILED. If another process failed and
    the main thread does not notice, the thread ends the whole process: no exception can reach a main thread that
    waits in a sum of gloo or NCCL, and NCCL would abort the process later without naming a rank.

    `number`: the rank of this process. `size`: the number of processes. `prefix`: of the keys of this attempt.
    """
    ended = threading.Event()

    def beat() -> None:
        with suppress(RuntimeError):  # the store has vanished; the main thread will raise the error
            # A connection of its own, because a waiting main thread blocks the other one.
            store, heard, count = connected(prefix), _Heard(number, range(size) if number == 0 else [0]), 0
            store.set(f"beat/{number}", "0")
            while not ended.wait(_PULSE):
                store.set(f"beat/{number}", str(count := count + 1))
                if not store.check([FAILED]) and (sentence := heard.silent(store)):
                    store.compare_set(FAILED, "", sentence)
                if store.check([FAILED]) and not ended.wait(_NOTICE):
                    _end(store.get(FAILED).decode())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=1)


class _Heard:
    """The newest heartbeat of each watched process, and when it came."""

    def __init__(self, number: int, watched: Iterable[int]) -> None:
        began = time.monotonic()
        self._number = number
        self._newest = {each: (b"", began) for each in watched if each != number}

    def silent(self, store: PrefixStore) -> str:
        """Listen once; return a sentence that names a process without heartbeats for SILENT seconds, or ""."""
        for each, (newest, since) in self._newest.items():
            pulse = store.get(f"beat/{each}") if store.check([f"beat/{each}"]) else b""
            if pulse != newest:
                self._newest[each] = (pulse, time.monotonic())
            elif time.monotonic() - since > SILENT:
                if not newest:
                    return (
                        f"rank {each} did not connect within {SILENT:.0f} s. Check its output, then start again."
                    )
                return (
                    f"rank {each} sent no heartbeat for {SILENT:.0f} s, {_step(store, each)}; rank {self._number} "
                    f"is {_step(store, self._number)}. Check the output of rank {each}, then resume the run or "
                    "start again."
                )
        return ""


def _step(store: PrefixStore, number: int) -> str:
    return (
        f"at step {store.get(f'step/{number}').decode()}" if store.check([f"step/{number}"]) else "before a step"
    )


def _end(sentence: str) -> None:
    """Print why, and end the process at once. Every file that a run publishes is whole at any moment."""
    sys.stdout.flush()
    sys.stderr.write(f"error: {sentence}\n")
    sys.stderr.flush()
    os._exit(1)
