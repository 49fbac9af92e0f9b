"""Negative items: uniform and never the user's own, without rejection sampling; and those of training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sasrec.config.settings import LossConfig
from sasrec.data.histories import Histories


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
        items = histories.items[histories.flat()].astype(np.int64)
        if also is not None:
            rows, items = np.concatenate([rows, np.arange(len(also))]), np.concatenate([items, also])
        known_V = np.arange(num_items + 1) > 0 if known_V is None else known_V
        self._drawable = np.flatnonzero(known_V)
        self._stride = num_items + 1
        self._place_V = np.cumsum(known_V) - 1
        # Key of a positive: its row and its place among the drawable, so that one sorted array serves all rows.
        keys = np.unique(rows * self._stride + self._place_V[items])
        self._positives = keys
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

    def is_positive(self, rows: npt.NDArray[np.int64], items_RN: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(len(rows), N) whether an item, 1 or more, is one that the row excludes."""
        keys_RN = rows[:, None] * self._stride + self._place_V[items_RN]
        at_RN = np.searchsorted(self._positives, keys_RN)
        found: npt.NDArray[np.bool_] = self._positives[np.minimum(at_RN, len(self._positives) - 1)] == keys_RN
        return found


class TrainingNegatives:
    """What LossConfig asks for, one draw a step.

    With `skip_own_items`, negatives of a position are never a training item of its user: uniform ones of bce and
    gbce are drawn from the others; popular ones, and those of softmax, which must know how likely a draw is, are
    drawn from all and dropped if they are. All else that does not count is left out by the loss.
    """

    def __init__(
        self,
        training: Histories,
        often_V: npt.NDArray[np.float64],
        num_items: int,
        config: LossConfig,
        *,
        known_V: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`often_V`: how often an epoch is expected to have each item as a target, for in_batch; `known_V`: the
        items that may be drawn, by default all."""
        kind = config.negatives
        skips = config.skip_own_items and not config.shared
        self._config = config
        self._sampler = NegativeSampler(training, num_items, known_V=known_V) if skips else None
        self._drawable = np.arange(1, num_items + 1) if known_V is None else np.flatnonzero(known_V)
        # Of popular items: one of these, each alike. int32, as there may be as many as events.
        self._events = training.items[training.flat()] if kind == "popularity" else training.items[:0]
        self.log_q_V: npt.NDArray[np.float64] | None = None
        if config.loss == "softmax":
            if kind != "in_batch":
                pool = self._drawable if kind == "uniform" else self._events
                often_V = np.bincount(pool, minlength=num_items + 1).astype(np.float64)
            never_V = often_V == 0  # such an item is never drawn, whatever stands there
            self.log_q_V = np.log((often_V + never_V) / max(1.0, often_V.sum()))

    def draw(
        self, users_P: npt.NDArray[np.int64], targets_P: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """(P, N), 0 where there is none; (N,) if they are shared, fewer if in-batch of fewer than N targets."""
        config, count = self._config, self._config.num_negatives
        if config.negatives == "in_batch":
            return random.choice(targets_P, min(count, len(targets_P)), replace=False)
        if config.negatives == "uniform" and config.loss != "softmax" and self._sampler is not None:
            return self._sampler.draw(users_P, count, random)
        pool = self._events if config.negatives == "popularity" else self._drawable
        shape = (count,) if config.shared else (len(users_P), count)
        drawn = pool[random.integers(len(pool), size=shape)].astype(np.int64)
        return drawn if self._sampler is None else drawn * ~self._sampler.is_positive(users_P, drawn)


def _exclusive_cumsum(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.cumsum(counts) - counts
