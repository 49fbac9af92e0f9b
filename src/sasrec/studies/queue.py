"""The queue of a study: one trial of Optuna for each run, in a journal that many processes append to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sasrec.errors import ConfigError, FolderError
from sasrec.locks import is_claimed, only_writer
from sasrec.studies.plan import Job

_JOURNAL = "journal.log"
_RUN, _REASON = "run", "reason"
State = Literal["queued", "running", "done", "failed"]


@dataclass(frozen=True)
class Entry:
    """A run in the queue."""

    run: str
    """CELL/seed-N."""
    state: State
    """A run that was interrupted is "running" until it is taken up again."""
    value: float | None
    """The metric of the study, once the run is done."""
    reason: str
    """Why the run failed; else ""."""
    trial: int


class Queue:
    """The runs of a study and their states. Several processes may use the same study at once."""

    def __init__(self, folder: Path, jobs: tuple[Job, ...]) -> None:
        """Open the queue in the folder of a study, and add the jobs that it does not have yet.

        Raises: ConfigError if Optuna is not installed. Remedy: pip install "sasrec[studies]". FolderError if
        another process adds jobs at this moment. Remedy: try again.
        """
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise ConfigError('studies need Optuna. Install it: pip install "sasrec[studies]"') from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self._jobs = folder, {job.name: job for job in jobs}
        self._states = optuna.trial.TrialState
        self._storage = JournalStorage(JournalFileBackend(str(folder / _JOURNAL)))
        self._study = optuna.create_study(
            storage=self._storage, study_name="study", direction="maximize", load_if_exists=True
        )
        if self._missing():  # workers, which open a study at the same moment, find nothing to add
            with only_writer(folder, "opening the study"):
                for name in self._missing():
                    self._study.enqueue_trial({}, user_attrs={_RUN: name})

    def _missing(self) -> list[str]:
        """Return the names of the jobs that the queue does not have yet."""
        known = {entry.run for entry in self.entries()}
        return [name for name in self._jobs if name not in known]

    def entries(self) -> list[Entry]:
        """Return every run of the study, in the order of the queue. A retried run has its newest state."""
        newest: dict[str, Entry] = {}
        for trial in self._study.get_trials(deepcopy=False):
            state: State = {
                self._states.WAITING: "queued",
                self._states.RUNNING: "running",
                self._states.COMPLETE: "done",
            }.get(trial.state, "failed")  # type: ignore[assignment]
            run, reason = str(trial.user_attrs[_RUN]), str(trial.user_attrs.get(_REASON, ""))
            newest[run] = Entry(run, state, trial.value if state == "done" else None, reason, trial._trial_id)
        return list(newest.values())

    @contextmanager
    def claim(self) -> Iterator[tuple[Job, Entry] | None]:
        """Take the next run that is queued or was interrupted, and hold its folder until the block ends.

        Yields None if nothing is left to take. Interrupted runs come first. The lock of the folder decides who
        gets a run: the system releases it when a process dies, so a run is neither lost nor trained twice.
        """
        for entry in sorted(self.entries(), key=lambda entry: entry.state != "running"):
            if entry.state not in ("queued", "running") or entry.run not in self._jobs:
                continue
            folder = self.folder / entry.run
            with ExitStack() as held:
                try:
                    if is_claimed(folder):  # else training refuses it, as somebody's own
                        held.enter_context(only_writer(folder, "training"))
                except FolderError:  # another process has it
                    continue
                state = self._storage.get_trial(entry.trial).state
                if state.is_finished():  # by another process, meanwhile
                    continue
                if state == self._states.WAITING:
                    self._storage.set_trial_state_values(entry.trial, self._states.RUNNING)
                yield self._jobs[entry.run], entry
                return
        yield None

    def done(self, entry: Entry, value: float) -> None:
        """Record that a run is finished, with its metric."""
        self._storage.set_trial_state_values(entry.trial, self._states.COMPLETE, [value])

    def failed(self, entry: Entry, reason: str) -> None:
        """Record that a run cannot be finished, and why."""
        self._storage.set_trial_user_attr(entry.trial, _REASON, reason)
        self._storage.set_trial_state_values(entry.trial, self._states.FAIL)

    def retry(self) -> list[str]:
        """Queue the failed runs again; return their names."""
        again = [entry.run for entry in self.entries() if entry.state == "failed"]
        for run in again:
            self._study.enqueue_trial({}, user_attrs={_RUN: run})
        return again
