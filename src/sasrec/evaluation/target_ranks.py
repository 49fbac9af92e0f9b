"""Rank each target among all known items, and optionally a second time among sampled negatives.

Known items are all items, or under a temporal split the items that occur in training (`Split.known_V`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.batches.negatives import NegativeSampler
from sasrec.data.splits import EvaluationSplit
from sasrec.errors import EvaluationError
from sasrec.ranking.candidates import candidate_scores, own_blocks
from sasrec.ranking.scorers import Scorer
from sasrec.ranking.selection import seen_items
from sasrec.runtime.ranks import summed, told_to_stop
from sasrec.runtime.signals import InterruptedWorkError

# float32 counts one by one exactly up to this number.
_EXACT = 2**24


@dataclass(frozen=True, eq=False)
class TargetRanks:
    """Ranks of the targets. The best rank is 1, and each candidate with an equal score adds one half.

    Items with the score -inf are never recommended, so a target with this score ranks behind all other candidates.
    """

    full: npt.NDArray[np.float64]
    """(rows,) rank of each row's target among all known items (data/splits.py), without its other seen items,
    unless items come again (`EvaluationSplit.repeats`)."""
    sampled: npt.NDArray[np.float64] | None
    """(rows,) rank of each row's target among itself and the row's sampled negatives; None without these."""


def sampled_negatives(
    split: EvaluationSplit, num_items: int, num_negatives: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return (rows, num_negatives) item numbers for sampled metrics, as in the SASRec paper, fixed by `seed`.

    Each negative is drawn uniformly, with replacement, from the known items that are neither the target nor
    (unless items come again) in the history. A row without such an item gets 0s, which never outrank the target.
    """
    histories = split.histories
    seen = replace(histories, ends=histories.starts) if split.repeats else histories
    sampler = NegativeSampler(seen, num_items, also=split.targets, known_V=split.known_V)
    return sampler.draw(np.arange(len(split.targets)), num_negatives, np.random.default_rng(seed))


def target_ranks(
    scorer: Scorer,
    split: EvaluationSplit,
    *,
    negatives: npt.NDArray[np.int64] | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> TargetRanks:
    """Rank every target of a split. A target stays a candidate even if its history contains the same item.

    With several processes, each scores a share of the rows, and all return the ranks of all rows.

    `negatives`: (rows, n) from `sampled_negatives`. `advance`: called with the number of rows after each block of
    rows that this process scores.

    Raises:
        EvaluationError: the split has no targets (train with another value of the setting `split`), or a score is
            NaN (use an earlier checkpoint).
        InterruptedWorkError: a signal is pending in one process. Every process raises it.
    """
    if not len(split.targets):
        raise EvaluationError(
            f"the {split.name} split has no targets ({split.why_skipped}). "
            "Train with another value of the setting `split`."
        )
    full = np.zeros(len(split.targets))
    sampled = None if negatives is None else np.zeros(len(split.targets))
    known_V = None if split.known_V[1:].all() else split.known_V
    for rows, ready in own_blocks(scorer, split.histories):
        if told_to_stop():
            break
        # Seen items are excluded only after the target's score is read, because the target may be a seen item.
        scores_BV = candidate_scores(ready, split.histories, rows, exclude_seen=False, allowed_V=known_V)
        target_B1 = scores_BV.gather(1, torch.from_numpy(split.targets[rows]).to(scores_BV.device).unsqueeze(1))
        last_B = target_B1[:, 0].isneginf().cpu().numpy()  # these would tie with items that are not candidates
        if sampled is not None and negatives is not None:
            negatives_BN = torch.from_numpy(negatives[rows]).to(scores_BV.device)
            sampled[rows] = _ranks(scores_BV.gather(1, negatives_BN), target_B1)
            sampled[rows[last_B]] = 1 + np.count_nonzero(negatives[rows[last_B]], axis=1)
        if not split.repeats:
            row_E, item_E = seen_items(split.histories, rows)
            scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
        # target_B1 has the target's score already. Here the target gets -inf, or it would tie with itself.
        scores_BV.scatter_(1, torch.from_numpy(split.targets[rows]).to(scores_BV.device).unsqueeze(1), -torch.inf)
        full[rows] = _ranks(scores_BV, target_B1)
        full[rows[last_B]] = 1 + other_candidates(split, rows[last_B])
        advance(len(rows))
    if summed(np.array([float(told_to_stop())])).any():
        raise InterruptedWorkError
    # Each process filled its own rows and left the others 0, so these sums are exact.
    return TargetRanks(summed(full), None if sampled is None else summed(sampled))


def other_candidates(split: EvaluationSplit, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(rows,) how many candidates each target has beside itself.

    These are the known items, without those of its history unless items come again.
    """
    targets = split.targets[rows]
    others: npt.NDArray[np.int64] = split.known_V[1:].sum() - split.known_V[targets].astype(np.int64)
    if split.repeats:
        return others
    row_E, item_E = seen_items(split.histories, rows)
    counted = split.known_V[item_E] & (item_E != targets[row_E])
    pairs = np.unique(np.stack([row_E[counted], item_E[counted]]), axis=1)
    seen = np.bincount(pairs[0], minlength=len(rows))
    return others - seen


def _ranks(others_BV: Tensor, target_B1: Tensor) -> npt.NDArray[np.float64]:
    """(B,) 1 + the number of other scores above the target's + half the number equal to it.

    Computed as 1 + (number above + number not below) / 2. `others_BV` must not contain the target itself.
    """
    # Comparisons write 1.0 into floats, because PyTorch sums floats four times as fast as booleans.
    ones_BV = torch.empty_like(others_BV, dtype=torch.promote_types(others_BV.dtype, torch.float32))
    above_B = _row_sums(torch.gt(others_BV, target_B1, out=ones_BV))
    not_below_B = _row_sums(torch.ge(others_BV, target_B1, out=ones_BV))
    ranks: npt.NDArray[np.float64] = (1 + (above_B + not_below_B) / 2).numpy()
    return ranks


def _row_sums(ones_BV: Tensor) -> Tensor:
    """Return the number of ones in each row, (B,), in float64; on the CPU, as some accelerators lack float64."""
    parts = [part_BV.sum(1).cpu().double() for part_BV in torch.split(ones_BV, _EXACT, dim=1)]
    return torch.stack(parts).sum(0)
