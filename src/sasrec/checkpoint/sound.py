"""Check that a checkpoint is what it claims to be, before it is used: kinds, ranges, names, shapes and values.

The hashes only show that files have not changed since they were written. Whoever writes a checkpoint writes its
hashes too, and a moment of the wrong shape would crash the fused optimizer.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from sasrec.checkpoint.store import OPTIMIZER, STATE, WEIGHTS, Checkpoint
from sasrec.config.settings import RunConfig
from sasrec.errors import CheckpointError, ConfigError
from sasrec.models import build_model
from sasrec.models.own import Encoder, OwnCode, refuse_other

Name = Annotated[str, Field(min_length=1, max_length=2000)]
Count = Annotated[int, Field(ge=0, lt=2**48)]
Factor = Annotated[float, Field(gt=0)]
Loss = Annotated[float, Field(ge=-1e30, le=1e30)]
_KNOWN_ITEMS = "known_items"


class _Strict(BaseModel):
    """Kinds are not converted, so the text "1" does not pass for a number; NaN and infinity are refused."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


class Scaler(_Strict):
    """The state of the loss scaler under fp16 (torch.amp.GradScaler)."""

    scale: Factor
    growth_factor: Factor
    backoff_factor: Factor
    growth_interval: Annotated[int, Field(ge=1)]
    tracker: Count = Field(alias="_growth_tracker")


class Progress(_Strict):
    """The entry `training` of state.json: the fields of `TrainingState` (training/trainer.py)."""

    epoch: Count
    epoch_step: Count
    epoch_loss: Loss
    step: Count
    seconds: Annotated[float, Field(ge=0)]
    loss: Loss
    validated_step: Count
    best_epoch: Count
    best_score: float
    scaler: Scaler | Annotated[dict[str, float], Field(max_length=0)]


class Part(_Strict):
    """The entry `training_part` of state.json: the fields of `TrainingPart` (data/splits.py)."""

    held_out: Count
    until: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    everything: bool = False


class Chosen(_Strict):
    """The entry `chosen_by` of state.json: the run that chose the settings of a final fit (runs/final.py)."""

    run: str
    checkpoint: str
    data_hash: str
    split: str
    epoch: Count
    metrics: dict[str, dict[str, float]]


class Refreshed(_Strict):
    """The entry `refreshed_from` of state.json: the run whose weights a refresh began with (runs/refresh.py)."""

    run: str
    checkpoint: str
    manifest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    data_hash: str
    metrics: dict[str, dict[str, float]]


class Serves(_Strict):
    """The baseline that an export serves, or blends with its model with this weight of the model."""

    name: Name
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    weight: Annotated[float, Field(gt=0, lt=1)] | None = None


class State(_Strict):
    """The entries of state.json that are used. Others may be there, for people."""

    model_config = ConfigDict(extra="ignore")
    step: Count
    epoch: Count
    score: float | None
    training: Progress
    num_items: Annotated[int, Field(ge=1, lt=2**31 - 1)]
    data_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    known_items: Any
    training_part: Part
    ranks: Annotated[int, Field(ge=1, le=2**20)]
    config: dict[str, dict[str, Any]]
    encoder: Name | None = None
    loss_function: Name | None = None
    chosen_by: Chosen | None = None
    refreshed_from: Refreshed | None = None
    serves: Serves | None = None


def check(found: Checkpoint, encoder: Encoder | None = None) -> None:
    """Check the state and the weights of a checkpoint against each other. `encoder`: the own class of the model.

    Raises: CheckpointError naming the file and the entry or tensor. Remedy: use another checkpoint. ConfigError if
    the model is of another class. Remedy: pass that class.
    """
    _expected(found, encoder)


def check_to_resume(found: Checkpoint, own: OwnCode) -> None:
    """Check a checkpoint as `check` does, its optimizer, which must fit the weights, and its loss.

    Raises: CheckpointError naming the file and the entry or tensor. Remedy: use another checkpoint. ConfigError if
    the model or the loss is other code than `own`. Remedy: pass that code.
    """
    parameters = _expected(found, own.encoder)
    refuse_other("loss_function", found.state.get("loss_function"), own.loss_function, found.path)
    if not found.optimizer and not found.state["step"]:
        return
    wanted = {
        f"{name}:{key}": torch.empty((), device="meta", dtype=torch.float32) if key == "step" else parameter
        for name, parameter in parameters.items()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    _compare(found, OPTIMIZER, found.optimizer, wanted, "the optimizer state")
    for name, tensor in found.optimizer.items():
        if not name.endswith(":exp_avg") and bool((tensor < 0).any()):
            raise CheckpointError(f"{found.path / OPTIMIZER} has {name} below 0. Use another checkpoint.")


def _expected(found: Checkpoint, encoder: Encoder | None) -> dict[str, Tensor]:
    """Check state and weights; return the parameters of the model that the settings describe, without values."""
    state = _state(found)
    try:
        config = RunConfig.from_parts(state.config, "its settings")
    except ConfigError as error:
        raise CheckpointError(f"{found.path / STATE}: {error}. Use another checkpoint.") from None
    unpacked(found, state.num_items)
    refuse_other("encoder", state.encoder, encoder, found.path)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # neither memory nor random numbers are used
        model = build_model(state.num_items, config.model, encoder)
    _compare(found, WEIGHTS, found.weights, model.state_dict(), "the weights")
    return dict(model.named_parameters())


def _state(found: Checkpoint) -> State:
    try:
        state = State.model_validate(found.state)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "missing" and len(first["loc"]) == 1:
            found.need(str(first["loc"][0]))
        raise _wrong(found, ".".join(map(str, first["loc"])), first["msg"]) from None
    if (state.step, state.epoch) != (state.training.step, state.training.epoch):
        raise _wrong(found, "training", "step and epoch are not those of the checkpoint")
    if state.training.validated_step > state.step:
        raise _wrong(found, "training.validated_step", f"it is beyond step {state.step}")
    return state


def _wrong(found: Checkpoint, entry: str, reason: str) -> CheckpointError:
    return CheckpointError(f"{found.path / STATE} has a wrong entry {entry}: {reason}. Use another checkpoint.")


def unpacked(found: Checkpoint, num_items: int) -> npt.NDArray[np.bool_] | None:
    """Return (V,): true for known items; None if all items are known. See `restore.known_items`.

    Raises: CheckpointError if the saved list is damaged or is not for `num_items` items. Remedy: use another
    checkpoint.
    """
    packed = found.need(_KNOWN_ITEMS)
    if packed is None:
        return None
    try:
        bits = np.frombuffer(b64decode(packed, validate=True), np.uint8)
    except (ValueError, TypeError):
        bits = np.zeros(0, np.uint8)
    known_V = np.unpackbits(bits).astype(bool)[: num_items + 1]
    # The bits of whole bytes, for num_items + 1 bits; one item at least is known, and padding is none.
    if len(bits) != (num_items + 8) // 8 or known_V[0] or not known_V.any():
        raise CheckpointError(
            f"{found.path} has {_KNOWN_ITEMS} that do not fit its items: the list is damaged, or is not for "
            f"{num_items} items. Use another checkpoint."
        )
    return known_V


def _compare(
    found: Checkpoint, file: str, tensors: dict[str, Tensor], wanted: dict[str, Tensor], what: str
) -> None:
    """Raise CheckpointError unless the names, kinds and shapes are the wanted ones, and all values are finite."""
    path = found.path / file
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise CheckpointError(
            f"{path} has {what} of another model: it has no tensor {missing[0]}. Use another checkpoint."
        )
    if more := sorted(tensors.keys() - wanted.keys()):
        raise CheckpointError(
            f"{path} has {what} of another model: its tensor {more[0][:100]!r} is unknown. Use another checkpoint."
        )
    for name, tensor in tensors.items():
        right = wanted[name]
        if (tensor.dtype, tensor.shape) != (right.dtype, right.shape):
            raise CheckpointError(
                f"{path} has {what} of another model: {name} is {_words(tensor)}, but its settings make it "
                f"{_words(right)}. Use another checkpoint."
            )
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path} has {what} {name}, which are not finite. Use an earlier checkpoint.")


def _words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
