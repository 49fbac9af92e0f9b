"""Scorers: histories -> scores of the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.batches.batches import pad
from sasrec.batches.loader import on_device
from sasrec.data.histories import Histories
from sasrec.models import SequenceModel

# Positions (B times L) encoded at a time: what an encoder holds grows with these times D, L or its intervals.
_POSITIONS_AT_ONCE = 2**12


class Scorer(Protocol):
    """Anything that scores the whole catalogue for histories."""

    num_items: int

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """scores_BV for those rows of the histories; the values of column 0 are never read."""
        ...


class ModelScorer:
    """A trained model, in evaluation mode for the duration of each call. It sees the last `maxlen` items."""

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        self.num_items = model.num_items

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """See Scorer."""
        return self.scores_of(self.states(histories, rows))

    @torch.no_grad()
    def scores_of(self, states_BD: Tensor) -> Tensor:
        """scores_BV of states that were made before."""
        return self.model.scores(states_BD)

    @torch.no_grad()
    def states(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """states_BD after the last item of each row, made of a few rows at a time: fewer the longer they are."""
        was_training, maxlen = self.model.training, self.model.config.maxlen
        self.model.eval()
        try:
            made = []
            for group in _few_positions(rows, np.minimum(histories.lengths[rows], maxlen)):
                made.append(self.model.last_states(on_device(pad(histories, group, maxlen), self.model.device)))
            return torch.cat(made)
        finally:
            self.model.train(was_training)


class EncodedScorer:
    """A model's scorer for some rows of some histories, which it has encoded already."""

    def __init__(self, scorer: ModelScorer, histories: Histories, rows: npt.NDArray[np.int64]) -> None:
        self._scorer, self.num_items = scorer, scorer.num_items
        self._order = np.argsort(rows)
        self._rows = rows[self._order]
        self._states_BD = scorer.states(histories, rows)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """See Scorer."""
        place = self._order[np.searchsorted(self._rows, rows)]
        return self._scorer.scores_of(self._states_BD[torch.from_numpy(place)])


def _few_positions(rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive rows, at least one, that have at most `_POSITIONS_AT_ONCE` positions, padding included."""
    start = longest = 0
    for end, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if end > start and (end + 1 - start) * longest > _POSITIONS_AT_ONCE:
            yield rows[start:end]
            start, longest = end, length
    yield rows[start:]
