"""Locate and read the files of a run folder, and report how its training ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset, open_dataset
from sasrec.data.manifest import MANIFEST, is_manifest
from sasrec.errors import CheckpointError, ConfigError, DataError, EvaluationError, FolderError, for_shell
from sasrec.evaluation import metrics as figures
from sasrec.files import missing
from sasrec.locks import is_claimed, only_writer
from sasrec.runs.metrics_file import check_metrics
from sasrec.runs.seal import SEAL, changed, refuse_changed
from sasrec.runtime.log import RunLog, events_of
from sasrec.runtime.ranks import from_main, launch_id, same_on_every_rank
from sasrec.sources.resolve import prepared_folder
from sasrec.untrusted import in_words, json_of, refuse_no_file


def best_baseline(metrics: dict[str, Any], metric: str) -> tuple[str, float]:
    """Return the name and the value of the baseline with the highest `metric`; ties go to the first.

    `metrics`: the content of metrics.json. Raises: the errors of `metric_of`.
    """
    values = {name: metric_of(metrics, f"baselines.{name}.{metric}") for name in metrics["baselines"]}
    return max(values.items(), key=lambda item: item[1])


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """Return one value of a metrics.json, by a name such as test.full.ndcg@10 or baselines.markov.test.full.mrr.

    Raises: ConfigError if the name is unknown. Remedy: use a name such as test.full.ndcg@10. EvaluationError if
    the name contains valid or test and no user has such a target. Remedy: train with another value of the setting
    `split`.
    """
    value: Any = metrics
    for part in ("valid", "test"):
        if part in name.split(".") and part not in metrics:
            raise EvaluationError(
                f"{name} was not measured, because no user has a {part} target. For the reason, see "
                f"protocol.{part}.skipped in metrics.json. Train with another `split`."
            )
    try:
        for key in name.split("."):
            value = value[key]
        return float(value)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{name!r} is not a metric of this run. Use a name such as test.full.ndcg@10.") from None


@dataclass(frozen=True)
class Ending:
    """How the training of a run ended."""

    reason: str
    """Why training ended, in the words that the trainer logged."""
    best_epoch: int
    """The epoch of the best checkpoint, counted from 1; 0 without a validation."""
    seconds: float
    """The wall-clock time of training, summed over all resumes of the run."""
    time: str
    """The moment when training ended, in ISO 8601."""
    measured: bool
    """Whether log.jsonl records a measurement of the run after training ended."""


class RunFolder:
    """A run on disk: the paths of its files, and methods that read them.

    RUN/     config.toml  log.jsonl  metrics.json  ranks.parquet  seal.json  checkpoints/
             dataset/ (only if `train` prepared the data)  rejects.csv (only if rows were rejected)
    EXPORT/  config.toml  items.parquet  checkpoints/
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise ConfigError(f"a run is named by the path of its folder, not by {path!r}. Name a folder.")
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.log_file = self.path / "log.jsonl"  # events, one JSON object a line
        self.metrics_file = self.path / "metrics.json"  # what `evaluate` returned, with the protocol card
        self.ranks_file = self.path / "ranks.parquet"  # the rank of every target, for comparisons
        self.items_file = self.path / "items.parquet"  # the catalogue of an export
        self.counts_file = self.path / "counts.parquet"  # events of each item, for the fallbacks of an export
        self.baseline_file = self.path / "baseline.safetensors"  # what an export of a baseline serves
        self.blend_file = self.path / "blend.json"  # the blend that was chosen on validation
        self.checkpoints = self.path / "checkpoints"

    @contextmanager
    def writing(self, doing: str) -> Iterator[None]:
        """Hold the folder for the processes of this launch, so that nobody else writes into it meanwhile.

        `doing`: such as "training". Every rank enters; rank 0 holds the lock.

        Raises: FolderError if somebody else writes into the folder, or its files are not ours. Remedy: wait, or
        name another folder.
        """
        same_on_every_rank({"the folder": str(self.path)})
        with ExitStack() as held:

            def hold() -> str:
                if self.path.is_file():
                    raise ConfigError(f"{self.path} is a file. Name a folder for the run as `train_dir`.")
                copied = any(self.checkpoints.glob("*step-*/MANIFEST.json"))  # perhaps without hidden files
                self.refuse_data_set()
                if not is_claimed(self.path) and not copied:
                    raise FolderError(
                        f"{self.path} has files and is not a run. Name a new or empty folder as `train_dir`."
                    )
                self._refuse_no_files()
                held.enter_context(only_writer(self.path, doing))
                return ""

            from_main(f"{doing} {self.path}", hold)
            yield

    @contextmanager
    def measuring(self, *, writes: bool) -> Iterator[None]:
        """Hold the folder while it is measured, if the measurement `writes` into it.

        Raises: CheckpointError or FolderError if the folder is not a run. Remedy: name a run. Also the errors of
            `writing`.
        """
        self.refuse_no_run()
        with self.writing("measuring") if writes else nullcontext():
            yield

    def _refuse_no_files(self) -> None:
        """Raise CheckpointError if a file of the run is a pipe, a folder or the like, before it is written."""
        for path in (self.config_file, self.log_file, self.metrics_file, self.ranks_file, self.path / SEAL):
            try:
                refuse_no_file(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CheckpointError(f"{path} cannot be used: {error.strerror}. Remove it.") from None

    def refuse_data_set(self) -> None:
        """Raise FolderError if the folder is a data set. Remedy: name the folder of a run."""
        if is_manifest(self.path / MANIFEST):
            raise FolderError(
                f"{self.path} is a data set, not a run. Name the folder of a run; name a data set as `dataset`."
            )

    def refuse_no_run(self) -> None:
        """Raise CheckpointError or FolderError if the folder is not there, or is not a run. Remedy: name a run."""
        if not self.path.exists():
            raise CheckpointError(f"the run {self.path} {missing(self.path)}. Check the path.")
        self.refuse_data_set()
        if not self.config_file.exists():
            what = "a file" if self.path.is_file() else "not a run, since it has no config.toml"
            raise CheckpointError(f"{self.path} is {what}. Name a folder that `train` made.")

    def config(self) -> RunConfig:
        """Read the settings of the run. Raises: ConfigError if the file is damaged. Remedy: repair the file."""
        return RunConfig.load(self.config_file)

    def dataset(self, config: RunConfig | None = None) -> Dataset:
        """Open the data set of the run. `config`: settings to use instead of the run's own."""
        return open_dataset(self.data_folder(config))

    def data_folder(self, config: RunConfig | None = None) -> Path:
        """Return the folder of the run's data: the prepared folder that the settings name, else RUN/dataset.

        Raises: DataError if it is missing. Remedy: restore it, or name its new place.
        """
        source = (config or self.config()).data.dataset
        own = self.path / "dataset"
        prepared = prepared_folder(source) if Path(source).is_absolute() else None
        if prepared is None and source and not own.exists():
            raise DataError(
                f"the data of the run {self.path} is missing: it was {source}. Restore it, or name its new place "
                "as `dataset`."
            )
        return prepared or own

    def log(self, log: RunLog | None) -> RunLog:
        """Return a log that writes to log.jsonl and prints to the console of `log`, or to stderr if `log` is None.

        With several ranks, only rank 0 writes and prints.
        """
        return RunLog.of_run(self.log_file, log)

    def events(self) -> list[dict[str, Any]]:
        """Read all events of log.jsonl, oldest first."""
        return events_of(self.path)

    def can_resume(self) -> bool:
        """Whether the run has a checkpoint to continue from.

        Raises: FolderError if the folder is a data set. Remedy: name the folder of a run.
        """
        self.refuse_data_set()
        from sasrec.checkpoint import store  # imports PyTorch, which `sasrec compare` does without

        return store.begun(self.checkpoints)

    def launch(self) -> str:
        """The id of the torchrun launch that started the run, if this process belongs to it, else ""."""
        starts = [event for event in self.events() if event["event"] == "start"]
        # `train` refuses a folder with a checkpoint, so earlier starts saved nothing: only the last one counts.
        return launch_id() if starts and starts[-1].get("launch") == launch_id() else ""

    def ending(self) -> Ending | None:
        """Report how training ended; None if it was interrupted, still runs, or did not log its end."""
        events = [event for event in self.events() if event["event"] in ("start", "resume", "stopped", "metrics")]
        # A metrics event after the end means that the final weights were measured.
        last = max((at for at, event in enumerate(events) if event["event"] != "metrics"), default=-1)
        if last < 0 or events[last]["event"] != "stopped" or events[last].get("reason") == "interrupted":
            return None
        try:
            reason, best, seconds, time = (
                events[last][key] for key in ("reason", "best_epoch", "seconds", "time")
            )
            return Ending(str(reason), int(best), float(seconds), str(time), measured=last < len(events) - 1)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return None

    def is_finished(self) -> bool:
        """Whether training has ended and the result was measured afterwards, and its log is the one of then."""
        ending = self.ending()
        measured = ending is not None and ending.measured and self.metrics_file.exists()
        return measured and not changed(self.path, self.log_file.name)

    def metrics(self) -> figures.Metrics:
        """Read metrics.json, as `evaluate` returns it.

        Raises: EvaluationError if the file is damaged, or has changed since the run was measured. Remedy: run
        `sasrec evaluate` again.
        """
        refuse_changed(self.path, self.metrics_file.name, "checkpoint")
        try:
            metrics: dict[str, Any] = json_of(self.metrics_file)
            check_metrics(metrics)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else in_words(error)
            raise EvaluationError(
                f"{self.metrics_file} is damaged; measure the run again: sasrec evaluate "
                f"{for_shell(self.path)} ({reason})"
            ) from None
        return figures.Metrics(metrics)


def named_run(run: str | Path) -> tuple[RunFolder, str]:
    """Return the folder of RUN or RUN:NAME, and the name of a baseline or "blend"; "" for the run itself."""
    path, _, name = str(run).rpartition(":")
    return (RunFolder(path), name) if path and not Path(run).exists() else (RunFolder(run), "")
