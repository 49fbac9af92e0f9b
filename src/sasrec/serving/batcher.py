"""Collect requests that arrive together, for one pass of a model, and refuse more than it can bear.

While the worker computes, requests wait; when it is free, it takes what waits. A lone request does not wait. Calls
with many requests are answered a few at a time, so that they do not keep the others waiting.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sasrec.errors import SasrecError
from sasrec.serving.engine import Ask, Engine, Listed

HEAVY = 16
"""The weight of reasons, for which a model reads a history once without each of its events. A list weighs 1."""
_PASS, _TURN = 64, 16  # the most weight of a pass, and of one call before the next call has its turn
_MOST_CALLS = 4_096  # that wait
_MEMORY = 0.9  # of the moving average of the seconds of a pass
T = TypeVar("T")


def _never() -> bool:
    return False


class GoneError(Exception):
    """Nobody waits for the answer, so it was not computed."""


class OverloadedError(Exception):
    """More requests wait than can be answered in time."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long a new request would wait."""
        super().__init__(f"a request would wait for {seconds:.1f} s")
        self.retry_after = max(1, math.ceil(seconds))


@dataclass(frozen=True, eq=False)
class _Job:
    work: Callable[[Engine], Any]
    """Prepares an `Ask`, or is the whole work of a call that runs alone."""
    weight: int
    done: asyncio.Future[Any]


@dataclass(eq=False)
class _Call:
    jobs: deque[_Job]
    alone: bool
    is_gone: Callable[[], bool]
    arrived: float
    begun: bool = False

    def refuse(self, error: Exception) -> None:
        """Answer all jobs that have not begun with an error."""
        for job in self.jobs:
            if not job.done.done():
                job.done.set_exception(error)

    def next_jobs(self, most: int) -> list[_Job]:
        """Remove and return jobs of at most this weight, at least one; not those that were cancelled."""
        jobs: list[_Job] = []
        while self.jobs and (not jobs or _weight(jobs) + self.jobs[0].weight <= most):
            job = self.jobs.popleft()
            if not job.done.done():
                jobs.append(job)
        return jobs

    def turn(self) -> int:
        """Return the weight for which the call keeps the next one waiting; a whole pass if it runs alone."""
        return _PASS if self.alone else min(_TURN, _weight(self.jobs))


class Batcher:
    """The worker thread of one model, and the requests that wait for it. To be used in one event loop."""

    def __init__(self, engine: Engine, *, wait: float, seen: Callable[[int, float], None]) -> None:
        """`wait`: the longest that a request may wait, in seconds; a request that would wait longer is refused.

        `seen`: called after each pass with its number of requests and its seconds.
        """
        self.engine = engine
        """The model of the next pass; assign another one to replace it."""
        self._wait, self._seen = wait, seen
        self._calls: deque[_Call] = deque()
        self._ahead = 0  # the turns of all calls that wait
        self._worker = ThreadPoolExecutor(1, f"sasrec {engine.name}")
        self._is_busy = False  # a pass runs or is about to begin
        self._seconds = 0.0  # that a pass took lately
        self._since: float | None = None  # when the present pass began

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(len(call.jobs) for call in self._calls)

    def expected_wait(self) -> float:
        """How long a new request would wait, in seconds, if passes take as long as lately.

        Passes with few requests are short, so this is too hopeful when a burst begins. Requests of the burst that
        then wait too long are refused when their turn comes.
        """
        rest = 0.0 if self._since is None else max(0.0, self._seconds - (time.monotonic() - self._since))
        return rest + self._ahead // _PASS * self._seconds

    async def ask(
        self,
        prepare: Sequence[Callable[[Engine], Ask]],
        weights: Sequence[int] | None = None,
        is_gone: Callable[[], bool] = _never,
        arrived: float | None = None,
    ) -> list[Listed | SasrecError]:
        """Answer requests; `prepare` makes each in the worker thread, and may raise a SasrecError.

        `weights`: 1 or `HEAVY`. `is_gone`: whether nobody waits for the answer any more. `arrived`: when the wait
        began, by the monotonic clock; None is now.

        Raises: OverloadedError if they would wait too long. Remedy: ask again later. GoneError.
        """
        self.refuse_overload()
        loop = asyncio.get_running_loop()
        weighed = zip(prepare, weights or [1] * len(prepare), strict=True)
        jobs = [_Job(work, weight, loop.create_future()) for work, weight in weighed]
        self._enqueue(_Call(deque(jobs), False, is_gone, arrived or time.monotonic()))
        if len(jobs) == 1:  # without `gather`, which waits for one more turn of the loop
            try:
                return [await jobs[0].done]
            except SasrecError as error:
                return [error]
        found = await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)
        answers: list[Listed | SasrecError] = []
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, SasrecError):
                raise each
            answers.append(each)
        return answers

    async def run(
        self, work: Callable[[Engine], T], *, urgent: bool = False, is_gone: Callable[[], bool] = _never
    ) -> T:
        """Run other work with the model in the worker thread, alone. `urgent`: before all that waits.

        Raises: OverloadedError unless it is urgent; GoneError; what `work` raises.
        """
        if not urgent:
            self.refuse_overload()
        job = _Job(work, 1, asyncio.get_running_loop().create_future())
        self._enqueue(_Call(deque([job]), True, is_gone, time.monotonic(), begun=urgent), first=urgent)
        result: T = await job.done
        return result

    def close(self) -> None:
        """End the worker thread after its present pass."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def refuse_overload(self) -> None:
        """Raise OverloadedError if a new request would wait too long. Remedy: ask again later."""
        if (expected := self.expected_wait()) > self._wait or len(self._calls) >= _MOST_CALLS:
            raise OverloadedError(expected)

    def _enqueue(self, call: _Call, *, first: bool = False) -> None:
        self._ahead += call.turn()
        if first:
            self._calls.appendleft(call)
        else:
            self._calls.append(call)
        if not self._is_busy:
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self._begin)  # after all requests that have arrived by now

    def _next(self) -> tuple[list[_Job], bool]:
        """Return the jobs of the next pass, and whether it is of one that runs alone."""
        taken: list[_Job] = []
        while self._calls and _weight(taken) < _PASS and not (taken and self._calls[0].alone):
            call = self._calls.popleft()
            self._ahead -= call.turn()
            waited = time.monotonic() - call.arrived
            if call.is_gone():
                call.refuse(GoneError())
                continue
            if not call.begun and waited > self._wait:
                call.refuse(OverloadedError(waited))
                continue
            call.begun = True
            taken += call.next_jobs(min(_TURN, _PASS - _weight(taken)))
            if call.jobs:
                self._enqueue(call)
            if call.alone and taken:
                return taken, True
        return taken, False

    def _begin(self) -> None:
        """Begin a pass with what waits."""
        jobs: list[_Job] = []
        alone = False
        while self._calls and not jobs:
            jobs, alone = self._next()
        self._is_busy = bool(jobs)
        if not jobs:
            return
        began = self._since = time.monotonic()
        work = partial(_alone if alone else _answers, self.engine, jobs)
        loop = asyncio.get_running_loop()

        def ended(done: Future[list[Any]]) -> None:
            with suppress(RuntimeError):  # the loop was closed at the end of the server
                loop.call_soon_threadsafe(self._end, jobs, done, time.monotonic() - began)

        # A task that awaits the worker would need two more turns of the loop, which under load take long.
        self._worker.submit(work).add_done_callback(ended)

    def _end(self, jobs: Sequence[_Job], done: Future[list[Any]], took: float) -> None:
        """Answer the requests of a pass, after the next one has begun."""
        self._since = None
        self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * took if self._seconds else took
        self._seen(len(jobs), took)
        self._begin()
        try:
            answers = done.result()
        except Exception as error:
            answers = [error] * len(jobs)
        for job, answer in zip(jobs, answers, strict=True):
            if job.done.done():
                continue
            if isinstance(answer, Exception):
                job.done.set_exception(answer)
            else:
                job.done.set_result(answer)


def _weight(jobs: Iterable[_Job]) -> int:
    return sum(job.weight for job in jobs)


def _alone(engine: Engine, jobs: Sequence[_Job]) -> list[Any]:
    return [jobs[0].work(engine)]


def _answers(engine: Engine, jobs: Sequence[_Job]) -> list[Listed | Exception]:
    """Prepare and answer requests. One that cannot be prepared does not disturb the others."""
    answers: list[Listed | Exception] = []
    asks: list[Ask] = []
    places: list[int] = []
    for place, job in enumerate(jobs):
        try:
            asks.append(job.work(engine))
            places.append(place)
            answers.append(SasrecError())  # replaced below
        except SasrecError as error:
            answers.append(error)
    for place, answer in zip(places, engine.answer(asks) if asks else [], strict=True):
        answers[place] = answer
    return answers
