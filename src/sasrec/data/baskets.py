"""Baskets: events of one user with the same time are one step, so none of them predicts another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sasrec.config.settings import EvaluationConfig
from sasrec.data.dataset import Dataset
from sasrec.data.histories import exclusive_counts
from sasrec.data.splits import EvaluationSplit, Split, split_events
from sasrec.errors import DataError


def split_of(data: Dataset, config: EvaluationConfig) -> Split:
    """Split a data set by the settings of a run.

    Raises: the errors of `split_events` and, with the setting `baskets`, of `with_baskets`.
    """
    split = split_events(data, config.split, repeats=config.repeats)
    return with_baskets(split, data) if config.baskets else split


def with_baskets(split: Split, data: Dataset) -> Split:
    """Return the split with histories that end before the basket of their target.

    A target whose user has no earlier basket is left out. `basket_starts` tells training where baskets begin.

    Raises: DataError if the data has no times. Remedy: name the column of times, or remove `baskets`.
    """
    if data.times is None or split.event_times is None:
        raise DataError(
            f"`baskets` needs times, but the data set {data.name!r} has no times. Name the column of times with "
            "`time_column`, or remove `baskets`."
        )
    starts_E = basket_starts(data.times, data.offsets[:-1])
    index = exclusive_counts(split.known_V[data.items])  # histories omit unknown items
    return replace(
        split,
        valid=_before_baskets(split.valid, starts_E, index),
        test=_before_baskets(split.test, starts_E, index),
        basket_starts=basket_starts(split.event_times, split.training.starts),
    )


def basket_starts(times: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the index of the first event of the basket of each event, (events,).

    `times`: (events,) of consecutive histories. `rows`: (rows,) where each history begins.
    """
    first = np.ones(len(times), bool)
    first[1:] = times[1:] != times[:-1]
    first[rows[rows < len(times)]] = True
    found: npt.NDArray[np.int64] = np.maximum.accumulate(np.where(first, np.arange(len(times)), 0))
    return found


def _before_baskets(
    part: EvaluationSplit, starts_E: npt.NDArray[np.int64], index: npt.NDArray[np.int64]
) -> EvaluationSplit:
    """Return the rows whose users have an earlier basket, with histories that end before the target's basket."""
    ends = index[starts_E[part.events]]
    kept = ends > part.histories.starts
    skipped = len(np.unique(part.users)) - len(np.unique(part.users[kept]))
    return replace(
        part,
        users=part.users[kept],
        events=part.events[kept],
        targets=part.targets[kept],
        histories=replace(part.histories, starts=part.histories.starts[kept], ends=ends[kept]),
        skipped=part.skipped | {"no basket before the target": skipped},
    )
