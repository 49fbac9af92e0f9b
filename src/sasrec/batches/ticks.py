"""Convert times to ticks: times in units of the user's smallest gap (Li, Wang & McAuley, WSDM 2020).

    t'_i = round((t_i - t_first) / r_min) + 1       r_min: the smallest gap above zero between consecutive events

The model reads differences of ticks. A user who returns every few minutes and a user who returns every few months
therefore look the same to the model if the rhythm of their events is the same.
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

_MICROSECONDS = 10**6  # in a second; the paper uses whole seconds, so smaller gaps count as 0


def with_ticks(split: Split, data: Dataset, config: ModelConfig) -> Split:
    """Return the split with ticks in all its histories, or unchanged if the model does not use time.

    With `interval_unit` "training", the unit is the user's smallest gap in the training part. If the training part
    has no gap above zero, the unit is the first later gap above zero.

    Raises: DataError if the model needs times but the data has no times. Remedy: use the model setting time=False.
    """
    if not config.time:
        return split
    ticks = user_ticks(data, config, split.training_part, data.offsets)
    known_V = split.known_V
    # The histories of a temporal split omit events of unknown items, so their ticks must, too.
    flat = ticks if known_V[1:].all() else ticks[known_V[data.items]]

    def timed(histories: Histories) -> Histories:
        return replace(histories, ticks=flat)

    own = flat if split.training_events is None else ticks[split.training_events]
    return replace(
        split,
        training=replace(split.training, ticks=own),
        valid=replace(split.valid, histories=timed(split.valid.histories)),
        test=replace(split.test, histories=timed(split.test.histories)),
    )


def user_ticks(
    data: Dataset, config: ModelConfig, part: TrainingPart, offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the ticks of the events offsets[0]:offsets[-1], for consecutive users.

    User u owns the events offsets[u]:offsets[u + 1] of the data set.

    Raises: DataError if the data has no times. Remedy: use the model setting time=False.
    """
    if data.times is None:
        raise DataError(
            f"this model needs times, but the data set {data.name!r} has no times. Train with time=False, or on "
            "data with times."
        )
    first, last = offsets[0], offsets[-1]
    times, offsets = data.times[first:last], offsets - first
    parts = None if data.parts is None else data.parts[first:last]
    ends = offsets[1:] if config.interval_unit == "history" else part.ends(times, offsets, parts)
    return personal_times(times, offsets, ends)


def personal_times(
    times: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], unit_ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the tick of each event, (events,), by the formula at the top of this file.

    User u owns times[offsets[u]:offsets[u + 1]], which are microseconds in ascending order. The unit of user u is
    the smallest gap above zero, in whole seconds, in times[offsets[u]:unit_ends[u]]. If these times have no such
    gap, the unit is the user's first later gap above zero. This leaks nothing from the future: before the
    first gap all intervals are 0 in any unit.
    """
    seconds: npt.NDArray[np.int64] = np.asarray(times) // _MICROSECONDS
    if not len(seconds):
        return seconds
    lengths = np.diff(offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    gaps = np.diff(seconds, prepend=seconds[:1])
    at = np.arange(len(seconds))
    # The first event of a user has no gap; its difference is to another user's event.
    above_zero = (at > offsets[:-1][row]) & (gaps > 0)
    counted = np.flatnonzero(above_zero & (at < unit_ends[row]))
    later = np.flatnonzero(above_zero & (at >= unit_ends[row]))
    unit = np.ones(len(lengths), np.int64)  # 1 stays for users whose times are all equal
    users, first = np.unique(row[later], return_index=True)
    unit[users] = gaps[later[first]]
    unit[row[counted]] = np.iinfo(np.int64).max
    np.minimum.at(unit, row[counted], gaps[counted])
    # The clamp matters only for users without events at the end, whose offset is out of range.
    since_first = seconds - seconds[np.minimum(offsets[:-1], max(len(seconds) - 1, 0))][row]
    scaled: npt.NDArray[np.int64] = np.rint(since_first / unit[row]).astype(np.int64) + 1
    return scaled
