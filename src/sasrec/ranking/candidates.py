"""Score the candidates for histories. Evaluation and recommendation both call this module.

Evaluation ranks a target among the candidates; recommendation takes the best candidates. Both use
`candidate_scores`, so the metrics describe exactly what users get.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.errors import EvaluationError
from sasrec.ranking.scorers import EncodedScorer, ModelScorer, Scorer
from sasrec.runtime.ranks import meet, rank, sum_over_ranks, world

# Both sizes are constants, not settings: they decide which rows share a matrix product, which can change the last
# bit of a score. A chunk has at most this many scores (64 MB in fp32); the processes divide the chunks.
_SCORES_AT_ONCE = 2**24
# A block has at most this many scores (2 MB in fp32): they stay in the processor's cache while they are read
# several times, and the allocator reuses their memory for the next block.
_SCORES_IN_CACHE = 2**19


def candidate_scores(
    scorer: Scorer,
    histories: Histories,
    rows: npt.NDArray[np.int64],
    *,
    exclude_seen: bool = True,
    allowed_V: Tensor | None = None,
) -> Tensor:
    """Return scores_BV for some rows of the histories; -inf for items that are not candidates.

    Candidates exclude padding, items with `allowed_V` false and, with `exclude_seen`, seen items. The seen items
    are all items of the row's history, also those before the last `maxlen`.

    Raises: EvaluationError if a score is NaN, because the weights diverged. Remedy: use an earlier checkpoint.
    """
    scores_BV = scorer.scores(histories, rows)
    scores_BV[:, 0] = -torch.inf
    if bool(scores_BV.amax().isnan()):  # the maximum is NaN if any score is; ten times faster than isnan
        raise EvaluationError(
            "the model gives NaN scores, because its weights diverged. Use an earlier checkpoint."
        )
    if allowed_V is not None:
        scores_BV.masked_fill_(~allowed_V.to(scores_BV.device), -torch.inf)
    if exclude_seen:
        row_E, item_E = seen_items(histories, rows)
        scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
    return scores_BV


def seen_items(
    histories: Histories, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return two flat arrays with one entry per event of the rows: the index into `rows`, and the item number."""
    lengths = histories.ends[rows] - histories.starts[rows]  # `.lengths` would compute all rows for each block
    row_E = np.repeat(np.arange(len(rows)), lengths)
    first = histories.starts[rows] - (np.cumsum(lengths) - lengths)
    return row_E, histories.items[np.arange(len(row_E)) + first[row_E]].astype(np.int64)


def chunks(histories: Histories, num_items: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield row numbers in chunks of similar history length, with at most 512 rows and 2**24 scores each."""
    rows_at_once = max(1, min(512, _SCORES_AT_ONCE // (num_items + 1)))
    order = np.argsort(histories.lengths, kind="stable")
    for start in range(0, len(order), rows_at_once):
        yield order[start : start + rows_at_once]


def own_chunks(histories: Histories, num_items: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield this process's share of `chunks`. Chunks stay whole, so scores equal those of a single process."""
    return itertools.islice(chunks(histories, num_items), rank(), None, world())


def own_blocks(scorer: Scorer, histories: Histories) -> Iterator[tuple[npt.NDArray[np.int64], Scorer]]:
    """Yield the rows of `own_chunks` in blocks whose scores fit into the processor's cache.

    Each block comes with the scorer to use for it. A model encodes a whole chunk at once, since encoding block by
    block would be mostly overhead.
    """
    at_once = max(1, _SCORES_IN_CACHE // (scorer.num_items + 1))
    for rows in own_chunks(histories, scorer.num_items):
        ready = EncodedScorer(scorer, histories, rows) if isinstance(scorer, ModelScorer) else scorer
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once], ready


def summed(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the elementwise sum of the arrays of all processes. Waits for the slowest process (`meet`)."""
    meet()  # waits while the others send heartbeats; a plain all-reduce would time out
    total: npt.NDArray[np.float64] = sum_over_ranks(torch.from_numpy(array)).numpy()
    return total


def top_items(
    blocks: Iterable[tuple[npt.NDArray[np.int64], Scorer]],
    histories: Histories,
    k: int,
    *,
    exclude_seen: bool,
    allowed_V: Tensor | None,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield (rows, item numbers, scores) for each block. Numbers and scores are (B, k), best first.

    If a row has fewer than k candidates, its last scores are -inf; ignore their item numbers. If the catalogue has
    fewer than k items, k is its size.
    """
    for rows, scorer in blocks:
        scores_BV = candidate_scores(scorer, histories, rows, exclude_seen=exclude_seen, allowed_V=allowed_V)
        best = scores_BV.topk(min(k, scorer.num_items), dim=1)
        yield rows, best.indices.cpu().numpy(), best.values.cpu().numpy()
