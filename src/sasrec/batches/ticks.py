"""Ticks: time on a clock of the user's own, which ticks once per shortest gap (Li, Wang & McAuley, WSDM 2020).

    t'_i = round((t_i - t_first) / r_min) + 1       r_min: the smallest gap above zero between consecutive events

The model sees differences of ticks. So it distinguishes users by the rhythm of their events, not by the speed: a
user who returns every minute and a user who returns every month look the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sasrec.config.settings import ModelConfig
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.splits import Split, TrainingPart
from sasrec.errors import DataError

_MICROSECONDS = 10**6  # the paper's times are whole seconds; ties are ties of seconds


def with_ticks(split: Split, data: Dataset, config: ModelConfig) -> Split:
    """The split whose histories also have ticks, if the model asks for them.

    With `interval_unit` training, a user's unit comes from the training part. A later gap decides it only for
    users without a gap there.

    Raises: DataError if the model needs times and the data has none.
    """
    if not config.time:
        return split
    ticks = user_ticks(data, config, split.training_part, data.offsets)
    known_V = split.known_V
    flat = ticks if known_V[1:].all() else ticks[known_V[data.items]]

    def timed(histories: Histories) -> Histories:
        return replace(histories, ticks=flat)

    return replace(
        split,
        training=timed(split.training),
        valid=replace(split.valid, histories=timed(split.valid.histories)),
        test=replace(split.test, histories=timed(split.test.histories)),
    )


def user_ticks(
    data: Dataset, config: ModelConfig, part: TrainingPart, offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(events,) ticks of the events offsets[0]:offsets[-1] of users who own offsets[u]:offsets[u + 1].

    Raises: DataError if the data has no times.
    """
    if data.times is None:
        raise DataError("this model needs times, and this data has none; use --no_time (time=False)")
    times = data.times[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    ends = offsets[1:] if config.interval_unit == "history" else part.ends(times, offsets)
    return personal_times(times, offsets, ends)


def personal_times(
    times: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], unit_ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(events,) for users that own times[offsets[u]:offsets[u + 1]], in microseconds and ascending.

    The unit of user u is their smallest gap above zero before `unit_ends[u]`; without any, their first one after
    it, which tells no history of its future: until that gap all intervals are 0, whatever the unit.
    """
    seconds = np.asarray(times) // _MICROSECONDS
    lengths = np.diff(offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    gaps = np.diff(seconds, prepend=seconds[:1])
    at = np.arange(len(seconds))
    above_zero = (at > offsets[:-1][row]) & (gaps > 0)
    counted = np.flatnonzero(above_zero & (at < unit_ends[row]))
    later = np.flatnonzero(above_zero & (at >= unit_ends[row]))
    unit = np.ones(len(lengths), np.int64)  # of users all of whose times are equal
    users, first = np.unique(row[later], return_index=True)
    unit[users] = gaps[later[first]]
    unit[row[counted]] = np.iinfo(np.int64).max
    np.minimum.at(unit, row[counted], gaps[counted])
    since_first = seconds - seconds[np.minimum(offsets[:-1], max(len(seconds) - 1, 0))][row]
    scaled: npt.NDArray[np.int64] = np.rint(since_first / unit[row]).astype(np.int64) + 1
    return scaled
