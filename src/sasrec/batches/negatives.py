"""Draw negative items: a sampler that excludes a user's items, and the draws that a training loss needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sasrec.config.settings import LossConfig
from sasrec.data.histories import Histories


class NegativeSampler:
    """Draws items outside a row's history, with equal probability and with replacement, without rejection.

    Number the items that may be drawn for any row from 0. Let p_0 < p_1 < … be the numbers of a row's positives,
    the items that this row excludes. The r-th of the other items, counted from 0, has the number r + (how many j
    have p_j - j <= r). A binary search finds this number, so a draw costs O(log events).
    """

    def __init__(
        self,
        histories: Histories,
        num_items: int,
        *,
        also: npt.NDArray[np.int64] | None = None,
        known_V: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Sort the positives of all rows, once.

        `also`: (rows,) one more item to exclude per row, such as an evaluation target. `known_V`: (V,) true for
        items that may be drawn; None means all. All items of `histories` and `also` must be such items.
        """
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        items = histories.items[histories.flat()].astype(np.int64)
        if also is not None:
            rows, items = np.concatenate([rows, np.arange(len(also))]), np.concatenate([items, also])
        known_V = np.arange(num_items + 1) > 0 if known_V is None else known_V
        self._drawable = np.flatnonzero(known_V)
        self._stride = num_items + 1
        self._place_V = np.cumsum(known_V) - 1
        # A key encodes row and drawable item, in this order, so one sorted array serves all rows.
        keys = np.unique(rows * self._stride + self._place_V[items])
        self._positives = keys
        rows, zero_based = np.divmod(keys, self._stride)
        self._counts = np.bincount(rows, minlength=len(histories))
        self._first = _exclusive_cumsum(self._counts)
        rank = np.arange(len(keys)) - self._first[rows]
        # p_j - j of the class docstring, offset by row.
        self._keys = rows * self._stride + zero_based - rank

    def draw(
        self, rows: npt.NDArray[np.int64], num_negatives: int, random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Return item numbers (len(rows), num_negatives); 0 for a row without an item to draw."""
        free = (len(self._drawable) - self._counts[rows])[:, None]
        drawn = (random.random((len(rows), num_negatives)) * free).astype(np.int64)
        drawn = np.minimum(drawn, free - 1)  # rounding can turn a product just below `free` into `free`
        query = rows[:, None] * self._stride + drawn
        below = np.searchsorted(self._keys, query, side="right") - self._first[rows][:, None]
        return np.where(free > 0, self._drawable[drawn + below], 0)

    def is_positive(self, rows: npt.NDArray[np.int64], items_RN: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return (R, N): true where an item is a positive of its row, so that `draw` never returns it there.

        `rows`: (R,) row numbers. `items_RN`: numbers of items that may be drawn (`known_V` of the constructor), so
        never the padding item 0.
        """
        keys_RN = rows[:, None] * self._stride + self._place_V[items_RN]
        at_RN = np.searchsorted(self._positives, keys_RN)
        # The clamp keeps the index valid for keys above the last positive.
        excluded_RN: npt.NDArray[np.bool_] = (
            self._positives[np.minimum(at_RN, len(self._positives) - 1)] == keys_RN
        )
        return excluded_RN


@dataclass(frozen=True)
class NegativePlan:
    """How a loss gets its negatives. Derived once from the settings; batches and losses read only this plan."""

    pool: Literal["none", "catalogue", "events", "batch"]
    """The source of negatives. "none": full cross-entropy draws no negatives. "catalogue": all items have equal
    probability. "events": probability in proportion to an item's training events. "batch": targets of the same
    batch, without replacement."""
    count: int
    """The number of negatives per position, or per batch if all positions share them."""
    shared: bool
    """Whether all positions of a batch use the same negatives."""
    own: Literal["kept", "avoided", "dropped", "masked"]
    """How to treat the user's own training items. "kept": they can be negatives. "avoided": never draw them.
    "dropped": replace such a draw by 0. "masked": the loss masks them, for draws that all users share."""
    needs_log_q: bool
    """Whether the loss applies the logQ correction: subtract the log probability of a draw from its score."""

    @staticmethod
    def of(loss: LossConfig, *, repeats: bool = False) -> NegativePlan:
        """Return the plan for the settings of a loss. `repeats`: items come again, so own items are kept."""
        skip_own_items = loss.skip_own_items and not repeats
        if loss.loss == "ce":
            return NegativePlan("none", 0, False, "masked" if skip_own_items else "kept", False)
        pools: dict[str, Literal["catalogue", "events", "batch"]]
        pools = {"uniform": "catalogue", "popularity": "events", "in_batch": "batch"}
        pool, softmax = pools[loss.negatives], loss.loss == "softmax"
        shared = loss.share_negatives or pool == "batch"
        own: Literal["kept", "avoided", "dropped", "masked"] = "kept"
        if skip_own_items:
            # Softmax needs the probability of each draw, so its draws must not depend on the user.
            own = "masked" if shared else "avoided" if pool == "catalogue" and not softmax else "dropped"
        return NegativePlan(pool, loss.num_negatives, shared, own, softmax and loss.logq)

    @property
    def may_hit_target(self) -> bool:
        """Whether a draw can equal the target of its position; the loss must then exclude this draw."""
        return self.own in ("kept", "masked")


class TrainingNegatives:
    """Draws the negatives of one batch at a time, by a `NegativePlan`."""

    def __init__(
        self,
        training: Histories,
        often_V: npt.NDArray[np.float64],
        num_items: int,
        plan: NegativePlan,
        *,
        known_V: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Prepare the draws.

        `often_V`: how often an epoch is expected to use each item as a target; only in-batch negatives need it.
        `known_V`: (V,) true for items that may be drawn; None means all.
        """
        self._plan = plan
        knows_user = plan.own in ("avoided", "dropped")
        self._sampler = NegativeSampler(training, num_items, known_V=known_V) if knows_user else None
        self._drawable = np.arange(1, num_items + 1) if known_V is None else np.flatnonzero(known_V)
        # A uniform draw of an event draws an item in proportion to popularity. int32 halves the memory.
        self._events = training.items[training.flat()] if plan.pool == "events" else training.items[:0]
        self.log_q_V: npt.NDArray[np.float64] | None = None
        """(V,) log of the probability that one draw of a negative gives the item; None without logQ correction."""
        if plan.needs_log_q:
            if plan.pool != "batch":
                pool = self._drawable if plan.pool == "catalogue" else self._events
                often_V = np.bincount(pool, minlength=num_items + 1).astype(np.float64)
            never_V = often_V == 0  # these items are never drawn; 1 instead of 0 avoids log(0)
            self.log_q_V = np.log((often_V + never_V) / max(1.0, often_V.sum()))

    def draw(
        self, users_P: npt.NDArray[np.int64], targets_P: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Return the item numbers of negatives: (P, N), or (N,) if all positions share them.

        0 is a missing negative: the draw was one of the user's own items, which the plan drops
        (`NegativePlan.own`), or the user has every known item. In-batch negatives are fewer than N if the batch
        has fewer than N targets.
        """
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
