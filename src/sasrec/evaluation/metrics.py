"""Ranks -> NDCG, HR and MRR.

The rank of a target is 1 + the number of candidates with a higher score + half the number that tie with it,
so that a model which scores everything alike gets the middle rank, not the first or the last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CUTOFFS = (1, 5, 10, 20, 50)
# As the protocol card has them.
DEFINITIONS = {
    "ndcg@k": "1 / log2(1 + rank) if rank <= k, else 0",
    "hr@k": "1 if rank <= k, else 0",
    "mrr@k": "1 / rank if rank <= k, else 0",
    "mrr": "1 / rank",
    "mean": "over targets, which weigh alike",
}
METRICS = (*(f"{name}@{k}" for name in ("ndcg", "hr", "mrr") for k in CUTOFFS), "mrr")


def metrics_from_ranks(ranks: npt.NDArray[np.float64], cutoffs: tuple[int, ...] = CUTOFFS) -> dict[str, float]:
    """Means over targets, which weigh alike: `ndcg@k`, `hr@k`, `mrr@k` per cut-off, and `mrr` without one.

    `ranks`: (targets,) from 1, halves allowed. A hit is rank <= k; NDCG of a hit is 1 / log2(1 + rank), as the
    ideal ranking has the one target first.
    """
    names = [f"{name}@{k}" for name in ("ndcg", "hr", "mrr") for k in cutoffs]
    return {metric: float(np.mean(of_targets(ranks, metric))) for metric in (*names, "mrr")}


def of_targets(ranks: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """(targets,) the metric of each target, whose mean `metrics_from_ranks` gives."""
    name, _, k = metric.partition("@")
    hit = ranks <= (float(k) if k else np.inf)
    if name == "hr":
        return hit.astype(np.float64)
    gain: npt.NDArray[np.float64] = 1 / np.log2(1 + ranks) if name == "ndcg" else 1 / ranks
    return gain * hit
