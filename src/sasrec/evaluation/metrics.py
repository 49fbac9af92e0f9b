"""Ranks -> NDCG, HR and MRR.

The rank of a target is 1 + the number of candidates with a higher score + half the number that tie with it,
so that a model which scores everything alike gets the middle rank, not the first or the last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CUTOFFS = (1, 5, 10, 20, 50)


def metrics_from_ranks(ranks: npt.NDArray[np.float64], cutoffs: tuple[int, ...] = CUTOFFS) -> dict[str, float]:
    """Means over targets, which weigh alike: `ndcg@k`, `hr@k`, `mrr@k` per cut-off, and `mrr` without one.

    `ranks`: (targets,) from 1, halves allowed. A hit is rank <= k; NDCG of a hit is 1 / log2(1 + rank), as the
    ideal ranking has the one target first.
    """
    gains = {"ndcg": 1 / np.log2(1 + ranks), "hr": np.ones_like(ranks), "mrr": 1 / ranks}
    metrics = {f"{name}@{k}": float(np.mean(gain * (ranks <= k))) for name, gain in gains.items() for k in cutoffs}
    return metrics | {"mrr": float(np.mean(1 / ranks))}
