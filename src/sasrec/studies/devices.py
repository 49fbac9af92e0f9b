"""Which GPU a worker trains on: each is held by as many runs at a time as the user allows."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PAUSE = 2.0  # seconds between two looks for a free device


def devices_here() -> list[str]:
    """Return the GPUs of this machine as CUDA_VISIBLE_DEVICES names them; empty without a GPU."""
    import torch  # here, since the status of a study needs no PyTorch

    if not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def held_device(devices: list[str], per_device: int, say: Callable[[str], None]) -> Iterator[str]:
    """Hold one of the devices, which this process alone sees from now on, until the block ends; yield its name.

    At most `per_device` processes of this machine hold a device, whichever study they belong to. Waits until a
    device is free. Yields "" at once if `devices` is empty. PyTorch must not have used a device before.
    """
    if not devices:
        yield ""
        return
    said = False
    while True:
        for slot in range(per_device):  # an idle device comes before a second run on a busy one
            for device in devices:
                lock = FileLock(_file(device, slot))
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                os.environ[_VISIBLE] = device
                try:
                    yield device
                finally:
                    lock.release()
                return
        if not said:
            said = True
            say(f"waiting: other runs hold the devices {', '.join(devices)}")
        time.sleep(_PAUSE)


def _file(device: str, slot: int) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"sasrec-{user}-device-{device.replace('/', '-')}-{slot}.lock"
