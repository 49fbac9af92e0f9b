"""Distributed data parallelism: several processes that torchrun starts, usually one per device.

    torchrun --nproc_per_node=2 -m sasrec train --dataset ml-1m --train_dir runs/two

Each process has a rank: its number, from 0. Every process loads the whole model and all data. The processes divide
each batch among them and sum their gradients. Only rank 0 writes files and prints. CPUs communicate by gloo, GPUs
by NCCL. With a single process, all functions here return immediately.

PyTorch is imported only where processes connect, so that the command line can find out how it was launched without
importing PyTorch.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from sasrec.errors import ConfigError, TrainingError
from sasrec.runtime.connection import SILENT, find_others
from sasrec.runtime.heartbeat import FAILED, alive
from sasrec.runtime.signals import SIGTERM, pending, raise_for

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

# How long a sum over the processes may take. A process that is alive may be compiling the model, which takes
# minutes; one that is not alive is found by its missing heartbeats, after SILENT seconds.
_SUM = timedelta(minutes=10)
# Seconds to wait for a silent process after a stop signal. That process has probably died already.
_GRACE = 3.0
_POLL = 0.01  # seconds between two checks of the store
_APART = 5.0  # seconds after which processes that wait for each other have not only just met

_store: PrefixStore | None = None
_restarted = False
_joins = 0  # number of `joined` blocks so far; each block uses different keys in the store
_meetings = 0


def world() -> int:
    """The number of processes."""
    dist = sys.modules.get("torch.distributed")  # processes cannot be connected before this module is imported
    if dist is None or not (dist.is_available() and dist.is_initialized()):
        return 1
    return int(dist.get_world_size())


def rank() -> int:
    """The rank of this process, from 0. Only rank 0 writes files and prints."""
    if world() == 1:
        return 0
    from torch import distributed as dist

    return dist.get_rank()


def launched() -> bool:
    """Whether torchrun, or another launcher that sets WORLD_SIZE and RANK, started several processes.

    Raises: ConfigError if only one of them is set, or one is not a number. Remedy: start with torchrun, or unset
    them.
    """
    size, number = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if size == "1":
        return False
    if not size.isdecimal() or not number.isdecimal() or "RANK" not in os.environ:
        raise ConfigError(
            f"the environment has WORLD_SIZE={size} and RANK={os.environ.get('RANK', '(unset)')}, which do not "
            "come from a launcher. Start the processes with torchrun, or unset WORLD_SIZE."
        )
    return int(size) > 1


def under_torchrun() -> bool:
    """Whether torchrun started this process. If so, torchrun also forwards its signals to this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarted() -> bool:
    """Whether torchrun started any of these processes again after a failure."""
    if _store is not None:
        return _restarted
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launch_id() -> str:
    """Return a name for this launch of torchrun; "" if torchrun did not start this process.

    All processes of one launch get the same name, also after torchrun restarts them. The name is the user's
    --rdzv-id; without one, it names torchrun's own process on this machine.
    """
    if not under_torchrun():
        return ""
    named = os.environ["TORCHELASTIC_RUN_ID"]
    return f"none/{os.getppid()}" if named == "none" else named


def device_number() -> int:
    """The number of this process's accelerator on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device_type: str) -> Iterator[None]:
    """Connect the processes that torchrun started, until the block ends.

    Does nothing inside another `joined` block, or with only one process. `device_type`: with "cuda", the processes
    use NCCL for GPU tensors and gloo for CPU tensors; otherwise they use only gloo.

    Raises:
        TrainingError: a process did not connect, failed, or left. The message names its rank. If a process sends
            no heartbeat for 45 s while this one waits for it in a sum, this process prints that sentence and ends.
        ConfigError: torch.distributed was initialised before; remove that call. Or `device_type` is neither "cpu"
            nor "cuda"; use one of them.
    """
    global _store, _restarted, _joins, _meetings
    if not launched() or _store is not None:
        yield
        return
    if device_type not in ("cpu", "cuda"):
        raise ConfigError(
            f"several processes cannot train together on {device_type}. Use device=cpu, or start one process."
        )
    if world() > 1:
        raise ConfigError(
            "torch.distributed is already initialised, but sasrec must initialise it. "
            "Remove your call of init_process_group"
        )
    from torch import cuda
    from torch import distributed as dist

    _joins, _meetings = _joins + 1, 0
    number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    if device_type == "cuda":
        cuda.set_device(device_number())  # else NCCL and pinned memory of every process would use the first GPU
    try:
        _store, prefix, _restarted = find_others(f"sasrec/{_joins}", number, size)
        with alive(number, size, prefix):
            dist.init_process_group(backend, store=_store, rank=number, world_size=size, timeout=_SUM)
            yield
            meet()
            barrier()  # a process that leaves early would break the others' unfinished communication
    except Exception as error:
        # gloo raises plain RuntimeError
        if not isinstance(error, dist.DistError) and not (type(error) is RuntimeError and "/gloo/" in str(error)):
            _report(number, error)
            raise
        raise TrainingError(f"rank {number}: {_lost(number, size, _first_clause(error))}") from error
    finally:
        gc.collect()  # DistributedDataParallel refers to the process group, so it must be freed first
        if dist.is_initialized():
            dist.destroy_process_group()
        _store = None


def _report(number: int, error: Exception) -> None:
    """Tell the other processes the error that ends this one. The first error of all processes counts."""
    if _store is not None:
        with suppress(RuntimeError):  # the store has vanished with rank 0, whose error is the one to look for
            _store.compare_set(FAILED, "", f"rank {number} failed: {str(error) or type(error).__name__}")


def from_main(key: str, make: Callable[[], str]) -> str:
    """Call `make` on rank 0 and return its result on every rank.

    The other ranks wait without a time limit while rank 0 sends heartbeats. `key` must be unique within a `joined`
    block.

    Raises:
        On rank 0, the error of `make`. On the other ranks, TrainingError with the same message.
        TrainingError: rank 0 was silent for 45 s.
        KeyboardInterrupt or SystemExit: a stop signal arrived, and rank 0 was silent for 3 s.
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
    _wait_for(key, lambda: [] if store.check([key]) else [0])
    found = str(store.get(key).decode())
    if found[0] == "!":
        raise TrainingError(f"rank 0 failed: {found[1:]}")
    return found[1:]


def same_on_every_rank(facts: dict[str, str]) -> None:
    """Check that every process has the same facts, each a name and a value. Waits for every process.

    Raises: ConfigError on every process, if one has another value than rank 0; the message names both values.
        Remedy: give all processes the same files. The errors of `meet`.
    """
    if _store is None:
        return
    place = f"facts/{_meetings}"
    _store.set(f"{place}/{rank()}", json.dumps(facts))
    meet()
    own = json.loads(_store.get(f"{place}/0"))
    for each in range(1, world()):
        other = json.loads(_store.get(f"{place}/{each}"))
        if apart := [name for name in own if own[name] != other.get(name)]:
            theirs, ours = (", ".join(f"{name} {have.get(name)}" for name in apart) for have in (other, own))
            raise ConfigError(
                f"rank {each} has {theirs}, but rank 0 has {ours}. Every process must have the same data, "
                "settings and code: start all with the same options, and give all machines the same files."
            )


def progress(step: int) -> None:
    """Record the step of this process, so that an error message can name the process that is behind."""
    if _store is not None:
        _store.set(f"step/{rank()}", str(step))


def told_to_stop() -> bool:
    """Return whether a stop signal is pending in this process, or was reported by another process.

    A process reports its pending signal when it calls this function. It does not wait for the other processes.
    """
    if _store is None:
        return pending() > 0
    if pending():
        _store.set("signal", "")
    return pending() > 0 or bool(_store.check(["signal"]))


def meet() -> None:
    """Wait until every process has called this function, without a time limit while missing ones send heartbeats.

    Raises: TrainingError if a missing process is silent for 45 s. KeyboardInterrupt or SystemExit if a stop signal
    arrived and a missing process is silent for 3 s.
    """
    global _meetings
    if _store is None:
        return
    store, _meetings = _store, _meetings + 1
    store.set(f"met/{_meetings}/{rank()}", "")
    _wait_for("", lambda: [each for each in range(world()) if not store.check([f"met/{_meetings}/{each}"])])


def _wait_for(key: str, absent: Callable[[], list[int]]) -> None:
    """Wait until `absent()`, the list of the ranks that are still missing, is empty. Raises: as `meet`.

    This function polls, because signals cannot interrupt a blocking wait of torch.distributed's key-value store.
    `key`: what is waited for. Processes that were started with different commands could wait for each other.
    """
    assert _store is not None
    heard: dict[int, tuple[bytes, float]] = {}
    _store.set(f"waits/{rank()}", f"{_meetings}/{key}")
    try:
        _poll(f"{_meetings}/{key}", absent, heard)
    finally:
        with suppress(RuntimeError):  # the store may have vanished
            _store.set(f"waits/{rank()}", "")


def _poll(key: str, absent: Callable[[], list[int]], heard: dict[int, tuple[bytes, float]]) -> None:
    assert _store is not None
    apart = time.monotonic()  # since when all missing processes wait for something else, if they do
    while missing := absent():
        if _store.check([FAILED]):
            raise TrainingError(_store.get(FAILED).decode())
        now, stopping = time.monotonic(), told_to_stop()
        for each in missing:
            pulse = _store.get(f"beat/{each}") if _store.check([f"beat/{each}"]) else b""
            if each not in heard or heard[each][0] != pulse:
                heard[each] = (pulse, now)
            elif now - heard[each][1] > (_GRACE if stopping else SILENT):
                if stopping:
                    raise_for(pending() or SIGTERM)
                raise TrainingError(
                    f"rank {rank()} waited, but rank {each} sent no heartbeat for {SILENT:.0f} s. "
                    f"Check the output of rank {each}, then resume the run or start again."
                )
        waits = [_store.get(f"waits/{each}").decode() for each in missing if _store.check([f"waits/{each}"])]
        if len(waits) < len(missing) or any(other in ("", key) for other in waits):
            apart = now
        elif now - apart > _APART:
            raise TrainingError(
                f"rank {rank()} and rank {missing[0]} wait for each other, because they do different work. Start "
                "every process with the same command and the same options."
            )
        time.sleep(_POLL)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place. Every process gets the sum."""
    if world() > 1:
        from torch import distributed as dist

        dist.all_reduce(tensor)
    return tensor


def summed(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the elementwise sum of the arrays of all processes. Waits for the slowest process (`meet`)."""
    meet()  # waits while the others send heartbeats; a plain all-reduce would time out
    if world() == 1:
        return array
    import torch

    total: npt.NDArray[np.float64] = sum_over_ranks(torch.from_numpy(array)).numpy()
    return total


def barrier() -> None:
    """Wait until every process has called this function."""
    import torch

    sum_over_ranks(torch.zeros(1))


def _lost(number: int, size: int, reported: str) -> str:
    """Return why the processes cannot communicate any more, with a remedy, as text for an error message.

    If a process said why it failed, the text says this. Else it names the ranks that never connected; if all
    connected, the other ranks with the fewest steps (`progress`).

    `number`: the rank of this process. `size`: the number of processes. `reported`: what PyTorch says.
    """
    from torch import distributed as dist

    if _store is None:
        if "failed to listen" in reported:
            return (
                f"port {os.environ['MASTER_PORT']} cannot be served; another program may use it. Choose another "
                "MASTER_PORT (torchrun: --master-port)."
            )
        return (
            "the processes could not connect. Check that all of them run, and check MASTER_ADDR and MASTER_PORT "
            f"(PyTorch reports: {reported})."
        )
    try:
        if _store.check([FAILED]):
            return _store.get(FAILED).decode()
        came = [_store.check([f"beat/{each}"]) for each in range(size)]
        steps = [int(_store.get(f"step/{each}")) if _store.check([f"step/{each}"]) else -1 for each in range(size)]
    except dist.DistError:
        return (
            "the key-value store at MASTER_ADDR cannot be reached. Check that torchrun and rank 0 still run, then "
            f"resume the run or start again (PyTorch reports: {reported})."
        )
    if never := [str(each) for each in range(size) if each != number and not came[each]]:
        return (
            f"rank {', '.join(never)} did not connect. Check the output of these processes, then start again "
            f"(PyTorch reports: {reported})."
        )
    behind = [each for each in range(size) if each != number and steps[each] <= steps[number]]
    names = ", ".join(f"rank {each} (step {steps[each]})" for each in behind if steps[each] == min(steps))
    return (
        f"the connection was lost at step {steps[number]}{f'; furthest behind: {names}' if names else ''}. Check "
        "the output of the processes that are behind, then resume the run or start again "
        f"(PyTorch reports: {reported})."
    )


def _first_clause(error: Exception) -> str:
    """Return what an error of PyTorch says first, without the place in its C++ code."""
    line = re.sub(r"^\[[^]]*\] ", "", (str(error).splitlines() or [type(error).__name__])[0])
    return line.partition(". ")[0].rstrip(".")
