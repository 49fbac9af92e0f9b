"""A metric is a number and a protocol. This module measures both and keeps them together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sasrec.data.dataset import Dataset
from sasrec.data.splits import SplitName, evaluation_split, training_histories
from sasrec.evaluation.baselines import baselines
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.ranking import Scorer, sampled_negatives, target_ranks
from sasrec.training.run_log import RunLog

SAMPLED_NEGATIVES = 100
SAMPLED_SEED = 0
SPLITS: tuple[SplitName, ...] = ("valid", "test")


def evaluate_scorer(
    scorer: Scorer, data: Dataset, *, times: npt.NDArray[np.int64] | None = None, log: RunLog
) -> dict[str, Any]:
    """Metrics of a scorer and of the baselines on both splits, and the protocol they were measured under.

    Returns {split: {"full" | "sampled": {"ndcg@10": …}}, "baselines": {name: {split: …}},
    "protocol": {…}}. Full and sampled metrics are of one model on the same users, and differ several times:
    never compare one with the other.
    """
    counted = baselines(training_histories(data), data.num_items, data.times)
    scorers: dict[str, Scorer] = {"model": scorer, **counted}
    measured: dict[str, dict[str, Any]] = {name: {} for name in scorers}
    for split_name in SPLITS:
        split = evaluation_split(data, split_name, times)
        negatives = sampled_negatives(split, data.num_items, SAMPLED_NEGATIVES, SAMPLED_SEED)
        for name, each in scorers.items():
            with log.bar(f"{name}, {split_name}", len(split.targets)) as bar:
                ranks = target_ranks(each, split, negatives=negatives, advance=bar)
            measured[name][split_name] = {"full": metrics_from_ranks(ranks.full)}
            if ranks.sampled is not None:
                measured[name][split_name]["sampled"] = metrics_from_ranks(ranks.sampled)
    return {
        **measured.pop("model"),
        "baselines": measured,
        "protocol": {
            "split": "leave-one-out: last event test, last but one validation; test history includes validation",
            "full": "every item of the catalogue but those in the user's history",
            "sampled": f"the target and {SAMPLED_NEGATIVES} negatives, uniform with replacement, "
            f"history and target excluded, seed {SAMPLED_SEED}",
            "ties": "half: rank = 1 + number above + half the number equal",
            "users_evaluated": len(split.targets),
            "users_skipped": split.users_skipped,
            "items": data.num_items,
            "data": data.name,
            "data_hash": data.data_hash,
        },
    }
