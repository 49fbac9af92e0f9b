"""Compare measured runs: is the difference between them significant?

No model is evaluated again. The comparison reads the rank of every target from RUN/ranks.parquet, and the protocol
card, which describes how the run was measured, from RUN/metrics.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from sasrec.data.splits import SplitName
from sasrec.errors import ConfigError
from sasrec.evaluation.card import Candidates
from sasrec.evaluation.metrics import metric_named
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

# Smaller differences are rounding errors of means over seeds. They are set to 0, because the bootstrap counts the
# users whose difference is not exactly 0.
_ROUNDING = 1e-12
_MOST_RESAMPLES = 10_000_000


def compare(
    runs: Sequence[str | Path],
    *,
    metric: str = "ndcg@10",
    candidates: Candidates = "full",
    split: SplitName = "test",
    resamples: int = 10_000,
    show: Sequence[str] = ("ndcg@10", "hr@10"),
    labels: Mapping[str, str] | None = None,
) -> Comparison:
    """Test whether the metrics of runs differ from those of the first run by more than chance.

    All runs must have the same targets. Runs with the same settings but different random seeds count as one model,
    with the mean of their metrics, unless all are of one model. The 95 % confidence interval and the p-value of a
    difference come from a bootstrap, which draws the users again and again. If a model has several runs, interval
    and p-value also include the variation between random seeds. docs/how-to/compare.md explains the result.

    `runs`: run folders, or "RUN:BASELINE" for a baseline that was measured with the run, for example
    "runs/a:popularity". The name of a baseline may be shortened, if it stays unambiguous. `metric`: the metric to
    test: ndcg@K, hr@K, recall@K (equal to hr@K) or mrr@K for any K, or mrr. `candidates`: the items among which
    each target is ranked: "full" (the whole catalogue) or "sampled" (100 random items). `split`: the targets:
    those of "test", or those of validation ("valid"). `resamples`: how often the bootstrap draws users. `show`:
    more metrics; the result has their means, without a test. `labels`: {an entry of `runs`: the name to show}.

    Raises: ConfigError for fewer than two runs, a run that is named twice, an unknown run, baseline or metric, or
    too few resamples. EvaluationError if runs have different protocols or targets; the message names the fields
    that differ. EvaluationError if the ranks in a run are missing or damaged, or do not belong to its metrics.
    Remedy: measure the run again.
    """
    metric = metric_named(metric)
    for name, value, words in (("candidates", candidates, Candidates), ("split", split, SplitName)):
        if value not in get_args(words):
            raise ConfigError(f"unknown `{name}` {value!r}. Choose one of: {', '.join(get_args(words))}")
    if isinstance(runs, str | Path) or not isinstance(runs, Sequence):
        raise ConfigError(f"runs must be a list of at least two runs, such as ['runs/a', 'runs/b'], not {runs!r}")
    names = [str(run) for run in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"a comparison needs at least two different runs, not: {', '.join(names) or 'none'}. "
            "Name each run once, as RUN or RUN:BASELINE (for example RUN:popularity)"
        )
    scored = [
        dataclasses.replace(scored_run(name, candidates, split), name=(labels or {}).get(name, name))
        for name in names
    ]
    for other in scored[1:]:
        check_alike(scored[0], other, candidates)
    models, of = models_of(scored), Figure(candidates, split, metric, tuple(map(metric_named, show)))
    # If all runs belong to one model, compare the single runs with each other.
    groups = models if len(models) > 1 else [[run] for run in scored]
    _check_resamples(resamples, len(groups) - 1)
    sides = [of.side(group) for group in groups]
    differences = [_difference(groups[0], group, models, of, resamples) for group in groups[1:]]
    adjusted = holm([difference.p_value for difference in differences]).tolist()
    against = tuple(
        against_first(sides[0], side, difference, p, of, "p" if len(differences) == 1 else "Holm's p")
        for side, difference, p in zip(sides[1:], differences, adjusted, strict=True)
    )
    notes = (*notes_on(models), *notes_on_intervals(against))
    return Comparison(metric, candidates, split, sides[0], against, notes, scored[0].protocol, resamples)


def _check_resamples(resamples: int, comparisons: int) -> None:
    """Raise ConfigError if no p-value could be significant.

    The smallest possible p-value is 2 / (resamples + 1). Holm's method multiplies it by the number of comparisons.
    """
    if not isinstance(resamples, int) or resamples > _MOST_RESAMPLES:
        raise ConfigError(f"`resamples` must be a whole number up to {_MOST_RESAMPLES:,}, not {resamples!r}.")
    least = max(100, round(2 * comparisons / LEVEL))
    if resamples < least:
        raise ConfigError(
            f"resamples is {resamples}, too few for any difference to be significant. Set it to at least {least}"
        )


def _difference(
    first: list[Scored], other: list[Scored], models: list[list[Scored]], of: Figure, resamples: int
) -> Difference:
    """The difference between two groups of runs. Seed noise is estimated from all compared `models`."""
    fitted = [side for side in (first, other) if side[0].seed is not None]  # baselines have no seed
    others = [model for model in models if model not in fitted]
    means = [[of.runs(runs).mean(1).tolist() for runs in group] for group in (fitted, others)]
    users = first[0].rows["user"].rank("dense").to_numpy().astype(np.int64)
    differences = of.runs(other).mean(0) - of.runs(first).mean(0)
    differences[np.abs(differences) < _ROUNDING] = 0
    result = paired_bootstrap(differences, users, resamples, noise=seed_noise(*means) if fitted else None)
    # Metrics lie between 0 and 1, so their difference lies between -1 and 1. Seed noise can exceed these bounds.
    return dataclasses.replace(result, low=max(result.low, -1.0), high=min(result.high, 1.0))
