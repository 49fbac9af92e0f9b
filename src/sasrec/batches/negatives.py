"""Negative items: uniform and never the user's own, without rejection sampling; and those of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class NegativePlan:
    """How a loss gets its negatives. Decided once from the settings; batches and losses read only this plan."""

    pool: Literal["none", "catalogue", "events", "batch"]
    """Where negatives come from: nowhere (full cross-entropy); all items with equal probability; the training
    events, so in proportion to popularity; or the targets of the batch, without replacement."""
    count: int
    """Negatives of a position, or of a whole batch if they are shared."""
    shared: bool
    """Whether all positions of a batch have the same negatives."""
    own: Literal["kept", "avoided", "dropped", "masked"]
    """What becomes of the user's own training items. They may be negatives; or they are never drawn; or a draw of
    one becomes 0; or the loss masks them, as it must where draws do not depend on the user."""
    needs_log_q: bool
    """Whether the loss corrects scores by how likely a draw is."""

    @staticmethod
    def of(loss: LossConfig) -> NegativePlan:
        """The plan of a loss."""
        if loss.loss == "ce":
            return NegativePlan("none", 0, False, "masked" if loss.skip_own_items else "kept", False)
        pools: dict[str, Literal["catalogue", "events", "batch"]]
        pools = {"uniform": "catalogue", "popularity": "events", "in_batch": "batch"}
        pool, softmax = pools[loss.negatives], loss.loss == "softmax"
        shared = loss.share_negatives or pool == "batch"
        own: Literal["kept", "avoided", "dropped", "masked"] = "kept"
        if loss.skip_own_items:
            # Softmax has to know how likely a draw is, so there draws cannot depend on the user.
            own = "masked" if shared else "avoided" if pool == "catalogue" and not softmax else "dropped"
        return NegativePlan(pool, loss.num_negatives, shared, own, softmax and loss.logq)

    @property
    def may_hit_target(self) -> bool:
        """Whether a draw can be the target of its position, so that the loss has to leave it out."""
        return self.own in ("kept", "masked")


class TrainingNegatives:
    """Draws what a plan asks for, once a step."""

    def __init__(
        self,
        training: Histories,
        often_V: npt.NDArray[np.float64],
        num_items: int,
        plan: NegativePlan,
        *,
        known_V: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`often_V`: how often an epoch is expected to have each item as a target, for draws from the batch.

        `known_V`: the items that may be drawn, by default all.
        """
        self._plan = plan
        knows_user = plan.own in ("avoided", "dropped")
        self._sampler = NegativeSampler(training, num_items, known_V=known_V) if knows_user else None
        self._drawable = np.arange(1, num_items + 1) if known_V is None else np.flatnonzero(known_V)
        # One of these events, each alike, is a popular item. int32, as there may be as many as events.
        self._events = training.items[training.flat()] if plan.pool == "events" else training.items[:0]
        self.log_q_V: npt.NDArray[np.float64] | None = None
        """Log of the probability that a draw is that item, if the plan needs it."""
        if plan.needs_log_q:
            if plan.pool != "batch":
                pool = self._drawable if plan.pool == "catalogue" else self._events
                often_V = np.bincount(pool, minlength=num_items + 1).astype(np.float64)
            never_V = often_V == 0  # such an item is never drawn, whatever stands there
            self.log_q_V = np.log((often_V + never_V) / max(1.0, often_V.sum()))

    def draw(
        self, users_P: npt.NDArray[np.int64], targets_P: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """(P, N), 0 where a negative was dropped; or (N,) if shared, fewer for a batch of fewer than N targets."""
        plan = self._plan
        if plan.pool == "batch":
            return random.choice(targets_P, min(plan.count, len(targets_P)), replace=False)
        if plan.own == "avoided" and self._sampler is not None:
            return self._sampler.draw(users_P, plan.count, random)
        pool = self._events if plan.pool == "events" else self._drawable
        shape = (plan.count,) if plan.shared else (len(users_P), plan.count)
        drawn = pool[random.integers(len(pool), size=shape)].astype(np.int64)
        return drawn if self._sampler is None else drawn * ~self._sampler.is_positive(users_P, drawn)


def _exclusive_cumsum(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.cumsum(counts) - counts
