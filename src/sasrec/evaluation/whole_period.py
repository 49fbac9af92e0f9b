"""Measure lists against all items that a user takes in the target period, beside the metrics of single targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.period import Period, period_of
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.evaluation.lists import Items, best_items
from sasrec.evaluation.metrics import measured_name
from sasrec.evaluation.significance import Difference, paired_bootstrap
from sasrec.ranking.scorers import Scorer
from sasrec.runtime.log import RunLog

WHOLE_PERIOD = "whole_period"
"""Key of these metrics, beside "full" and "sampled", and of the intervals."""
# The protocol card contains these texts. A user's relevant items are those of the period (data/period.py).
DEFINITIONS = {
    "recall@k": "relevant items among the first k / relevant items",
    "precision@k": "relevant items among the first k / k",
    "map@k": "sum of precision@r over the ranks r <= k of relevant items / min(k, relevant items)",
    "ndcg@k": "sum of 1 / log2(1 + r) over the same ranks / the highest possible such sum",
    "hr@k": "1 if a relevant item is among the first k, else 0",
    "mean": "over users, who weigh alike",
}


def add_whole_period(
    metrics: dict[str, Any],
    scorers: Mapping[str, Scorer],
    parts: list[EvaluationSplit],
    data: Dataset,
    split: Split,
    cutoffs: tuple[int, ...],
    k: int,
    log: RunLog,
) -> pl.DataFrame:
    """Add the metrics of model and baselines on the whole period; return the values of each user.

    Adds metrics[SPLIT]["whole_period"] and the same for each baseline, and metrics["whole_period"] with
    {"definitions": …, SPLIT: {"users", "relevant" (mean number a user), "metric" (NDCG@k), "best_baseline" by this
    metric, "best_by_recall" (the baseline with the highest recall@k), "model" (or the name of the measured scorer)
    and "difference" to the best baseline: the mean of the metric with its 95 % interval over users}}.

    The frame has the columns scorer, split, user (the id), relevant (number of items) and one for each metric.
    """
    found: dict[str, Any] = {"definitions": DEFINITIONS}
    frames, own = [], measured_name(metrics)
    for part in parts:
        period = period_of(data, split, part)
        if not len(period.relevant):
            continue
        values: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
        for name, scorer in scorers.items():
            with log.bar(f"{name}, {part.name} period", len(period.relevant)) as bar:
                lists_BK = best_items(scorer, period.part, bar, max(cutoffs))
            values[name] = of_lists(lists_BK, period.relevant, cutoffs)
            of = metrics if name == own else metrics["baselines"][name]
            of[part.name][WHOLE_PERIOD] = {metric: float(each.mean()) for metric, each in values[name].items()}
            frames.append(_rows(name, data, period, values[name]))
        found[part.name] = _compared(values, own, k, period)
    metrics[WHOLE_PERIOD] = found
    return pl.concat(frames) if frames else pl.DataFrame()


def of_lists(lists_BK: Items, relevant: Histories, cutoffs: tuple[int, ...]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the metrics of each list, (rows,), by name: recall@k, precision@k, map@k, ndcg@k and hr@k.

    `lists_BK`: (rows, K) item numbers, best first; 0 fills a list that is shorter than K. `relevant`: (rows,) the
    relevant items of each list, ascending; at least one each.
    """
    lengths_B, high = relevant.lengths, int(max(lists_BK.max(initial=0), relevant.items.max(initial=0))) + 1
    row_E = np.repeat(np.arange(len(relevant)), lengths_B)
    keys = row_E * high + relevant.items[relevant.flat()]
    hits_BK = np.isin(np.arange(len(lists_BK))[:, None] * high + lists_BK, keys) & (lists_BK > 0)
    places_K = np.arange(1, lists_BK.shape[1] + 1)
    sums_BK = hits_BK.cumsum(1)
    precisions_BK = (hits_BK * sums_BK / places_K).cumsum(1)
    discounts_K = 1 / np.log2(1 + places_K)
    gains_BK = (hits_BK * discounts_K).cumsum(1)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, max(cutoffs) + 1)))])
    found: dict[str, npt.NDArray[np.float64]] = {}
    for k in cutoffs:
        last, most_B = min(k, lists_BK.shape[1]) - 1, np.minimum(k, lengths_B)
        hits_B = sums_BK[:, last].astype(np.float64)
        found |= {
            f"recall@{k}": hits_B / lengths_B,
            f"precision@{k}": hits_B / k,
            f"map@{k}": precisions_BK[:, last] / most_B,
            f"ndcg@{k}": gains_BK[:, last] / ideal[most_B],
            f"hr@{k}": (hits_B > 0).astype(np.float64),
        }
    return found


def _rows(scorer: str, data: Dataset, period: Period, values: dict[str, npt.NDArray[np.float64]]) -> pl.DataFrame:
    """Return the frame of one scorer and split for `add_whole_period`."""
    rows = len(period.relevant)
    columns = {
        "scorer": pl.repeat(scorer, rows, eager=True),
        "split": pl.repeat(period.part.name, rows, eager=True),
        "user": data.user_ids.gather(period.part.users),
        "relevant": period.relevant.lengths,
    }
    return pl.DataFrame(columns | values)


def _compared(
    values: dict[str, dict[str, npt.NDArray[np.float64]]], own: str, k: int, period: Period
) -> dict[str, Any]:
    """Return counts, and the intervals of NDCG@k of the scorer `own` and of its difference to the best one."""
    metric, simple = f"ndcg@{k}", [name for name in values if name != own]
    best, by_recall = (max(simple, key=lambda name: values[name][by].mean()) for by in (metric, f"recall@{k}"))
    found = {
        "users": len(period.relevant),
        "relevant": float(period.relevant.lengths.mean()),
        "metric": metric,
        "best_baseline": best,
        "best_by_recall": by_recall,
    }
    if len(period.relevant) < 2:  # no interval without a second user
        return found
    users, of_own = period.part.users, values[own][metric]
    return found | {
        own: _interval(paired_bootstrap(of_own, users)),
        "difference": _interval(paired_bootstrap(of_own - values[best][metric], users)),
    }


def _interval(found: Difference) -> dict[str, float]:
    return {"mean": found.mean, "low": found.low, "high": found.high}
