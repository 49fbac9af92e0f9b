"""Measure the lists that are served with rules (ranking/rules.py), beside the metrics without rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit
from sasrec.errors import ConfigError
from sasrec.evaluation.metrics import measured_name, metrics_from_ranks
from sasrec.ranking.candidates import candidate_scores, own_blocks
from sasrec.ranking.known import KnownItems
from sasrec.ranking.rules import Rules
from sasrec.ranking.scorers import Scorer
from sasrec.ranking.selection import Selection, seen_items
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import summed, told_to_stop
from sasrec.runtime.signals import InterruptedWorkError

WITH_RULES = "with_rules"
"""Key of these metrics, beside "full" and "sampled"."""


def add_rules(
    metrics: dict[str, Any],
    scorers: Mapping[str, Scorer],
    parts: list[EvaluationSplit],
    data: Dataset,
    rules: Rules,
    cutoffs: tuple[int, ...],
    log: RunLog,
) -> None:
    """Add the metrics with rules, of the model and the baselines, and describe the rules on the protocol card.

    The card also counts the targets that the model's lists never show with these rules ("never_shown").

    Raises: the errors of `selected`, and of `target_ranks`.
    """
    never: dict[str, int] = {}
    own = measured_name(metrics)
    for part in parts:
        selection = selected(part, data, rules)
        for name, scorer in scorers.items():
            with log.bar(f"{name}, {part.name} with rules", len(part.targets)) as bar:
                ranks = served_ranks(scorer, part, selection, advance=bar)
            of = metrics if name == own else metrics["baselines"][name]
            of[part.name][WITH_RULES] = metrics_from_ranks(ranks, cutoffs)
            if name == own:
                never[part.name] = int(np.isinf(ranks).sum())
    metrics["protocol"]["rules"] = rules.described() | {"never_shown": never}


def selected(part: EvaluationSplit, data: Dataset, rules: Rules) -> Selection:
    """Return what the rules allow for each target: for its user, at its time unless the rules have a time.

    Raises: ConfigError if availability needs the times of targets, and the data has none. Remedy: state the time
    in the rules.
    """
    if data.times is None and rules.now is None and rules.on(data.catalogue).availability is not None:
        raise ConfigError(
            f"{rules.name}: items are available from and until a time, but the data has no times. Add the time of "
            "the requests to the rules, such as now = 2026-05-04."
        )
    known = KnownItems(data.catalogue, None if part.known_V[1:].all() else part.known_V)
    users = data.user_ids.gather(part.users).to_list()
    times = None if data.times is None else np.asarray(data.times[part.events])
    return known.selection(None, (), rules, users, times)


def served_ranks(
    scorer: Scorer,
    split: EvaluationSplit,
    selection: Selection,
    *,
    advance: Callable[[int], None] = lambda rows: None,
) -> npt.NDArray[np.float64]:
    """Return the place of each target in the whole list that is served for its history, (rows,), from 1.

    The place is infinite if the list never has the target. Of the items with the target's score, half count as
    above it. With at most n items of a group in a list, a group counts min(n, its items above the target), and the
    target is not in the list if n items of its own group are above it.

    Raises: the errors of `target_ranks`.
    """
    places = np.zeros(len(split.targets))
    by_row = selection.by_row
    for rows, ready in own_blocks(scorer, split.histories):
        if told_to_stop():
            break
        scores_BV = candidate_scores(
            ready, split.histories, rows, exclude_seen=False, allowed_V=selection.allowed_V, by_row=by_row
        )
        target_B1 = torch.from_numpy(split.targets[rows]).to(scores_BV.device).unsqueeze(1)
        score_B1 = scores_BV.gather(1, target_B1)
        if not split.repeats:
            row_E, item_E = seen_items(split.histories, rows)
            scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
        scores_BV.scatter_(1, target_B1, -torch.inf)  # else the target would tie with itself
        # Twice the number of items above, so that half an item is a whole number; float32 counts 2**24 exactly.
        twice_BV = torch.gt(scores_BV, score_B1).float() + torch.ge(scores_BV, score_B1)
        if by_row is None or by_row.groups_V is None:
            above_B, shown_B1 = twice_BV.sum(1) / 2, torch.ones_like(target_B1, dtype=torch.bool)
        else:
            above_B, shown_B1 = _above(twice_BV, target_B1, by_row.groups_V, by_row.per_group)
        hidden_B = (score_B1.isneginf() | ~shown_B1)[:, 0].cpu().numpy()
        places[rows] = np.where(hidden_B, np.inf, 1 + above_B.cpu().double().numpy())
        advance(len(rows))
    if summed(np.array([float(told_to_stop())])).any():
        raise InterruptedWorkError
    return summed(places)  # each process filled its own rows and left the others 0


def _above(
    twice_BV: Tensor, target_B1: Tensor, groups: npt.NDArray[np.int64], per_group: int
) -> tuple[Tensor, Tensor]:
    """Return how many items of a list are above the target, (B,), and if its group has a place left, (B, 1)."""
    groups_V = torch.from_numpy(groups).to(twice_BV.device)
    sums_BG = twice_BV.new_zeros(len(twice_BV), int(groups_V.max()) + 1).index_add_(1, groups_V, twice_BV) / 2
    own_B1 = groups_V[target_B1]
    shown_B1 = (sums_BG.gather(1, own_B1) < per_group) | (own_B1 == 0)
    return sums_BG[:, 0] + sums_BG[:, 1:].clamp(max=per_group).sum(1), shown_B1
