"""Baselines: simple scorers that a model must beat. They count training events and have no learned weights.

`evaluate_scorer` ranks targets by a baseline exactly as by the model.

The scores of a history are bit-identical in every batch. No sum runs across histories, and each sum adds its terms
in a fixed order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.errors import ConfigError
from sasrec.ranking.fallback import recent_scores
from sasrec.ranking.scorers import Scorer
from sasrec.ranking.selection import seen_items

RECENT_DAYS = 7
_RECENT = f"recent-{RECENT_DAYS}-days"
_DAY = 86_400 * 10**6  # microseconds
# ItemToItem ignores old events whose weight is below this share of the newest event's weight.
_NEGLIGIBLE = 1e-7


def baselines(
    training: Histories, num_items: int, event_times: npt.NDArray[np.int64] | None, *, repeats: bool = False
) -> dict[str, Scorer]:
    """Build every baseline, by name. Recent popularity is included only if the data has times.

    `repeats`: items come again, so two baselines recommend the items of the history.

    `event_times`: (events,) times of `training.items` in microseconds since 1970 UTC, or None. Do not pass
    `training.times`: its unit can differ from user to user.
    """
    return {name: build() for name, build in _builders(training, num_items, event_times, repeats).items()}


def baseline(
    name: str,
    training: Histories,
    num_items: int,
    event_times: npt.NDArray[np.int64] | None,
    *,
    repeats: bool = False,
) -> Scorer:
    """Build one of `baselines`. Raises: ConfigError for an unknown name. Remedy: name one that it lists."""
    builders = _builders(training, num_items, event_times, repeats)
    if name not in builders:
        raise ConfigError(f"{name!r} is not a baseline of this run. Choose one of: {', '.join(builders)}.")
    return builders[name]()


def _builders(
    training: Histories, num_items: int, event_times: npt.NDArray[np.int64] | None, repeats: bool
) -> dict[str, Callable[[], Scorer]]:
    kinds: dict[str, Callable[..., Scorer]] = dict(KINDS)
    if event_times is None:
        del kinds[_RECENT]
    else:
        kinds[_RECENT] = partial(RecentPopularity, event_times=event_times)
    if not repeats:
        del kinds["own-frequent"], kinds["own-recent"]
    return {name: partial(kind, training, num_items) for name, kind in kinds.items()}


class Stored(ABC):
    """A baseline as arrays, so that an export can contain it."""

    num_items: int
    ARRAYS: ClassVar[dict[str, type]]
    """Name of each array -> data type. Names that end in _V are of arrays with an entry for each item, and `first`
    is (num_items + 2,): entries first[i] to first[i + 1] - 1 of the other arrays are those of item i."""

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the arrays by name."""
        return {name: getattr(self, f"_{name}") for name in self.ARRAYS}

    @abstractmethod
    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return scores_BV. See `Scorer.scores`."""

    @classmethod
    def restored(cls, num_items: int, arrays: dict[str, npt.NDArray[np.generic]]) -> Self:
        """Return the baseline that `arrays` came from.

        Raises: ValueError with the reason if they cannot be of a baseline for `num_items` items.
        """
        if {name: array.dtype.type for name, array in arrays.items()} != cls.ARRAYS:
            raise ValueError(f"its arrays are not {', '.join(cls.ARRAYS)}")
        for name, array in arrays.items():
            if array.ndim != 1 or (array.dtype.kind == "f" and not np.isfinite(array).all()):
                raise ValueError(f"{name} is not a row of finite numbers")
            if name.endswith("_V") and len(array) != num_items + 1:
                raise ValueError(f"{name} is not for {num_items:,} items")
            if name == "others" and not np.isin(array, np.arange(num_items + 1)).all():
                raise ValueError("its neighbours are not of the catalogue")
            if name == "decay" and (len(array) != 1 or not 0 < float(array[0]) < 1):
                raise ValueError("its decay is not between 0 and 1")
        if "first" in arrays:
            first, ends = arrays["first"], {len(arrays[name]) for name in ("others", "values")}
            if len(first) != num_items + 2 or first[0] or (np.diff(first) < 0).any() or ends != {int(first[-1])}:
                raise ValueError("its parts do not fit together")
        made = cls.__new__(cls)
        made.num_items = num_items
        for name, array in arrays.items():
            setattr(made, f"_{name}", array)
        return made


class Popularity(Stored):
    """Scores an item by its number of training events."""

    ARRAYS: ClassVar[dict[str, type]] = {"counts_V": np.float32}

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        self._counts_V = event_counts(training, num_items).astype(np.float32)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), with equal rows because the history is ignored."""
        return torch.from_numpy(self._counts_V).repeat(len(rows), 1)


class RecentPopularity(Popularity):
    """Scores an item by its number of training events in the last `days` days.

    Popularity, scaled below 1, orders the items without such an event. The days are counted back from the newest
    training event of all users.
    """

    def __init__(
        self,
        training: Histories,
        num_items: int,
        event_times: npt.NDArray[np.int64],
        days: int = RECENT_DAYS,
    ) -> None:
        self.num_items = num_items
        _, position_E = _flat(training.starts, training.ends)
        times_E = event_times[position_E]
        newest = times_E.max() if len(times_E) else 0
        recent_E = position_E[times_E > newest - days * _DAY]
        recent_V = np.bincount(training.items[recent_E], minlength=num_items + 1)
        self._counts_V = recent_scores(recent_V, event_counts(training, num_items)).astype(np.float32)


class ItemToItem(Stored):
    """Item-to-item collaborative filtering: cosine similarity (Sarwar et al., WWW 2001) with recency decay.

        cos(i, j) = co(i, j) / sqrt(n_i n_j), and cos(j, j) = 0
        score(j)  = sum over the history's events e of decay^(number of events after e) * cos(item of e, j)

    n_i is the number of users with item i; co(i, j) is the number of users with both items. Repeats do not count.
    All neighbours of an item are stored: NDCG@10 was lower with only the 200 nearest (docs/measurements/lab.md).
    Memory: 12 bytes for each ordered pair of items that share a user.
    """

    ARRAYS: ClassVar[dict[str, type]] = {
        "decay": np.float64,
        "first": np.int64,
        "others": np.int64,
        "values": np.float32,
    }

    def __init__(self, training: Histories, num_items: int, decay: float = 0.6) -> None:
        """`decay`: the weight of a history's event relative to the next newer event; above 0 and below 1.

        0.6 gave the best validation NDCG@10 on MovieLens 100K (docs/measurements/lab.md).
        """
        self.num_items = num_items
        self._decay = np.array([decay])
        row_E, position_E = _flat(training.starts, training.ends)
        # Each (user, item) pair counts once. One integer per pair sorts faster than two columns.
        pairs = np.unique(row_E * (num_items + 1) + training.items[position_E])
        row_P, item_P = np.divmod(pairs, num_items + 1)
        users_V = np.bincount(item_P, minlength=num_items + 1)
        items_of = np.split(item_P, np.cumsum(np.bincount(row_P, minlength=len(training)))[:-1])
        users_of = np.split(row_P[np.argsort(item_P, kind="stable")], np.cumsum(users_V)[:-1])
        found = [
            _neighbours(item, [items_of[user] for user in users.tolist()], users_V)
            for item, users in enumerate(users_of)
        ]
        self._first = np.concatenate([[0], np.cumsum([len(others) for others, _ in found])]).astype(np.int64)
        self._others = np.concatenate([others for others, _ in found])
        self._values = np.concatenate([cosines for _, cosines in found])

    @property
    def _weights(self) -> list[float]:
        """The weights of the newest event, of the event before it, and so on, until a weight is negligible."""
        decay = float(self._decay[0])
        return [decay**since for since in range(1 + int(math.log(_NEGLIGIBLE, decay)))]

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1). An item that shares no user with the history's items scores 0."""
        scores_BV, weights = np.zeros((len(rows), self.num_items + 1), np.float32), self._weights
        for scores_V, start, end in zip(scores_BV, histories.starts[rows], histories.ends[rows], strict=True):
            # Older events than there are weights are negligible.
            recent = histories.items[max(start, end - len(weights)) : end]
            for item, weight in zip(recent[::-1].tolist(), weights, strict=False):
                own = slice(self._first[item], self._first[item + 1])
                scores_V[self._others[own]] += weight * self._values[own]
        return torch.from_numpy(scores_BV)


class Markov(Stored):
    """First-order Markov chain: scores item j by how often j followed the history's last item in training.

    Popularity, scaled below 1, is added to each count. It breaks ties, and it orders the items that never followed
    the last item. After an empty history, it orders all items.
    """

    ARRAYS: ClassVar[dict[str, type]] = {
        "popularity_V": np.float64,
        "first": np.int64,
        "others": np.int64,
        "values": np.float64,
    }

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        counts_V = event_counts(training, num_items)
        self._popularity_V = counts_V / (counts_V.max() + 1)
        row_E, position_E = _flat(training.starts, training.ends)
        item_E = training.items[position_E].astype(np.int64)
        # The condition drops the step from one user's last event to the next user's first.
        steps = (item_E[:-1] * (num_items + 1) + item_E[1:])[row_E[:-1] == row_E[1:]]
        pairs, counts = np.unique(steps, return_counts=True)
        before, after = np.divmod(pairs, num_items + 1)
        # Entries _first[i] to _first[i + 1] - 1 of the next two arrays are the transitions from item i.
        self._first = np.searchsorted(before, np.arange(num_items + 2))
        self._others, self._values = after, counts.astype(np.float64)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), in float64.

        A score is a count plus a popularity below 1. float32 would round off the popularity if the count is large.
        """
        scores_BV = torch.from_numpy(self._popularity_V).repeat(len(rows), 1)
        known = np.flatnonzero(histories.lengths[rows])
        last = histories.items[histories.ends[rows[known]] - 1]
        row_E, position_E = map(torch.from_numpy, _flat(self._first[last], self._first[last + 1]))
        others, values = torch.from_numpy(self._others), torch.from_numpy(self._values)
        scores_BV[torch.from_numpy(known)[row_E], others[position_E]] += values[position_E]
        return scores_BV


class OwnFrequent(Stored):
    """Scores an item by how often it is in the history. Popularity, scaled below 1, orders the other items."""

    ARRAYS: ClassVar[dict[str, type]] = {"popularity_V": np.float64}

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        counts_V = event_counts(training, num_items)
        self._popularity_V = counts_V / (counts_V.max() + 1)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), in float64, for the reason that `Markov.scores` states."""
        scores_BV = torch.from_numpy(self._popularity_V).repeat(len(rows), 1)
        row_E, item_E = seen_items(histories, rows)
        one_E = torch.ones(len(row_E), dtype=scores_BV.dtype)
        scores_BV.index_put_((torch.from_numpy(row_E), torch.from_numpy(item_E)), one_E, accumulate=True)
        return scores_BV


class OwnRecent(OwnFrequent):
    """Scores the items of the history by their last event, newest first. Popularity orders the other items."""

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), in float64: 1 + the place of the item's last event; else a popularity
        below 1."""
        scores_BV = torch.from_numpy(self._popularity_V).repeat(len(rows), 1)
        row_E, item_E = seen_items(histories, rows)
        place_E = np.arange(len(row_E)) - np.searchsorted(row_E, row_E)
        scores = scores_BV.numpy()
        np.maximum.at(scores, (row_E, item_E), 1.0 + place_E)
        return scores_BV


KINDS: dict[str, type[Stored]] = {
    "popularity": Popularity,
    _RECENT: RecentPopularity,
    "item-to-item": ItemToItem,
    "markov": Markov,
    "own-frequent": OwnFrequent,
    "own-recent": OwnRecent,
}


def event_counts(training: Histories, num_items: int) -> npt.NDArray[np.int64]:
    """counts_V: (num_items + 1,) the number of training events of each item; 0 for the padding item 0."""
    _, position_E = _flat(training.starts, training.ends)
    return np.bincount(training.items[position_E], minlength=num_items + 1)


def _flat(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of all ranges, one range after another, as two flat arrays: range index and position."""
    lengths = ends - starts
    row_E = np.repeat(np.arange(len(lengths)), lengths)
    return row_E, np.arange(len(row_E)) + (starts - (np.cumsum(lengths) - lengths))[row_E]


def _neighbours(
    item: int, items_of_users: list[npt.NDArray[np.int64]], users_V: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the other items that share a user with `item`, in ascending order, and their cosines with `item`.

    `items_of_users`: the distinct items of each user of `item`.
    `users_V`: (num_items + 1,) the number of users of each item.
    """
    if not items_of_users:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    together = np.concatenate(items_of_users)
    # Both branches give the same arrays. For few items, sorting is faster than counting over the catalogue.
    if len(together) < len(users_V) // 16:
        others, both = np.unique(together, return_counts=True)
    else:
        both_V = np.bincount(together)
        others = np.flatnonzero(both_V)
        both = both_V[others]
    others, both = others[others != item], both[others != item]
    return others, (both / np.sqrt(users_V[item] * users_V[others])).astype(np.float32)
