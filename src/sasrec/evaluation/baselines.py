"""What every model must beat: scorers without learning, ranked by the same path."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.splits import Histories


class Popularity:
    """Scores an item by the number of its events in the training part."""

    def __init__(self, training: Histories, num_items: int) -> None:
        self.num_items = num_items
        inside = np.zeros(len(training.items) + 1, np.int64)
        np.add.at(inside, training.starts, 1)
        np.add.at(inside, training.ends, -1)
        events = training.items[np.cumsum(inside[:-1]) > 0]
        self._counts_V = torch.from_numpy(np.bincount(events, minlength=num_items + 1).astype(np.float32))

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV, the same for every row."""
        return self._counts_V.repeat(len(rows), 1)
