"""Collect requests that arrive together, for one pass of a model, and refuse more than it can bear.

While the worker computes, requests wait; when it is free, it takes all that wait. A lone request does not wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from sasrec.errors import SasrecError
from sasrec.serving.engine import Ask, Engine, Listed

_MOST = 64  # requests of one pass
_MEMORY = 0.9  # of the moving average of the seconds that one request takes
T = TypeVar("T")


class OverloadedError(Exception):
    """More requests wait than can be answered in time."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long a new request would wait."""
        super().__init__(f"a request would wait for {seconds:.1f} s")
        self.retry_after = max(1, math.ceil(seconds))


@dataclass(frozen=True, eq=False)
class _Job:
    prepare: Callable[[Engine], Ask]
    done: asyncio.Future[Listed]


class Batcher:
    """The worker thread of one model, and the requests that wait for it. To be used in one event loop."""

    def __init__(self, engine: Engine, *, wait: float, seen: Callable[[int, float], None]) -> None:
        """`wait`: the longest that a request may wait, in seconds; a request that would wait longer is refused.

        `seen`: called after each pass with its number of requests and its seconds.
        """
        self.engine = engine
        """The model of the next pass; assign another one to replace it."""
        self._wait, self._seen = wait, seen
        self._jobs: deque[_Job] = deque()
        self._worker = ThreadPoolExecutor(1, f"sasrec {engine.name}")
        self._task: asyncio.Task[None] | None = None
        self._running = 0
        self._seconds = 0.0  # that one request took lately
        self._since = 0.0  # when the present pass began

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._jobs)

    def expected_wait(self) -> float:
        """How long a new request would wait, in seconds, from what requests took lately."""
        rest = max(0.0, self._running * self._seconds - (time.monotonic() - self._since)) if self._running else 0.0
        return rest + len(self._jobs) * self._seconds

    async def ask(self, prepare: Sequence[Callable[[Engine], Ask]]) -> list[Listed | SasrecError]:
        """Answer requests; `prepare` makes each in the worker thread, and may raise a SasrecError.

        Raises: OverloadedError if they would wait too long. Remedy: ask again later.
        """
        if (expected := self.expected_wait()) > self._wait:
            raise OverloadedError(expected)
        loop = asyncio.get_running_loop()
        jobs = [_Job(each, loop.create_future()) for each in prepare]
        self._jobs += jobs
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work())
        found = await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)
        answers: list[Listed | SasrecError] = []
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, SasrecError):
                raise each
            answers.append(each)
        return answers

    async def run(self, work: Callable[[Engine], T]) -> T:
        """Run other work with the model in the worker thread. Raises: OverloadedError, and what `work` raises."""
        if (expected := self.expected_wait()) > self._wait:
            raise OverloadedError(expected)
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, self.engine)

    def close(self) -> None:
        """End the worker thread after its present pass."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._jobs:
            taken = [self._jobs.popleft() for _ in range(min(_MOST, len(self._jobs)))]
            jobs = [job for job in taken if not job.done.done()]  # the others were given up by their client
            self._running, self._since = len(jobs), time.monotonic()
            try:
                answers = await loop.run_in_executor(self._worker, _answers, self.engine, jobs)
            except Exception as error:
                answers = [error] * len(jobs)
            took = time.monotonic() - self._since
            self._running = 0
            if jobs:
                each = took / len(jobs)
                self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * each if self._seconds else each
                self._seen(len(jobs), took)
            for job, answer in zip(jobs, answers, strict=True):
                if job.done.done():
                    continue
                if isinstance(answer, Exception):
                    job.done.set_exception(answer)
                else:
                    job.done.set_result(answer)


def _answers(engine: Engine, jobs: Sequence[_Job]) -> list[Listed | Exception]:
    """Prepare and answer requests. One that cannot be prepared does not disturb the others."""
    answers: list[Listed | Exception] = []
    asks: list[Ask] = []
    places: list[int] = []
    for place, job in enumerate(jobs):
        try:
            asks.append(job.prepare(engine))
            places.append(place)
            answers.append(SasrecError())  # replaced below
        except SasrecError as error:
            answers.append(error)
    for place, answer in zip(places, engine.answer(asks) if asks else [], strict=True):
        answers[place] = answer
    return answers
