"""Tie what a run says about itself to the checkpoint that was measured, so that a changed file is noticed.

`seal.json` is written when a run has been measured. It has the hashes of the settings, the metrics, the ranks and
the manifest of the checkpoint, and of the log up to then, which may grow. A run that trains on has no seal.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sasrec.errors import EvaluationError
from sasrec.files import file_digest, write_whole

SEAL = "seal.json"
_SEALED = ("config.toml", "metrics.json", "ranks.parquet")
_LOG = "log.jsonl"


def seal(run: Path, checkpoint: Path) -> None:
    """Write the seal of a run, whose `checkpoint` was measured."""
    log = (run / _LOG).read_bytes() if (run / _LOG).exists() else b""
    content = {
        "checkpoint": checkpoint.name,
        "manifest": file_digest(checkpoint / "MANIFEST.json"),
        "files": {name: file_digest(run / name) for name in _SEALED if (run / name).exists()},
        "log": {"bytes": len(log), "sha256": hashlib.sha256(log).hexdigest()},
    }
    write_whole(run / SEAL, json.dumps(content, indent=2))


def unseal(run: Path) -> None:
    """Remove the seal of a run that is about to change."""
    (run / SEAL).unlink(missing_ok=True)


def changed(run: Path, name: str) -> bool:
    """Return whether a file of a run, or "checkpoint", is not the sealed one; False if nothing is sealed.

    Raises: EvaluationError if the seal is damaged. Remedy: measure the run again.
    """
    found = _read(run)
    if not found:
        return False
    try:
        if name == "checkpoint":
            manifest = run / "checkpoints" / found["checkpoint"] / "MANIFEST.json"
            return manifest.exists() and bool(file_digest(manifest) != found["manifest"])
        if name == _LOG:
            log = (run / _LOG).read_bytes() if (run / _LOG).exists() else b""
            return hashlib.sha256(log[: int(found["log"]["bytes"])]).hexdigest() != str(found["log"]["sha256"])
        sealed = found["files"].get(name)
        return sealed is not None and (run / name).exists() and file_digest(run / name) != str(sealed)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise EvaluationError(_again(run, SEAL)) from None


def refuse_changed(run: Path, *names: str) -> None:
    """Raise EvaluationError if a file of a run, or "checkpoint", has changed since. Remedy: measure the run "
    "again."""
    for name in names:
        if changed(run, name):
            raise EvaluationError(_again(run, name))


def _read(run: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((run / SEAL).read_text(encoding="utf-8"))
        return content | {}  # a list raises TypeError
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, RecursionError):
        raise EvaluationError(_again(run, SEAL)) from None


def _again(run: Path, name: str) -> str:
    what = "the checkpoint that was measured" if name == "checkpoint" else str(run / name)
    return (
        f"{what} has changed since the run {run} was measured. Restore it, or measure the run as it is now: "
        f"sasrec evaluate {run}"
    )
