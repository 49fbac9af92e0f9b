"""Hold many histories as ranges of one flat array, without a copy for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Histories:
    """Histories as ranges of one flat array: history r is items[starts[r]:ends[r]], oldest first."""

    items: npt.NDArray[np.int32]
    """(events,) item numbers."""
    ticks: npt.NDArray[np.int64] | None
    """(events,) time of each event in the user's own unit (batches/ticks.py); None for models without time."""
    starts: npt.NDArray[np.int64]
    """(rows,) start of each history: the index of its first event in `items`."""
    ends: npt.NDArray[np.int64]
    """(rows,) exclusive end of each history: the index in `items` after its last event."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of events in each history, (rows,)."""
        return self.ends - self.starts

    def flat(self) -> npt.NDArray[np.int64]:
        """Return where the events of all rows are in `items`: indices, row after row, (sum of lengths,)."""
        lengths: npt.NDArray[np.int64] = self.lengths
        # Within a row the index grows by 1, so an index is its place in the output plus one shift per row.
        shift = self.starts - (np.cumsum(lengths) - lengths)
        indices: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
        return indices


def exclusive_counts(true: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return counts of shape (n + 1,), where counts[i] is how many of the first i values are true.

    The number of true values in a range [a, b) is then counts[b] - counts[a].
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(true, dtype=np.int64)])
