"""Choose the PyTorch device that a setting names; seed and restore the random generators of CPU and device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sasrec.errors import ConfigError
from sasrec.runtime.ranks import device_number


def pick_device(name: str) -> torch.device:
    """Return the device for a setting such as "cpu", "cuda" or "auto".

    "auto" chooses an accelerator if one is available, else the CPU. "cuda" chooses the first GPU; under torchrun,
    each process has its own GPU.

    Raises: ConfigError if the device is unknown or unavailable. Remedy: use auto or cpu.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda":
        name = f"cuda:{device_number()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # torch.device accepts devices that do not exist; an allocation fails
    except (RuntimeError, AssertionError):
        raise ConfigError(
            f"device {name!r} is unknown or not available here. Use auto, which takes the best device, or cpu."
        ) from None
    if device.type == "meta":
        raise ConfigError(f"device {name!r} cannot compute anything. Use auto or cpu.")
    return device


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the default random generators of the CPU and the device, with the same effect as `torch.manual_seed`.

    This function avoids the 0.1 to 0.2 ms that `torch.manual_seed` spends on kinds of device that are absent.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Restore the random generators of CPU and device after the block, so the block may seed and use them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
