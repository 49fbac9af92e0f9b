"""Diagnose training: gradient norm, peak memory, layer shapes, and the origin of losses that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sasrec.errors import ConfigError, TrainingError
from sasrec.models import SequenceModel


def gradient_norm(model: SequenceModel) -> Tensor:
    """The L2 norm of all gradients together, a scalar tensor on the model's device."""
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def refuse_unused(model: SequenceModel) -> None:
    """Raise ConfigError if a parameter got no gradient in the first step, so that Adam would have no state for it.

    This concerns own encoders and losses. Remedy: use the parameter, or make it a buffer.
    """
    if unused := [name for name, parameter in model.named_parameters() if parameter.grad is None]:
        raise ConfigError(
            f"the loss does not depend on the parameter {unused[0]} of {type(model).__name__}. Use the parameter, "
            "remove it, or make it a buffer."
        )


def peak_memory(device: torch.device) -> dict[str, float]:
    """{"device_memory_mb": the most memory that tensors used on this accelerator so far}; {} on CPU and MPS."""
    if device.type in ("cpu", "mps"):  # PyTorch does not record a peak for them
        return {}
    return {"device_memory_mb": round(torch.accelerator.max_memory_allocated(device) / 2**20, 1)}


def shapes(model: SequenceModel, one_pass: Callable[[], object]) -> list[str]:
    """Return a line for each layer, in the order of the forward pass: name, class, output shape, output data type.

    `one_pass` runs one batch through the model.
    """
    lines: list[str] = []

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        kind = str(output.dtype).removeprefix("torch.")
        lines.append(f"{name:40s} {type(module).__name__:20s} output {tuple(output.shape)} {kind}")

    _watch(model, see, one_pass)
    return lines


def refuse(
    model: SequenceModel, pass_again: Callable[[], None], where: str, loss: float, anomaly: str = ""
) -> None:
    """Raise TrainingError that names the loss, the non-finite gradients and the first non-finite layer.

    `pass_again` repeats the forward pass of the current batch. `where` names the step. `anomaly` is the message of
    PyTorch's anomaly detection in the backward pass, or "".
    """
    gradients = [
        name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    clues = [f"the loss is {loss}"]
    if gradients:
        more = f" and {len(gradients) - 3} more" if len(gradients) > 3 else ""
        clues.append(f"the gradient is not finite in {', '.join(gradients[:3])}{more}")
    elif math.isfinite(loss):
        clues.append("the norm of the gradients is too large for a float")
    if layer := first_non_finite_layer(model, pass_again):
        clues.append(f"the first layer whose output is not finite is {layer}")
    if anomaly:
        clues.append(anomaly.rstrip("."))
    raise TrainingError(
        f"{where}: {'; '.join(clues)}. This step did not change the weights. "
        "Lower `lr`, or set `clip_norm`."
        f"{'' if anomaly else ' Set `detect_anomaly` to find the operation that produced the first NaN.'}"
    )


def first_non_finite_layer(model: SequenceModel, pass_again: Callable[[], None]) -> str:
    """The name of the first module whose output is not finite in a forward pass, or "" if all are finite."""
    names: list[str] = []

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        if not names and not bool(output.isfinite().all()):
            names.append(name)

    _watch(model, see, pass_again)
    return names[0] if names else ""


@torch.no_grad()
def _watch(
    model: SequenceModel, see: Callable[[str, nn.Module, Tensor], None], one_pass: Callable[[], object]
) -> None:
    """Run `one_pass`, and call `see` with the name, the module and the output of each module as it finishes."""

    def hook_of(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            output = output[0] if isinstance(output, tuple) and output else output  # nn.GRU also returns its state
            if isinstance(output, Tensor):
                see(name, module, output)

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules() if name]
    try:
        one_pass()
    finally:
        for handle in handles:
            handle.remove()
