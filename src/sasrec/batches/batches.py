"""Make batches of histories. A batch depends only on (seed, epoch, step, part), so resume needs no loader state.

Rows are padded on the right, up to the longest row of the batch. A batch contains histories of similar length,
and all batches contain about the same number of positions. So padding costs little, and short histories do not
outweigh long ones in the mean loss. Position ids count from the end: the most recent item always has id `maxlen`.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sasrec.batches.negatives import NegativePlan, TrainingNegatives
from sasrec.data.histories import Histories

# Each purpose has its own stream of random numbers, so one never shifts another.
_PLAN, _NEGATIVES, _WINDOWS = 0, 1, 3  # 2 is dropout's


@dataclass(frozen=True, eq=False)
class Batch:
    """The inputs of a model. B is the number of rows, L the length of the longest one."""

    items_BL: npt.NDArray[np.int64]
    """Item numbers, oldest first, 0 after the end of a row."""
    positions_BL: npt.NDArray[np.int64]
    """1..maxlen, the last real item always maxlen; 0 in the padding."""
    lengths_B: npt.NDArray[np.int64]
    ticks_BL: npt.NDArray[np.int64] | None
    """Ticks (personal times, batches/ticks.py), 0 after the end of a row; None for models without time."""


@dataclass(frozen=True, eq=False)
class TrainingBatch(Batch):
    """A batch with its targets and negatives. P is the number of real positions, row after row."""

    real_P: npt.NDArray[np.int64]
    """Index of each real position in the flattened (B·L)."""
    targets_P: npt.NDArray[np.int64]
    """The item that follows each position."""
    negatives: npt.NDArray[np.int64] | None
    """(P, N) of each position, 0 where a draw was dropped; (N,) if the batch shares them; None for full losses."""
    own_BK: npt.NDArray[np.int64] | None
    """The distinct training items of each row's user, the last one repeated to a common length; None unless the
    plan of negatives has the loss mask them."""
    positions: int
    """Real positions of the whole batch, of which this may be a part: the divisor of a loss."""


def pad(histories: Histories, rows: npt.NDArray[np.int64], maxlen: int) -> Batch:
    """Pad the last `maxlen` events of each row to a batch. Rows may be empty; L is at least 1."""
    ends = histories.ends[rows]
    lengths = np.minimum(histories.lengths[rows], maxlen)
    column = np.arange(max(1, int(lengths.max(initial=0))))
    real = column < lengths[:, None]
    source = np.where(real, (ends - lengths)[:, None] + column, 0)
    return Batch(
        items_BL=np.where(real, histories.items[source], 0).astype(np.int64),
        positions_BL=np.where(real, maxlen - lengths[:, None] + column + 1, 0),
        lengths_B=lengths,
        ticks_BL=None if histories.ticks is None else np.where(real, histories.ticks[source], 0),
    )


class TrainingBatches:
    """The batches of a training run; `batch(epoch, step)` makes any batch, in any order."""

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
    ) -> None:
        """`training`: the training part of each user. A user with fewer than two events there has no target.

        `windows`: the part of a longer history that an epoch uses, its last `maxlen` inputs or a random window.
        `known_V`: the items that may be negatives, by default all.
        """
        self._inputs = Histories(training.items, training.ticks, training.starts, training.ends - 1)
        self._users = np.flatnonzero(training.lengths >= 2)
        self._length_of = np.minimum(self._inputs.lengths, maxlen)
        self._lengths = self._length_of[self._users]
        self._num_batches = max(1, round(len(self._users) / batch_size))
        self._maxlen, self._seed, self._windows = maxlen, seed, windows
        self.negative_plan = plan
        self._own = _distinct(training, num_items) if plan.own == "masked" else None
        unknown_U = np.zeros(0, np.int64) if known_V is None else np.flatnonzero(~known_V[1:]) + 1
        self.unknown_U = unknown_U if len(unknown_U) else None
        """The items that are not candidates, or None if all are."""
        self._negatives = None
        if plan.pool != "none":
            targets, expected = self._expected_targets()
            often_V = np.bincount(targets, expected, minlength=num_items + 1).astype(np.float64)
            self._negatives = TrainingNegatives(training, often_V, num_items, plan, known_V=known_V)
        self._lock = threading.Lock()
        self._planned: tuple[int, list[npt.NDArray[np.int64]], Histories] = (-1, [], self._inputs)

    @property
    def log_q_V(self) -> npt.NDArray[np.float64] | None:  # noqa: N802
        """Log of the probability that a draw of a negative is that item, if the plan needs it."""
        return None if self._negatives is None else self._negatives.log_q_V

    def __len__(self) -> int:
        """Number of users that an epoch trains on."""
        return len(self._users)

    def plan(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """User numbers of each batch of an epoch; every user once."""
        return self._plan_of(epoch)[1]

    def _plan_of(self, epoch: int) -> tuple[int, list[npt.NDArray[np.int64]], Histories]:
        """The epoch, the users of each of its batches, and the inputs of all users in that epoch."""
        with self._lock:  # the loader's thread asks too
            if self._planned[0] != epoch:
                self._planned = (epoch, self._new_plan(epoch), self._inputs_of(epoch))
            return self._planned

    def _new_plan(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        random = np.random.default_rng([self._seed, _PLAN, epoch])
        order = random.permutation(len(self._users))
        order = order[np.argsort(self._lengths[order], kind="stable")]
        # The middle of a row decides its batch, so that all batches hold the same number of positions.
        middle = np.cumsum(self._lengths[order]) - self._lengths[order] / 2
        steps = middle * self._num_batches // self._lengths.sum()
        batches = np.split(self._users[order], np.flatnonzero(np.diff(steps)) + 1)
        return [batches[i] for i in random.permutation(len(batches))]

    def _inputs_of(self, epoch: int) -> Histories:
        """The input events of each user in an epoch; a batch takes the last `maxlen` of them."""
        if self._windows == "last":
            return self._inputs
        random = np.random.default_rng([self._seed, _WINDOWS, epoch])
        left_out = self._inputs.lengths - self._length_of
        ends = self._inputs.ends - (random.random(len(left_out)) * (left_out + 1)).astype(np.int64)
        return dataclasses.replace(self._inputs, ends=ends)

    def batch(self, epoch: int, step: int, part: int = 0, parts: int = 1) -> TrainingBatch:
        """The batch of a step of an epoch, or one of its parts; the same arguments give the same batch.

        Parts share out the users of a batch (a part may get none), and have the negatives that the whole has, so
        their losses add up to its loss, however many there are.
        """
        _, batches, inputs = self._plan_of(epoch)
        everyone = batches[step]
        users = everyone[part::parts]
        padded = pad(inputs, users, self._maxlen)
        length = padded.items_BL.shape[1]
        row_P = np.repeat(np.arange(len(users)), padded.lengths_B)
        column_P = np.arange(len(row_P)) - np.repeat(
            np.cumsum(padded.lengths_B) - padded.lengths_B, padded.lengths_B
        )
        targets = self._targets(inputs, everyone)
        row_of_all = np.repeat(np.arange(len(everyone)), self._length_of[everyone])
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
            real_P=row_P * length + column_P,
            targets_P=targets[mine],
            negatives=negatives,
            own_BK=self._own_items(users),
            positions=len(targets),
        )

    def _own_items(self, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """The items of the whole training part of each user, whatever the window."""
        if self._own is None:
            return None
        lengths = self._own.lengths[users]
        place = np.minimum(np.arange(lengths.max(initial=1)), lengths[:, None] - 1)
        return self._own.items[self._own.starts[users][:, None] + place].astype(np.int64)

    def _expected_targets(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Items, and the expected number of times that an epoch has each of them as a target."""
        if self._windows == "last":
            targets = self._targets(self._inputs, self._users)
            return targets, np.ones(len(targets))
        inputs = Histories(
            self._inputs.items, None, self._inputs.starts[self._users], self._inputs.ends[self._users]
        )
        window_P = np.repeat(self._lengths, inputs.lengths)
        left_out_P = np.repeat(inputs.lengths, inputs.lengths) - window_P
        place_P = inputs.flat() - np.repeat(inputs.starts, inputs.lengths)
        covering_P = np.minimum(place_P, left_out_P) - np.maximum(0, place_P - window_P + 1) + 1
        return inputs.items[inputs.flat() + 1].astype(np.int64), covering_P / (left_out_P + 1)

    def _targets(self, inputs: Histories, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The item after each input event, user after user."""
        ends = inputs.ends[users] + 1
        last = Histories(inputs.items, None, ends - self._length_of[users], ends)
        return last.items[last.flat()].astype(np.int64)


def _distinct(histories: Histories, num_items: int) -> Histories:
    """The distinct items of each row, in ascending order."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    row, items = np.divmod(np.unique(row * (num_items + 1) + histories.items[histories.flat()]), num_items + 1)
    ends = np.cumsum(np.bincount(row, minlength=len(histories)))
    return Histories(items.astype(np.int32), None, np.concatenate([[0], ends[:-1]]), ends)
