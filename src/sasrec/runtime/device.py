"""The device that a setting names."""

from __future__ import annotations

import torch

from sasrec.errors import ConfigError
from sasrec.runtime.ranks import device_number


def pick_device(name: str) -> torch.device:
    """The device a setting names; "auto" is an accelerator where there is one.

    Raises: ConfigError for a device this machine or PyTorch does not have.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda":
        name = f"cuda:{device_number()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not available here: {str(error).splitlines()[0]}") from None
    if device.type == "meta":
        raise ConfigError(f"device {name!r} computes nothing: use cpu, cuda, mps or auto")
    return device
