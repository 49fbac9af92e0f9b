"""Several processes, one a device, as torchrun starts them: gloo between CPUs, NCCL between GPUs.

    torchrun --nproc_per_node=2 -m sasrec train --dataset ml-1m --train_dir runs/two

Every rank holds the whole model and data; a batch is shared out over the ranks, gradients are summed, and only
rank 0 writes. In one process everything here is a no-op.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from sasrec.errors import ConfigError, TrainingError

# Longer than any step or share of a validation; shorter than the patience of who waits for a frozen rank.
_TIMEOUT = timedelta(seconds=45)
_PREPARATION = timedelta(hours=6)

_store: PrefixStore | None = None
_joins = 0  # how often this process joined the others: each time has keys of its own


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
    global _store, _joins
    if not launched() or _store is not None:
        yield
        return
    if world() > 1:
        raise ConfigError(
            "torch.distributed is initialised already: leave that to sasrec, which needs its own store"
        )
    _joins += 1
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
    """What rank 0 makes, on every rank; the others wait, as preparation by one rank can take long."""
    if _store is None:
        return make()
    if rank() == 0:
        made = make()
        _store.set(key, made)
        return made
    _store.wait([key], _PREPARATION)
    return str(_store.get(key).decode())


def progress(step: int) -> None:
    """Leave a mark by which the others can tell who fell silent."""
    if _store is not None:
        _store.set(f"step/{rank()}", str(step))


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
