"""What a run folder holds, and how its run ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset, open_dataset
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation import metrics as figures
from sasrec.runtime.log import events_of
from sasrec.runtime.ranks import launch_id


def best_baseline(metrics: dict[str, Any], metric: str) -> tuple[str, float]:
    """Of those in a metrics.json: its name and what it has."""
    found = {name: metric_of(metrics, f"baselines.{name}.{metric}") for name in metrics["baselines"]}
    return max(found.items(), key=lambda each: each[1])


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """`test.full.ndcg@10`, or `baselines.markov.test.full.ndcg@10`, of a metrics.json.

    Raises: ConfigError if there is none of that name; EvaluationError if nobody has a target there.
    """
    found: Any = metrics
    for part in ("valid", "test"):
        if part in name.split(".") and part not in metrics:
            raise EvaluationError(f"there is no {name}: nobody has a {part} target, the protocol card says why")
    try:
        for key in name.split("."):
            found = found[key]
        return float(found)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"there is no metric {name!r}; one is test.full.ndcg@10") from None


def holds_checkpoints(folder: Path) -> bool:
    """Whether a run in that folder came far enough to be resumed."""
    from sasrec.checkpoint import store  # imports PyTorch, which `sasrec compare` does without
    from sasrec.checkpoint.restore import CHECKPOINTS

    return store.begun(folder / CHECKPOINTS)


def launch_of(folder: Path) -> str:
    """The launch that began the run, if it is this one. Starts before it came to no checkpoint."""
    began = [event for event in events_of(folder) if event["event"] == "start"]
    return launch_id() if began and began[-1].get("launch") == launch_id() else ""


METRICS = "metrics.json"
RANKS = "ranks.parquet"


@dataclass(frozen=True)
class Ending:
    """How a run came to its end."""

    reason: str
    """As the trainer words it."""
    best_epoch: int
    seconds: float
    """Of training, all parts of an interrupted run together."""
    time: str
    """When, ISO 8601."""
    measured: bool
    """Whether its metrics.json is of after that."""


def ending(run: Path) -> Ending | None:
    """How a run ended, or None if it has not: it was interrupted, has been taken up again, or left no word."""
    told = [each for each in events_of(run) if each["event"] in ("start", "resume", "stopped", "metrics")]
    at = max((place for place, each in enumerate(told) if each["event"] != "metrics"), default=-1)
    if at < 0 or told[at]["event"] != "stopped" or told[at].get("reason") == "interrupted":
        return None
    try:
        reason, best_epoch, seconds, time = (told[at][key] for key in ("reason", "best_epoch", "seconds", "time"))
        return Ending(str(reason), int(best_epoch), float(seconds), str(time), measured=at < len(told) - 1)
    except (KeyError, TypeError, ValueError):
        return None


def is_finished(run: Path) -> bool:
    """Whether a run has ended and its metrics are of that."""
    ended = ending(run)
    return ended is not None and ended.measured and (run / METRICS).exists()


def saved_metrics(run: str | Path) -> figures.Metrics:
    """The metrics.json of a run, as `evaluate` returns it.

    Raises: EvaluationError if it is not what `evaluate` writes.
    """
    try:
        metrics: dict[str, Any] = json.loads((Path(run) / METRICS).read_text(encoding="utf-8"))
        _check_metrics(metrics)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise EvaluationError(f"{run}/{METRICS} is damaged: measure it again: sasrec evaluate {run}") from None
    return figures.Metrics(metrics)


def _check_metrics(metrics: Any) -> None:
    """Raises what the use of a part that is missing or of another kind raises."""
    card = metrics["protocol"]
    there = [split for split in ("valid", "test") if card[split]["targets"]]
    for scorer in (metrics, *metrics["baselines"].values()):
        for split, candidates, name in product(there, ("full", "sampled"), figures.METRICS):
            float(scorer[split][candidates][name])
    for field in ("data", "data_hash", "split", "sasrec"):
        card[field].split()
    int(card["sampled_negatives"] + card["sampled_seed"])
    for split, field in product(("valid", "test"), ("targets", "users")):
        int(card[split][field])


def prepared_folder(source: str | Path) -> Path | None:
    """The absolute path of a data set that `prepare` wrote, or None if the source is something else."""
    there = bool(str(source)) and (Path(source) / "manifest.json").exists()
    return Path(source).absolute() if there else None


def dataset_of(folder: Path, config: RunConfig) -> Dataset:
    """The data set of a run, where `_prepare_run` left it."""
    prepared = prepared_folder(config.data.dataset) if Path(config.data.dataset).is_absolute() else None
    return open_dataset(prepared or folder / "dataset")
