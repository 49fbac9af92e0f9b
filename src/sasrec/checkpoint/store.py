"""Checkpoints on disk: one folder each, with tensors in safetensors files and the rest in JSON.

    checkpoints/step-00000470/  weights.safetensors  optimizer.safetensors  state.json  MANIFEST.json

A save is atomic: files are written to a hidden folder, which one rename publishes as `step-…`. The manifest
contains the SHA-256 of each file, and reading verifies these hashes before parsing.

The best checkpoint has the highest `score` in its state.json. `prune` deletes all checkpoints except the best and
the newest two. Training resumes from the newest undamaged checkpoint and moves damaged checkpoints to quarantine/.

During a save or deletion, hidden folders exist: `.step-….tmp` (being written), `.step-….old` (being replaced) and
`.step-….gone` (being deleted). A killed process can leave them; `prune` removes them.
"""

from __future__ import annotations

import errno
import json
import math
import re
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
from sasrec.locks import refuse_lost
from sasrec.untrusted import content_of, json_of, json_text

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
STATE, _MANIFEST = "state.json", "MANIFEST.json"


_NAME = re.compile("step-[0-9]{8,16}")  # not the copies that somebody makes beside ours


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The verified content of one checkpoint folder."""

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    def need(self, key: str) -> Any:
        """Return one entry of state.json. Raises: CheckpointError if the entry is missing."""
        return _need(self.path, self.state, key)


def save(
    checkpoints: Path,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    optimizer: dict[str, Tensor] | None = None,
) -> Path:
    """Write the folder `checkpoints/step-N` atomically, where N is state["step"]; replace a previous step-N.

    Raises: CheckpointError if writing fails (disk full, read-only). Existing checkpoints remain valid. Remedy:
        free disk space or fix the permissions. FolderError, as `refuse_lost`.
    """
    final = checkpoints / f"step-{state['step']:08d}"
    temporary = checkpoints / f".{final.name}.tmp"
    refuse_lost(checkpoints.parent)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        content = {
            WEIGHTS: _serialised(weights),
            OPTIMIZER: _serialised(optimizer or {}),
            STATE: json.dumps(state, indent=2).encode(),
        }
        for name, data in content.items():
            write_synced(temporary / name, data)
        hashes = {name: {"bytes": len(data), "sha256": sha256_of(data)} for name, data in content.items()}
        write_synced(temporary / _MANIFEST, json.dumps(hashes, indent=2).encode())
        sync_folder(temporary)
        # rename() cannot replace a folder that is not empty, so the previous step-N moves away first. A kill
        # between the two renames leaves only `.old`, and `_restore_names` then undoes the first rename.
        replaced = checkpoints / f".{final.name}.old"
        _delete(replaced)
        _rename(final, replaced.name)
        temporary.rename(final)
        sync_folder(checkpoints)
        _delete(replaced)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint {final} could not be written: {error.strerror}. "
            "Free disk space or fix the permissions."
        ) from error
    return final


def load(path: Path) -> Checkpoint:
    """Read one checkpoint folder; verify every file against the manifest before parsing.

    Raises: CheckpointError naming the file that is missing or changed, or if the folder's name does not match its
        step. Remedy: use another checkpoint.
    """
    data = _verified(path, (WEIGHTS, OPTIMIZER, STATE))
    state = _state(path, data[STATE])
    step = state["step"]
    if path.name.startswith("step-") and path.name != f"step-{step:08d}":
        raise CheckpointError(
            f"{path} contains the checkpoint of step {step}, so the folder was renamed after it was saved. "
            f"Rename it back to step-{step:08d}, or use another checkpoint."
        )
    return Checkpoint(path, _parsed(path, WEIGHTS, data), _parsed(path, OPTIMIZER, data), state)


def newest(
    checkpoints: Path, say: Callable[[str], None], check: Callable[[Checkpoint], None] = lambda found: None
) -> Checkpoint:
    """Load the newest undamaged checkpoint. Move damaged ones to quarantine/ and report the reason through `say`.

    Every checkpoint of the folder is read, which is cheap, because `prune` keeps at most three. The remains of
    interrupted saves are deleted. `check`: raises CheckpointError for a checkpoint that cannot be used. If no
    checkpoint is usable, none is moved.

    Raises: CheckpointError if all checkpoints are damaged or missing. Remedy: start a new run in another folder.
        OSError if the disk cannot be read.
    """
    _delete_remains(checkpoints)
    newest_valid: Checkpoint | None = None
    damaged: list[tuple[Path, CheckpointError]] = []
    for path in published(checkpoints):  # oldest first, so the last valid one wins
        try:
            found = load(path)
            check(found)
        except CheckpointError as error:
            damaged.append((path, error))
        else:
            newest_valid = found
    if newest_valid is None:
        because = f" ({damaged[-1][1]})" if damaged else ""
        raise CheckpointError(
            f"{checkpoints} has no usable checkpoint{because}. Start a new run in another folder."
        ) from None
    for path, reason in damaged:
        _quarantine(path, reason, say)
    return newest_valid


def best(checkpoints: Path) -> Path:
    """Return the folder of the checkpoint with the highest validation score; on a tie, the earliest.

    Without any score, the newest checkpoint counts as the best.

    Raises: CheckpointError if the folder has no checkpoint or a state.json is damaged. Remedy: train first, or
        name another run.
    """
    paths = published(checkpoints)
    if not paths:
        raise CheckpointError(f"{checkpoints} has no checkpoint. Train first, or name another run.")
    scores = [_score(path) for path in paths]
    highest = max(scores)
    return paths[-1] if highest == -math.inf else paths[scores.index(highest)]


def prune(checkpoints: Path, say: Callable[[str], None]) -> None:
    """Delete the remains of interrupted saves, and all checkpoints except the best and the newest two.

    Checkpoints with a damaged state.json move to quarantine/; `say` receives the reason.
    """
    _delete_remains(checkpoints)
    for path in published(checkpoints):
        try:
            _score(path)
        except CheckpointError as error:
            _quarantine(path, error, say)
    paths = published(checkpoints)
    for path in set(paths) - {best(checkpoints), *paths[-2:]}:
        _delete(path)


def _quarantine(path: Path, error: CheckpointError, say: Callable[[str], None]) -> None:
    """Move a damaged checkpoint to quarantine/, replacing one of the same name, and report it."""
    quarantine = path.parent / "quarantine"
    try:
        quarantine.mkdir(exist_ok=True)
    except FileExistsError:
        raise CheckpointError(
            f"{quarantine} is a file, but damaged checkpoints are moved there ({error}). Remove it."
        ) from None
    shutil.rmtree(quarantine / path.name, ignore_errors=True)
    path.rename(quarantine / path.name)
    say(f"warning: moved the damaged checkpoint {path.name} to {quarantine}: {error}")


def _delete_remains(checkpoints: Path) -> None:
    """Undo the first rename of an interrupted save, and delete what else interrupted saves left.

    This comes before any deletion: a `.old` that outlived its deleted step-N would be restored as a checkpoint.
    """
    _restore_names(checkpoints)
    for remains in checkpoints.glob(".step-*"):
        shutil.rmtree(remains)


def _restore_names(checkpoints: Path) -> None:
    """Rename `.step-N.old` back to step-N where a kill stopped `save` between its two renames."""
    for replaced in checkpoints.glob(".step-*.old"):
        if not (final := checkpoints / replaced.name[1:-4]).exists():
            replaced.rename(final)


def _delete(path: Path) -> None:
    """Delete a folder if it exists; hide it first, so that a kill never leaves a partial checkpoint visible."""
    if path.exists():
        shutil.rmtree(_rename(path, f".{path.name.strip('.')}.gone"))


def _rename(path: Path, name: str) -> Path:
    """Rename a folder if it exists, replacing a folder of the new name; return the new path."""
    target = path.with_name(name)
    if path.exists():
        if target.exists():
            shutil.rmtree(target)
        path.rename(target)
    return target


def published(checkpoints: Path) -> list[Path]:
    """List the complete checkpoints of a folder, oldest first; return [] if the folder does not exist."""
    return sorted(path for path in checkpoints.glob("step-*") if _NAME.fullmatch(path.name))


def begun(checkpoints: Path) -> bool:
    """Return whether a checkpoint exists, also one that a killed save left under its hidden name `.step-….old`."""
    return bool(published(checkpoints)) or any(checkpoints.glob(".step-*.old"))


def _score(path: Path) -> float:
    score: float | None = _state(path, _verified(path, (STATE,))[STATE])["score"]
    return -math.inf if score is None else float(score)


def _state(path: Path, text: bytes) -> dict[str, Any]:
    """Parse state.json, and check the entries that the store itself uses; sound.py checks the others."""
    try:
        state = json_text(text)
    except ValueError as error:
        raise CheckpointError(f"{path / STATE} is not valid JSON: {error}. Use another checkpoint.") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path / STATE} is not a JSON object. Use another checkpoint.")
    step, score = _need(path, state, "step"), _need(path, state, "score")
    if type(step) is not int or not 0 <= step < 2**48:
        raise CheckpointError(f"{path / STATE} has a `step` that is not a count. Use another checkpoint.")
    if score is not None and (type(score) not in (int, float) or not -1e300 < score < 1e300):
        raise CheckpointError(f"{path / STATE} has a `score` that is not a number. Use another checkpoint.")
    return state


def _need(path: Path, state: dict[str, Any], key: str) -> Any:
    if key not in state:
        raise CheckpointError(
            f"{path / STATE} has no {key}; another version of sasrec may have written it. Use that version."
        )
    return state[key]


def _parsed(path: Path, name: str, data: dict[str, bytes]) -> dict[str, Tensor]:
    try:
        return parse_tensors(data[name])
    except SafetensorError as error:
        raise CheckpointError(
            f"{path / name} is not a valid safetensors file: {error}. Use another checkpoint."
        ) from None


def _serialised(tensors: dict[str, Tensor]) -> bytes:
    return serialise_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _verified(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the bytes of the named files after comparing their SHA-256 with the manifest."""
    try:
        manifest = json_of(path / _MANIFEST)
        expected = {name: (int(manifest[name]["bytes"]), str(manifest[name]["sha256"])) for name in names}
    except KeyError as error:
        raise CheckpointError(
            f"{path / _MANIFEST} does not list {error.args[0]}; another version of sasrec may have written it. "
            "Use that version."
        ) from None
    except (OSError, ValueError, TypeError, OverflowError):
        raise CheckpointError(
            f"{path} is not a checkpoint, or its {_MANIFEST} is missing or damaged. Name another folder."
        ) from None
    data = {}
    for name, (size, digest) in expected.items():
        try:
            data[name] = content_of(path / name, size)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise CheckpointError(
                    f"{path / name} cannot be read: {error.strerror}. Use another checkpoint."
                ) from None
        if sha256_of(data.get(name, b"")) != digest:
            raise CheckpointError(f"{path / name} has changed since it was written. Use another checkpoint.")
    return data
