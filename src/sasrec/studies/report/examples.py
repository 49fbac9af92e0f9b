"""Show what a run recommends to a few users, before the targets that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint.restore import checkpoint_at, config_of
from sasrec.data.baskets import split_of
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.data.splits import EvaluationSplit
from sasrec.evaluation.lists import best_items
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.evaluate import load
from sasrec.runs.folder import RunFolder
from sasrec.studies.scored import ranks_of, scored_run

_SHOWN_HISTORY = 5


@dataclass(frozen=True)
class Shown:
    """An item, as a page shows it."""

    item_id: str
    title: str | None
    hit: bool = False
    """Whether it is the target."""


@dataclass(frozen=True)
class Example:
    """What the model recommends to a user."""

    user: str
    events: int
    """Number of events in the history."""
    history: tuple[Shown, ...]
    """The last items of the history, oldest first."""
    target: Shown
    """The item that came next."""
    rank: float
    """The rank of the target in the full catalogue."""
    list: tuple[Shown, ...]
    """The ten best items, best first."""


def examples(run: Path, users: int = 5) -> list[Example]:
    """Return the lists of `users` targets of the test (without test targets, of validation).

    They are evenly spaced in the order of the target's rank, from the best to the worst, so that they show where
    the model is right and where it is wrong.

    Raises: the errors of `load`, such as DataError if the data of the run has moved. Remedy: as the message says.
    """
    recommender = load(run)
    data = recommender.data
    if data is None:
        return []
    config = config_of(checkpoint_at(RunFolder(run).path))
    split = with_ticks(split_of(data, config.evaluation), data, recommender.model.config)
    part = split.test if len(split.test.targets) else split.valid
    scored = scored_run(str(run), "full", part.name)
    ranks = ranks_of(scored.rows, "full")
    order = np.argsort(ranks, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(users, len(order))).round().astype(int)]
    rows = np.searchsorted(part.events[np.argsort(part.events)], scored.rows["event"].to_numpy()[chosen])
    rows = np.argsort(part.events)[rows]
    some = _rows_of(part, rows)
    lists_BK = best_items(ModelScorer(recommender.model), some)
    return [
        _example(
            recommender.items, some, row, str(data.user_ids[int(some.users[row])]), rank, lists_BK[row].tolist()
        )
        for row, rank in enumerate(ranks[chosen].tolist())
    ]


def _rows_of(part: EvaluationSplit, rows: npt.NDArray[np.int64]) -> EvaluationSplit:
    histories = part.histories
    own = Histories(histories.items, histories.ticks, histories.starts[rows], histories.ends[rows])
    return replace(
        part, users=part.users[rows], events=part.events[rows], histories=own, targets=part.targets[rows]
    )


def _example(
    items: Items, part: EvaluationSplit, row: int, user: str, rank: float, best: Sequence[int]
) -> Example:
    start, end = int(part.histories.starts[row]), int(part.histories.ends[row])
    history = part.histories.items[max(start, end - _SHOWN_HISTORY) : end].tolist()
    target = int(part.targets[row])

    def shown(number: int) -> Shown:
        item_id = items.id_of(number)
        return Shown(str(item_id), items.title(item_id), number == target)

    return Example(
        user,
        end - start,
        tuple(map(shown, history)),
        shown(target),
        rank,
        tuple(shown(each) for each in best if each),
    )
