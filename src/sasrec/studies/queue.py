"""The queue of a study: one trial of Optuna for each run, in a storage that many processes write to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from sasrec.errors import ConfigError, FolderError
from sasrec.locks import BusyError, alone, is_claimed, only_writer
from sasrec.runs.folder import RunFolder
from sasrec.studies.plan import Job, Plan
from sasrec.studies.search import Search, cannot_win
from sasrec.studies.storage import is_lost, patient, storage_of

# The attributes of a trial of Optuna. POINT marks the trials of a search; they have the parameters of the point.
_RUN, _CELL, _SEED, _POINT, _REASON, _SECONDS = "run", "cell", "seed", "point", "reason", "seconds"
State = Literal["queued", "running", "done", "pruned", "failed"]
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A run in the queue."""

    run: str
    """CELL/seed-N."""
    cell: str
    """The cell of the plan, also for the points that are tried in it."""
    state: State
    """A run that was interrupted is "running" until it is taken up again."""
    value: float | None
    """The metric of the study, once the run is done; the best validation of a pruned run."""
    reason: str
    """Why the run failed; else ""."""
    seconds: float
    """How long it trained, once it is done."""
    point: dict[str, Any] | None
    """Settings that the search chose; None for a run that the file names."""
    job: Job | None
    """None if the plan does not have the run any more."""
    trial: int


class Queue:
    """The runs of a study and their states. Several processes may use the same study at once."""

    def __init__(self, plan: Plan, say: Callable[[str], None] = lambda _: None) -> None:
        """Open the queue of a study, and add the runs that it does not have yet.

        `say`: is called with a sentence when the data base does not answer.

        Raises: ConfigError if Optuna is not installed, or the data base cannot be reached. Remedy: as the message
        says. FolderError if another process has been adding runs for minutes. Remedy: try again.
        """
        self._plan, self._say, self._jobs = plan, say, {job.name: job for job in plan.jobs}
        self._storage = storage_of(plan.folder, plan.storage)
        import optuna

        self._states = optuna.trial.TrialState
        self._create = optuna.trial.create_trial
        self._study = self._opened()
        if self._missing():  # workers, which open a study at the same moment, find nothing to add
            with alone(self._plan.folder, "adding runs"):
                for job in self._missing():
                    self._add(job)

    def _opened(self) -> Any:
        import optuna

        try:  # first, because `create_study` writes, also when the study exists
            return self._try(lambda: optuna.load_study(storage=self._storage, study_name=self._plan.id))
        except KeyError:
            return self._try(
                lambda: optuna.create_study(
                    storage=self._storage, study_name=self._plan.id, direction="maximize", load_if_exists=True
                )
            )

    def entries(self) -> list[Entry]:
        """Return every run of the study, in the order of the queue. A retried run has its newest state."""
        newest: dict[str, Entry] = {}
        for trial in self._trials():
            entry = self._entry(trial)
            newest[entry.run] = entry
        return list(newest.values())

    def is_open(self) -> bool:
        """Whether a run is running, or another one will begin."""
        return self.lacks_runs() and (
            not self.spent() or any(entry.state == "running" and entry.job for entry in self.entries())
        )

    def lacks_runs(self) -> bool:
        """Whether a run is queued or running, or the search needs another one, even if the hours are spent."""
        waits = any(entry.state in ("queued", "running") and entry.job for entry in self.entries())
        return waits or self._next() is not None

    @contextmanager
    def claim(self) -> Iterator[Entry | None]:
        """Take the next run that is queued or was interrupted, and hold its folder until the block ends.

        Yields None if nothing can be taken now. Interrupted runs come first. The lock of the folder decides who
        gets a run: the system releases it when a process dies, so a run is neither lost nor trained twice. If the
        queue is empty, a search adds its next point.
        """
        while True:
            entries = self.entries()
            for entry in sorted(entries, key=lambda entry: entry.state != "running"):
                if entry.job is None or entry.state not in self._takes():
                    continue
                with ExitStack() as held:
                    if self._held(entry, held):
                        yield entry
                        return
            if not self._extend(len(entries)):
                yield None
                return

    def spent(self) -> bool:
        """Whether the runs have trained for as long as the study may, together."""
        hours = self._plan.hours
        return hours is not None and sum(entry.seconds for entry in self.entries()) >= hours * 3600

    def done(self, entry: Entry, value: float, seconds: float) -> None:
        """Record that a run is finished, with its metric and its training time."""
        self._set(entry, self._states.COMPLETE, [value], {_SECONDS: seconds})

    def failed(self, entry: Entry, reason: str) -> None:
        """Record that a run cannot be finished, and why."""
        self._set(entry, self._states.FAIL, None, {_REASON: reason})

    def pruned(self, entry: Entry, value: float, seconds: float) -> None:
        """Record that a run was stopped because it cannot win, with its best validation."""
        self._set(entry, self._states.PRUNED, [value], {_SECONDS: seconds})

    def cannot_win(self, entry: Entry, curve: dict[int, float]) -> bool:
        """Record the validation scores of a run, by epoch, and return whether to stop it.

        Only the points of a search with `prune` are ever stopped, and none while the data base does not answer. A
        point that is trained with its other seeds has won already, and its comparison needs all of them.
        """
        search = self._plan.search
        if search is None:
            return False
        try:
            trials = self._study.get_trials(deepcopy=False)
            known = next(trial for trial in trials if trial._trial_id == entry.trial).intermediate_values
            for epoch, score in curve.items():
                if epoch not in known:
                    self._storage.set_trial_intermediate_value(entry.trial, epoch, score)
        except Exception as error:
            if not is_lost(error):
                raise
            return False
        if not search.prune or entry.point is None or entry.job is None or entry.job.seed != self._plan.seeds[0]:
            return False
        cell = [trial for trial in trials if trial.user_attrs[_CELL] == entry.cell]
        ended = [trial for trial in cell if trial.state == self._states.COMPLETE]
        finished = [trial.intermediate_values for trial in ended if _POINT in trial.user_attrs]
        by_seed = [trial.intermediate_values for trial in ended if _POINT not in trial.user_attrs]
        return cannot_win(curve, finished, by_seed)

    def retry(self) -> list[str]:
        """Queue the failed runs again, and those whose results are gone; return their names."""
        lost = {entry.run for entry in self.entries() if entry.state == "done" and self._is_gone(entry)}
        again = [entry for entry in self.entries() if entry.job and (entry.state == "failed" or entry.run in lost)]
        for entry in again:
            trial = next(trial for trial in self._trials() if trial._trial_id == entry.trial)
            attributes = {name: value for name, value in trial.user_attrs.items() if name != _REASON}
            self._add_trial(attributes, dict(trial.params), dict(trial.distributions))
        return [entry.run for entry in again]

    def best(self, cell: str, count: int) -> list[Entry]:
        """Return the best points that the search has finished in a cell, best first."""
        found = [
            entry
            for entry in self.entries()
            if entry.point is not None and entry.value is not None and entry.state == "done"
            if entry.cell == cell and entry.job is not None and entry.job.seed == self._plan.seeds[0]
        ]
        return sorted(found, key=lambda entry: -(entry.value or 0.0))[:count]

    def searched(self, cell: str) -> list[Any]:
        """Return the trials of a cell's search, as Optuna has them, oldest first; not those with other seeds."""
        return [
            trial
            for trial in self._trials()
            if _POINT in trial.user_attrs
            and trial.user_attrs[_CELL] == cell
            and trial.user_attrs[_SEED] == self._plan.seeds[0]
        ]

    def _is_gone(self, entry: Entry) -> bool:
        return not RunFolder(self._plan.folder / entry.run).metrics_file.exists()

    def _takes(self) -> tuple[State, ...]:
        return ("running",) if self.spent() else ("queued", "running")

    def _held(self, entry: Entry, held: ExitStack) -> bool:
        """Whether the run is ours now, with its folder held."""
        folder = self._plan.folder / entry.run
        try:
            if is_claimed(folder):  # else training refuses it, as somebody's own
                held.enter_context(only_writer(folder, "training"))
        except BusyError:
            return False
        except FolderError:
            pass  # the folder cannot be made, and training will say so
        state = self._try(lambda: self._storage.get_trial(entry.trial)).state
        if state.is_finished():  # by another process, meanwhile
            return False
        if state == self._states.WAITING:
            self._try(lambda: self._storage.set_trial_state_values(entry.trial, self._states.RUNNING))
        return True

    def _extend(self, known: int) -> bool:
        """Add the next run of the search, or of its confirmation; return False if it needs nothing more now.

        `known`: how many runs the caller has seen. If another worker has added some since, nothing is added.
        """
        if self._plan.search is None or self.spent():
            return False
        with alone(self._plan.folder, "adding runs"):
            if len(self.entries()) > known:
                return True
            add = self._next()
            if add is not None:
                add()
            return add is not None

    def _next(self) -> Callable[[], None] | None:
        """Return what adds the next run of the search, or of its confirmation; None if none is needed now."""
        search, seeds = self._plan.search, self._plan.seeds
        for cell in dict.fromkeys(job.cell for job in self._plan.jobs) if search is not None else ():
            assert search is not None
            tried = self.searched(cell)
            number = len({trial.user_attrs[_RUN] for trial in tried})
            if number < search.trials:
                return partial(self._add_point, search, cell, tried, number)
            if any(trial.state in (self._states.WAITING, self._states.RUNNING) for trial in tried):
                continue
            named = {entry.run for entry in self.entries()}
            for entry in self.best(cell, search.confirm):
                assert entry.job is not None
                trial = next(each for each in tried if each._trial_id == entry.trial)
                for seed in seeds[1:]:
                    job = dataclasses.replace(entry.job, seed=seed)
                    if job.name not in named:
                        return partial(self._add, job, cell, dict(trial.params), dict(trial.distributions))
        return None

    def _add_point(self, search: Search, cell: str, tried: list[Any], number: int) -> None:
        base = self._plan.base(cell)
        point, distributions = search.propose(base, _as_seen(tried, self._states, self._create), number)
        self._add(Job(f"{cell}_trial-{number}", self._plan.seeds[0], base), cell, point, distributions)

    def _missing(self) -> list[Job]:
        """Return the jobs of the plan that the queue does not have yet."""
        known = {entry.run for entry in self.entries()}
        return [job for job in self._plan.jobs if job.name not in known]

    def _add(
        self,
        job: Job,
        cell: str | None = None,
        point: dict[str, Any] | None = None,
        distributions: dict[str, Any] | None = None,
    ) -> None:
        attributes = {_RUN: job.name, _CELL: cell or job.cell, _SEED: job.seed}
        if point is not None:
            attributes[_POINT] = job.cell
        self._add_trial(attributes, point or {}, distributions or {})

    def _add_trial(
        self, attributes: dict[str, Any], params: dict[str, Any], distributions: dict[str, Any]
    ) -> None:
        trial = self._create(
            state=self._states.WAITING, params=params, distributions=distributions, user_attrs=attributes
        )
        self._try(lambda: self._study.add_trial(trial))

    def _entry(self, trial: Any) -> Entry:
        state: State = {
            self._states.WAITING: "queued",
            self._states.RUNNING: "running",
            self._states.COMPLETE: "done",
            self._states.PRUNED: "pruned",
        }.get(trial.state, "failed")  # type: ignore[assignment]
        attributes = trial.user_attrs
        point = dict(trial.params) if _POINT in attributes else None
        return Entry(
            str(attributes[_RUN]),
            str(attributes[_CELL]),
            state,
            trial.value if state in ("done", "pruned") else None,
            str(attributes.get(_REASON, "")),
            float(attributes.get(_SECONDS, 0.0)),
            point,
            self._job(attributes, point),
            trial._trial_id,
        )

    def _job(self, attributes: dict[str, Any], point: dict[str, Any] | None) -> Job | None:
        if point is None:
            return self._jobs.get(attributes[_RUN])
        with suppress(StopIteration, ConfigError):
            config = self._plan.base(attributes[_CELL]).replace(**point, seed=int(attributes[_SEED]))
            return Job(str(attributes[_POINT]), int(attributes[_SEED]), config)
        return None

    def _set(self, entry: Entry, state: Any, values: list[float] | None, attributes: dict[str, Any]) -> None:
        def write() -> None:
            if self._storage.get_trial(entry.trial).state == state:
                return  # an earlier attempt was written, and only its answer was lost
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(entry.trial, name, value)
            self._storage.set_trial_state_values(entry.trial, state, values)

        self._try(write)

    def _trials(self) -> list[Any]:
        return list(self._try(lambda: self._study.get_trials(deepcopy=False)))

    def _try(self, call: Callable[[], T]) -> T:
        return patient(call, self._say)


def _as_seen(trials: list[Any], states: Any, create: Callable[..., Any]) -> list[Any]:
    """The trials as a sampler sees them: those that are queued count as running."""
    seen = []
    for trial in trials:
        waits = trial.state == states.WAITING
        seen.append(
            create(
                state=states.RUNNING if waits else trial.state,
                value=trial.value,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=trial.intermediate_values,
            )
        )
    return seen
