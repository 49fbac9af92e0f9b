"""Blend two scorers by their rankings (reciprocal rank fusion: Cormack, Clarke & Büttcher, SIGIR 2009)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.data.histories import Histories
from sasrec.ranking.scorers import Scorer

# The constant of the paper. The larger it is, the less the first places count.
CONSTANT = 60


class Blend:
    """Scores items by their places in two rankings, so that the scorers need no common scale.

        score(j) = weight / (60 + place of j by the first) + (1 - weight) / (60 + place by the second)

    A place is 1 + the number of items with a higher score; items with equal scores share the place in the middle.
    """

    def __init__(self, first: Scorer, second: Scorer, weight: float) -> None:
        """`weight`: that of the first scorer, from 0 to 1."""
        self.first, self.second, self.weight = first, second, weight
        self.num_items = first.num_items

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return scores_BV. See `Scorer.scores`."""
        return fused(self.first.scores(histories, rows), self.second.scores(histories, rows), self.weight)


def fused(first_BV: Tensor, second_BV: Tensor, weight: float) -> Tensor:
    """Return the blended scores_BV in float64, on the CPU. NaN scores stay NaN."""
    return weight * _reciprocals(first_BV) + (1 - weight) * _reciprocals(second_BV)


def _reciprocals(scores_BV: Tensor) -> Tensor:
    """Return 1 / (60 + place) of each item, (B, V); NaN in a row that has a NaN."""
    scores_BV = scores_BV.detach().cpu().double()
    scores_BV[:, 0] = -torch.inf  # padding is behind all items
    ordered_BV = scores_BV.sort(dim=1).values
    below_BV = torch.searchsorted(ordered_BV, scores_BV.contiguous(), right=False)
    not_above_BV = torch.searchsorted(ordered_BV, scores_BV.contiguous(), right=True)
    # Of V scores, V - not_above are higher, and not_above - below are equal, this one included.
    places_BV = scores_BV.shape[1] - (below_BV + not_above_BV - 1).double() / 2
    return (1 / (CONSTANT + places_BV)).masked_fill(scores_BV.isnan().any(1, keepdim=True), torch.nan)
