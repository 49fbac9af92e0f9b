"""Score the candidates for histories. Evaluation and recommendation both call this module.

Evaluation ranks a target among the candidates; recommendation takes the best candidates. Both use
`candidate_scores`, so the metrics describe exactly what users get.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.errors import EvaluationError
from sasrec.ranking.item_table import Availability
from sasrec.ranking.scorers import EncodedScorer, ModelScorer, Scorer
from sasrec.runtime.ranks import meet, rank, sum_over_ranks, world

# Both sizes are constants, not settings: they decide which rows share a matrix product, which can change the last
# bit of a score. A chunk has at most this many scores (64 MB in fp32); the processes divide the chunks.
_SCORES_AT_ONCE = 2**24
# A block has at most this many scores (2 MB in fp32): they stay in the processor's cache while they are read
# several times, and the allocator reuses their memory for the next block.
_SCORES_IN_CACHE = 2**19
# Lists with groups look at first at this many times k items of the ranking.
_AHEAD = 4


@dataclass(frozen=True, eq=False)
class RowRules:
    """Rules that a mask of items cannot state: they differ by row, or count the items of a group."""

    banned: Histories | None = None
    """(rows,) the items that each row must not get, in the form of histories."""
    availability: Availability | None = None
    """When items are available, if `times` differ by row."""
    times: npt.NDArray[np.int64] | None = None
    """(rows,) the time of each request, in microseconds since 1970 UTC."""
    groups_V: Tensor | None = None
    """(V,) group of each item, numbered from 1; 0 for padding and items without a group, which are not limited."""
    per_group: int = 0
    """The most items of one group in a list, if `groups_V` is given."""

    def forbid(self, scores_BV: Tensor, rows: npt.NDArray[np.int64]) -> None:
        """Set the scores of banned and unavailable items to -inf. `rows`: (B,) the rows of the scores."""
        if self.banned is not None:
            row_E, item_E = seen_items(self.banned, rows)
            scores_BV[torch.from_numpy(row_E), torch.from_numpy(item_E)] = -torch.inf
        if self.availability is not None and self.times is not None:
            closed = np.nonzero(self.availability.closed(self.times[rows]))
            item_E = self.availability.items[closed[1]]
            scores_BV[torch.from_numpy(closed[0]), torch.from_numpy(item_E)] = -torch.inf


@dataclass(frozen=True, eq=False)
class Selection:
    """What may be recommended in some rows, and where this was stated, for the warning that nothing is left."""

    allowed_V: Tensor | None
    """(V,) true for items that may be recommended; None if all may be."""
    by_row: RowRules | None = None
    allow: bool = False
    """Whether there is an allow list."""
    rules: bool = False
    """Whether there are rules."""


def candidate_scores(
    scorer: Scorer,
    histories: Histories,
    rows: npt.NDArray[np.int64],
    *,
    exclude_seen: bool = True,
    allowed_V: Tensor | None = None,
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
        scores_BV.masked_fill_(~allowed_V.to(scores_BV.device), -torch.inf)
    if by_row is not None:
        by_row.forbid(scores_BV, rows)
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
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield (rows, item numbers, scores) for each block. Numbers and scores are (B, k), best first.

    Of items with equal scores, the one with the smaller number is first. If a row has fewer than k candidates, its
    last scores are -inf; ignore their item numbers. If the catalogue has fewer than k items, k is its size.
    """
    by_row = selection.by_row
    for rows, scorer in blocks:
        scores_BV = candidate_scores(
            scorer, histories, rows, exclude_seen=exclude_seen, allowed_V=selection.allowed_V, by_row=by_row
        )
        most = min(k, scorer.num_items)
        if by_row is None or by_row.groups_V is None:
            scores_BK, items_BK = highest(scores_BV, most)
            yield rows, items_BK.cpu().numpy(), scores_BK.cpu().numpy()
        else:
            yield rows, *_top_of_groups(scores_BV, most, by_row.groups_V.to(scores_BV.device), by_row.per_group)


def _top_of_groups(
    scores_BV: Tensor, k: int, groups_V: Tensor, per_group: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k best items and their scores, (B, k), with at most `per_group` items of each group.

    An item is in the list if fewer than `per_group` items of its group are above it. The top of the ranking is
    searched first, and a longer part of it only for rows whose list is not yet full.
    """
    items = np.zeros((len(scores_BV), k), np.int64)
    scores = np.full((len(scores_BV), k), -np.inf, np.float32)
    num_items, ahead = scores_BV.shape[1] - 1, _AHEAD * k
    rows = np.arange(len(scores_BV))
    while len(rows):
        ahead = min(ahead, num_items)
        open_BV = scores_BV if len(rows) == len(scores_BV) else scores_BV[torch.from_numpy(rows)]
        best_BM, items_BM = highest(open_BV, ahead)
        kept_BM = best_BM.isfinite() & _within(groups_V[items_BM], per_group)
        first = (~kept_BM).byte().argsort(dim=1, stable=True)[:, :k]  # the places of the kept items, in order
        found = best_BM.masked_fill(~kept_BM, -torch.inf).gather(1, first)
        items[rows], scores[rows] = items_BM.gather(1, first).cpu().numpy(), found.float().cpu().numpy()
        more = found[:, -1].isneginf() & best_BM[:, -1].isfinite()
        rows, ahead = rows[more.cpu().numpy()] if ahead < num_items else rows[:0], ahead * _AHEAD
    return items, scores


def _within(groups_BM: Tensor, per_group: int) -> Tensor:
    """Return (B, M), true where fewer than `per_group` items of the same group are before an item in its row.

    Items of group 0, which have no group, are not limited.
    """
    order = groups_BM.argsort(dim=1, stable=True)
    ordered = groups_BM.gather(1, order)
    place = torch.arange(ordered.shape[1], device=ordered.device).expand_as(ordered)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    before = place - place.where(begins, 0).cummax(1).values  # how many items of the group are before each
    return torch.zeros_like(before).scatter_(1, order, before).lt(per_group) | (groups_BM == 0)
