"""Run a study: prepare its data once, start workers, and say how far they are."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.config.settings import KEEP_WEIGHTS, DataConfig, RunConfig
from sasrec.data.dataset import open_dataset
from sasrec.data.manifest import MANIFEST
from sasrec.errors import ConfigError, DataError, FolderError, SasrecError, TrainingError, amount, for_shell
from sasrec.locks import alone, is_claimed, writer_of
from sasrec.runs.folder import RunFolder, metric_of
from sasrec.runtime.log import RunLog, events_of
from sasrec.runtime.signals import deferred_interrupt, pending
from sasrec.sources.resolve import resolve
from sasrec.studies.compare import compare
from sasrec.studies.devices import devices_here, held_device
from sasrec.studies.plan import DATA, Job, Plan, kept_plan, read_plan
from sasrec.studies.queue import Entry, Queue
from sasrec.studies.scored import Comparison

_STOP = "stop"
_LOOK = 2.0  # seconds between two looks at the queue


@dataclass(frozen=True)
class Row:
    """A run of a study, and how far it is."""

    entry: Entry
    writer: str
    """Who trains it now; ""."""
    epoch: int
    epochs: int
    validation: float | None
    """The newest validation score."""
    best: float | None
    rate: float | None
    """Seconds an epoch, on average; None before the first."""
    left: float | None
    """Seconds until all epochs are done, at the speed so far; None before the first."""


def open_study(
    path: str | Path, *, add: bool = False, starts: bool = False, log: RunLog | None = None
) -> tuple[Plan, Queue]:
    """Open a study by its TOML file, or by its folder once it has begun.

    `add`: the file may have more runs than when the study began. `starts`: forget an earlier `stop`.

    `log`: says when the data base of the queue does not answer.

    Raises: ConfigError if the file is wrong or has changed. Remedy: as the message says.
    """
    path = _path_of(path)
    plan = kept_plan(path) if path.is_dir() else read_plan(path)
    if not plan.has_begun() and not is_claimed(plan.folder):
        raise FolderError(f"{plan.folder} has files and is not a study. Name a new folder as `train_dir`.")
    with alone(plan.folder, "opening the study") if not path.is_dir() else nullcontext():
        if starts:  # before others can see the study, so that no later `stop` is forgotten
            (plan.folder / _STOP).unlink(missing_ok=True)
        if not path.is_dir():
            plan = plan.keep(add=add)
    return plan, Queue(plan, (log or RunLog(None)).say)


def begun_study(path: str | Path, *, log: RunLog | None = None) -> tuple[Plan, Queue]:
    """Open a study to look at it: as it began, although its file may have changed since. Nothing is written.

    `log`: says that the file has changed, or when the data base of the queue does not answer.

    Raises: ConfigError if the study has not begun, or its file is wrong. Remedy: as the message says.
    """
    path, log = _path_of(path), log or RunLog(None)
    if path.is_dir():
        plan = kept_plan(path)
    else:
        asked = read_plan(path)
        if not asked.has_begun():
            raise ConfigError(f"the study {path} has not begun. Start it with `sasrec study run {path}`.")
        plan = kept_plan(asked.folder)
        try:
            asked.refuse_changed(plan)
        except ConfigError:
            log.say(f"note: {path} has changed since the study began; this is the study as it began")
    return plan, Queue(plan, log.say)


def _path_of(path: Any) -> Path:
    if not isinstance(path, str | Path) or not str(path):
        raise ConfigError(f"a study is named by the path of its TOML file or of its folder, not by {path!r}.")
    return Path(path)


def run_study(
    path: str | Path,
    *,
    workers: int | None = None,
    per_device: int = 1,
    log: RunLog | None = None,
    add: bool = False,
) -> list[Row]:
    """Train all runs of a study that are queued, interrupted or new, by several processes; return all rows.

    `workers`: the number of processes; by default `per_device` for each GPU, or one. `per_device`: how many runs
    may share a GPU.

    Ctrl-C stops the workers after their step, saved; the same call continues. A worker that dies is not replaced,
    but the others take up its run, from its checkpoint.

    Raises: ConfigError if the file is wrong, or has changed. DataError if the data cannot be read. TrainingError
    if the workers ended before the study. KeyboardInterrupt after Ctrl-C, once the workers have ended.
    """
    log = log or RunLog(None)
    _refuse_less_than_one(workers=1 if workers is None else workers, per_device=per_device)
    plan, queue = open_study(path, add=add, starts=True, log=log)
    workers = max(1, len(devices_here()) * per_device) if workers is None else workers
    _data(plan, log)
    threads = _threads(plan.folder, workers)
    if todo := plan.runs - sum(entry.state in ("done", "pruned") for entry in queue.entries()):
        progress = f"sasrec study status {for_shell(plan.folder)} --watch"
        log.say(f"{todo} of {plan.runs} runs to train in {plan.folder}; to see how far each is: {progress}")
    started = [_start_worker(plan.folder, threads, per_device, number) for number in range(workers)]
    with deferred_interrupt(second_quits=True):
        _watch(queue, plan, started, log)
    if queue.lacks_runs():
        ended = [entry.state for entry in queue.entries() if entry.state not in ("queued", "running")]
        if queue.spent():
            left = amount(plan.runs - len(ended), "run", "are")
            log.say(f"note: the {plan.hours:g} hours of the study are spent; {left} not trained")
        elif not (plan.folder / _STOP).exists():
            raise TrainingError(
                f"the workers ended before the study, after {len(ended)} of {plan.runs} runs. See "
                f"{plan.folder}/worker-0.log, then run the study again."
            )
    return rows(plan, queue)


def work(folder: str | Path, *, per_device: int = 1, log: RunLog | None = None) -> int:
    """Train runs of a study in this process, until all are finished; return how many were finished here.

    While other workers train the last runs, this one waits, because it continues a run whose worker dies.

    Raises: ConfigError if `folder` is not a study. KeyboardInterrupt or SystemExit after a signal, once the run is
    saved.
    """
    log = log or RunLog(None)
    _refuse_less_than_one(per_device=per_device)
    plan, queue = open_study(folder, log=log)
    if (plan.folder / _STOP).exists():
        log.say(f"note: the study was stopped. Continue it with `sasrec study run {plan.folder}`")
        return 0
    data, finished, waits = _data(plan, log), 0, False
    devices = [] if plan.jobs[0].config.training.device == "cpu" else devices_here()
    with _stopped_by(plan.folder / _STOP), held_device(devices, per_device, log.say):
        while not (plan.folder / _STOP).exists():
            with queue.claim() as entry:
                if entry is not None:
                    finished += _worked(plan, queue, entry, data, log)
            if entry is None:
                if not queue.is_open() or queue.spent():
                    break
                if not waits:
                    waits = True
                    log.say("waiting for the runs of the other workers")
                time.sleep(_LOOK)
    return finished


def _refuse_less_than_one(**counts: int) -> None:
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ConfigError(f"`{name}` must be a whole number from 1, not {value!r}. Use 1.")


def _worked(plan: Plan, queue: Queue, entry: Entry, data: Path, log: RunLog) -> bool:
    """Train a run that was claimed, and record how it ended; return whether it is done."""
    assert entry.job is not None
    curve: dict[int, float] = {}

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "validation" and event["score"] is not None:
            curve[int(event["epoch"])] = float(event["score"])
            if queue.cannot_win(entry, curve):
                raise _CannotWinError

    run = plan.folder / entry.run
    ended = RunFolder(run).is_finished()
    try:
        for event in events_of(run):  # of a run that continues, or was stopped by `watch` before this was recorded
            with suppress(_CannotWinError) if ended else nullcontext():
                watch(event)
        value = _trained(plan, entry.job.config, run, data, _quiet(log, watch))
    except _CannotWinError:
        best = max(curve.values())
        queue.pruned(entry, best, _seconds(run))
        log.say(
            f"{entry.run}: stopped after epoch {max(curve)}, because it cannot win; best validation {best:.4f}"
        )
    except Exception as error:  # else a run that ends its worker would end every worker after it
        reason = str(error) if isinstance(error, SasrecError) else f"{type(error).__name__}: {error}"
        queue.failed(entry, reason)
        log.say(f"warning: {entry.run} failed: {reason}")
    else:
        queue.done(entry, value, _seconds(run))
        log.say(f"{entry.run}: {plan.metric} {value:.4f}")
        return True
    return False


class _CannotWinError(Exception):
    """A run of a search is stopped early."""


def _seconds(run: Path) -> float:
    """How long a run has trained, without the parts that a kill lost."""
    return max((float(event["seconds"]) for event in events_of(run) if "seconds" in event), default=0.0)


def stop(folder: str | Path) -> bool:
    """Ask all workers of a study to save and end, on every machine; `run_study` continues it.

    Returns whether a run was left to train.
    """
    plan, queue = begun_study(folder)
    (plan.folder / _STOP).touch()
    return queue.is_open()


def rows(plan: Plan, queue: Queue) -> list[Row]:
    """Return how far each run of a study is, in the order of the queue."""
    return [_row(plan.folder, entry, entry.job) for entry in queue.entries() if entry.job is not None]


def compared(path: str | Path, **options: Any) -> Comparison | None:
    """Compare the cells of a study with its first one, by the runs that are done; None if only one has any.

    Of a search, the best points are compared, and not those that were only tried.

    The metric is that of the study, such as NDCG@10, but on test. `options`: those of `compare`.
    """
    plan, queue = begun_study(path)
    cells = dict.fromkeys(job.cell for job in plan.jobs)
    if plan.search is not None:
        best = [entry for cell in cells for entry in queue.best(cell, plan.search.confirm)]
        cells |= dict.fromkeys(entry.job.cell for entry in best if entry.job is not None)
    done = {
        str(plan.folder / entry.run): entry.job.cell
        for entry in queue.entries()
        if entry.state == "done" and entry.job is not None and entry.job.cell in cells
    }
    if lost := [run for run in done if not RunFolder(run).metrics_file.exists()]:
        raise ConfigError(
            f"the results of {', '.join(lost[:3])} are gone. Train again: `sasrec study retry {path}`."
        )
    options = {"metric": plan.metric.rpartition(".")[2]} | options
    return compare(list(done), labels=done, **options) if len(set(done.values())) > 1 else None


def _row(folder: Path, entry: Entry, job: Job) -> Row:
    run, epochs = folder / entry.run, job.config.training.num_epochs
    events = events_of(run) if entry.state == "running" and (run / "log.jsonl").exists() else []
    ends = [event for event in events if event["event"] == "epoch"]
    scores = [event["score"] for event in events if event["event"] == "validation" and event["score"] is not None]
    epoch, rate = 0, None
    if ends:
        epoch = int(ends[-1]["epoch"])
        rate = float(ends[-1]["seconds"]) / max(1, epoch)
    left = None if rate is None else rate * (epochs - epoch)
    newest = scores[-1] if scores else None
    return Row(entry, writer_of(run), epoch, epochs, newest, max(scores, default=None), rate, left)


def _trained(plan: Plan, config: RunConfig, folder: Path, data: Path, log: RunLog) -> float:
    """Train a run, or continue it, and return the metric of the study."""
    from sasrec.runs.train import resume, train  # here, since the status of a study needs no PyTorch

    run = RunFolder(folder)
    if not run.can_resume():
        # The settings of the data were used when it was prepared.
        train(str(data), folder, recipe=dataclasses.replace(config, data=DataConfig()), log=log)
    else:
        own = dataclasses.replace(run.config(), data=config.data).differences(config)
        if other := [f"{name}={value!r}" for name, (value, _) in own.items() if name not in KEEP_WEIGHTS]:
            raise ConfigError(
                f"{folder} has a run with other settings ({', '.join(other)}). Remove this folder, then use "
                "`sasrec study retry`."
            )
        if not run.is_finished():
            resume(folder, log=log)
    return metric_of(run.metrics(), plan.metric)


def _quiet(log: RunLog, watch: Callable[[dict[str, Any]], None]) -> RunLog:
    from rich.console import Console

    return RunLog(None, Console(quiet=True), log.words, watch)


def _data(plan: Plan, log: RunLog) -> Path:
    """Prepare the data of a study in its folder, once; return that folder."""
    folder = plan.folder / DATA
    if not (folder / MANIFEST).exists():
        log.say(f"preparing {plan.dataset}")
        data, _ = resolve(plan.dataset, plan.jobs[0].config.data, say=log.say)
        with alone(folder, "preparing the data"):  # another worker may be doing the same
            if not (folder / MANIFEST).exists():
                data.save(folder)
    try:
        open_dataset(folder)  # refuse damaged data before anything is trained
    except DataError as error:
        raise DataError(f"{error} To do so, remove {folder}, and run the study again.") from None
    return folder


def _threads(folder: Path, workers: int) -> int:
    """Return how many threads each worker uses: as when the study began, because results depend on it.

    OMP_NUM_THREADS decides if the caller has set it; else the workers share the cores.
    """
    file = folder / "threads"
    if not file.exists():
        asked = os.environ.get("OMP_NUM_THREADS", "")
        file.write_text(asked if asked.isdecimal() else str(max(1, (os.cpu_count() or 1) // workers)))
    return int(file.read_text())


def _start_worker(folder: Path, threads: int, per_device: int, number: int) -> subprocess.Popen[bytes]:
    with (folder / f"worker-{number}.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "sasrec", "study", "work", str(folder), f"--per_device={per_device}"],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # else Ctrl-C would reach a worker twice, and a second signal saves nothing
        )


def _watch(queue: Queue, plan: Plan, workers: list[subprocess.Popen[bytes]], log: RunLog) -> None:
    """Say what happens until all workers have ended. Pass a signal on to them, once."""
    said: set[tuple[str, str]] = set()
    sent = False
    while True:
        alive = any(worker.poll() is None for worker in workers)
        if pending() and not sent:
            sent = True
            log.say("the workers save and end")
            for worker in workers:
                worker.send_signal(signal.SIGTERM)  # does nothing to a worker that has ended
        entries = queue.entries()
        for entry in entries:
            if entry.state in ("done", "pruned", "failed") and (entry.run, entry.state) not in said:
                said.add((entry.run, entry.state))
                result = f"failed: {entry.reason}"
                if entry.value is not None:
                    metric = plan.metric if entry.state == "done" else "stopped, because it cannot win; validation"
                    result = f"{metric} {entry.value:.4f}"
                log.say(f"[{len(said)} of {max(plan.runs, len(entries))}] {entry.run}: {result}")
        if not alive:
            return
        time.sleep(_LOOK)


@contextmanager
def _stopped_by(file: Path) -> Iterator[None]:
    """Raise SIGTERM in this process when the file appears during the block: the run is saved after its step."""
    file, ended = file.absolute(), threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            if file.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
