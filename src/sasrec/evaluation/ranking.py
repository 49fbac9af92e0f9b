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

# These sizes decide which rows meet in one matrix product, and so the last bit of a score: they are constants, not
# settings. Scores of a chunk, which is what ranks share out: 64 MB in fp32.
_SCORES_AT_ONCE = 2**24
# Scores that are made, and read a few times, before the next: 2 MB in fp32, which stay in a processor's cache, and
# whose memory is used again for the next instead of going back to the system.
_SCORES_IN_CACHE = 2**19
# Positions (B times L) encoded at a time: what an encoder holds grows with these times D, L or its intervals.
_POSITIONS_AT_ONCE = 2**12
# Sums of ones are exact in fp32 up to here.
_EXACT = 2**24


class Scorer(Protocol):
    """Anything that scores the whole catalogue for histories."""

    num_items: int

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV for those rows of the histories; the values of column 0 are never read."""
        ...


class ModelScorer:
    """A trained model, in evaluation mode for the duration of each call. It sees the last `maxlen` items."""

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        self.num_items = model.num_items

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """See Scorer."""
        return self.scores_of(self.states(histories, rows))

    @torch.no_grad()
    def scores_of(self, states_BD: Tensor) -> Tensor:
        """scores_BV of states that were made before."""
        return self.model.scores(states_BD)

    @torch.no_grad()
    def states(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """states_BD after the last item of each row, made of a few rows at a time: fewer the longer they are."""
        was_training, maxlen = self.model.training, self.model.config.maxlen
        self.model.eval()
        try:
            made = []
            for group in _few_positions(rows, np.minimum(histories.lengths[rows], maxlen)):
                made.append(self.model.last_states(pad(histories, group, maxlen)))
            return torch.cat(made)
        finally:
            self.model.train(was_training)


class _EncodedScorer:
    """A model's scorer for some rows of some histories, which it has encoded already."""

    def __init__(self, scorer: ModelScorer, histories: Histories, rows: npt.NDArray[np.int64]) -> None:
        self._scorer, self.num_items = scorer, scorer.num_items
        self._order = np.argsort(rows)
        self._rows = rows[self._order]
        self._states_BD = scorer.states(histories, rows)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """See Scorer."""
        place = self._order[np.searchsorted(self._rows, rows)]
        return self._scorer.scores_of(self._states_BD[torch.from_numpy(place)])


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
    scores_BV[:, 0] = -torch.inf
    if bool(scores_BV.amax().isnan()):  # the greatest is NaN if any is, and is found ten times as fast
        raise EvaluationError("the model gives NaN scores: its weights have diverged; use an earlier checkpoint")
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
    lengths = histories.ends[rows] - histories.starts[rows]  # not of all rows: this is asked for few at a time
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


def own_blocks(scorer: Scorer, histories: Histories) -> Iterator[tuple[npt.NDArray[np.int64], Scorer]]:
    """The rows of `own_chunks`, so few at a time that their scores stay in cache, and the scorer to ask for them.

    A model encodes a whole chunk before its first block: in blocks alone most of that time would be overhead.
    """
    at_once = max(1, _SCORES_IN_CACHE // (scorer.num_items + 1))
    for rows in own_chunks(histories, scorer.num_items):
        ready = _EncodedScorer(scorer, histories, rows) if isinstance(scorer, ModelScorer) else scorer
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once], ready


def _few_positions(rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive rows, at least one, that have at most `_POSITIONS_AT_ONCE` positions, padding included."""
    start = longest = 0
    for end, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if end > start and (end + 1 - start) * longest > _POSITIONS_AT_ONCE:
            yield rows[start:end]
            start, longest = end, length
    yield rows[start:]


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
        raise EvaluationError(
            f"no user has a {split.name} target ({split.why_skipped}): train with another --split"
        )
    full = np.zeros(len(split.targets))
    sampled = None if negatives is None else np.zeros(len(split.targets))
    known_V = None if split.known_V[1:].all() else torch.from_numpy(split.known_V)
    for rows, ready in own_blocks(scorer, split.histories):
        if told_to_stop():
            break
        scores_BV = candidate_scores(ready, split.histories, rows, exclude_seen=False, allowed_V=known_V)
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
    """1 + the number above the target + half the number that tie, the target not among the others.

    That is 1 + half of (the number above + the number not below). Ones are counted as floating point numbers,
    because PyTorch compares into those and sums them four times as fast as booleans.
    """
    ones_BV = torch.empty_like(others_BV, dtype=torch.promote_types(others_BV.dtype, torch.float32))
    above_B = _row_sums(torch.gt(others_BV, target_B1, out=ones_BV))
    not_below_B = _row_sums(torch.ge(others_BV, target_B1, out=ones_BV))
    ranks: npt.NDArray[np.float64] = (1 + (above_B + not_below_B) / 2).numpy()
    return ranks


def _row_sums(ones_BV: Tensor) -> Tensor:
    """(B,) float64, on the CPU, as not every accelerator has that."""
    parts = [part_BV.sum(1).cpu().double() for part_BV in torch.split(ones_BV, _EXACT, dim=1)]
    return torch.stack(parts).sum(0)
