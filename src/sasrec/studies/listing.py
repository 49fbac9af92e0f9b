"""List the runs in a folder: what they are, how far they came, and their metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sasrec.config.choices import Candidates, SplitName
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError, SasrecError
from sasrec.evaluation.metrics import METRICS
from sasrec.files import missing
from sasrec.locks import writer_of
from sasrec.runs.folder import RunFolder, best_baseline

_NOT_SHOWN = ("dataset", "device", "seed")
State = Literal["measured", "trained", "training", "interrupted", "damaged"]


@dataclass(frozen=True)
class Listed:
    """A run, as a row of a list."""

    path: Path
    state: State
    note: str
    """Who trains it now, or what is damaged; else ""."""
    data: str
    """The name of its data set and the first digits of its hash; "" before it was measured."""
    settings: str
    """The settings that differ from the defaults, without data, device and seed: "maxlen=50 time"; four digits."""
    seed: int | None
    best_epoch: int | None
    seconds: float | None
    value: float | None
    """The metric that was asked for."""
    baseline: tuple[str, float] | None
    """The best baseline by this metric, and its value."""


def list_runs(
    folder: str | Path = "runs",
    *,
    metric: str = "ndcg@10",
    candidates: Candidates = "full",
    split: SplitName = "test",
) -> list[Listed]:
    """List the runs in a folder and in its folders, best first; those without the metric come last, by name.

    Raises: ConfigError if the folder does not exist, or metrics.json has no such metric. Remedy: use one that the
    message lists.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else missing(folder)
        raise ConfigError(f"the folder {folder} {what}. Name a folder with runs in it.")
    if metric not in METRICS:
        raise ConfigError(f"unknown `metric` {metric!r}. Choose one of: {', '.join(METRICS)}")
    paths = sorted(
        path.parent for path in folder.rglob("config.toml") if not (path.parent / "items.parquet").exists()
    )
    rows = [_listed(path, f"{split}.{candidates}.{metric}", split) for path in paths]
    return sorted(rows, key=lambda row: (-(row.value if row.value is not None else -math.inf), str(row.path)))


def _listed(path: Path, metric: str, split: SplitName) -> Listed:
    run = RunFolder(path)
    try:
        config, ended = run.config(), run.ending()
        measured = run.metrics() if run.metrics_file.exists() else None
    except SasrecError as error:
        return Listed(path, "damaged", str(error), "", "", None, None, None, None, None)
    value = baseline = None
    if measured is not None and split in measured:
        part: dict[str, float] = measured
        for key in metric.split("."):
            part = part[key]  # type: ignore[assignment]
        value, baseline = float(part), best_baseline(measured, metric)  # type: ignore[arg-type]
    now = writer_of(path)
    state: State = "interrupted" if ended is None else "measured" if ended.measured else "trained"
    card = {} if measured is None else measured["protocol"]
    return Listed(
        path,
        "training" if now else state,
        now,
        f"{card['data']} {card['data_hash'][:12]}" if card else "",
        _settings(config),
        config.training.seed,
        None if ended is None else ended.best_epoch or None,  # 0 without a validation
        None if ended is None else ended.seconds,
        value,
        baseline,
    )


def _settings(config: RunConfig) -> str:
    changed = RunConfig().differences(config)
    shown = {name: value for name, (_, value) in changed.items() if name not in _NOT_SHOWN}
    return " ".join(
        name if value is True else f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in shown.items()
    )
