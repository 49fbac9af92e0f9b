"""A metric is a number and a protocol: both measured here, with the ranks that the number is the mean of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.errors import EvaluationError
from sasrec.evaluation.baselines import baselines
from sasrec.evaluation.card import SAMPLED_NEGATIVES, SAMPLED_SEED, card
from sasrec.evaluation.details import details_on_test
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import TargetRanks, sampled_negatives, target_ranks
from sasrec.ranking.scorers import Scorer
from sasrec.runtime.log import RunLog

# Ranks are multiples of a half, so float32, with 24 binary digits, holds them exactly up to this one.
_EXACT_IN_FLOAT32 = 2**23


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, and what it is the mean of."""

    metrics: dict[str, Any]
    """{split: {"full" | "sampled": {"ndcg@10": …}}, "baselines": {name: {split: …}}, "protocol": the card,
    and, if asked for, "details": …}; a split without targets is not there. Full and sampled metrics are of one
    model on the same users, and differ several times: never compare one with the other."""
    ranks: pl.DataFrame
    """A row for each scorer ("model" and the baselines) and target: `scorer`, `split`, `user` (the user's own id),
    `event` (the target's place in the data set), `full` and `sampled` (its ranks; null where not drawn)."""


def evaluate_scorer(
    scorer: Scorer, data: Dataset, split: Split, *, log: RunLog, details: bool = False
) -> Measured:
    """Rank validation and test targets by a scorer and by the baselines; a part without targets is not there.

    `details` adds what is beyond accuracy, and slices (evaluation/details.py), where test has targets.

    Raises: EvaluationError if neither part has a target.
    """
    parts = [part for part in (split.valid, split.test) if len(part.targets)]
    if not parts:
        raise EvaluationError(
            f"nobody can be measured: {nobody(split.valid)}, and {nobody(split.test)}: train with another --split"
        )
    for part in (split.valid, split.test):
        if part not in parts:
            log.say(f"note: {nobody(part)}: only {parts[0].name} is measured")
    counted = baselines(split.training, data.num_items, split.event_times)
    scorers: dict[str, Scorer] = {"model": scorer, **counted}
    measured: dict[str, dict[str, Any]] = {name: {} for name in scorers}
    found: dict[tuple[str, str], TargetRanks] = {}
    for part in parts:
        negatives = sampled_negatives(part, data.num_items, SAMPLED_NEGATIVES, SAMPLED_SEED)
        for name, each in scorers.items():
            with log.bar(f"{name}, {part.name}", len(part.targets)) as bar:
                ranks = target_ranks(each, part, negatives=negatives, advance=bar)
            found[name, part.name] = ranks
            measured[name][part.name] = {"full": metrics_from_ranks(ranks.full)}
            if ranks.sampled is not None:
                measured[name][part.name]["sampled"] = metrics_from_ranks(ranks.sampled)
    metrics = {**measured.pop("model"), "baselines": measured, "protocol": card(data, split)}
    if details and split.test not in parts:
        log.say("note: details are of test alone, so there are none")
    elif details:
        on_test = {name: found[name, "test"].full for name in scorers}
        metrics["details"] = details_on_test(scorers, on_test, data, split, log)
    frames = [_rows(name, data, part, found[name, part.name]) for name in scorers for part in parts]
    return Measured(metrics, pl.concat(frames))


def nobody(part: EvaluationSplit) -> str:
    """That a part has no target, and why."""
    return f"nobody has a {part.name} target ({part.why_skipped})"


def _rows(scorer: str, data: Dataset, part: EvaluationSplit, ranks: TargetRanks) -> pl.DataFrame:
    kind = np.float32 if data.num_items < _EXACT_IN_FLOAT32 else np.float64
    nothing = np.full(len(ranks.full), np.nan)
    return pl.DataFrame(
        {
            "scorer": pl.repeat(scorer, len(ranks.full), eager=True),
            "split": pl.repeat(part.name, len(ranks.full), eager=True),
            "user": data.user_ids.gather(part.users),
            "event": part.events,
            "full": ranks.full.astype(kind),
            "sampled": (nothing if ranks.sampled is None else ranks.sampled).astype(kind),
        }
    ).with_columns(pl.col("sampled").fill_nan(None))
