"""Restore settings, model and known items from a checkpoint."""

from __future__ import annotations

import dataclasses
import warnings
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sasrec.checkpoint import store
from sasrec.checkpoint.sound import check, check_to_resume, unpacked
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import Split, TrainingPart
from sasrec.errors import CheckpointError, SasrecWarning
from sasrec.models import SequenceModel, build_model
from sasrec.models.own import Encoder, OwnCode
from sasrec.runtime.log import events_of

CHECKPOINTS = "checkpoints"  # the folder inside a run
_KNOWN_ITEMS, _TRAINING_PART = "known_items", "training_part"


def checkpoint_at(path: Path, encoder: Encoder | None = None) -> store.Checkpoint:
    """Load a checkpoint from its own folder, or the best checkpoint from the folder of a run.

    `encoder`: the own class of the model, if it was trained with one.

    Raises: CheckpointError if the checkpoint is missing or damaged, or `path` is a file that could run code.
    Remedy: name a checkpoint folder or a run. ConfigError if the model is of another class. Remedy: pass that
    class.
    """
    if path.suffix in {".pth", ".pt", ".ckpt", ".bin"}:
        raise CheckpointError(
            f"{path} is refused: {path.suffix} files can run code. Give a checkpoint folder or a run."
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Name a run or the folder of a checkpoint.")
    if (path / "config.toml").exists() and not (path / CHECKPOINTS).exists():
        raise CheckpointError(f"the run {path} has no checkpoint yet. Train it again, or use another run.")
    if not (path / CHECKPOINTS).exists():
        found = store.load(path)
        check(found, encoder)
        return found
    best = store.best(path / CHECKPOINTS)
    try:
        found = store.load(best)
    except CheckpointError as error:
        if best.exists():
            raise CheckpointError(
                f"{error} Or continue the run with `resume`, which sets damaged checkpoints aside."
            ) from None
        found = store.load(store.best(path / CHECKPOINTS))  # training has just replaced the best
    check(found, encoder)
    _warn_of_a_lost_best(path, found)
    return found


def newest(checkpoints: Path, say: Callable[[str], None], own: OwnCode) -> str:
    """Return the name of the newest checkpoint from which training can continue.

    Raises: the errors of `store.newest` and `check_to_resume`.
    """
    return store.newest(checkpoints, say, lambda found: check_to_resume(found, own)).path.name


def _warn_of_a_lost_best(run: Path, found: store.Checkpoint) -> None:
    """Warn if the log of a run tells of a better checkpoint, which was deleted or moved to quarantine/."""
    validations = [
        event for event in events_of(run) if event["event"] == "validation" and event.get("best") is True
    ]
    validations = [each for each in validations if isinstance(each.get("score"), float) and "epoch" in each]
    if not validations or validations[-1]["score"] <= (found.state["score"] or 0.0):
        return
    epoch, score = (validations[-1][key] for key in ("epoch", "score"))
    warnings.warn(
        f"the best checkpoint of {run} is missing (epoch {epoch}, validation NDCG@10 {score:.4f}); "
        f"{found.path.name} is used, the best that is left",
        SasrecWarning,
        stacklevel=3,
    )


def check_data(found: store.Checkpoint, data: Dataset, own: Path | None = None) -> None:
    """Check that a checkpoint belongs to a data set, by the hash of the data. `own`: the folder of the run's data.

    Raises: CheckpointError if the checkpoint was trained on other data. Remedy: pass the data that it was trained
    on, or use another checkpoint.
    """
    hashes = found.need("data_hash")[:12], data.data_hash[:12]
    if found.need("data_hash") != data.data_hash and own is not None:
        raise CheckpointError(
            f"{own} was prepared again with other data (hash {hashes[1]}), but {found.path} was trained on the "
            f"data with hash {hashes[0]}. Prepare that data again in another folder and name it as `dataset`, "
            "or train a new run on the data that is there now."
        )
    if found.need("data_hash") != data.data_hash:
        raise CheckpointError(
            f"{found.path} was trained on other data (hash {hashes[0]}, but this data set has "
            f"{hashes[1]}). Name the data that it was trained on as `dataset`, or use another "
            "checkpoint. To measure a run on other events, use `evaluate` with `test`."
        )


def serving_state(split: Split) -> dict[str, Any]:
    """Return the parts of a split that recommendations need, as JSON for the state of a checkpoint."""
    known_V = split.known_V
    # One bit per item and one for padding, in base 64; None if all items are known.
    packed = None if known_V[1:].all() else b64encode(np.packbits(known_V).tobytes()).decode()
    return {_KNOWN_ITEMS: packed, _TRAINING_PART: dataclasses.asdict(split.training_part)}


def known_items(found: store.Checkpoint, num_items: int) -> npt.NDArray[np.bool_] | None:
    """Return (V,): true for known items (`Recommender.known_items`); None if all items are known.

    Raises: CheckpointError if the saved list is damaged or is not for `num_items` items. Remedy: use another
    checkpoint.
    """
    return unpacked(found, num_items)


def training_part(found: store.Checkpoint) -> TrainingPart:
    """Return the rule that decided where the training part of each history ends.

    Raises: CheckpointError if the checkpoint has no valid rule. Remedy: use another checkpoint.
    """
    try:
        return TrainingPart(**found.need(_TRAINING_PART))
    except TypeError:
        raise CheckpointError(f"{found.path} has no valid {_TRAINING_PART}. Use another checkpoint.") from None


def config_of(found: store.Checkpoint) -> RunConfig:
    """Return the settings that the checkpoint was trained with."""
    return RunConfig.from_parts(found.need("config"), f"{found.path}/state.json")


def model_of(found: store.Checkpoint, num_items: int, encoder: Encoder | None = None) -> SequenceModel:
    """Return the model of a checkpoint, with its weights, on the CPU. The caller's random state is unchanged.

    `encoder`: the own class of the model, if it was trained with one.
    """
    with torch.random.fork_rng(devices=[]):  # the initial values drawn here are overwritten at once
        model = build_model(num_items, config_of(found).model, encoder)
    put_weights(found, model)
    return model


def put_weights(found: store.Checkpoint, model: SequenceModel) -> None:
    """Copy the weights of a checkpoint into a model.

    Raises: CheckpointError if the shapes differ or a weight is not finite. Remedy: use another checkpoint.
    """
    try:
        model.load_state_dict(found.weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{found.path} has the weights of another model. Use another checkpoint. Details: {error}"
        ) from None
    if bad := [name for name, tensor in found.weights.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"{found.path} has weights that are not finite: {', '.join(bad[:3])}. Use an earlier checkpoint."
        )
