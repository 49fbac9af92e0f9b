"""Several processes, one a device, as torchrun starts them: gloo between CPUs, NCCL between GPUs.

    torchrun --nproc_per_node=2 -m sasrec train --dataset ml-1m --train_dir runs/two

Every rank holds the whole model and data; a batch is shared out over the ranks, gradients are summed, and only
rank 0 writes. In one process everything here is a no-op.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from sasrec.errors import ConfigError, TrainingError
from sasrec.training.interrupt import pending, raise_for

# Longer than any step or chunk of an evaluation; shorter than the patience of who waits for a frozen rank.
_TIMEOUT = timedelta(seconds=45)
# Of a rank that only waits for others when it is told to stop: one of them may be why, and dead.
_GRACE = timedelta(seconds=3)
_POLL = 0.01

_store: PrefixStore | None = None
_joins = 0  # how often this process joined the others: each time has keys of its own
_meetings = 0
_signs = 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0, which writes and speaks."""
    return dist.get_rank() if world() > 1 else 0


def launched() -> bool:
    """Whether torchrun, or something that sets the same variables, started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restarted() -> bool:
    """Whether torchrun started these processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def device_number() -> int:
    """Which of the accelerators of its machine is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device_type: str) -> Iterator[None]:
    """Within the block the processes that torchrun started work together.

    Raises: TrainingError naming the ranks that fell silent, if any does for longer than 45 s.
    """
    global _store, _joins, _meetings
    if not launched() or _store is not None:
        yield
        return
    if world() > 1:
        raise ConfigError(
            "torch.distributed is initialised already: leave that to sasrec, which needs its own store"
        )
    _joins, _meetings = _joins + 1, 0
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=number == 0 and not agent,
        timeout=_TIMEOUT,
        multi_tenant=True,
    )
    # What an earlier attempt left in the store must not be taken for this one's.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    _store = PrefixStore(f"sasrec/{attempt}/{_joins}", store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
        store=_store,
        rank=number,
        world_size=size,
        timeout=_TIMEOUT,
    )
    try:
        yield
        barrier()  # nobody leaves while another may still be sending
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):  # gloo raises no type of its own
            raise
        raise TrainingError(f"rank {number}: {_silent(number, size)}: {str(error).splitlines()[0]}") from error
    finally:
        gc.collect()  # DistributedDataParallel holds the group, and must be gone before it
        dist.destroy_process_group()
        _store = None


def from_main(key: str, make: Callable[[], str]) -> str:
    """What rank 0 makes, on every rank; the others wait, however long it takes."""
    if _store is None:
        return make()
    if rank() == 0:
        made = make()
        _store.set(key, made)
        return made
    told = 0.0
    while not _store.check([key]):  # not _store.wait, in which no signal would be heard
        told = _patience_ends(told)
        time.sleep(_POLL)
    return str(_store.get(key).decode())


def progress(step: int) -> None:
    """Leave a mark by which the others can tell who fell silent."""
    if _store is not None:
        _store.set(f"step/{rank()}", str(step))


def alive() -> None:
    """Leave a sign that a long piece of work, after which the ranks `meet`, goes on."""
    global _signs
    if _store is not None:
        _signs += 1
        _store.set(f"alive/{rank()}", str(_signs))


def meet() -> None:
    """Until every rank is here, however long its work takes, as long as it gives signs that it is `alive`.

    Raises: TrainingError naming the rank that gave none for 45 s.
    """
    global _meetings
    if _store is None:
        return
    _meetings += 1
    _store.set(f"met/{_meetings}/{rank()}", "")
    heard: dict[int, tuple[bytes, float]] = {}
    told = 0.0
    while absent := [each for each in range(world()) if not _store.check([f"met/{_meetings}/{each}"])]:
        for each in absent:
            sign = _store.get(f"alive/{each}") if _store.check([f"alive/{each}"]) else b""
            if each not in heard or heard[each][0] != sign:
                heard[each] = (sign, time.monotonic())
            elif time.monotonic() - heard[each][1] > _TIMEOUT.seconds:
                raise TrainingError(f"rank {rank()}: no sign of life from rank {each} within {_TIMEOUT.seconds} s")
        told = _patience_ends(told)
        time.sleep(_POLL)


def _patience_ends(told: float) -> float:
    """When this rank was first told to stop, 0 if it was not; raises if that is long ago."""
    if pending() and not told:
        return time.monotonic()
    if told and time.monotonic() - told > _GRACE.seconds:
        raise_for(pending())
    return told


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The same on every rank; summed in place."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Until every rank is here."""
    sum_over_ranks(torch.zeros(1))


def _silent(number: int, size: int) -> str:
    """Who is behind, by the marks that `progress` left."""
    assert _store is not None
    try:
        steps = [int(_store.get(f"step/{each}")) if _store.check([f"step/{each}"]) else -1 for each in range(size)]
    except dist.DistError:
        return "the store of the ranks cannot be reached"
    behind = [each for each in range(size) if each != number and steps[each] <= steps[number]]
    names = ", ".join(f"rank {each} (step {steps[each]})" for each in behind if steps[each] == min(steps))
    waited = f"no answer within {_TIMEOUT.seconds} s, or a lost connection"
    return f"{waited}, at step {steps[number]}; least was heard of {names}"
