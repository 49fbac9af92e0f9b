"""A metric is a number and a protocol. This module measures both and keeps them together."""

from __future__ import annotations

from typing import Any

import numpy as np

from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit, Split, iso
from sasrec.evaluation.baselines import baselines
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.ranking import Scorer, sampled_negatives, target_ranks
from sasrec.training.run_log import RunLog

SAMPLED_NEGATIVES = 100
SAMPLED_SEED = 0


def evaluate_scorer(scorer: Scorer, data: Dataset, split: Split, *, log: RunLog) -> dict[str, Any]:
    """Metrics of a scorer and of the baselines on validation and test, and the protocol they were measured under.

    Returns {split: {"full" | "sampled": {"ndcg@10": …}}, "baselines": {name: {split: …}},
    "protocol": {…}}. Full and sampled metrics are of one model on the same users, and differ several times:
    never compare one with the other.
    """
    counted = baselines(split.training, data.num_items, split.event_times)
    scorers: dict[str, Scorer] = {"model": scorer, **counted}
    measured: dict[str, dict[str, Any]] = {name: {} for name in scorers}
    for part in (split.valid, split.test):
        negatives = sampled_negatives(part, data.num_items, SAMPLED_NEGATIVES, SAMPLED_SEED)
        for name, each in scorers.items():
            with log.bar(f"{name}, {part.name}", len(part.targets)) as bar:
                ranks = target_ranks(each, part, negatives=negatives, advance=bar)
            measured[name][part.name] = {"full": metrics_from_ranks(ranks.full)}
            if ranks.sampled is not None:
                measured[name][part.name]["sampled"] = metrics_from_ranks(ranks.sampled)
    return {**measured.pop("model"), "baselines": measured, "protocol": _protocol(data, split)}


def _protocol(data: Dataset, split: Split) -> dict[str, Any]:
    candidates = int(split.known_V.sum())
    whole = split.boundaries is None
    catalogue = "item of the catalogue" if whole else "item that occurs in training"
    negatives = f"{SAMPLED_NEGATIVES} negatives" + ("" if whole else " that occur in training")
    valid, test = _rows(split.valid), _rows(split.test)
    return {
        "split": _description(split),
        "boundaries": None
        if split.boundaries is None
        else {"valid": iso(split.boundaries[0]), "test": iso(split.boundaries[1])},
        "full": f"every {catalogue} but those in the user's history",
        "sampled": f"the target and {negatives}, uniform with replacement, "
        f"history and target excluded, seed {SAMPLED_SEED}",
        "ties": "half: rank = 1 + number above + half the number equal",
        "training_events": int(split.training.lengths.sum()),
        "valid": valid,
        "test": test,
        "users_evaluated": test["users"],
        "users_skipped": sum(test["skipped"].values()),
        "items": data.num_items,
        "items_not_candidates": data.num_items - candidates,
        "data": data.name,
        "data_hash": data.data_hash,
    }


def _rows(part: EvaluationSplit) -> dict[str, Any]:
    return {
        "targets": len(part.targets),
        "users": len(np.unique(part.users)),
        "skipped": part.skipped,
        "history_events_left_out": part.events_left_out,
    }


def _description(split: Split) -> str:
    if split.boundaries is not None:
        valid, test = map(iso, split.boundaries)
        return (
            f"{split.how}: trained on what is before {valid}; a user's first event from there on, and before "
            f"{test}, is validation, the first from {test} on test; new users and new items are skipped"
        )
    if split.how == "leave-one-out":
        return "leave-one-out: last event test, last but one validation; test history includes validation"
    return (
        f"{split.how}: so many last events of a user are test, as many before them validation; "
        "a history has all before its target"
    )
