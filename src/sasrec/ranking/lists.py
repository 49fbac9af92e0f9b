"""The best items of one history, and of many, in the caller's ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.ranking.fallback import Fallback
from sasrec.ranking.known import KnownItems, warn_nothing_left
from sasrec.ranking.rules import Rules
from sasrec.ranking.selection import Block, Ranker, Selection
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import rank, summed

if TYPE_CHECKING:
    from sasrec.ranking.scorers import Scorer


Known: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]
"""The known item numbers of a history, and their ticks for models with time."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a list should be like. `exclude_seen`: without the items of the history."""

    k: int
    exclude_seen: bool
    allow: list[object] | None
    deny: list[object]
    rules: Rules | None


def best(
    scorer: Scorer | Ranker, histories: Histories, asked: Asked, selection: Selection, *, shared: bool
) -> Iterator[Block]:
    """Yield the k best items of each row, block by block. `shared`: the processes of torchrun share the rows."""
    if isinstance(scorer, Ranker):
        if shared and rank():
            return iter(())  # it is too quick to be worth sharing
        return scorer.top(histories, asked.k, exclude_seen=asked.exclude_seen, selection=selection)
    from sasrec.ranking.candidates import own_blocks, top_items

    blocks = own_blocks(scorer, histories) if shared else [(np.arange(len(histories)), scorer)]
    return top_items(blocks, histories, asked.k, exclude_seen=asked.exclude_seen, selection=selection)


def best_of_one(
    scorer: Scorer | Ranker,
    items: Items,
    history: Known,
    asked: Asked,
    selection: Selection,
) -> list[tuple[str | int, float]]:
    """Return the best (item id, score) for one history."""
    numbers, clock = history
    start, end = np.zeros(1, np.int64), np.full(1, len(numbers), np.int64)
    histories = Histories(numbers.astype(np.int32), clock, start, end)
    ((_, item_BK, score_BK),) = best(scorer, histories, asked, selection, shared=False)
    pairs = zip(item_BK[0].tolist(), score_BK[0].tolist(), strict=True)
    found = [(items.id_of(item), score) for item, score in pairs if np.isfinite(score)]
    if not found:
        warn_nothing_left(selection)
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Which of many rows have a history with a known item."""

    known: npt.NDArray[np.int64]
    """The rows with such a history, ascending."""
    total: int
    users: list[Any] | None
    """The user id of each of all rows, for bans; None if there are none."""


def lists_of(
    scorers: tuple[Scorer | Ranker, Fallback | None, str],
    catalogue: KnownItems,
    histories: Histories,
    rows: Rows,
    asked: Asked,
    log: RunLog | None,
) -> pl.DataFrame:
    """Return the k best items of each row: row, item (the id), score, rank; in order of row, then rank.

    `scorers`: what scores the known histories; what answers for the other rows, where None leaves them out; and
    the name of the first. With a fallback, the column source has this name or that of the fallback. `histories`:
    those of `rows.known`.
    """

    def lists(scorer: Scorer | Ranker, numbers: npt.NDArray[np.int64], histories: Histories) -> pl.DataFrame:
        users = None if rows.users is None else [rows.users[number] for number in numbers.tolist()]
        selection = catalogue.selection(asked.allow, asked.deny, asked.rules, users)
        found = best_of_many(scorer, catalogue.items, histories, asked, selection, log)
        return found.with_columns(row=pl.Series(numbers[found["row"].to_numpy()]))

    scorer, fallback, source = scorers
    found = lists(scorer, rows.known, histories)
    if fallback is None:
        return found
    others = np.setdiff1d(np.arange(rows.total), rows.known)
    nothing = np.zeros(len(others), np.int64)
    of_others = lists(fallback, others, Histories(np.zeros(0, np.int32), None, nothing, nothing))
    named = ((found, source), (of_others, fallback.name))
    return pl.concat([each.with_columns(source=pl.lit(name)) for each, name in named]).sort("row", "rank")


def best_of_many(
    scorer: Scorer | Ranker,
    items: Items,
    histories: Histories,
    asked: Asked,
    selection: Selection,
    log: RunLog | None,
) -> pl.DataFrame:
    """Return the k best items of each history: row, item (the id), score, rank; in order of row, then rank.

    Under torchrun, each process scores a share of the histories; all return the same frame.
    """
    shape = (len(histories), min(asked.k, scorer.num_items))
    found, scores = np.zeros(shape), np.zeros(shape)
    with (log or RunLog(None)).bar("recommending", len(histories)) as bar:
        for rows, item_BK, score_BK in best(scorer, histories, asked, selection, shared=True):
            found[rows], scores[rows] = item_BK, score_BK
            bar(len(rows))
    found, scores = summed(found), summed(scores)  # each process fills its own rows, the others are 0
    row_E, place_E = np.nonzero(np.isfinite(scores))  # -inf marks places without a candidate
    if without := len(histories) - len(np.unique(row_E)):
        some = f"for {without:,} of {len(histories):,} users " if without < len(histories) else ""
        warn_nothing_left(selection, some)
    return pl.DataFrame(
        {
            "row": row_E,
            "item": items.ids.gather(found[row_E, place_E].astype(np.int64) - 1),
            "score": scores[row_E, place_E].astype(np.float32),
            "rank": place_E + 1,
        }
    )
