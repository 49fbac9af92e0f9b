"""What is recommended where the model knows nothing: for empty and unknown histories, and for unknown users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.errors import ConfigError, DataError, amount
from sasrec.files import whole_file
from sasrec.ranking.selection import Best, Block, Selection, best_of_rows, seen_items
from sasrec.untrusted import parquet_of

FALLBACKS = ("popular", "recent", "groups")
RECENT_DAYS = 7
_DAY = 86_400 * 10**6  # microseconds


@dataclass(frozen=True, eq=False)
class Counts:
    """How many events each item has, (V,): all-time, and of the last 7 days of the data if it has times."""

    popular_V: npt.NDArray[np.int64]
    recent_V: npt.NDArray[np.int64] | None

    @staticmethod
    def of(data: Dataset) -> Counts:
        """Count the events of a data set."""
        popular_V = np.bincount(data.items, minlength=data.num_items + 1)
        if data.times is None:
            return Counts(popular_V, None)
        recent_E = data.times > data.times.max(initial=0) - RECENT_DAYS * _DAY
        return Counts(popular_V, np.bincount(data.items[recent_E], minlength=data.num_items + 1))

    def save(self, path: Path) -> None:
        """Write a Parquet file, a row for each item: popular and, if the data has times, recent."""
        columns = {"popular": self.popular_V, "recent": self.recent_V}
        frame = pl.DataFrame({name: counts_V[1:] for name, counts_V in columns.items() if counts_V is not None})
        with whole_file(path) as stream:
            frame.write_parquet(stream)

    @staticmethod
    def read(path: Path, count: int) -> Counts:
        """Read what `save` wrote for `count` items. Raises: DataError if it is damaged. Remedy: export again."""
        try:
            frame = parquet_of(path)
        except ValueError as error:
            raise DataError(f"{path} cannot be read: {error}. Export the run again.") from None
        named = {name for name, kind in frame.schema.items() if kind == pl.Int64}
        if frame.height != count or "popular" not in named or frame.null_count().sum_horizontal().sum():
            items = amount(count, "item")
            raise DataError(f"{path} is damaged: it has no counts of {items}. Export the run again.")
        found = [np.append(0, frame[name].to_numpy()) if name in named else None for name in ("popular", "recent")]
        assert found[0] is not None
        return Counts(found[0], found[1])


class Fallback:
    """Ranks the items alike for all histories. Its `name` is "popular", "recent" or "groups"."""

    def __init__(self, name: str, scores_V: npt.NDArray[np.float64]) -> None:
        """`scores_V`: that of each item; column 0 is padding."""
        self.name, self.scores_V, self.num_items = name, scores_V, len(scores_V) - 1
        # Of items with equal scores, the one with the smaller number is first.
        self._order = 1 + np.argsort(-scores_V[1:], kind="stable")

    def top(self, histories: Histories, k: int, *, exclude_seen: bool, selection: Selection) -> Iterator[Block]:
        """Yield the k best items of all rows, row by row. See `Ranker.top`."""
        by_row = selection.by_row
        for row in range(len(histories)):
            allowed_V = (
                np.ones(len(self.scores_V), bool) if selection.allowed_V is None else selection.allowed_V.copy()
            )
            one = np.array([row])
            hidden = [] if by_row is None else by_row.forbidden(one)
            for _, item_E in [*hidden, *([seen_items(histories, one)] if exclude_seen else [])]:
                allowed_V[item_E] = False
            order = self._order[allowed_V[self._order]]

            def best(_: npt.NDArray[np.int64], most: int, order: npt.NDArray[np.int64] = order) -> Best:
                items, scores = np.zeros((1, most), np.int64), np.full((1, most), -np.inf)
                items[0, : len(order)], scores[0, : len(order)] = order[:most], self.scores_V[order[:most]]
                return items, scores

            yield one, *best_of_rows(best, 1, min(k, self.num_items), self.num_items, by_row)


def recent_scores(recent_V: npt.NDArray[np.int64], popular_V: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the number of recent events of each item, (V,); for items without any, a popularity below 1."""
    return np.where(recent_V > 0, recent_V, popular_V / (popular_V.max(initial=0) + 1))


def fallback_of(name: str, items: Items, counts: Counts) -> Fallback:
    """Return a fallback: the most popular items, those of the last 7 days, or the best of each group in turn.

    The score is the number of events; see `recent_scores` for "recent". For "groups" it is minus the item's place
    in its group, from 0, plus a popularity below 1; items without a group are one group.

    Raises: ConfigError for another name, or if the data lacks times or groups. Remedy: as the message says.
    """
    if name not in FALLBACKS:
        raise ConfigError(f"fallback must be one of {', '.join(FALLBACKS)}, not {name!r}. Use one of these.")
    if name == "popular":
        return Fallback(name, counts.popular_V.astype(np.float64))
    if name == "recent":
        if counts.recent_V is None:
            raise ConfigError("the fallback recent needs times, and the data has none. Use the fallback popular.")
        return Fallback(name, recent_scores(counts.recent_V, counts.popular_V))
    if items.groups is None:
        raise ConfigError(
            "the fallback groups needs groups of items. Prepare the data with `items_group`, or use popular."
        )
    groups = items.groups.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    counts_V = counts.popular_V[1:]
    order = np.lexsort((-counts_V, groups))
    ordered = groups[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    scores = counts_V / (counts_V.max(initial=0) + 1) - place
    return Fallback(name, np.append(0.0, scores))
