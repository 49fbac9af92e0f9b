"""Checkpoints on disk: directories of safetensors and JSON, published by one rename, verified before parsing.

    checkpoints/step-00000470/  weights.safetensors  optimizer.safetensors  state.json  MANIFEST.json

A directory appears under its name only when it is whole. The best one is that with the highest `score` in its
state; `prune` keeps it and the newest two. Training resumes from the newest that is undamaged; damaged ones are
moved to checkpoints/quarantine/.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from sasrec.errors import CheckpointError
from sasrec.files import sha256_of, sync_folder, write_synced

_WEIGHTS, _OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
_STATE, _MANIFEST = "state.json", "MANIFEST.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was read from one directory."""

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    def need(self, key: str) -> Any:
        """A part of the state. Raises: CheckpointError if it is not there."""
        return _need(self.path, self.state, key)


def save(
    checkpoints: Path,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    optimizer: dict[str, Tensor] | None = None,
) -> Path:
    """Publish `checkpoints/step-N`, N being state["step"]; an older one of that name is replaced.

    Raises: CheckpointError if the disk refuses (full, read-only); what was there before stays valid.
    """
    final = checkpoints / f"step-{state['step']:08d}"
    temporary = checkpoints / f".{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        content = {
            _WEIGHTS: _serialised(weights),
            _OPTIMIZER: _serialised(optimizer or {}),
            _STATE: json.dumps(state, indent=2).encode(),
        }
        for name, data in content.items():
            write_synced(temporary / name, data)
        hashes = {name: {"bytes": len(data), "sha256": sha256_of(data)} for name, data in content.items()}
        write_synced(temporary / _MANIFEST, json.dumps(hashes, indent=2).encode())
        sync_folder(temporary)
        before = checkpoints / f".{final.name}.old"
        _delete(before)
        _renamed(final, before.name)
        temporary.rename(final)
        sync_folder(checkpoints)
        _delete(before)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"the checkpoint {final} could not be written: {error.strerror}") from error
    return final


def load(path: Path) -> Checkpoint:
    """Verify every file against the manifest, then parse.

    Raises: CheckpointError naming the file that is missing, has changed, or belongs to another checkpoint.
    """
    data = _verified(path, (_WEIGHTS, _OPTIMIZER, _STATE))
    state = json.loads(data[_STATE])
    step = _need(path, state, "step")
    if path.name.startswith("step-") and path.name != f"step-{step:08d}":
        raise CheckpointError(f"{path} holds the checkpoint of step {step}: it was renamed or swapped")
    return Checkpoint(path, _parsed(path, _WEIGHTS, data), _parsed(path, _OPTIMIZER, data), state)


def newest(checkpoints: Path, say: Callable[[str], None]) -> Checkpoint:
    """The newest undamaged checkpoint. Damaged ones are moved to `checkpoints`/quarantine; `say` is told why.

    Raises: CheckpointError if none is left; OSError if the disk cannot be read.
    """
    _restore(checkpoints)
    good: Checkpoint | None = None
    for path in published(checkpoints):
        try:
            good = load(path)
        except CheckpointError as error:
            _set_aside(path, error, say)
    if good is None:
        raise CheckpointError(f"{checkpoints} holds no checkpoint that can be used: start anew in another folder")
    return good


def best(checkpoints: Path) -> Path:
    """The checkpoint with the highest validation score, the first of equals; without any score, the newest.

    Raises: CheckpointError if there is none, or a state is damaged.
    """
    paths = published(checkpoints)
    if not paths:
        raise CheckpointError(f"{checkpoints} holds no checkpoint: train first, or name another run")
    scores = [_score(path) for path in paths]
    highest = max(scores)
    return paths[-1] if highest == -math.inf else paths[scores.index(highest)]


def prune(checkpoints: Path, say: Callable[[str], None]) -> None:
    """Delete all but the best and the newest two, and what an earlier run left half deleted or half written.

    Those whose state is damaged are moved to `checkpoints`/quarantine; `say` is told why.
    """
    _restore(checkpoints)
    for left in checkpoints.glob(".step-*"):  # first: what is left of a name must not outlive it
        shutil.rmtree(left)
    for path in published(checkpoints):
        try:
            _score(path)
        except CheckpointError as error:
            _set_aside(path, error, say)
    paths = published(checkpoints)
    for path in set(paths) - {best(checkpoints), *paths[-2:]}:
        _delete(path)


def _set_aside(path: Path, error: CheckpointError, say: Callable[[str], None]) -> None:
    quarantine = path.parent / "quarantine"
    quarantine.mkdir(exist_ok=True)
    shutil.rmtree(quarantine / path.name, ignore_errors=True)
    path.rename(quarantine / path.name)
    say(f"warning: {error}; moved to {quarantine}")


def _restore(checkpoints: Path) -> None:
    """Give a checkpoint its name back where the save that replaced it was cut short between two renames."""
    for left in checkpoints.glob(".step-*.old"):
        if not (final := checkpoints / left.name[1:-4]).exists():
            left.rename(final)


def _delete(path: Path) -> None:
    """Delete a directory, if it is there; it leaves its name first, so that no name ever stands for a part."""
    if path.exists():
        shutil.rmtree(_renamed(path, f".{path.name.strip('.')}.gone"))


def _renamed(path: Path, name: str) -> Path:
    """Give a directory, if it is there, another name, in the place of what has that."""
    other = path.with_name(name)
    if path.exists():
        if other.exists():
            shutil.rmtree(other)
        path.rename(other)
    return other


def published(checkpoints: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first; none where there is no folder."""
    return sorted(checkpoints.glob("step-*"))


def begun(checkpoints: Path) -> bool:
    """Whether there is a checkpoint to go on from, be it one that `newest` will have to give its name back."""
    return any(checkpoints.glob("step-*")) or any(checkpoints.glob(".step-*.old"))


def _score(path: Path) -> float:
    score = _need(path, json.loads(_verified(path, (_STATE,))[_STATE]), "score")
    return -math.inf if score is None else float(score)


def _need(path: Path, state: dict[str, Any], key: str) -> Any:
    if key not in state:
        raise CheckpointError(f"{path / _STATE} has no {key}: was it written by another version?")
    return state[key]


def _parsed(path: Path, name: str, data: dict[str, bytes]) -> dict[str, Tensor]:
    try:
        return parse_tensors(data[name])
    except SafetensorError as error:
        raise CheckpointError(f"{path / name} is no safetensors file: {error}") from None


def _serialised(tensors: dict[str, Tensor]) -> bytes:
    return serialise_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _verified(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        expected = {name: manifest[name]["sha256"] for name in names}
    except KeyError as error:
        raise CheckpointError(f"{path}: its {_MANIFEST} names no {error.args[0]}: of another version?") from None
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        raise CheckpointError(f"{path} is no checkpoint, or its {_MANIFEST} is missing or damaged") from None
    data = {}
    for name, digest in expected.items():
        try:
            data[name] = (path / name).read_bytes()
        except FileNotFoundError as error:
            raise CheckpointError(f"{path / name} cannot be read: {error.strerror}") from None
        if sha256_of(data[name]) != digest:
            raise CheckpointError(f"{path / name} has changed since it was written: use another checkpoint")
    return data
