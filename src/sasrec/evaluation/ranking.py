"""Scores of candidates for histories, and the ranks of targets among them: the one path of ranking.

Evaluation ranks a target among candidates, recommendation takes the best of them; both score, exclude and
order through `candidate_scores`, so what is measured is what is served.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.batches import pad
from sasrec.data.negatives import NegativeSampler
from sasrec.data.splits import EvaluationSplit, Histories
from sasrec.errors import EvaluationError
from sasrec.models import SequenceModel
from sasrec.training.distributed import meet, rank, sum_over_ranks, told_to_stop, world
from sasrec.training.interrupt import InterruptedWorkError

# Scores held at a time: 64 MB in fp32.
_SCORES_AT_ONCE = 2**24


class Scorer(Protocol):
    """Anything that scores the whole catalogue for histories."""

    num_items: int

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV for those rows of the histories; the values of column 0 are never read."""
        ...


class ModelScorer:
    """A trained model, in evaluation mode for the duration of each call."""

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        self.num_items = model.num_items

    @torch.no_grad()
    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """See Scorer. The model sees the last `maxlen` items of a history."""
        was_training = self.model.training
        self.model.eval()
        try:
            states_BD = self.model.last_states(pad(histories, rows, self.model.config.maxlen))
            return self.model.scores(states_BD)
        finally:
            self.model.train(was_training)


def candidate_scores(
    scorer: Scorer,
    histories: Histories,
    rows: npt.NDArray[np.int64],
    *,
    exclude_seen: bool = True,
    allowed_V: Tensor | None = None,
) -> Tensor:
    """scores_BV; -inf for padding, for what is not allowed and, with `exclude_seen`, for every item of the row's
    whole history.

    Raises: EvaluationError if any score is NaN (weights that diverged: use an earlier checkpoint).
    """
    scores_BV = scorer.scores(histories, rows)
    if bool(scores_BV[:, 1:].isnan().any()):
        raise EvaluationError("the model gives NaN scores: its weights have diverged; use an earlier checkpoint")
    scores_BV[:, 0] = -torch.inf
    if allowed_V is not None:
        scores_BV.masked_fill_(~allowed_V.to(scores_BV.device), -torch.inf)
    if exclude_seen:
        row_E, item_E = seen_items(histories, rows)
        scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
    return scores_BV


def seen_items(
    histories: Histories, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every event of the rows as (index into `rows`, item number), flat."""
    lengths = histories.lengths[rows]
    row_E = np.repeat(np.arange(len(rows)), lengths)
    first = histories.starts[rows] - (np.cumsum(lengths) - lengths)
    return row_E, histories.items[np.arange(len(row_E)) + first[row_E]].astype(np.int64)


def chunks(histories: Histories, num_items: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows in batches of like length, bounded by the size of their score matrix."""
    rows_at_once = max(1, min(512, _SCORES_AT_ONCE // (num_items + 1)))
    order = np.argsort(histories.lengths, kind="stable")
    for start in range(0, len(order), rows_at_once):
        yield order[start : start + rows_at_once]


def own_chunks(histories: Histories, num_items: int) -> Iterator[npt.NDArray[np.int64]]:
    """This rank's share of `chunks`: whole ones, so that the numbers do not depend on how many ranks share."""
    return itertools.islice(chunks(histories, num_items), rank(), None, world())


def summed(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum over the ranks, which may come to it at very different times."""
    meet()
    total: npt.NDArray[np.float64] = sum_over_ranks(torch.from_numpy(array)).numpy()
    return total


@dataclass(frozen=True, eq=False)
class TargetRanks:
    """Rank of each row's target, from 1, ties counted half."""

    full: npt.NDArray[np.float64]
    """(rows,) among the known items (data/splits.py) without the row's history."""
    sampled: npt.NDArray[np.float64] | None
    """(rows,) among the target and the row's sampled negatives, or None if none were asked for."""


def sampled_negatives(
    split: EvaluationSplit, num_items: int, num_negatives: int, seed: int
) -> npt.NDArray[np.int64]:
    """(rows, num_negatives) the papers' protocol, seeded: uniform, with replacement, not in the history and
    not the target, only known items. 0 where a user has had them all."""
    sampler = NegativeSampler(split.histories, num_items, also=split.targets, known_V=split.known_V)
    return sampler.draw(np.arange(len(split.targets)), num_negatives, np.random.default_rng(seed))


def target_ranks(
    scorer: Scorer,
    split: EvaluationSplit,
    *,
    negatives: npt.NDArray[np.int64] | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> TargetRanks:
    """Rank every target of a split. A target that occurs in its own history stays a candidate.

    `negatives`: (rows, n) from `sampled_negatives`. `advance` is told the number of rows done.

    Raises: EvaluationError if there is nobody to evaluate, or a score is NaN; InterruptedWorkError, on all ranks,
    if a signal is pending on one.
    """
    if not len(split.targets):
        raise EvaluationError(f"no user has a {split.name} target ({split.why_skipped}): choose another --split")
    full = np.zeros(len(split.targets))
    sampled = None if negatives is None else np.zeros(len(split.targets))
    known_V = None if split.known_V[1:].all() else torch.from_numpy(split.known_V)
    for rows in own_chunks(split.histories, scorer.num_items):
        if told_to_stop():
            break
        scores_BV = candidate_scores(scorer, split.histories, rows, exclude_seen=False, allowed_V=known_V)
        target_B1 = scores_BV.gather(1, torch.from_numpy(split.targets[rows]).to(scores_BV.device).unsqueeze(1))
        if sampled is not None and negatives is not None:
            negatives_BN = torch.from_numpy(negatives[rows]).to(scores_BV.device)
            sampled[rows] = _ranks(scores_BV.gather(1, negatives_BN), target_B1)
        row_E, item_E = seen_items(split.histories, rows)
        scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
        # The target leaves the candidates here, so that it neither ties with itself nor counts as seen.
        scores_BV.scatter_(1, torch.from_numpy(split.targets[rows]).to(scores_BV.device).unsqueeze(1), -torch.inf)
        full[rows] = _ranks(scores_BV, target_B1)
        advance(len(rows))
    if summed(np.array([float(told_to_stop())])).any():
        raise InterruptedWorkError
    # A rank left the others' rows at 0, so these sums are exact.
    return TargetRanks(summed(full), None if sampled is None else summed(sampled))


def _ranks(others_BV: Tensor, target_B1: Tensor) -> npt.NDArray[np.float64]:
    """1 + the number above the target + half the number that tie, the target not among the others."""
    greater_B = (others_BV > target_B1).sum(1).cpu().double()
    ties_B = (others_BV == target_B1).sum(1).cpu().double()
    ranks: npt.NDArray[np.float64] = (1 + greater_B + ties_B / 2).numpy()
    return ranks
