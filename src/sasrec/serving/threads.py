"""A few threads for work that needs no model, such as calls of the store of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sasrec.serving.batcher import OverloadedError

T = TypeVar("T")


class Threads:
    """Threads, and a bound on the work that waits for them. To be used in one event loop."""

    def __init__(self, name: str, count: int, most: int) -> None:
        """`most`: how much work may run and wait; more is refused."""
        self._threads, self._most, self._present = ThreadPoolExecutor(count, name), most, 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run work in a thread. Raises: OverloadedError if too much waits; what `work` raises."""
        if self._present >= self._most:
            raise OverloadedError(1.0)
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._present += 1
        future.add_done_callback(self._finished)
        return await future

    def close(self) -> None:
        """End the threads after their present work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _finished(self, _: asyncio.Future[T]) -> None:
        self._present -= 1
