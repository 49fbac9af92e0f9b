"""Several processes, one a device, as torchrun starts them: gloo between CPUs, NCCL between GPUs.

    torchrun --nproc_per_node=2 -m sasrec train --dataset ml-1m --train_dir runs/two

Every rank holds the whole model and data; a batch is shared out over the ranks, gradients are summed, and only
rank 0 writes. In one process everything here is a no-op. PyTorch is imported only where processes meet, so that
the command line can ask about the launch without it.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from sasrec.errors import ConfigError, TrainingError
from sasrec.runtime.signals import SIGTERM, pending, raise_for

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

# Longer than any step; shorter than the patience of who waits for a frozen rank.
_TIMEOUT = timedelta(seconds=45)
# Without a pulse, of a rank that others wait for when they are told to stop: it may be dead, and the reason.
_GRACE = timedelta(seconds=3)
_POLL, _PULSE = 0.01, 0.5  # seconds

_store: PrefixStore | None = None
_joins = 0  # how often this process joined the others: each time has keys of its own
_meetings = 0


def world() -> int:
    """How many processes work together."""
    dist = sys.modules.get("torch.distributed")  # before anybody imports it, no processes have met
    if dist is None or not (dist.is_available() and dist.is_initialized()):
        return 1
    return int(dist.get_world_size())


def rank() -> int:
    """The number of this process, from 0, which writes and speaks."""
    if world() == 1:
        return 0
    from torch import distributed as dist

    return dist.get_rank()


def launched() -> bool:
    """Whether torchrun, or something that sets the same variables, started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def under_torchrun() -> bool:
    """Whether torchrun started this process, alone or with others; it passes signals on."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarted() -> bool:
    """Whether torchrun started these processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launch_id() -> str:
    """The same for every process that one torchrun starts on this machine, in all its attempts."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.getppid()}" if under_torchrun() else ""


def device_number() -> int:
    """Which of the accelerators of its machine is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device_type: str) -> Iterator[None]:
    """Within the block the processes that torchrun started work together.

    Raises: TrainingError naming the ranks that did not come, or fell silent for longer than 45 s.
    """
    global _store, _joins, _meetings
    if not launched() or _store is not None:
        yield
        return
    if world() > 1:
        raise ConfigError(
            "torch.distributed is initialised already: leave that to sasrec, which needs its own store"
        )
    from torch import distributed as dist

    _joins, _meetings = _joins + 1, 0
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    try:
        _store = _connected(number, size)
        with _pulse(number):
            dist.init_process_group(backend, store=_store, rank=number, world_size=size, timeout=_TIMEOUT)
            yield
            barrier()  # nobody leaves while another may still be sending
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):  # gloo raises no type of its own
            raise
        raise TrainingError(f"rank {number}: {_silent(number, size)}: {str(error).splitlines()[0]}") from error
    finally:
        gc.collect()  # DistributedDataParallel holds the group, and must be gone before it
        if dist.is_initialized():
            dist.destroy_process_group()
        _store = None


def _connected(number: int, size: int) -> PrefixStore:
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_master = number == 0 and not agent
    store = TCPStore(address, port, size, is_master=is_master, timeout=_TIMEOUT, multi_tenant=True)
    # What an earlier attempt left in the store must not be taken for this one's.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"sasrec/{attempt}/{_joins}", store)


@contextmanager
def _pulse(number: int) -> Iterator[None]:
    """Within the block a thread keeps telling the others that this process runs; frozen or dead, it does not."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    ended = threading.Event()
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = f"sasrec/{attempt}/{_joins}/beat/{number}"

    def beat() -> None:
        with suppress(RuntimeError):  # the store is gone, and this process will hear of it
            # Its own connection: a wait of the main thread keeps that of _store.
            store = TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                None,
                is_master=False,
                timeout=_TIMEOUT,
                wait_for_workers=False,
            )
            count = 0
            while not ended.wait(_PULSE):
                store.set(key, str(count := count + 1))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=1)


def from_main(key: str, make: Callable[[], str]) -> str:
    """What rank 0 makes, on every rank; the others wait, however long it takes, as long as rank 0 has a pulse.

    Raises: what `make` raises, and then TrainingError with its message on the other ranks; TrainingError if rank 0
    is silent for 45 s. When told to stop, a rank that waits for one without a pulse ends as the signal asks.
    """
    if _store is None:
        return make()
    store = _store
    if rank() == 0:
        try:
            made = make()
        except BaseException as error:
            store.set(key, f"!{error}")
            raise
        store.set(key, f"={made}")
        return made
    _wait_for(lambda: [] if store.check([key]) else [0])
    found = str(store.get(key).decode())
    if found[0] == "!":
        raise TrainingError(f"rank 0 failed: {found[1:]}")
    return found[1:]


def progress(step: int) -> None:
    """Leave a mark by which the others can tell who fell silent."""
    if _store is not None:
        _store.set(f"step/{rank()}", str(step))


def told_to_stop() -> bool:
    """Whether a signal is pending, here or, from the time that it is asked there, on another rank."""
    if _store is None:
        return pending() > 0
    if pending():
        _store.set("signal", "")
    return pending() > 0 or bool(_store.check(["signal"]))


def meet() -> None:
    """Until every rank is here, however long its work takes, as long as it has a pulse; else as `from_main`."""
    global _meetings
    if _store is None:
        return
    store, _meetings = _store, _meetings + 1
    store.set(f"met/{_meetings}/{rank()}", "")
    _wait_for(lambda: [each for each in range(world()) if not store.check([f"met/{_meetings}/{each}"])])


def _wait_for(absent: Callable[[], list[int]]) -> None:
    """Until no rank is absent. Not in the store, where a wait hears no signal."""
    assert _store is not None
    heard: dict[int, tuple[bytes, float]] = {}
    while missing := absent():
        now, stopping = time.monotonic(), told_to_stop()
        for each in missing:
            pulse = _store.get(f"beat/{each}") if _store.check([f"beat/{each}"]) else b""
            if each not in heard or heard[each][0] != pulse:
                heard[each] = (pulse, now)
            elif now - heard[each][1] > (_GRACE if stopping else _TIMEOUT).seconds:
                if stopping:
                    raise_for(pending() or SIGTERM)
                raise TrainingError(f"rank {rank()}: no sign of life from rank {each} within {_TIMEOUT.seconds} s")
        time.sleep(_POLL)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The same on every rank; summed in place."""
    if world() > 1:
        from torch import distributed as dist

        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Until every rank is here."""
    import torch

    sum_over_ranks(torch.zeros(1))


def _silent(number: int, size: int) -> str:
    """Who is behind, by the marks that `progress` left."""
    from torch import distributed as dist

    if _store is None:
        return "the ranks could not meet: is every one started, and the address of the first right"
    try:
        came = [_store.check([f"beat/{each}"]) for each in range(size)]
        steps = [int(_store.get(f"step/{each}")) if _store.check([f"step/{each}"]) else -1 for each in range(size)]
    except dist.DistError:
        return "the store of the ranks cannot be reached"
    if never := [str(each) for each in range(size) if each != number and not came[each]]:
        return f"never heard of rank {', '.join(never)} within {_TIMEOUT.seconds} s"
    behind = [each for each in range(size) if each != number and steps[each] <= steps[number]]
    names = ", ".join(f"rank {each} (step {steps[each]})" for each in behind if steps[each] == min(steps))
    waited = f"no answer within {_TIMEOUT.seconds} s, or a lost connection"
    return f"{waited}, at step {steps[number]}; least was heard of {names}"
