"""The optimizer (Adam or AdamW, with the SASRec authors' betas, 0.9 and 0.98) and the learning rate of a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sasrec.config.settings import TrainingConfig
from sasrec.errors import amount
from sasrec.models import SequenceModel


def build_optimizer(model: SequenceModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimizer. On CPU and CUDA it is fused, so an update passes over the embedding table only once.

    With AdamW, `weight_decay` applies only to the matrices of layers, not to biases, norms, embeddings or the
    weights of gated and mHC residuals.
    """
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        layer = parameter.dim() == 2 and "embedding" not in name and "_residual." not in name
        (decayed if layer and "interval" not in name else others).append(parameter)
    decay = config.weight_decay if config.optimizer == "adamw" else 0.0  # Adam would add it to the gradient
    groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=(0.9, 0.98), fused=model.device.type in {"cpu", "cuda"})


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of update number `step`, from 0. It is a pure function, so no scheduler has to be saved.

    The schedule "constant" stays at lr. The schedule "step" multiplies the rate by `gamma` after every `step_size`
    epochs or steps (`step_unit`), as PyTorch's StepLR does. The schedule "cosine" falls to 0 at `num_epochs`.
    During the first `warmup_steps`, a factor that rises linearly to 1 multiplies the schedule.
    """
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    epoch = step / steps_per_epoch
    if config.schedule == "step":
        passed = int(epoch) if config.step_unit == "epochs" else step
        return config.lr * warm * float(config.gamma ** (passed // config.step_size))
    if config.schedule == "cosine":
        return config.lr * warm * (1 + math.cos(math.pi * min(1.0, epoch / config.num_epochs))) / 2
    return config.lr * warm


def schedule_warning(config: TrainingConfig, steps_per_epoch: int) -> str:
    """Return a warning if the rate never falls by the schedule, or never reaches `lr` in the warm-up; else ""."""
    steps = config.num_epochs * steps_per_epoch
    first_fall = config.step_size * (steps_per_epoch if config.step_unit == "epochs" else 1)
    if config.schedule == "step" and config.gamma == 1:
        return "the learning rate never falls: gamma=1; lower `gamma`"
    if config.schedule == "cosine" and steps == 1:
        return "the learning rate never falls: the run has one step; raise `num_epochs`"
    if config.schedule == "step" and first_fall >= steps:
        return (
            f"the learning rate never falls: step_size={config.step_size} ({config.step_unit}), but the run has "
            f"at most {amount(steps, 'step')} (num_epochs={config.num_epochs}); lower `step_size`, or raise "
            "`num_epochs`"
        )
    if config.warmup_steps >= steps:
        return (
            f"the learning rate never reaches `lr`: warmup_steps={config.warmup_steps}, "
            f"and the run has at most {amount(steps, 'step')}; lower `warmup_steps`"
        )
    return ""


def optimizer_tensors(model: SequenceModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, as {"PARAMETER:ENTRY": tensor}, such as "item_embedding.weight:exp_avg"."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}:{key}": value
        for parameter, remembered in optimizer.state.items()
        for key, value in remembered.items()
    }


def restore_optimizer(model: SequenceModel, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors`, which `optimizer_tensors` returned earlier, into the state of an optimizer.

    Raises: ValueError naming a tensor that belongs to no parameter, has another shape, or is missing. The caller
    adds the remedy.
    """
    parameters = dict(model.named_parameters())
    keys = {full_name.rpartition(":")[2] for full_name in tensors} or {"step"}
    if missing := sorted({f"{name}:{key}" for name in parameters for key in keys} - tensors.keys()):
        raise ValueError(f"the optimizer state has no tensor {missing[0]}")
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition(":")
        parameter = parameters.get(name)
        if parameter is None or value.shape not in ((), parameter.shape):
            raise ValueError(f"the tensor {full_name} of shape {tuple(value.shape)} does not fit this model")
        # A step count stays where the optimizer keeps it; everything else lives with its parameter.
        where = parameter.device if key != "step" or optimizer.defaults["fused"] else torch.device("cpu")
        optimizer.state[parameter][key] = value.to(where)
