"""Measure a model and the baselines: metrics, the rank of every target, and the protocol card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from sasrec.config.split_rule import ALL
from sasrec.data.dataset import Dataset
from sasrec.data.other_file import TRAINED_ON
from sasrec.data.period import refuse_single_targets
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.errors import EvaluationError
from sasrec.evaluation.baselines import baselines
from sasrec.evaluation.card import SAMPLED_NEGATIVES, SAMPLED_SEED, card
from sasrec.evaluation.lists import details_on_test
from sasrec.evaluation.metrics import CUTOFFS, MODEL, SCORER, metrics_from_ranks
from sasrec.evaluation.target_ranks import TargetRanks, sampled_negatives, target_ranks
from sasrec.evaluation.whole_period import add_whole_period
from sasrec.evaluation.with_rules import add_rules
from sasrec.ranking.rules import Rules
from sasrec.ranking.scorers import Scorer
from sasrec.runtime.log import RunLog

# Ranks are multiples of one half. float32 has 24 binary digits, so it represents them exactly up to this rank.
_EXACT_IN_FLOAT32 = 2**23
_IN_WORDS = {"valid": "validation", "test": "test"}
Ranks: TypeAlias = dict[tuple[str, str], TargetRanks]
"""Scorer ("model", "blend" or a baseline) and split -> the ranks of the targets."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What to measure beside the ranks of the targets, and at which cut-offs."""

    cutoffs: tuple[int, ...] = CUTOFFS
    details: bool = False
    """On test, the recommended lists, and the metrics by slices (groups) of the targets (evaluation/lists.py)."""
    rules: Rules | None = None
    """The lists with these rules (evaluation/with_rules.py)."""
    whole_period: bool = False
    """All items that a user takes in the period, as targets of one list (evaluation/whole_period.py)."""
    k: int = 10
    """The length of these lists in the comparison with the best baseline; one of `cutoffs`."""


PLAIN = Asked()


@dataclass(frozen=True, eq=False)
class Measured:
    """Metrics and the ranks from which they are computed."""

    metrics: dict[str, Any]
    """The contents of metrics.json; a split without targets is omitted:

        {split: {"full": {"ndcg@10": …}, "sampled": {…}}, "baselines": {name: {split: …}}, "protocol": the card}

    With `details` or `whole_period`, the entry of this name is added; with rules, "with_rules" beside "full"
    (evaluation/with_rules.py). If a baseline or a blend was measured, "scorer" has its name. Never compare full
    metrics with sampled metrics: on the same model and users, sampled metrics are several times higher."""
    ranks: pl.DataFrame
    """The contents of ranks.parquet, one row for each scorer (the measured one or a baseline) and target.

    Columns: `scorer`; `split`; `user`, as in the data; `event`, the target's index in the data set; `full` and
    `sampled`, the target's ranks, where null means not measured."""
    users: pl.DataFrame | None = None
    """With `whole_period`, the values of each user (evaluation/whole_period.py)."""


def evaluate_scorer(
    scorer: Scorer,
    data: Dataset,
    split: Split,
    *,
    log: RunLog,
    asked: Asked = PLAIN,
    known: Ranks | None = None,
    name: str = MODEL,
) -> Measured:
    """Rank the validation and test targets by a scorer and by all baselines; omit a split without targets.

    `known`: ranks that are measured already. `name`: that of the scorer. A baseline of this name is not measured
    a second time.

    Raises: EvaluationError if neither validation nor test has a target. Remedy: train with another value of the
    setting `split`. The errors of `target_ranks` and, with `whole_period`, of `refuse_single_targets`.
    """
    parts = [part for part in (split.valid, split.test) if len(part.targets)]
    if not parts:
        raise EvaluationError(_why_nothing(split))
    if asked.whole_period:
        refuse_single_targets(split)
    for part in (split.valid, split.test):
        if part not in parts and split.other_file is None:
            log.say(f"note: {nobody(part)}; only the {_IN_WORDS[parts[0].name]} metrics are measured")
    simple = _baselines_of(data, split)
    simple.pop(name, None)
    scorers: dict[str, Scorer] = {name: scorer, **simple}
    measured: dict[str, dict[str, Any]] = {each: {} for each in scorers}
    all_ranks: Ranks = dict(known or {})
    for part in parts:
        unknown = {each: one for each, one in scorers.items() if (each, part.name) not in all_ranks}
        all_ranks |= _ranked(unknown, part, data.num_items, log)
        for each in scorers:
            ranks = all_ranks[each, part.name]
            measured[each][part.name] = {"full": metrics_from_ranks(ranks.full, asked.cutoffs)}
            if ranks.sampled is not None:
                measured[each][part.name]["sampled"] = metrics_from_ranks(ranks.sampled, asked.cutoffs)
    metrics = {**measured.pop(name), "baselines": measured, "protocol": card(data, split, asked.cutoffs)}
    metrics |= {} if name == MODEL else {SCORER: name}
    if asked.details and split.test not in parts:
        log.say(
            "note: without test targets, no details are measured (coverage, novelty and other measures of the "
            "recommended lists, and metrics by history length, target popularity and time gap)"
        )
    elif asked.details:
        on_test = {each: all_ranks[each, "test"].full for each in scorers}
        metrics["details"] = details_on_test(scorers, on_test, data, split, log)
    if asked.rules is not None:
        add_rules(metrics, scorers, parts, data, asked.rules, asked.cutoffs, log)
    users = None
    if asked.whole_period:
        users = add_whole_period(metrics, scorers, parts, data, split, asked.cutoffs, asked.k, log)
    frames = [_rows(each, data, part, all_ranks[each, part.name]) for each in scorers for part in parts]
    return Measured(metrics, pl.concat(frames), users)


def baseline_ranks(data: Dataset, split: Split, log: RunLog) -> Ranks:
    """Rank the validation targets by each baseline, as `evaluate_scorer` does."""
    return _ranked(_baselines_of(data, split), split.valid, data.num_items, log)


def _baselines_of(data: Dataset, split: Split) -> dict[str, Scorer]:
    return baselines(split.training, data.num_items, split.event_times, repeats=split.repeats)


def _ranked(scorers: dict[str, Scorer], part: EvaluationSplit, num_items: int, log: RunLog) -> Ranks:
    """Rank the targets of a split by each scorer."""
    found: Ranks = {}
    negatives = sampled_negatives(part, num_items, SAMPLED_NEGATIVES, SAMPLED_SEED)
    for name, one in scorers.items():
        with log.bar(f"{name}, {part.name}", len(part.targets)) as bar:
            found[name, part.name] = target_ranks(one, part, negatives=negatives, advance=bar)
    return found


def _why_nothing(split: Split) -> str:
    """Say why a split has no target at all, and what to do."""
    if split.other_file is not None:
        reasons = split.test.targets_left_out | {"the user has the item already": split.test.repeats_left_out}
        counts = "; ".join(f"{reason}: {events:,}" for reason, events in reasons.items() if events)
        words = "Use a file with events of the run's users and items, written with the same ids."
        if max(reasons, key=lambda reason: reasons[reason]) == TRAINED_ON:
            words = "These events are not newer than the data of the run. Use a file with later events."
        return f"no event of the file {split.other_file['name']} can be a test target ({counts}). {words}"
    if split.how == ALL:
        return (
            "nothing can be measured, because the model was trained on all events. Measure the run that chose its "
            "settings, or name later events as `test`."
        )
    return (
        f"no metrics can be measured, because {nobody(split.valid)} and {nobody(split.test)}. "
        "Train with another `split`."
    )


def nobody(part: EvaluationSplit) -> str:
    """A clause that says that no user has a target in this split, and why: "nobody has a test target (…)"."""
    return f"nobody has a {_IN_WORDS[part.name]} target ({part.why_skipped})"


def _rows(scorer: str, data: Dataset, part: EvaluationSplit, ranks: TargetRanks) -> pl.DataFrame:
    """The rows of one scorer and split for `Measured.ranks`."""
    kind = np.float32 if data.num_items < _EXACT_IN_FLOAT32 else np.float64
    not_measured = np.full(len(ranks.full), np.nan)
    return pl.DataFrame(
        {
            "scorer": pl.repeat(scorer, len(ranks.full), eager=True),
            "split": pl.repeat(part.name, len(ranks.full), eager=True),
            "user": data.user_ids.gather(part.users),
            "event": part.events,
            "full": ranks.full.astype(kind),
            "sampled": (not_measured if ranks.sampled is None else ranks.sampled).astype(kind),
        }
    ).with_columns(pl.col("sampled").fill_nan(None))
