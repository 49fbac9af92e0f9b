"""Choose the PyTorch device that a setting names; its random generators; what the bits of results depend on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sasrec.errors import ConfigError, amount
from sasrec.runtime.ranks import device_number, launched, world


def pick_device(name: str) -> torch.device:
    """Return the device for a setting such as "cpu", "cuda" or "auto".

    "auto" chooses an accelerator if one is available, else the CPU. "cuda" chooses the first GPU; under torchrun,
    each process has its own GPU.

    Raises: ConfigError if the device is unknown or unavailable, or if several processes would share one GPU.
    Remedy: use auto or cpu.
    """
    if launched() and name.startswith("cuda:"):
        raise ConfigError(
            f"device={name} would put every process on one GPU. Use device=cuda, which gives each its own."
        )
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda":
        name = f"cuda:{device_number()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # torch.device accepts devices that do not exist; an allocation fails
    except (RuntimeError, AssertionError):
        if name.startswith("cuda:") and launched() and (count := torch.cuda.device_count()):
            raise ConfigError(
                f"this machine has {amount(count, 'GPU')}, too few for its processes. Start one process per GPU."
            ) from None
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


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what the last digits of a training's numbers depend on, besides its data, settings and code."""
    return {
        "device": "CPU" if device.type == "cpu" else torch.get_device_module(device).get_device_name(device),
        "threads": torch.get_num_threads(),
        "processes": world(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
    }


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let PyTorch use only operators with the same bits in every repetition, until the block ends, if `wanted`.

    Raises: ConfigError if an operator has no such form on this device. Remedy: deterministic=False.
    """
    if not wanted:
        yield
        return
    # Read by cuBLAS and NCCL when they start. NVLS and CollNet sum in an order that varies.
    for name, value in (
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("NCCL_NVLS_ENABLE", "0"),
        ("NCCL_COLLNET_ENABLE", "0"),
    ):
        os.environ.setdefault(name, value)
    before = torch.are_deterministic_algorithms_enabled()
    # Filling new tensors would only cost time: no result depends on uninitialised memory.
    memory: Any = torch.utils.deterministic
    filled, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"this run cannot be deterministic on this device: {reason}. Use deterministic=False."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """Restore the random generators of CPU and device after the block, so the block may seed and use them."""
    of_device = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices=of_device, device_type="cuda" if device.type == "cpu" else device.type):
        yield
