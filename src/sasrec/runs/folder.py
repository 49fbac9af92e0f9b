"""The folder of a run: its files, its data and how its training ended."""

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
from sasrec.runtime.log import RunLog, events_of
from sasrec.runtime.ranks import launch_id
from sasrec.sources.resolve import prepared_folder


def best_baseline(metrics: dict[str, Any], metric: str) -> tuple[str, float]:
    """The name and the value of the baseline with the highest value of a metric, from metrics.json."""
    found = {name: metric_of(metrics, f"baselines.{name}.{metric}") for name in metrics["baselines"]}
    return max(found.items(), key=lambda each: each[1])


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """A value of metrics.json by its path, such as test.full.ndcg@10 or baselines.markov.test.full.ndcg@10.

    Raises: ConfigError for an unknown path; EvaluationError if the split has no targets.
    """
    found: Any = metrics
    for part in ("valid", "test"):
        if part in name.split(".") and part not in metrics:
            raise EvaluationError(
                f"{name} was not measured, because nobody has a {part} target. The protocol card says why"
            )
    try:
        for key in name.split("."):
            found = found[key]
        return float(found)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{name!r} is not a metric. An example is test.full.ndcg@10") from None


@dataclass(frozen=True)
class Ending:
    """How the training of a run ended."""

    reason: str
    """In words, as the trainer logged it."""
    best_epoch: int
    seconds: float
    """Wall clock of training, summed over all parts of an interrupted run."""
    time: str
    """The moment of the end, ISO 8601."""
    measured: bool
    """Whether metrics.json was written after the end."""


class RunFolder:
    """A run on disk: where its parts are, and what they say.

    RUN/  config.toml  log.jsonl  metrics.json  ranks.parquet  rejects.csv  checkpoints/
          dataset/, unless the data was a prepared folder; an export has items.parquet instead
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.log_file = self.path / "log.jsonl"  # events, one JSON object a line
        self.metrics_file = self.path / "metrics.json"  # what `evaluate` returned, with the protocol card
        self.ranks_file = self.path / "ranks.parquet"  # the rank of every target, for comparisons
        self.items_file = self.path / "items.parquet"  # the catalogue of an export
        self.checkpoints = self.path / "checkpoints"

    def config(self) -> RunConfig:
        """The settings of the run. Raises: ConfigError if they cannot be read."""
        return RunConfig.load(self.config_file)

    def dataset(self, config: RunConfig | None = None) -> Dataset:
        """The data of the run: the prepared folder that its settings, or other ones, name, or its own copy."""
        source = (config or self.config()).data.dataset
        prepared = prepared_folder(source) if Path(source).is_absolute() else None
        return open_dataset(prepared or self.path / "dataset")

    def log(self, log: RunLog | None) -> RunLog:
        """The log of the run, which speaks where `log` speaks."""
        return RunLog.of_run(self.log_file, log)

    def events(self) -> list[dict[str, Any]]:
        """The events that the run logged."""
        return events_of(self.path)

    def can_resume(self) -> bool:
        """Whether the run has a checkpoint to continue from."""
        from sasrec.checkpoint import store  # imports PyTorch, which `sasrec compare` does without

        return store.begun(self.checkpoints)

    def launch(self) -> str:
        """The launch of torchrun that began the run, if it is the present one, else ""."""
        starts = [event for event in self.events() if event["event"] == "start"]
        # An earlier start in this folder came to no checkpoint, so only the last one counts.
        return launch_id() if starts and starts[-1].get("launch") == launch_id() else ""

    def ending(self) -> Ending | None:
        """How training ended, or None if it was interrupted, is under way, or left no event."""
        events = [event for event in self.events() if event["event"] in ("start", "resume", "stopped", "metrics")]
        last = max((at for at, event in enumerate(events) if event["event"] != "metrics"), default=-1)
        if last < 0 or events[last]["event"] != "stopped" or events[last].get("reason") == "interrupted":
            return None
        try:
            reason, best, seconds, time = (
                events[last][key] for key in ("reason", "best_epoch", "seconds", "time")
            )
            return Ending(str(reason), int(best), float(seconds), str(time), measured=last < len(events) - 1)
        except (KeyError, TypeError, ValueError):
            return None

    def is_finished(self) -> bool:
        """Whether training has ended and was measured since."""
        ending = self.ending()
        return ending is not None and ending.measured and self.metrics_file.exists()

    def metrics(self) -> figures.Metrics:
        """The content of metrics.json, as `evaluate` returns it.

        Raises: EvaluationError if it is not what `evaluate` writes.
        """
        try:
            metrics: dict[str, Any] = json.loads(self.metrics_file.read_text(encoding="utf-8"))
            _check_metrics(metrics)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
            raise EvaluationError(
                f"{self.metrics_file} is damaged; measure the run again: sasrec evaluate {self.path}"
            ) from None
        return figures.Metrics(metrics)


def _check_metrics(metrics: Any) -> None:
    """Read every part that others read; a part that is missing or of another type raises."""
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
