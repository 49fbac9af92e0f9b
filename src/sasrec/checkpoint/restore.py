"""A checkpoint -> its settings and its model."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sasrec.checkpoint import store
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.errors import CheckpointError
from sasrec.models import SequenceModel, build_model

CHECKPOINTS = "checkpoints"
KNOWN_ITEMS = "known_items"  # of an export's checkpoint: packed bits, one an item and padding, in base 64


def checkpoint_at(path: Path) -> store.Checkpoint:
    """The checkpoint in that folder, or, in that of a run, the best."""
    if path.suffix in {".pth", ".pt", ".ckpt", ".bin"}:
        raise CheckpointError(f"{path}: such files can run code when read: give a checkpoint folder or a run")
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


def exported_items(found: store.Checkpoint, data: Dataset) -> npt.NDArray[np.bool_] | None:
    """(V,) which items are known, from the checkpoint of an export (exporting.py); None if it does not say."""
    if KNOWN_ITEMS not in found.state:
        return None
    try:
        bits = np.frombuffer(b64decode(found.state[KNOWN_ITEMS], validate=True), np.uint8)
    except (ValueError, TypeError):
        bits = np.zeros(0, np.uint8)
    if len(bits) != len(np.packbits(np.zeros(data.num_items + 1, bool))):
        raise CheckpointError(f"{found.path} has {KNOWN_ITEMS} that do not fit its items: export the run again")
    return np.unpackbits(bits, count=data.num_items + 1).astype(bool)


def config_of(found: store.Checkpoint) -> RunConfig:
    """The settings it was trained with."""
    return RunConfig.from_parts(found.need("config"), f"{found.path}/state.json")


def model_of(found: store.Checkpoint, data: Dataset) -> SequenceModel:
    """The model of a checkpoint, with its weights."""
    with torch.random.fork_rng(devices=[]):  # the initial values drawn here are overwritten at once
        model = build_model(data.num_items, config_of(found).model)
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
