"""Requests share passes, no call keeps the others waiting, and what cannot be answered in time is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from sasrec.errors import DataError
from sasrec.serving.batcher import HEAVY, Batcher, GoneError, OverloadedError
from sasrec.serving.threads import Threads

WAIT = 0.5


class Model:
    """An engine whose passes wait for `free`, and which notes what each pass answers."""

    name = "model"

    def __init__(self) -> None:
        self.free, self.passes = threading.Event(), list[Any]()
        self.free.set()
        self.seconds = 0.0

    def answer(self, asks: list[Any]) -> list[Any]:
        self.free.wait(10)
        time.sleep(self.seconds)
        self.passes.append(list(asks))
        return list(asks)


def asks(*names: Any) -> list[Callable[[Any], Any]]:
    return [lambda _, name=name: name for name in names]


def run(work: Callable[[Batcher, Model], Coroutine[Any, Any, None]], wait: float = WAIT) -> None:
    """Run a test in an event loop, with a batcher of a new `Model`."""

    async def begin() -> None:
        model: Any = Model()
        batcher = Batcher(model, wait=wait, seen=lambda *_: None)
        try:
            await work(batcher, model)
        finally:
            model.free.set()
            batcher.close()

    asyncio.run(begin())


async def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start work as a task, and let it reach the worker thread."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.02)
    return task


def test_what_waits_shares_the_next_pass() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = await begun(batcher.ask(asks(0)))
        others = [await begun(batcher.ask(asks(n, -n))) for n in range(1, 5)]
        assert batcher.waiting == 8
        model.free.set()
        assert await first == [0]
        assert [await each for each in others] == [[n, -n] for n in range(1, 5)]
        assert model.passes == [[0], [1, -1, 2, -2, 3, -3, 4, -4]]
        assert batcher.waiting == 0

    run(work)


def test_a_call_with_many_requests_does_not_keep_the_next_one_waiting() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = await begun(batcher.ask(asks("first")))
        many = await begun(batcher.ask(asks(*range(256))))
        few = await begun(batcher.ask(asks("few")))
        model.free.set()
        assert await many == list(range(256))
        await asyncio.gather(first, few)
        assert "few" in model.passes[1]
        assert max(map(len, model.passes)) <= 64

    run(work)


def test_requests_with_reasons_have_small_passes() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        await batcher.ask(asks(*range(12)), [HEAVY] * 12)
        assert max(map(len, model.passes)) <= 64 / HEAVY

    run(work)


def test_one_wrong_request_does_not_disturb_the_others() -> None:
    async def work(batcher: Batcher, _: Model) -> None:
        def wrong(_: Any) -> Any:
            raise DataError("wrong")

        found = await batcher.ask([*asks(1), wrong, *asks(2)])
        assert (found[0], str(found[1]), found[2]) == (1, "wrong", 2)

    run(work)


def test_a_fault_of_a_pass_is_that_of_its_requests_and_the_next_pass_works() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.answer, right = lambda _: 1 / 0, model.answer  # type: ignore[assignment, method-assign, return-value]
        with pytest.raises(ZeroDivisionError):
            await batcher.ask(asks(1))
        model.answer = right  # type: ignore[method-assign]
        assert await batcher.ask(asks(2)) == [2]

    run(work)


def test_requests_of_clients_that_have_gone_are_not_computed() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = await begun(batcher.ask(asks("first")))
        gone: list[bool] = []
        others = [
            await begun(batcher.ask(asks("gone", "gone"), is_gone=lambda: bool(gone))),
            await begun(batcher.run(lambda _: model.passes.append("gone"), is_gone=lambda: bool(gone))),
        ]
        cancelled = await begun(batcher.ask(asks("cancelled")))
        last = await begun(batcher.ask(asks("last")))
        gone.append(True)
        cancelled.cancel()
        model.free.set()
        assert [type(each) for each in await asyncio.gather(*others, return_exceptions=True)] == [GoneError] * 2
        await asyncio.gather(first, last)
        assert model.passes == [["first"], ["last"]]

    run(work)


def test_a_request_that_has_waited_too_long_is_refused_and_not_computed() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = await begun(batcher.ask(asks("first")))
        late = await begun(batcher.ask(asks("late")))
        await asyncio.sleep(0.2)
        model.free.set()
        with pytest.raises(OverloadedError) as refused:
            await late
        assert refused.value.retry_after >= 1
        assert await first == ["first"]
        assert model.passes == [["first"]]

    run(work, wait=0.1)


def test_requests_that_would_wait_too_long_are_refused_at_once_and_accepted_later() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.seconds = 0.06
        await batcher.ask(asks(0))
        found: dict[str, int] = {"answered": 0, "refused": 0}
        slowest = 0.0

        async def one() -> None:
            nonlocal slowest
            started = time.monotonic()
            try:
                await batcher.ask(asks(*range(16)))
                found["answered"] += 1
                slowest = max(slowest, time.monotonic() - started)
            except OverloadedError:
                found["refused"] += 1

        await asyncio.gather(*(one() for _ in range(100)))
        assert found["answered"] >= 8
        assert found["refused"] >= 60
        assert slowest < 2 * 0.2 + 0.1
        assert await batcher.ask(asks("later")) == ["later"]

    run(work, wait=0.2)


def test_other_work_waits_in_the_same_queue_and_runs_alone() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = await begun(batcher.ask(asks("first")))
        other = await begun(batcher.run(lambda engine: engine.passes.append("other")))
        last = await begun(batcher.ask(asks("last")))
        urgent = await begun(batcher.run(lambda engine: engine.passes.append("urgent"), urgent=True))
        model.free.set()
        await asyncio.gather(first, other, last, urgent)
        assert model.passes == [["first"], "urgent", "other", ["last"]]

    run(work)


def test_more_calls_than_can_wait_are_refused_before_anything_is_measured() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        calls = [asyncio.ensure_future(batcher.ask(asks(n))) for n in range(5_000)]
        await asyncio.sleep(0.05)
        refused = [each for each in calls if each.done()]
        assert len(refused) >= 900
        assert {type(each.exception()) for each in refused} == {OverloadedError}
        for each in calls:
            each.cancel()

    run(work)


def test_a_replaced_model_answers_from_the_next_pass_on() -> None:
    async def work(batcher: Batcher, model: Model) -> None:
        model.free.clear()
        first = await begun(batcher.ask(asks(1)))
        second = await begun(batcher.ask(asks(2)))
        other: Any = SimpleNamespace(name="other", answer=lambda asks: [f"other {each}" for each in asks])
        batcher.engine = other
        model.free.set()
        assert (await first, await second) == ([1], ["other 2"])

    run(work)


def test_threads_refuse_more_work_than_may_wait() -> None:
    async def work() -> None:
        threads, free = Threads("test", 1, 3), threading.Event()
        running = [await begun(threads.run(lambda: free.wait(10))) for _ in range(3)]
        with pytest.raises(OverloadedError):
            await threads.run(lambda: None)
        free.set()
        assert await asyncio.gather(*running) == [True, True, True]
        assert await threads.run(lambda: 5) == 5
        threads.close()

    asyncio.run(work())
