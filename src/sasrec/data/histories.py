"""Histories as ranges of one flat array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Histories:
    """Views into one flat array of items: history r is items[starts[r]:ends[r]], oldest first."""

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
        """(rows,) how many events each history has."""
        return self.ends - self.starts

    def flat(self) -> npt.NDArray[np.int64]:
        """(events,) where the events of all rows are in `items`, row after row."""
        lengths: npt.NDArray[np.int64] = self.lengths
        shift = self.starts - (np.cumsum(lengths) - lengths)
        found: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
        return found


def exclusive_counts(true: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(n + 1,) how many of the first i are true."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(true, dtype=np.int64)])
