"""Uniform negative items: never one of the user's own, never padding, without rejection sampling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sasrec.data.splits import Histories


class NegativeSampler:
    """Draws items that do not occur in a row's history, each with equal probability, with replacement.

    The r-th item outside a sorted list of positives p_0 < p_1 < … is r plus the number of j with
    p_j - j <= r. With one offset a row, one binary search answers that for all rows at once.
    """

    def __init__(
        self,
        histories: Histories,
        num_items: int,
        *,
        also: npt.NDArray[np.int64] | None = None,
        known_V: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`also`: (rows,) one more item a row to exclude, such as the target of an evaluation.

        `known_V`: the items that may be drawn, by default all; the histories and `also` hold no others.
        """
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        within = np.arange(len(rows)) - np.repeat(_exclusive_cumsum(histories.lengths), histories.lengths)
        items = histories.items[np.repeat(histories.starts, histories.lengths) + within].astype(np.int64)
        if also is not None:
            rows, items = np.concatenate([rows, np.arange(len(also))]), np.concatenate([items, also])
        known_V = np.arange(num_items + 1) > 0 if known_V is None else known_V
        self._drawable = np.flatnonzero(known_V)
        self._stride = num_items + 1
        # Key of a positive: its row and its place among the drawable, so that one sorted array serves all rows.
        keys = np.unique(rows * self._stride + np.cumsum(known_V)[items] - 1)
        rows, zero_based = np.divmod(keys, self._stride)
        self._counts = np.bincount(rows, minlength=len(histories))
        self._first = _exclusive_cumsum(self._counts)
        rank = np.arange(len(keys)) - self._first[rows]
        self._keys = rows * self._stride + zero_based - rank

    def draw(
        self, rows: npt.NDArray[np.int64], num_negatives: int, random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """(len(rows), num_negatives) item numbers; 0 where a row's history holds the whole catalogue."""
        free = (len(self._drawable) - self._counts[rows])[:, None]
        drawn = (random.random((len(rows), num_negatives)) * free).astype(np.int64)
        drawn = np.minimum(drawn, free - 1)  # a float just below 1, times a large number, may round up
        query = rows[:, None] * self._stride + drawn
        below = np.searchsorted(self._keys, query, side="right") - self._first[rows][:, None]
        return np.where(free > 0, self._drawable[drawn + below], 0)


def _exclusive_cumsum(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.cumsum(counts) - counts
