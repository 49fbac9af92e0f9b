"""Make training batches from histories.

A batch is a pure function of (random seed, epoch, step), so checkpoints store no state of the batches. It can be
split into parts, for gradient accumulation or several ranks (`TrainingBatches.batch`).

Rows are padded on the right to the longest row of the batch. A batch contains rows of similar length, so padding
costs little. All batches have about the same number of positions, so every position weighs about the same in the
mean loss. Position ids count from the end: the last item of a row always has position id `maxlen`.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sasrec.batches.negatives import NegativePlan, TrainingNegatives
from sasrec.config.settings import RunConfig
from sasrec.data.histories import Histories

# One stream of random numbers for each purpose: a draw for one purpose must not shift the draws for another.
_PLAN, _NEGATIVES, _WINDOWS = 0, 1, 3  # training/trainer.py uses 2 for dropout


@dataclass(frozen=True, eq=False)
class Batch:
    """The input of a model: B rows, padded to L, the length of the longest row (shapes: models/interface.py)."""

    items_BL: npt.NDArray[np.int64]
    """Item numbers, oldest first; 0 at padding."""
    positions_BL: npt.NDArray[np.int64]
    """Position ids from 1 to maxlen; the last item of a row has maxlen. 0 at padding."""
    lengths_B: npt.NDArray[np.int64]
    """The number of items in each row, without padding."""
    ticks_BL: npt.NDArray[np.int64] | None
    """Ticks: times in the user's own unit (batches/ticks.py), 0 at padding; None if the histories have none."""


@dataclass(frozen=True, eq=False)
class TrainingBatch(Batch):
    """A batch with its targets and negatives. Arrays (P,) list the targets, row by row.

    Without baskets, each real (not padding) position has one target."""

    real_P: npt.NDArray[np.int64]
    """Index in the flattened batch (B * L,) of the position that predicts each target."""
    targets_P: npt.NDArray[np.int64]
    """The item number of each target: of the user's next event, or with baskets of an event of the next basket."""
    negatives: npt.NDArray[np.int64] | None
    """Negative item numbers: (P, N), where 0 is a missing negative (`TrainingNegatives.draw`), or (N,) if all
    positions share them. None for full cross-entropy."""
    own_BK: npt.NDArray[np.int64] | None
    """The distinct training items of the user of each row. Shorter rows repeat their last item up to length K.

    None unless the loss masks the user's own items (`NegativePlan.own` is "masked")."""
    positions: int
    """The number of targets in the whole batch, even if this object is only a part of the batch; at least 1."""


def pad(histories: Histories, rows: npt.NDArray[np.int64], maxlen: int) -> Batch:
    """Return the last `maxlen` items of each history in `rows`. An empty history gives a row of padding."""
    ends = histories.ends[rows]
    lengths = np.minimum(histories.lengths[rows], maxlen)
    column = np.arange(max(1, int(lengths.max(initial=0))))
    real = column < lengths[:, None]
    # Padding reads index 0 of the events; the masks below overwrite these values.
    source = np.where(real, (ends - lengths)[:, None] + column, 0)
    return Batch(
        items_BL=np.where(real, histories.items[source], 0).astype(np.int64),
        positions_BL=np.where(real, maxlen - lengths[:, None] + column + 1, 0),
        lengths_B=lengths,
        ticks_BL=None if histories.ticks is None else np.where(real, histories.ticks[source], 0),
    )


class TrainingBatches:
    """All batches of a training run. `batch(epoch, step)` makes any one of them, in any order."""

    def __init__(
        self,
        training: Histories,
        num_items: int,
        *,
        maxlen: int,
        batch_size: int,
        plan: NegativePlan,
        seed: int,
        windows: Literal["last", "random"] = "last",
        known_V: npt.NDArray[np.bool_] | None = None,
        basket_starts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Prepare what all epochs share; `batch` makes the batches.

        `training`: the training part of each user. A user with fewer than two events is not trained on.
        `batch_size`: the average number of users per batch. `plan`: how to draw negatives.
        `windows`: for histories longer than `maxlen`, use the last `maxlen` inputs, or a random window of `maxlen`
        inputs, drawn again in each epoch. `known_V`: (V,) true for items that may be negatives; None means all.
        `basket_starts`: (events,) index of the first event of the basket of each event of `training.items`. Then
        the last event before its basket predicts a target, and a user needs two baskets.
        """
        # The last training event is only a target, never an input.
        self._inputs = Histories(training.items, training.ticks, training.starts, training.ends - 1)
        self._basket_starts = basket_starts
        self._users = np.flatnonzero(training.lengths >= 2)
        if basket_starts is not None:
            last = basket_starts[training.ends[self._users] - 1]
            self._users = self._users[last > training.starts[self._users]]
        self._length_of = np.minimum(self._inputs.lengths, maxlen)
        self._lengths = self._length_of[self._users]
        self._num_batches = max(1, round(len(self._users) / batch_size))
        self._maxlen, self._seed, self._windows = maxlen, seed, windows
        self.negative_plan = plan
        self._own = _distinct(training, num_items) if plan.own == "masked" else None
        unknown_U = np.zeros(0, np.int64) if known_V is None else np.flatnonzero(~known_V[1:]) + 1
        self.unknown_U = unknown_U if len(unknown_U) else None
        """Item numbers that are not candidates, (U,); None if all items are candidates."""
        self._negatives = None
        if plan.pool != "none":
            # In-batch negatives need the probability of each item to be a target (logQ correction).
            targets, expected = self._expected_targets()
            often_V = np.bincount(targets, expected, minlength=num_items + 1).astype(np.float64)
            self._negatives = TrainingNegatives(training, often_V, num_items, plan, known_V=known_V)
        self._lock = threading.Lock()
        self._planned: tuple[int, list[npt.NDArray[np.int64]], Histories] = (-1, [], self._inputs)

    @classmethod
    def of(
        cls,
        training: Histories,
        num_items: int,
        config: RunConfig,
        known_V: npt.NDArray[np.bool_] | None = None,
        basket_starts: npt.NDArray[np.int64] | None = None,
    ) -> TrainingBatches:
        """Make the batches of a run with these settings."""
        return cls(
            training,
            num_items,
            maxlen=config.model.maxlen,
            batch_size=config.training.batch_size,
            plan=NegativePlan.of(config.loss, repeats=config.evaluation.repeats),
            seed=config.training.seed,
            windows=config.training.windows,
            known_V=known_V,
            basket_starts=basket_starts,
        )

    @property
    def log_q_V(self) -> npt.NDArray[np.float64] | None:  # noqa: N802
        """(V,) log of the probability that one draw of a negative gives the item; None without logQ correction."""
        return None if self._negatives is None else self._negatives.log_q_V

    def __len__(self) -> int:
        """The number of users that are trained on."""
        return len(self._users)

    def plan(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Return the user numbers of each batch of an epoch. Each trained user occurs once per epoch."""
        return self._plan_of(epoch)[1]

    def _plan_of(self, epoch: int) -> tuple[int, list[npt.NDArray[np.int64]], Histories]:
        """Return the epoch, the users of each batch, and each user's history up to its last input in this epoch.

        With random windows, a user's last input differs between epochs. The result for the latest epoch is cached,
        since each step needs it.
        """
        with self._lock:  # the thread of the loader also calls this
            if self._planned[0] != epoch:
                self._planned = (epoch, self._new_plan(epoch), self._inputs_of(epoch))
            return self._planned

    def _new_plan(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Group users of similar length into batches, then shuffle the batches."""
        random = np.random.default_rng([self._seed, _PLAN, epoch])
        # Shuffle before the stable sort: users of equal length come in a random order.
        order = random.permutation(len(self._users))
        order = order[np.argsort(self._lengths[order], kind="stable")]
        # Lay all rows end to end and cut into pieces of equal length. The piece at a row's middle gets the row,
        # so all batches have about the same number of positions.
        middle = np.cumsum(self._lengths[order]) - self._lengths[order] / 2
        steps = middle * self._num_batches // self._lengths.sum()
        batches = np.split(self._users[order], np.flatnonzero(np.diff(steps)) + 1)
        return [batches[i] for i in random.permutation(len(batches))]

    def _inputs_of(self, epoch: int) -> Histories:
        """Return histories whose last `maxlen` items are the inputs of this epoch."""
        if self._windows == "last":
            return self._inputs
        random = np.random.default_rng([self._seed, _WINDOWS, epoch])
        # Draw for every user, also for short histories, so one user's length does not shift another's draw.
        unused = self._inputs.lengths - self._length_of
        ends = self._inputs.ends - (random.random(len(unused)) * (unused + 1)).astype(np.int64)
        return dataclasses.replace(self._inputs, ends=ends)

    def batch(self, epoch: int, step: int, part: int = 0, parts: int = 1) -> TrainingBatch:
        """Return the batch of a step, or one of its `parts` for gradient accumulation or several ranks.

        Equal arguments give equal batches. A part has every `parts`-th user of the batch, and may have no user.
        Each position has the same negatives as in the whole batch, so the losses of all parts add up to its loss.
        """
        _, batches, inputs = self._plan_of(epoch)
        everyone = batches[step]
        users = everyone[part::parts]
        padded = pad(inputs, users, self._maxlen)
        # Draw for the whole batch and then select, so the negatives do not depend on the number of parts.
        row_of_all, column_of_all, targets = self._targets(inputs, everyone)
        mine = row_of_all % parts == part
        negatives = None
        if self._negatives is not None:
            random = np.random.default_rng([self._seed, _NEGATIVES, epoch, step])
            negatives = self._negatives.draw(everyone[row_of_all], targets, random)
            negatives = negatives if negatives.ndim == 1 else negatives[mine]
        return TrainingBatch(
            items_BL=padded.items_BL,
            positions_BL=padded.positions_BL,
            lengths_B=padded.lengths_B,
            ticks_BL=padded.ticks_BL,
            real_P=row_of_all[mine] // parts * padded.items_BL.shape[1] + column_of_all[mine],
            targets_P=targets[mine],
            negatives=negatives,
            own_BK=self._own_items(users),
            positions=max(1, len(targets)),
        )

    def _own_items(self, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Return own_BK: the distinct items of each user's whole training part, not only of the window."""
        if self._own is None:
            return None
        lengths = self._own.lengths[users]
        column = np.minimum(np.arange(lengths.max(initial=1)), lengths[:, None] - 1)  # repeats the last item
        return self._own.items[self._own.starts[users][:, None] + column].astype(np.int64)

    def _expected_targets(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return (entries,) item numbers, and (entries,) how often an epoch is expected to use them as targets.

        An item can have several entries, which add up. With random windows and baskets, it is nearly so: a window
        that begins in a basket is counted as if it began before it.
        """
        if self._windows == "last":
            *_, targets = self._targets(self._inputs, self._users)
            return targets, np.ones(len(targets))
        inputs = Histories(
            self._inputs.items, None, self._inputs.starts[self._users], self._inputs.ends[self._users]
        )
        window_P = np.repeat(self._lengths, inputs.lengths)
        unused_P = np.repeat(inputs.lengths, inputs.lengths) - window_P
        index_P = inputs.flat() - np.repeat(inputs.starts, inputs.lengths)
        # A window can start at 0..unused, each with equal probability. Count the starts that cover the index.
        covering_P = np.minimum(index_P, unused_P) - np.maximum(0, index_P - window_P + 1) + 1
        targets = inputs.items[inputs.flat() + 1].astype(np.int64)
        if self._basket_starts is not None:
            covering_P *= self._basket_starts[inputs.flat() + 1] > np.repeat(inputs.starts, inputs.lengths)
        return targets, covering_P / (unused_P + 1)

    def _targets(
        self, inputs: Histories, users: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return row, column and item number of each target, (P,); the column is that of the event before it.

        The target of an event is the next one. With baskets, the last event of a basket has all events of the next
        basket as targets. Targets whose basket begins the window have nothing before them and are left out.
        """
        lengths = self._length_of[users]
        # Moving the window by one event turns inputs into targets.
        ends = inputs.ends[users] + 1
        events = Histories(inputs.items, None, ends - lengths, ends).flat()
        row_P = np.repeat(np.arange(len(users)), lengths)
        begins_P = (ends - 1 - lengths)[row_P]
        if self._basket_starts is None:
            return row_P, events - 1 - begins_P, inputs.items[events].astype(np.int64)
        column_P = self._basket_starts[events] - 1 - begins_P
        kept = column_P >= 0
        return row_P[kept], column_P[kept], inputs.items[events[kept]].astype(np.int64)


def _distinct(histories: Histories, num_items: int) -> Histories:
    """Return the distinct items of each row, in ascending order."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    # One integer key per (row, item) pair; divmod takes the keys apart again.
    row, items = np.divmod(np.unique(row * (num_items + 1) + histories.items[histories.flat()]), num_items + 1)
    ends = np.cumsum(np.bincount(row, minlength=len(histories)))
    return Histories(items.astype(np.int32), None, np.concatenate([[0], ends[:-1]]), ends)
