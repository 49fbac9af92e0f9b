"""Connect the processes of a launch to one key-value store, and find those of this attempt in it."""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from sasrec.errors import TrainingError

if TYPE_CHECKING:
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

# Seconds after which a process that gives no sign of life counts as dead or frozen.
SILENT = 45.0
_POLL = 0.02  # seconds between two looks


def connected(prefix: str, *, is_master: bool = False) -> PrefixStore:
    """Connect to the store at MASTER_ADDR; its keys begin with `prefix`. `is_master`: this process also serves it.

    Raises: RuntimeError of torch.distributed if nobody serves it within 45 s.
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(
        address,
        port,
        is_master=is_master,
        timeout=timedelta(seconds=SILENT),
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(prefix, store)


def find_others(block: str, number: int, size: int) -> tuple[PrefixStore, str, bool]:
    """Wait for all processes of this attempt.

    Returns its part of the store, the prefix of that part, and whether torchrun restarted any process.

    The store still has the keys of attempts that failed, and processes of different machines count their restarts
    differently. So rank 0 names each attempt by a random word, and starts it when every process has answered.

    `block`: prefix for the keys of this meeting. `number`: the rank of this process. `size`: the number of
    processes.

    Raises: TrainingError if a process does not answer within 45 s. Remedy: look at its output, and start again.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = connected(block, is_master=number == 0 and not agent)
    word = uuid.uuid4().hex
    own = [word, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"]
    attempt, until = word if number == 0 else "", time.monotonic() + SILENT
    if number == 0:
        store.set("attempt", attempt)
    while time.monotonic() < until:
        if number == 0:
            places = [f"{attempt}/here/{each}" for each in range(1, size)]
            if store.check(places):
                store.set(
                    f"{attempt}/start", json.dumps([own, *(json.loads(store.get(place)) for place in places)])
                )
        elif store.check(["attempt"]) and (newest := store.get("attempt").decode()) != attempt:
            attempt = newest
            store.set(f"{attempt}/here/{number}", json.dumps(own))
        if attempt and store.check([f"{attempt}/start"]):
            everybody = json.loads(store.get(f"{attempt}/start"))
            if everybody[number] == own:  # else an attempt that failed, by an earlier process of this rank
                # The part refers to `store`, which serves the others as long as it lives.
                return PrefixStore(attempt, store), f"{block}/{attempt}", any(again for _, again in everybody)
        time.sleep(_POLL)
    missing = (
        [each for each in range(1, size) if not store.check([f"{attempt}/here/{each}"])] if number == 0 else [0]
    )
    raise TrainingError(
        f"rank {', '.join(map(str, missing))} did not connect within {SILENT:.0f} s. Check the output of these "
        "processes, then start again."
    )
