"""Choose the PyTorch device that a setting names."""

from __future__ import annotations

import torch

from sasrec.errors import ConfigError
from sasrec.runtime.ranks import device_number


def pick_device(name: str) -> torch.device:
    """Return the device for a setting such as "cpu", "cuda" or "auto".

    "auto" chooses an accelerator if one is available, else the CPU. "cuda" chooses the GPU of this process, also
    under torchrun.

    Raises: ConfigError if the device is unknown or unavailable. Remedy: use cpu, cuda, mps or auto.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda":
        name = f"cuda:{device_number()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # torch.device accepts devices that do not exist; an allocation fails
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} is not available here: {str(error).splitlines()[0]}. Use cpu, cuda, mps or auto."
        ) from None
    if device.type == "meta":
        raise ConfigError(f"device {name!r} cannot compute anything. Use cpu, cuda, mps or auto.")
    return device
