"""Run a study: prepare its data once, start workers, and say how far they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.data.dataset import open_dataset
from sasrec.data.manifest import MANIFEST
from sasrec.errors import FolderError, SasrecError, TrainingError
from sasrec.locks import is_claimed, writer_of
from sasrec.runs.folder import RunFolder, metric_of
from sasrec.runtime.log import RunLog, events_of
from sasrec.runtime.signals import deferred_interrupt, pending
from sasrec.sources.resolve import resolve
from sasrec.studies.compare import compare
from sasrec.studies.plan import Plan, kept_plan, read_plan
from sasrec.studies.queue import Entry, Queue
from sasrec.studies.scored import Comparison

_DATA, _STOP = "data", "stop"
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
    left: float | None
    """Seconds until all epochs are done, at the speed so far; None before the first."""


def open_study(path: str | Path, *, add: bool = False) -> tuple[Plan, Queue]:
    """Open a study by its TOML file, or by its folder once it has begun.

    `add`: the file may have more runs than when the study began.

    Raises: ConfigError if the file is wrong or has changed. Remedy: as the message says.
    """
    path = Path(path)
    if path.is_dir():
        plan = kept_plan(path)
    else:
        plan = read_plan(path)
        if not is_claimed(plan.folder):
            raise FolderError(f"{plan.folder} has files and is not a study. Name a new folder as `train_dir`.")
        plan.folder.mkdir(parents=True, exist_ok=True)
        plan.keep(add=add)
    return plan, Queue(plan.folder, plan.jobs)


def run_study(path: str | Path, *, workers: int = 1, log: RunLog | None = None, add: bool = False) -> list[Row]:
    """Train all runs of a study that are queued, interrupted or new, by `workers` processes; return all rows.

    Ctrl-C stops the workers after their step, saved; the same call continues. A worker that dies is not replaced,
    but the others take up its run, from its checkpoint.

    Raises: ConfigError if the file is wrong, or has changed. DataError if the data cannot be read. TrainingError
    if the workers ended before the study. KeyboardInterrupt after Ctrl-C, once the workers have ended.
    """
    log = log or RunLog(None)
    plan, queue = open_study(path, add=add)
    (plan.folder / _STOP).unlink(missing_ok=True)
    _data(plan, log)
    threads = _threads(plan.folder, workers)
    started = [_start_worker(plan.folder, threads, number) for number in range(workers)]
    with deferred_interrupt(second_quits=True):
        _watch(queue, plan, started, log)
    left = [entry.run for entry in queue.entries() if entry.state in ("queued", "running")]
    if left and not (plan.folder / _STOP).exists():
        raise TrainingError(
            f"the workers ended before {', '.join(left[:3])}{' and others' if len(left) > 3 else ''}. See "
            f"{plan.folder}/worker-0.log, then run the study again."
        )
    return rows(plan, queue)


def work(folder: str | Path, *, log: RunLog | None = None) -> int:
    """Train runs of a study in this process, until none is left to take; return how many were finished.

    Raises: ConfigError if `folder` is not a study. KeyboardInterrupt or SystemExit after a signal, once the run is
    saved.
    """
    log = log or RunLog(None)
    plan, queue = open_study(folder)
    data, finished = _data(plan, log), 0
    _stop_when_asked(plan.folder / _STOP)
    while not (plan.folder / _STOP).exists():
        with queue.claim() as claimed:
            if claimed is None:
                break
            job, entry = claimed
            try:
                value = _trained(plan, job.config, plan.folder / job.name, data, log)
            except Exception as error:  # else a run that ends its worker would end every worker after it
                reason = str(error) if isinstance(error, SasrecError) else f"{type(error).__name__}: {error}"
                queue.failed(entry, reason)
                log.say(f"warning: {job.name} failed: {reason}")
            else:
                queue.done(entry, value)
                finished += 1
                log.say(f"{job.name}: {plan.metric} {value:.4f}")
    return finished


def stop(folder: str | Path) -> None:
    """Ask all workers of a study to save and end, on every machine; `run_study` continues it."""
    plan, _ = open_study(folder)
    (plan.folder / _STOP).touch()


def rows(plan: Plan, queue: Queue) -> list[Row]:
    """Return how far each run of a study is, in the order of the queue."""
    jobs = {job.name: job for job in plan.jobs}
    return [
        _row(plan.folder, entry, jobs[entry.run].config.training.num_epochs)
        for entry in queue.entries()
        if entry.run in jobs
    ]


def compared(path: str | Path, **options: Any) -> Comparison | None:
    """Compare the cells of a study with its first cell, by the runs that are done; None if only one has any.

    The metric is that of the study, such as NDCG@10, but on test. `options`: those of `compare`.
    """
    plan, queue = open_study(path)
    cells = {job.name: job.cell for job in plan.jobs}
    done = {str(plan.folder / entry.run): cells[entry.run] for entry in queue.entries() if entry.state == "done"}
    metric = plan.metric.rpartition(".")[2]
    return compare(list(done), metric=metric, labels=done, **options) if len(done) > 1 else None


def _row(folder: Path, entry: Entry, epochs: int) -> Row:
    run = folder / entry.run
    events = events_of(run) if entry.state == "running" and (run / "log.jsonl").exists() else []
    ends = [event for event in events if event["event"] == "epoch"]
    scores = [event["score"] for event in events if event["event"] == "validation" and event["score"] is not None]
    epoch, left = 0, None
    if ends:
        epoch = int(ends[-1]["epoch"])
        left = float(ends[-1]["seconds"]) / max(1, epoch) * (epochs - epoch)
    return Row(
        entry, writer_of(run), epoch, epochs, scores[-1] if scores else None, max(scores, default=None), left
    )


def _trained(plan: Plan, config: Any, folder: Path, data: Path, log: RunLog) -> float:
    """Train a run, or continue it, and return the metric of the study."""
    from sasrec.runs.train import resume, train  # here, since the status of a study needs no PyTorch

    run = RunFolder(folder)
    if not run.can_resume():
        train(str(data), folder, recipe=config, log=_quiet(log))
    elif not run.is_finished():
        resume(folder, log=_quiet(log))
    return metric_of(run.metrics(), plan.metric)


def _quiet(log: RunLog) -> RunLog:
    from rich.console import Console

    return RunLog(None, Console(quiet=True), log.words)


def _data(plan: Plan, log: RunLog) -> Path:
    """Prepare the data of a study in its folder, once; return that folder."""
    folder = plan.folder / _DATA
    if not (folder / MANIFEST).exists():
        log.say(f"preparing {plan.dataset}")
        data, _ = resolve(plan.dataset, plan.jobs[0].config.data, say=log.say)
        with suppress(FolderError):  # another worker prepares it at this moment
            data.save(folder)
    open_dataset(folder)  # refuse damaged data before anything is trained
    return folder


def _threads(folder: Path, workers: int) -> int:
    """Return how many threads each worker uses: as when the study began, because results depend on it."""
    file = folder / "threads"
    if not file.exists():
        file.write_text(str(max(1, (os.cpu_count() or 1) // workers)))
    return int(file.read_text())


def _start_worker(folder: Path, threads: int, number: int) -> subprocess.Popen[bytes]:
    with (folder / f"worker-{number}.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "sasrec", "study", "work", str(folder)],
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
            if entry.state in ("done", "failed") and (entry.run, entry.state) not in said:
                said.add((entry.run, entry.state))
                result = (
                    f"{plan.metric} {entry.value:.4f}" if entry.value is not None else f"failed: {entry.reason}"
                )
                log.say(f"[{len(said)} of {len(entries)}] {entry.run}: {result}")
        if not alive:
            return
        time.sleep(_LOOK)


def _stop_when_asked(file: Path) -> None:
    """From now on, raise SIGTERM in this process when the file appears: the run is saved after its step."""

    def look() -> None:
        while not file.exists():
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()
