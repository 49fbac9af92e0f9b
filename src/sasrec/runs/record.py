"""What a checkpoint records beside the tensors, and what the processes of a launch must have in common."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

import torch

from sasrec.checkpoint import store
from sasrec.checkpoint.restore import serving_state
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import Split
from sasrec.evaluation.card import code_version
from sasrec.files import file_digest
from sasrec.models.own import OwnCode
from sasrec.runtime.device import surroundings
from sasrec.runtime.ranks import same_on_every_rank, world
from sasrec.training.trainer import TrainingState


def record(
    state: TrainingState,
    score: float | None,
    data: Dataset,
    split: Split,
    config: RunConfig,
    device: torch.device,
    own: OwnCode,
) -> dict[str, Any]:
    """Return the content of state.json of a checkpoint."""
    return {
        "step": state.step,
        "epoch": state.epoch,
        "score": score,
        "score_is": "validation NDCG@10, full catalogue",
        "training": dataclasses.asdict(state),
        "num_items": data.num_items,
        "data_hash": data.data_hash,
        **serving_state(split),
        **own.names(),
        "ranks": world(),
        "config": dataclasses.asdict(config),
        "versions": {"sasrec": version("sasrec"), "torch": torch.__version__},
        "surroundings": surroundings(device),
    }


def other_surroundings(found: store.Checkpoint, device: torch.device) -> str:
    """Return a note if a run continues where the last digits of its numbers may differ, else "".

    The bits depend on the device, its number of threads, the number of processes and the versions of PyTorch and
    NumPy.
    """
    before, now = found.state.get("surroundings"), surroundings(device)
    if not isinstance(before, dict):  # checkpoints of older versions
        return ""
    differing = [
        f"{name} {value} (before: {before.get(name)})" for name, value in now.items() if value != before.get(name)
    ]
    if not differing:
        return ""
    return (
        f"note: this run continues with {', '.join(differing)}, so the last digits of its numbers can differ from "
        "those of an uninterrupted run"
    )


def check_ranks(
    config: RunConfig,
    data: Dataset | None = None,
    found: store.Checkpoint | None = None,
    others: dict[str, str] | None = None,
) -> None:
    """Check that all processes have the same settings, code and PyTorch; if given, data, checkpoint and `others`.

    Raises: ConfigError, naming the process and what differs. Remedy: give all machines the same files.
    """
    settings = {name: value for part in dataclasses.asdict(config).values() for name, value in part.items()}
    facts = {f"`{name}`": str(value) for name, value in settings.items()}
    facts |= {"code of sasrec": code_version(), "PyTorch": torch.__version__}
    if data is not None:
        facts["data with hash"] = data.data_hash[:12]
    if found is not None:
        facts["checkpoint with hash"] = file_digest(found.path / "MANIFEST.json")[:12]
    same_on_every_rank(facts | (others or {}))
