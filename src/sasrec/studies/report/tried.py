"""What a search has tried, for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LEAST = 4  # finished runs, before their settings have an importance


@dataclass(frozen=True)
class Tried:
    """One run of a search."""

    run: str
    """The name of the run in the study."""
    settings: dict[str, Any]
    """The settings that the search chose."""
    value: float | None
    """The metric of the search, on validation; None if the run has none yet."""
    state: str
    """"done", "pruned", "failed", "running" or "queued"."""


@dataclass(frozen=True)
class Searched:
    """A search, as far as it is."""

    tried: tuple[Tried, ...]
    """In the order in which the runs were chosen."""
    importance: dict[str, float] = field(default_factory=dict)
    """Setting -> its share of the variation of the metric; empty while too little was tried."""
    best: tuple[str, ...] = ()
    """The cells that the search confirms with every seed. Those that were only tried are not compared."""


def searched(study: str | Path) -> Searched | None:
    """Return what the search of a study has tried with its first seed; None if the study has no search.

    The importance is that of PED-ANOVA (Watanabe et al. 2023): how much a setting decides whether a run is among
    the best tenth. With several cells it is their mean.

    Raises: the errors of `begun_study`, such as ConfigError if the database cannot be reached.
    """
    from sasrec.studies.study import begun_study

    plan, queue = begun_study(study)
    if plan.search is None:
        return None
    cells = list(dict.fromkeys(job.cell for job in plan.jobs))
    tried = [
        Tried(entry.run, entry.point, entry.value, entry.state)
        for entry in queue.entries()
        if entry.point is not None and entry.job is not None and entry.job.seed == plan.seeds[0]
    ]
    best = [entry for cell in cells for entry in queue.best(cell, plan.search.confirm)]
    shares = [share for cell in cells if (share := _importance(queue.searched(cell)))]
    importance = {
        name: sum(share[name] for share in shares) / len(shares) for name in (shares[0] if shares else {})
    }
    return Searched(tuple(tried), importance, tuple(entry.job.cell for entry in best if entry.job is not None))


def _importance(trials: list[Any]) -> dict[str, float]:
    """Setting -> importance, from the trials of Optuna in one cell; empty if too few are finished."""
    import optuna

    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < _LEAST or len({trial.value for trial in done}) == 1:
        return {}
    memory = optuna.create_study(direction="maximize")
    memory.add_trials(done)
    # Named, because the default differs between releases.
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(memory, evaluator=evaluator))
