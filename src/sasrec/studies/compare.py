"""Runs beside one another: is the difference between them more than chance?

Nothing is measured again: each run has kept the rank of every target (RUN/ranks.parquet) and the protocol card of
its figures (RUN/metrics.json).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sasrec.data.splits import SplitName
from sasrec.errors import ConfigError
from sasrec.evaluation.card import Candidates
from sasrec.evaluation.metrics import METRICS
from sasrec.evaluation.significance import Difference, holm, paired_bootstrap, seed_noise
from sasrec.studies.scored import (
    LEVEL,
    Comparison,
    Figure,
    Scored,
    check_alike,
    models_of,
    scored_run,
)
from sasrec.studies.sentences import against_first, notes_on, notes_on_intervals

_ROUNDING = 1e-12  # means over seeds of equal figures differ by less, which would count as users that differ


def compare(
    runs: Sequence[str | Path],
    *,
    metric: str = "ndcg@10",
    candidates: Candidates = "full",
    split: SplitName = "test",
    resamples: int = 10_000,
) -> Comparison:
    """Compare each run with the first, on the same targets.

    `runs`: folders, or "RUN:BASELINE" for a baseline that was measured with the run, as in "runs/a:popularity";
    the beginning of its name will do. Runs whose settings differ in nothing but the seed are one side, of which
    the means over runs are compared. The interval (95 %) and p-value are of `paired_bootstrap` over users and,
    where a model has several runs, over seeds; docs/evaluation.md says how to read them.

    Raises: ConfigError for what cannot be asked, or too few resamples; EvaluationError naming the fields of the
    protocol card that differ, or a run without ranks.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}; the metrics are: {', '.join(METRICS)}")
    names = [str(run) for run in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            "name two runs or more to compare, each once (RUN, or RUN:BASELINE such as RUN:popularity)"
        )
    scored = [scored_run(name, candidates, split) for name in names]
    for other in scored[1:]:
        check_alike(scored[0], other, candidates)
    models, of = models_of(scored), Figure(candidates, split, metric)
    # Of one model alone, the runs are what there is to compare.
    groups = models if len(models) > 1 else [[each] for each in scored]
    _check_resamples(resamples, len(groups) - 1)
    sides = [of.side(group) for group in groups]
    found = [_difference(groups[0], group, models, of, resamples) for group in groups[1:]]
    adjusted = holm([each.p_value for each in found]).tolist()
    against = tuple(
        against_first(sides[0], side, difference, p, of, "p" if len(found) == 1 else "Holm's p")
        for side, difference, p in zip(sides[1:], found, adjusted, strict=True)
    )
    notes = (*notes_on(models), *notes_on_intervals(against))
    return Comparison(metric, candidates, split, sides[0], against, notes, scored[0].protocol, resamples)


def _check_resamples(resamples: int, comparisons: int) -> None:
    """The smallest p-value there can be is 2 / (resamples + 1), which Holm multiplies by their number."""
    least = max(100, round(2 * comparisons / LEVEL))
    if resamples < least:
        raise ConfigError(
            f"resamples must be at least {least}, not {resamples}: with fewer, no difference could be told"
        )


def _difference(
    first: list[Scored], other: list[Scored], models: list[list[Scored]], of: Figure, resamples: int
) -> Difference:
    fitted = [side for side in (first, other) if side[0].seed is not None]
    others = [model for model in models if model not in fitted]
    means = [[of.runs(each).mean(1).tolist() for each in group] for group in (fitted, others)]
    users = first[0].rows["user"].rank("dense").to_numpy().astype(np.int64)
    differences = of.runs(other).mean(0) - of.runs(first).mean(0)
    differences[np.abs(differences) < _ROUNDING] = 0
    found = paired_bootstrap(differences, users, resamples, noise=seed_noise(*means) if fitted else None)
    # A metric lies between 0 and 1, which the noise of few seeds does not know.
    return dataclasses.replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))
