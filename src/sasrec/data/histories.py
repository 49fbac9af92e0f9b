"""Histories as ranges of one flat array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Histories:
    """Ranges of one flat array of item numbers: history r is items[starts[r]:ends[r]], oldest event first."""

    items: npt.NDArray[np.int32]
    ticks: npt.NDArray[np.int64] | None
    """Beside `items`, each event's personal time (batches/ticks.py), or None for models without time."""
    starts: npt.NDArray[np.int64]
    """(rows,)"""
    ends: npt.NDArray[np.int64]
    """(rows,) exclusive"""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,) the number of events of each history."""
        return self.ends - self.starts

    def flat(self) -> npt.NDArray[np.int64]:
        """(events,) the indexes into `items` of the events of all rows, row after row."""
        lengths: npt.NDArray[np.int64] = self.lengths
        shift = self.starts - (np.cumsum(lengths) - lengths)
        found: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
        return found


def exclusive_counts(true: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(n + 1,) at index i the number of true values among the first i."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(true, dtype=np.int64)])
