"""Read what the log of a run says about its training: loss and validation by epoch, and the baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.errors import SasrecError
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import events_of


@dataclass(frozen=True)
class Curve:
    """The training of one run, as far as it is."""

    run: Path
    losses: dict[int, float]
    """Epoch, from 1 -> mean training loss."""
    validation: dict[int, float]
    """Epoch -> NDCG@10 on validation, full catalogue."""
    baselines: dict[str, float]
    """Name of a baseline -> NDCG@10 on validation, full catalogue."""
    parameters: int | None
    seconds: float | None
    """Wall-clock time of training, of all sessions of the run; None before the first epoch."""

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best validation; the first of equals. None without a validation."""
        return max(self.validation, key=lambda epoch: self.validation[epoch], default=None)


def curve_of(run: str | Path) -> Curve:
    """Read the log of a run. An epoch that was trained again after an interruption counts as the last time.

    Raises: CheckpointError if the log cannot be read. Remedy: restore it.
    """
    path = Path(run)
    losses: dict[int, float] = {}
    validation: dict[int, float] = {}
    baselines: dict[str, float] = {}
    parameters, seconds = None, None
    for event in events_of(path):
        epoch, kind = _number(event.get("epoch")), event["event"]
        if kind == "epoch" and epoch is not None and (loss := _number(event.get("loss"))) is not None:
            losses[int(epoch)] = loss
        elif kind == "validation" and epoch is not None and (score := _number(event.get("score"))) is not None:
            validation[int(epoch)] = score
        elif kind == "baselines":
            baselines = _of_baselines(event.get("baselines"))
        elif kind == "model" and (count := _number(event.get("parameters"))) is not None:
            parameters = int(count)
        if kind in ("epoch", "stopped"):
            seconds = _number(event.get("seconds"))
    return Curve(path, losses, validation, baselines or _measured_baselines(path), parameters, seconds)


def _measured_baselines(path: Path) -> dict[str, float]:
    """Return the baselines of metrics.json, for runs that were trained before the log had them."""
    run = RunFolder(path)
    try:
        return _of_baselines(run.metrics()["baselines"]) if run.metrics_file.exists() else {}
    except SasrecError:
        return {}


def _of_baselines(found: Any) -> dict[str, float]:
    values = {}
    for name, value in found.items() if isinstance(found, dict) else ():
        for key in ("valid", "full", "ndcg@10"):
            value = value.get(key) if isinstance(value, dict) else None
        if (number := _number(value)) is not None:
            values[str(name)] = number
    return values


def _number(value: Any) -> float | None:
    """Return a finite number of a log, which somebody may have edited, or None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return float(value) if usable and math.isfinite(value) else None
