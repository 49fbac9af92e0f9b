"""Scores of candidates for histories: the one path that ranks, for metrics, users and the server.

Evaluation ranks a target among candidates, and recommendation takes the best of them. Both score, exclude and
order through `candidate_scores`, so what is measured is what is served.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.errors import EvaluationError
from sasrec.ranking.scorers import EncodedScorer, ModelScorer, Scorer
from sasrec.runtime.ranks import meet, rank, sum_over_ranks, world

# These sizes decide which rows meet in one matrix product, and so the last bit of a score: they are constants, not
# settings. Scores of a chunk, which is what ranks share out: 64 MB in fp32.
_SCORES_AT_ONCE = 2**24
# Scores that are made, and read a few times, before the next: 2 MB in fp32, which stay in a processor's cache, and
# whose memory is used again for the next instead of going back to the system.
_SCORES_IN_CACHE = 2**19


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
    """Yield this process's rows in blocks whose scores fit in cache, each with the scorer for its rows.

    A model encodes a whole chunk before its first block, because encoding block by block would mostly be overhead.
    """
    at_once = max(1, _SCORES_IN_CACHE // (scorer.num_items + 1))
    for rows in own_chunks(histories, scorer.num_items):
        ready = EncodedScorer(scorer, histories, rows) if isinstance(scorer, ModelScorer) else scorer
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once], ready


def summed(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum over the ranks, which may come to it at very different times."""
    meet()
    total: npt.NDArray[np.float64] = sum_over_ranks(torch.from_numpy(array)).numpy()
    return total
