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
from sasrec.ranking.selection import Best, Block, RowRules, Selection, best_of_rows, seen_items
from sasrec.runtime.ranks import rank, world

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
    allowed_V: npt.NDArray[np.bool_] | None = None,
    by_row: RowRules | None = None,
) -> Tensor:
    """Return scores_BV for some rows of the histories; -inf for items that are not candidates.

    Candidates exclude padding, items with `allowed_V` false, what `by_row` forbids and, with `exclude_seen`, seen
    items. The seen items are all items of the row's history, also those before the last `maxlen`.

    Raises: EvaluationError if a score is NaN, because the weights diverged. Remedy: use an earlier checkpoint.
    """
    scores_BV = scorer.scores(histories, rows)
    scores_BV[:, 0] = -torch.inf
    if bool(scores_BV.amax().isnan()):  # the maximum is NaN if any score is; ten times faster than isnan
        raise EvaluationError(
            "the model gives NaN scores, because its weights diverged. Use an earlier checkpoint."
        )
    if allowed_V is not None:
        scores_BV.masked_fill_(torch.from_numpy(~allowed_V).to(scores_BV.device), -torch.inf)
    hidden = [] if by_row is None else by_row.forbidden(rows)
    for row_E, item_E in [*hidden, *([seen_items(histories, rows)] if exclude_seen else [])]:
        scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
    return scores_BV


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


def highest(scores_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest scores of each row and their item numbers, (B, k), best first.

    Of items with equal scores, the one with the smaller number is first, so the k best are the first k of every
    longer list. Only items with the score -inf are in no order. The scores must not be NaN.
    """
    # One more item shows whether items outside the list have its last score. `topk` orders ties differently for
    # different k, so rows with ties are chosen again.
    ahead = scores_BV.topk(min(k + 1, scores_BV.shape[1]), dim=1)
    scores_BK, items_BK = ahead.values[:, :k], ahead.indices[:, :k]
    equal = (ahead.values[:, 1:] == ahead.values[:, :-1]) & ~ahead.values[:, 1:].isneginf()
    tied = equal.any(1).nonzero()[:, 0]
    at_once = max(1, _SCORES_IN_CACHE // scores_BV.shape[1])
    for rows in torch.split(tied, at_once) if len(tied) else ():
        row_scores_RV, last_R1 = scores_BV[rows], scores_BK[rows, -1:]
        above_RV, last_RV = row_scores_RV > last_R1, row_scores_RV == last_R1
        places_R1 = k - above_RV.sum(1, keepdim=True)  # how many items with the last score the list has
        chosen_RV = above_RV | (last_RV & (last_RV.cumsum(1, dtype=torch.int32) <= places_R1))
        numbers_RK = chosen_RV.nonzero()[:, 1].view(len(rows), k)  # ascending
        ordered = row_scores_RV.gather(1, numbers_RK).sort(dim=1, descending=True, stable=True)
        items_BK[rows] = numbers_RK.gather(1, ordered.indices)  # the scores are in order already
    return scores_BK, items_BK


def top_items(
    blocks: Iterable[tuple[npt.NDArray[np.int64], Scorer]],
    histories: Histories,
    k: int,
    *,
    exclude_seen: bool,
    selection: Selection,
) -> Iterator[Block]:
    """Yield (rows, item numbers, scores) for each block. Numbers and scores are (B, k), best first.

    Of items with equal scores, the one with the smaller number is first. If a row has fewer than k candidates, its
    last scores are -inf; ignore their item numbers. If the catalogue has fewer than k items, k is its size.
    """
    by_row = selection.by_row
    for rows, scorer in blocks:
        scores_BV = candidate_scores(
            scorer, histories, rows, exclude_seen=exclude_seen, allowed_V=selection.allowed_V, by_row=by_row
        )

        def best(some: npt.NDArray[np.int64], most: int, scores_BV: Tensor = scores_BV) -> Best:
            chosen_BV = scores_BV if len(some) == len(scores_BV) else scores_BV[torch.from_numpy(some)]
            scores_BK, items_BK = highest(chosen_BV, most)
            return items_BK.cpu().numpy(), scores_BK.cpu().numpy()

        yield rows, *best_of_rows(best, len(rows), min(k, scorer.num_items), scorer.num_items, by_row)
