"""Tie what a run says about itself to the checkpoint that was measured, so that a changed file is noticed.

`seal.json` is written when a run has been measured. It has the hashes of the settings, the metrics, the ranks and
the manifest of the checkpoint, and of the log up to then, which may grow. A run that trains on has no seal.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sasrec.errors import EvaluationError, for_shell
from sasrec.files import file_digest, write_whole
from sasrec.untrusted import content_of, json_of, refuse_large

SEAL = "seal.json"
_CONFIG = "config.toml"
_SEALED = (_CONFIG, "metrics.json", "ranks.parquet")
_LOG = "log.jsonl"


_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Log(BaseModel):
    model_config = ConfigDict(strict=True)
    bytes: Annotated[int, Field(ge=0)]
    sha256: _Hash


class _Seal(BaseModel):
    """The content of seal.json."""

    model_config = ConfigDict(strict=True)
    checkpoint: Annotated[str, Field(pattern="^step-[0-9]{8,16}$")]
    manifest: _Hash
    files: dict[str, _Hash]
    log: _Log


def seal(run: Path, checkpoint: Path) -> None:
    """Write the seal of a run, whose `checkpoint` was measured.

    If config.toml was edited since an earlier seal, its hash stays that of then: no measurement makes edited
    settings those of the weights.
    """
    found = _read(run) if (run / SEAL).exists() else None
    log = (run / _LOG).read_bytes() if (run / _LOG).exists() else b""
    content: dict[str, Any] = {
        "checkpoint": checkpoint.name,
        "manifest": file_digest(checkpoint / "MANIFEST.json"),
        "files": {name: file_digest(run / name) for name in _SEALED if (run / name).exists()},
        "log": {"bytes": len(log), "sha256": hashlib.sha256(log).hexdigest()},
    }
    if found is not None and found.checkpoint == checkpoint.name and _CONFIG in found.files:
        content["files"][_CONFIG] = found.files[_CONFIG]
    write_whole(run / SEAL, json.dumps(content, indent=2))


def unseal(run: Path) -> None:
    """Remove the seal of a run that is about to change."""
    (run / SEAL).unlink(missing_ok=True)


def changed(run: Path, name: str) -> bool:
    """Return whether a file of a run, or "checkpoint", is not the sealed one; False if nothing is sealed.

    Raises: EvaluationError if the seal is damaged. Remedy: measure the run again.
    """
    found = _read(run)
    if found is None:
        return False
    if name == "checkpoint":
        return _differs(run / "checkpoints" / found.checkpoint / "MANIFEST.json", found.manifest)
    if name == _LOG:
        try:
            log = content_of(run / _LOG)
        except FileNotFoundError:
            log = b""
        except OSError:
            return True
        return hashlib.sha256(log[: found.log.bytes]).hexdigest() != found.log.sha256
    return name in found.files and _differs(run / name, found.files[name])


def refuse_changed(run: Path, *names: str) -> None:
    """Raise EvaluationError if a file of a run, or "checkpoint", has changed since. Remedy: measure the run "
    "again."""
    for name in names:
        if changed(run, name):
            raise EvaluationError(_again(run, name))


def _differs(path: Path, digest: str) -> bool:
    """Whether a file has another hash, or is not a regular file; False if it is missing."""
    try:
        refuse_large(path)
        return file_digest(path) != digest
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}. Fix its permissions.") from None
    except OSError:
        return True


def _read(run: Path) -> _Seal | None:
    """Return the seal of a run; None if nothing is sealed."""
    try:
        content = json_of(run / SEAL)
        return None if content == {} else _Seal.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise EvaluationError(f"{run / SEAL} cannot be read: {error.strerror}. Fix its permissions.") from None
    except (OSError, ValueError):  # of pydantic too
        raise EvaluationError(_again(run, SEAL)) from None


def _again(run: Path, name: str) -> str:
    what = "the checkpoint that was measured" if name == "checkpoint" else str(run / name)
    return (
        f"{what} has changed since the run {run} was measured. Restore it, or measure the run as it is now: "
        f"sasrec evaluate {for_shell(run)}"
    )
