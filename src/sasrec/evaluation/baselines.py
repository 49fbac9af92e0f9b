"""What every model must beat: scorers without learning, built from the training part, ranked by the same path.

A row's scores do not depend on the rows beside it, to the last bit: no sum runs across rows, and each row's
terms are added in the order of its own history.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.ranking.scorers import Scorer

RECENT_DAYS = 7
_DAY = 86_400 * 10**6  # microseconds
# An event whose weight is below this share of the newest one's no longer counts.
_NEGLIGIBLE = 1e-7


def baselines(training: Histories, num_items: int, event_times: npt.NDArray[np.int64] | None) -> dict[str, Scorer]:
    """Every scorer of this module by name; recent popularity only where there are times.

    `event_times`: (events,) microseconds since 1970 UTC, beside `training.items`. The personal times of
    `training.times` will not do.
    """
    made: dict[str, Scorer] = {"popularity": Popularity(training, num_items)}
    if event_times is not None:
        made[f"recent-{RECENT_DAYS}-days"] = RecentPopularity(training, num_items, event_times)
    return made | {"item-to-item": ItemToItem(training, num_items), "markov": Markov(training, num_items)}


class Popularity:
    """Scores an item by the number of its events in the training part."""

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        self._counts_V = torch.from_numpy(event_counts(training, num_items)).float()

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV, the same for every row."""
        return self._counts_V.repeat(len(rows), 1)


class RecentPopularity(Popularity):
    """Scores an item by the number of its events in the last days of the training part.

    They are counted back from the newest training event of anybody.
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
    """Cosine between items over users (Sarwar, Karypis, Konstan & Riedl, WWW 2001; binary), with decay.

        cos(i, j) = co(i, j) / sqrt(n_i n_j), 0 for j = i      co, n: users who had both, and who had the one
        score(j)  = sum over the history's events of decay^(events since) * cos(item of the event, j)

    Every item that shares a user with another is its neighbour: the nearest 200 alone rank worse (docs/lab.md).
    Memory: 12 bytes for each such ordered pair.
    """

    def __init__(self, training: Histories, num_items: int, decay: float = 0.6) -> None:
        """`decay`: between 0 and 1; .6 had the best validation NDCG@10 on MovieLens 100K (docs/lab.md)."""
        self.num_items = num_items
        self._weights = [decay**since for since in range(1 + int(math.log(_NEGLIGIBLE, decay)))]
        row_E, position_E = _flat(training.starts, training.ends)
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
        """scores_BV; 0 for an item that shares no user with those of the history."""
        scores_BV = np.zeros((len(rows), self.num_items + 1), np.float32)
        for scores_V, start, end in zip(scores_BV, histories.starts[rows], histories.ends[rows], strict=True):
            recent = histories.items[max(start, end - len(self._weights)) : end]
            for item, weight in zip(recent[::-1].tolist(), self._weights, strict=False):
                others, cosines = self._neighbours[item]
                scores_V[others] += weight * cosines
        return torch.from_numpy(scores_BV)


class Markov:
    """First-order chain: scores j by how often the training part went from the history's last item to j.

    Ties and what never followed are in order of popularity, scaled below one transition; so are all items for
    an empty history.
    """

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        counts_V = event_counts(training, num_items)
        self._popularity_V = torch.from_numpy(counts_V / (counts_V.max() + 1))
        row_E, position_E = _flat(training.starts, training.ends)
        item_E = training.items[position_E].astype(np.int64)
        steps = (item_E[:-1] * (num_items + 1) + item_E[1:])[row_E[:-1] == row_E[1:]]
        pairs, counts = np.unique(steps, return_counts=True)
        before, after = np.divmod(pairs, num_items + 1)
        self._first = np.searchsorted(before, np.arange(num_items + 2))
        self._after, self._counts = torch.from_numpy(after), torch.from_numpy(counts.astype(np.float64))

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV in float64: float32 has too few digits for a count and the popularity below it."""
        scores_BV = self._popularity_V.repeat(len(rows), 1)
        known = np.flatnonzero(histories.lengths[rows])
        last = histories.items[histories.ends[rows[known]] - 1]
        row_E, position_E = map(torch.from_numpy, _flat(self._first[last], self._first[last + 1]))
        scores_BV[torch.from_numpy(known)[row_E], self._after[position_E]] += self._counts[position_E]
        return scores_BV


def event_counts(training: Histories, num_items: int) -> npt.NDArray[np.int64]:
    """counts_V: the events of every item; 0 for padding."""
    _, position_E = _flat(training.starts, training.ends)
    return np.bincount(training.items[position_E], minlength=num_items + 1)


def _flat(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every position of the ranges as (number of the range, position), flat."""
    lengths = ends - starts
    row_E = np.repeat(np.arange(len(lengths)), lengths)
    return row_E, np.arange(len(row_E)) + (starts - (np.cumsum(lengths) - lengths))[row_E]


def _neighbours(
    item: int, items_of_users: list[npt.NDArray[np.int64]], users_V: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The items that share a user with `item`, in order of number, and their cosines; `item` itself is none."""
    if not items_of_users:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    together = np.concatenate(items_of_users)
    if len(together) < len(users_V) // 16:  # where sorting a few costs less than a count of every item
        others, both = np.unique(together, return_counts=True)
    else:
        both_V = np.bincount(together)
        others = np.flatnonzero(both_V)
        both = both_V[others]
    others, both = others[others != item], both[others != item]
    return others, (both / np.sqrt(users_V[item] * users_V[others])).astype(np.float32)
