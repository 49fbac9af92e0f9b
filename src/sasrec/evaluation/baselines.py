"""Baselines: simple scorers that a model must beat. They count training events and have no learned weights.

`evaluate_scorer` ranks targets by a baseline exactly as by the model.

The scores of a history are bit-identical in every batch. No sum runs across histories, and each sum adds its terms
in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.errors import ConfigError
from sasrec.ranking.candidates import seen_items
from sasrec.ranking.scorers import Scorer

RECENT_DAYS = 7
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
    kinds: dict[str, Callable[..., Scorer]] = {"popularity": Popularity}
    if event_times is not None:
        kinds[f"recent-{RECENT_DAYS}-days"] = partial(RecentPopularity, event_times=event_times)
    kinds |= {"item-to-item": ItemToItem, "markov": Markov}
    if repeats:
        kinds |= {"own-frequent": OwnFrequent, "own-recent": OwnRecent}
    return {name: partial(kind, training, num_items) for name, kind in kinds.items()}


class Popularity:
    """Scores an item by its number of training events."""

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        self._counts_V = torch.from_numpy(event_counts(training, num_items)).float()

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), with equal rows because the history is ignored."""
        return self._counts_V.repeat(len(rows), 1)


class RecentPopularity(Popularity):
    """Scores an item by its number of training events in the last `days` days.

    The days are counted back from the newest training event of all users.
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
        self._counts_V = torch.from_numpy(np.bincount(training.items[recent_E], minlength=num_items + 1)).float()


class ItemToItem:
    """Item-to-item collaborative filtering: cosine similarity (Sarwar et al., WWW 2001) with recency decay.

        cos(i, j) = co(i, j) / sqrt(n_i n_j), and cos(j, j) = 0
        score(j)  = sum over the history's events e of decay^(number of events after e) * cos(item of e, j)

    n_i is the number of users with item i; co(i, j) is the number of users with both items. Repeats do not count.
    All neighbours of an item are stored: NDCG@10 was lower with only the 200 nearest (docs/lab.md).
    Memory: 12 bytes for each ordered pair of items that share a user.
    """

    def __init__(self, training: Histories, num_items: int, decay: float = 0.6) -> None:
        """`decay`: the weight of a history's event relative to the next newer event; above 0 and below 1.

        0.6 gave the best validation NDCG@10 on MovieLens 100K (docs/lab.md).
        """
        self.num_items = num_items
        # Weights of the newest event, of the event before it, and so on, until a weight is negligible.
        self._weights = [decay**since for since in range(1 + int(math.log(_NEGLIGIBLE, decay)))]
        row_E, position_E = _flat(training.starts, training.ends)
        # Each (user, item) pair counts once. One integer per pair sorts faster than two columns.
        pairs = np.unique(row_E * (num_items + 1) + training.items[position_E])
        row_P, item_P = np.divmod(pairs, num_items + 1)
        users_V = np.bincount(item_P, minlength=num_items + 1)
        items_of = np.split(item_P, np.cumsum(np.bincount(row_P, minlength=len(training)))[:-1])
        users_of = np.split(row_P[np.argsort(item_P, kind="stable")], np.cumsum(users_V)[:-1])
        self._neighbours = [
            _neighbours(item, [items_of[user] for user in users.tolist()], users_V)
            for item, users in enumerate(users_of)
        ]

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1). An item that shares no user with the history's items scores 0."""
        scores_BV = np.zeros((len(rows), self.num_items + 1), np.float32)
        for scores_V, start, end in zip(scores_BV, histories.starts[rows], histories.ends[rows], strict=True):
            # Older events than there are weights are negligible.
            recent = histories.items[max(start, end - len(self._weights)) : end]
            for item, weight in zip(recent[::-1].tolist(), self._weights, strict=False):
                others, cosines = self._neighbours[item]
                scores_V[others] += weight * cosines
        return torch.from_numpy(scores_BV)


class Markov:
    """First-order Markov chain: scores item j by how often j followed the history's last item in training.

    Popularity, scaled below 1, is added to each count. It breaks ties, and it orders the items that never followed
    the last item. After an empty history, it orders all items.
    """

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        counts_V = event_counts(training, num_items)
        self._popularity_V = torch.from_numpy(counts_V / (counts_V.max() + 1))
        row_E, position_E = _flat(training.starts, training.ends)
        item_E = training.items[position_E].astype(np.int64)
        # The condition drops the step from one user's last event to the next user's first.
        steps = (item_E[:-1] * (num_items + 1) + item_E[1:])[row_E[:-1] == row_E[1:]]
        pairs, counts = np.unique(steps, return_counts=True)
        before, after = np.divmod(pairs, num_items + 1)
        # Entries _first[i] to _first[i + 1] - 1 of the next two arrays are the transitions from item i.
        self._first = np.searchsorted(before, np.arange(num_items + 2))
        self._after, self._counts = torch.from_numpy(after), torch.from_numpy(counts.astype(np.float64))

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), in float64.

        A score is a count plus a popularity below 1. float32 would round off the popularity if the count is large.
        """
        scores_BV = self._popularity_V.repeat(len(rows), 1)
        known = np.flatnonzero(histories.lengths[rows])
        last = histories.items[histories.ends[rows[known]] - 1]
        row_E, position_E = map(torch.from_numpy, _flat(self._first[last], self._first[last + 1]))
        scores_BV[torch.from_numpy(known)[row_E], self._after[position_E]] += self._counts[position_E]
        return scores_BV


class OwnFrequent:
    """Scores an item by how often it is in the history. Popularity, scaled below 1, orders the other items."""

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        counts_V = event_counts(training, num_items)
        self._popularity_V = torch.from_numpy(counts_V / (counts_V.max() + 1))

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), in float64, for the reason that `Markov.scores` states."""
        scores_BV = self._popularity_V.repeat(len(rows), 1)
        row_E, item_E = seen_items(histories, rows)
        one_E = torch.ones(len(row_E), dtype=scores_BV.dtype)
        scores_BV.index_put_((torch.from_numpy(row_E), torch.from_numpy(item_E)), one_E, accumulate=True)
        return scores_BV


class OwnRecent(OwnFrequent):
    """Scores the items of the history by their last event, newest first. Popularity orders the other items."""

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV: (rows, num_items + 1), in float64: 1 + the place of the item's last event; else a popularity
        below 1."""
        scores_BV = self._popularity_V.repeat(len(rows), 1)
        row_E, item_E = seen_items(histories, rows)
        place_E = np.arange(len(row_E)) - np.searchsorted(row_E, row_E)
        scores = scores_BV.numpy()
        np.maximum.at(scores, (row_E, item_E), 1.0 + place_E)
        return scores_BV


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
