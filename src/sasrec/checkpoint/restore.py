"""A checkpoint -> its settings and its model."""

from __future__ import annotations

import dataclasses
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sasrec.checkpoint import store
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import Split, TrainingPart
from sasrec.errors import CheckpointError
from sasrec.models import SequenceModel, build_model

CHECKPOINTS = "checkpoints"
_KNOWN_ITEMS, _TRAINING_PART = "known_items", "training_part"


def checkpoint_at(path: Path) -> store.Checkpoint:
    """The checkpoint in that folder, or, in that of a run, the best."""
    if path.suffix in {".pth", ".pt", ".ckpt", ".bin"}:
        raise CheckpointError(f"{path}: such files can run code when read: give a checkpoint folder or a run")
    if (path / "config.toml").exists() and not (path / CHECKPOINTS).exists():
        raise CheckpointError(f"the run {path} has no checkpoint yet. Train it again, or use another run")
    if not (path / CHECKPOINTS).exists():
        return store.load(path)
    best = store.best(path / CHECKPOINTS)
    try:
        return store.load(best)
    except CheckpointError:
        if best.exists():
            raise
        return store.load(store.best(path / CHECKPOINTS))  # training went on meanwhile, and has another best


def check_data(found: store.Checkpoint, data: Dataset) -> None:
    """Raises: CheckpointError if it was trained on other data."""
    if found.need("data_hash") != data.data_hash:
        raise CheckpointError(
            f"{found.path} was trained on other data (hash {found.need('data_hash')[:12]}, "
            f"this data set has {data.data_hash[:12]}): name the right one with --dataset"
        )


def serving_state(split: Split) -> dict[str, Any]:
    """What serving needs to know of the split, for the state of a checkpoint."""
    known_V = split.known_V
    # One bit an item and padding, packed, in base 64; None if all items are known.
    packed = None if known_V[1:].all() else b64encode(np.packbits(known_V).tobytes()).decode()
    return {_KNOWN_ITEMS: packed, _TRAINING_PART: dataclasses.asdict(split.training_part)}


def known_items(found: store.Checkpoint, num_items: int) -> npt.NDArray[np.bool_] | None:
    """(V,) which items were in training, or None if all are candidates.

    Raises: CheckpointError if the checkpoint is of another catalogue.
    """
    packed = found.need(_KNOWN_ITEMS)
    if packed is None:
        return None
    try:
        bits = np.frombuffer(b64decode(packed, validate=True), np.uint8)
    except (ValueError, TypeError):
        bits = np.zeros(0, np.uint8)
    if len(bits) != (num_items + 8) // 8:  # padding has a bit, too
        raise CheckpointError(f"{found.path} has {_KNOWN_ITEMS} that do not fit its items; use another checkpoint")
    return np.unpackbits(bits, count=num_items + 1).astype(bool)


def training_part(found: store.Checkpoint) -> TrainingPart:
    """Where the training part of each history ended.

    Raises: CheckpointError if the checkpoint does not say.
    """
    try:
        return TrainingPart(**found.need(_TRAINING_PART))
    except TypeError:
        raise CheckpointError(f"{found.path} has no valid {_TRAINING_PART}; use another checkpoint") from None


def config_of(found: store.Checkpoint) -> RunConfig:
    """The settings it was trained with."""
    return RunConfig.from_parts(found.need("config"), f"{found.path}/state.json")


def model_of(found: store.Checkpoint, num_items: int) -> SequenceModel:
    """The model of a checkpoint, with its weights."""
    with torch.random.fork_rng(devices=[]):  # the initial values drawn here are overwritten at once
        model = build_model(num_items, config_of(found).model)
    put_weights(found, model)
    return model


def put_weights(found: store.Checkpoint, model: SequenceModel) -> None:
    """Raises: CheckpointError if they are of a model of another shape, or not finite."""
    try:
        model.load_state_dict(found.weights)
    except RuntimeError as error:
        raise CheckpointError(f"{found.path} has the weights of another model: {error}") from None
    if bad := [name for name, tensor in found.weights.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(f"{found.path} has weights that are not finite: {', '.join(bad[:3])}")
