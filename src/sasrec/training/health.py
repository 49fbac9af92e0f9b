"""Non-finite losses and gradients: found before the update, and traced to where they began."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sasrec.errors import TrainingError
from sasrec.models import SequenceModel


def gradient_norm(model: SequenceModel) -> Tensor:
    """Of all gradients together, a scalar."""
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def peak_memory(device: torch.device) -> dict[str, float]:
    """What tensors took of an accelerator at most, in MB, where that is counted."""
    if device.type in ("cpu", "mps"):  # PyTorch counts none of these
        return {}
    return {"device_memory_mb": round(torch.accelerator.max_memory_allocated(device) / 2**20, 1)}


def shapes(model: SequenceModel, one_pass: Callable[[], object]) -> list[str]:
    """A line for each layer that a pass goes through, in that order: its name, class, and what it gives."""
    lines: list[str] = []

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        kind = str(output.dtype).removeprefix("torch.")
        lines.append(f"{name:40s} {type(module).__name__:20s} {tuple(output.shape)} {kind}")

    _watch(model, see, one_pass)
    return lines


def refuse(
    model: SequenceModel, pass_again: Callable[[], None], where: str, loss: float, anomaly: str = ""
) -> None:
    """Raise TrainingError that names the loss, the gradients and the layer in which numbers stop being finite.

    `pass_again` puts the batch through the model once more, as it was; `anomaly` is what PyTorch found backward.
    """
    gradients = [
        name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    clues = [f"the loss is {loss}"]
    if gradients:
        more = f" and {len(gradients) - 3} more" if len(gradients) > 3 else ""
        clues.append(f"the gradient is not finite in {', '.join(gradients[:3])}{more}")
    if layer := first_non_finite_layer(model, pass_again):
        clues.append(f"the first layer whose output is not finite is {layer}")
    if anomaly:
        clues.append(anomaly.rstrip("."))
    raise TrainingError(
        f"{where}: {'; '.join(clues)}. The weights are as they were before this step. "
        f"Lower lr, or set clip_norm{'' if anomaly else '; detect_anomaly names the operation'}"
    )


def first_non_finite_layer(model: SequenceModel, pass_again: Callable[[], None]) -> str:
    """The name of the first module whose output is not finite when the batch passes, or ""."""
    found: list[str] = []

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        if not found and not bool(output.isfinite().all()):
            found.append(name)

    _watch(model, see, pass_again)
    return found[0] if found else ""


@torch.no_grad()
def _watch(
    model: SequenceModel, see: Callable[[str, nn.Module, Tensor], None], one_pass: Callable[[], object]
) -> None:
    """Do a pass, and have each module's name and output seen as it gives it."""

    def hook_of(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                see(name, module, output)

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules() if name]
    try:
        one_pass()
    finally:
        for handle in handles:
            handle.remove()
