"""The rank of each target among its candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.batches.negatives import NegativeSampler
from sasrec.data.splits import EvaluationSplit
from sasrec.errors import EvaluationError
from sasrec.ranking.candidates import candidate_scores, own_blocks, seen_items, summed
from sasrec.ranking.scorers import Scorer
from sasrec.runtime.ranks import told_to_stop
from sasrec.runtime.signals import InterruptedWorkError

# Sums of ones are exact in fp32 up to here.
_EXACT = 2**24


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
