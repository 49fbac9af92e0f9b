"""What may be recommended in which row, by item number; and lists with a limit on the items of a group.

This module does without PyTorch, because an exported graph is served without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from sasrec.data.histories import Histories
from sasrec.ranking.item_table import Availability

# Lists with groups look at first at this many times k items of the ranking.
_AHEAD = 4

Best: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.floating]]
"""Item numbers and scores, both (B, K), best first. An item number counts for nothing if its score is -inf."""
Block: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.floating]]
"""(B,) rows, and their item numbers and scores as in `Best`."""


@dataclass(frozen=True, eq=False)
class RowRules:
    """Rules that a mask of items cannot state: they differ by row, or count the items of a group."""

    banned: Histories | None = None
    """(rows,) the items that each row must not get, in the form of histories."""
    availability: Availability | None = None
    """When items are available, if `times` differ by row."""
    times: npt.NDArray[np.int64] | None = None
    """(rows,) the time of each request, in microseconds since 1970 UTC."""
    groups_V: npt.NDArray[np.int64] | None = None
    """(V,) group of each item, numbered from 1; 0 for padding and items without a group, which are not limited."""
    per_group: int = 0
    """The most items of one group in a list, if `groups_V` is given."""

    def forbidden(
        self, rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield banned items, then unavailable ones, as in `seen_items`."""
        if self.banned is not None:
            yield seen_items(self.banned, rows)
        if self.availability is not None and self.times is not None:
            row_E, place_E = np.nonzero(self.availability.closed(self.times[rows]))
            yield row_E, self.availability.items[place_E]


@dataclass(frozen=True, eq=False)
class Selection:
    """What may be recommended in some rows, and where this was stated, for the warning that nothing is left."""

    allowed_V: npt.NDArray[np.bool_] | None
    """(V,) true for items that may be recommended; None if all may be."""
    by_row: RowRules | None = None
    allow: bool = False
    """Whether there is an allow list."""
    rules: bool = False
    """Whether there are rules."""


@runtime_checkable
class Ranker(Protocol):
    """Finds the best items without giving all scores, such as an exported graph or a fixed order of items."""

    num_items: int
    """The number of items in the catalogue, without padding."""

    def top(self, histories: Histories, k: int, *, exclude_seen: bool, selection: Selection) -> Iterator[Block]:
        """Yield the k best items of all rows, block by block. See `candidates.top_items`."""
        ...


@runtime_checkable
class Learned(Protocol):
    """A trained model that scores: `ModelScorer`, or the graph of an export."""

    maxlen: int
    """How many items of a history the model reads: the last ones."""
    timed: bool
    """Whether it reads the times of a history."""

    def item_scores(self, histories: Histories, items: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the scores of some items for each history, (rows, items)."""
        ...

    def vectors(self) -> npt.NDArray[np.float32]:
        """Return the item embeddings, each divided by its length, (V, D)."""
        ...


def seen_items(
    histories: Histories, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return two flat arrays with one entry per event of the rows: the index into `rows`, and the item number."""
    lengths = histories.ends[rows] - histories.starts[rows]  # `.lengths` would compute all rows for each block
    row_E = np.repeat(np.arange(len(rows)), lengths)
    first = histories.starts[rows] - (np.cumsum(lengths) - lengths)
    return row_E, histories.items[np.arange(len(row_E)) + first[row_E]].astype(np.int64)


def best_of_rows(
    best: Callable[[npt.NDArray[np.int64], int], Best], rows: int, k: int, num_items: int, by_row: RowRules | None
) -> Best:
    """Return the k best items and their scores, (rows, k), with at most `per_group` items of each group.

    `best`: returns the best items of some rows, whose numbers are given, and how many: `Best`. An item is in the
    list if fewer than `per_group` items of its group are above it. The top of the ranking is searched first, and a
    longer part of it only for rows whose list is not yet full.
    """
    groups_V = None if by_row is None else by_row.groups_V
    waiting = np.arange(rows)
    if by_row is None or groups_V is None:
        return best(waiting, k)
    items, scores, ahead = np.zeros((rows, k), np.int64), np.full((rows, k), -np.inf, np.float32), _AHEAD * k
    while len(waiting):
        ahead = min(ahead, num_items)
        items_BM, best_BM = best(waiting, ahead)
        kept_BM = np.isfinite(best_BM) & _within(groups_V[items_BM], by_row.per_group)
        first = np.argsort(~kept_BM, axis=1, kind="stable")[:, :k]  # the places of the kept items, in order
        found = np.take_along_axis(np.where(kept_BM, best_BM, -np.inf), first, axis=1)
        items[waiting], scores[waiting] = np.take_along_axis(items_BM, first, axis=1), found
        more = np.isneginf(found[:, -1]) & np.isfinite(best_BM[:, -1])
        waiting, ahead = waiting[more] if ahead < num_items else waiting[:0], ahead * _AHEAD
    return items, scores


def _within(groups_BM: npt.NDArray[np.int64], per_group: int) -> npt.NDArray[np.bool_]:
    """Return (B, M), true where fewer than `per_group` items of the same group are before an item in its row.

    Items of group 0, which have no group, are not limited.
    """
    order = np.argsort(groups_BM, axis=1, kind="stable")
    ordered = np.take_along_axis(groups_BM, order, axis=1)
    place = np.broadcast_to(np.arange(ordered.shape[1]), ordered.shape)
    begins = np.ones(ordered.shape, bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    # How many items of the group are before each.
    before = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    within = np.empty(ordered.shape, bool)
    np.put_along_axis(within, order, before < per_group, axis=1)
    within |= groups_BM == 0
    return within
