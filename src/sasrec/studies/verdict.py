"""The verdict on a run: is it better than its best baseline, by the test of `compare`, and had it converged?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from sasrec.config.choices import SplitName
from sasrec.evaluation.metrics import Metrics, measured_name, of_targets
from sasrec.evaluation.significance import Difference, paired_bootstrap
from sasrec.runs.folder import RunFolder, best_baseline
from sasrec.runtime.log import events_of
from sasrec.studies.compare import compare
from sasrec.studies.scored import Comparison, ranks_of, scored_run

_RESAMPLES = 2_000  # enough for an interval that is only shown; the verdict takes those of `compare`


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run: a comparison with its best baseline, metric intervals, and whether it converged."""

    baseline: str | None
    """The best baseline by NDCG@10 on test; None if no user has a test target."""
    comparison: Comparison | None
    """The comparison of the model with the best baseline, on test; `comparison.first` is the baseline. None with
    fewer than two test users."""
    intervals: dict[str, Difference]
    """Name of a metric -> the model's own mean and its 95 % interval over users, stored as a Difference from 0.
    Measured on test if possible, else on validation. Empty with fewer than two users."""
    cut_by: Literal["num_epochs", "max_minutes"] | None
    """The setting that ended training while validation was still improving; None if no setting did."""


def verdict_on(run: str | Path) -> Verdict:
    """Return the verdict on a measured run. Its comparison is that of compare([f"{run}:{baseline}", run]).

    `baseline` is the run's best baseline by NDCG@10 on test.

    Raises: as `compare`, for example if ranks.parquet is damaged, or comes from another evaluation than
    metrics.json. Remedy: measure the run again.
    """
    metrics = RunFolder(run).metrics()
    split: SplitName = "test" if "test" in metrics else "valid"
    several = metrics["protocol"][split]["users"] > 1
    baseline = best_baseline(metrics, "test.full.ndcg@10")[0] if split == "test" else None
    comparison = compare([f"{run}:{baseline}", run]) if baseline and several else None
    return Verdict(baseline, comparison, _intervals(run, split) if several else {}, cut_by(Path(run)))


def difference_of(metrics: Metrics) -> Difference | None:
    """Return the difference in NDCG@10 on test between what was measured and its best baseline, over users.

    For metrics that `evaluate` does not save. None with fewer than two test users.
    """
    if metrics.ranks is None or metrics["protocol"]["test"]["users"] < 2:
        return None
    baseline = best_baseline(metrics, "test.full.ndcg@10")[0]
    own, best = (
        metrics.ranks.filter(pl.col("scorer") == name, pl.col("split") == "test").sort("event")
        for name in (measured_name(metrics), baseline)
    )
    users = own["user"].rank("dense").to_numpy().astype(np.int64)
    values = [of_targets(ranks_of(rows, "full"), "ndcg@10") for rows in (own, best)]
    return paired_bootstrap(values[0] - values[1], users)


def _intervals(run: str | Path, split: SplitName) -> dict[str, Difference]:
    rows = scored_run(str(run), "full", split).rows
    users = rows["user"].rank("dense").to_numpy().astype(np.int64)
    ranks = ranks_of(rows, "full")
    found = {}
    for metric in ("ndcg@10", "hr@10"):
        each = paired_bootstrap(of_targets(ranks, metric), users, _RESAMPLES)
        # Widening for few users can leave the range of the metric.
        found[metric] = replace(each, low=max(each.low, 0.0), high=min(each.high, 1.0))
    return found


def cut_by(run: Path) -> Literal["num_epochs", "max_minutes"] | None:
    """Return the setting that ended the training of a run while validation was still improving, or None."""
    ended = RunFolder(run).ending()
    validations = [each for each in events_of(run) if each["event"] == "validation"]
    # One score alone cannot say that validation was still improving.
    if ended is None or len(validations) < 2 or not validations[-1].get("best"):
        return None
    if ended.reason.endswith("minutes are over"):
        return "max_minutes"
    return "num_epochs" if ended.reason.endswith(("epochs done", "epoch done")) else None
