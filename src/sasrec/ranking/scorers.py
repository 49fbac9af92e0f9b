"""Scorers: score the whole catalogue for histories, by a trained model or by any other method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sasrec.batches.batches import pad
from sasrec.batches.loader import on_device
from sasrec.data.histories import Histories
from sasrec.models import SequenceModel

# Encode at most this many positions (B * L) at a time. Memory grows with positions times D, L or interval buckets.
_POSITIONS_AT_ONCE = 2**12


class Scorer(Protocol):
    """Anything that scores the whole catalogue for histories, such as a model or a count-based baseline."""

    num_items: int
    """The number of items in the catalogue, without padding."""

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return scores_BV for some rows of the histories. The caller ignores column 0 (padding) and may overwrite
        the scores."""
        ...


class ModelScorer:
    """Computes scores with a trained model, from the last `maxlen` items of each history.

    The model runs in evaluation mode, so without dropout; its previous mode is then restored.
    """

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        self.num_items = model.num_items
        self.maxlen, self.timed = model.config.maxlen, model.config.time

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return scores_BV. See `Scorer.scores`."""
        return self.scores_of(self.states(histories, rows))

    @torch.no_grad()
    def scores_of(self, states_BD: Tensor) -> Tensor:
        """Return scores_BV for states from an earlier call of `states`."""
        return self.model.scores(states_BD)

    @torch.no_grad()
    def states(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return states_BD, the state after the last item of each row. Encodes few rows at a time, for memory."""
        was_training, maxlen = self.model.training, self.maxlen
        self.model.eval()
        try:
            states = []
            for group in _few_positions(rows, np.minimum(histories.lengths[rows], maxlen)):
                states.append(self.model.last_states(on_device(pad(histories, group, maxlen), self.model.device)))
            return torch.cat(states)
        finally:
            self.model.train(was_training)

    @torch.no_grad()
    def item_scores(self, histories: Histories, items: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the scores of some items for each history, (rows, items)."""
        states_BD = self.states(histories, np.arange(len(histories)))
        vectors_KD = self.model.item_embedding.weight[torch.from_numpy(items).to(self.model.device)]
        return (states_BD @ vectors_KD.T).float().cpu().numpy()

    @torch.no_grad()
    def vectors(self) -> npt.NDArray[np.float32]:
        """Return the item embeddings, each divided by its length, (V, D)."""
        return functional.normalize(self.model.item_embedding.weight.float(), dim=1).cpu().numpy()


def device_of(scorer: Scorer) -> torch.device:
    """The device of a model; the CPU for other scorers."""
    return scorer.model.device if isinstance(scorer, ModelScorer) else torch.device("cpu")


class EncodedScorer:
    """Computes scores with a model for some rows of `histories`, which the constructor encodes once.

    It cannot score other rows.
    """

    def __init__(self, scorer: ModelScorer, histories: Histories, rows: npt.NDArray[np.int64]) -> None:
        self._scorer, self.num_items = scorer, scorer.num_items
        self._order = np.argsort(rows)
        self._rows = rows[self._order]
        self._states_BD = scorer.states(histories, rows)

    def scores(self, histories: Histories, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return scores_BV for some of the encoded rows. `histories` is ignored. See `Scorer.scores`."""
        place = self._order[np.searchsorted(self._rows, rows)]
        return self._scorer.scores_of(self._states_BD[torch.from_numpy(place)])


def _few_positions(rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield groups of consecutive rows with at most `_POSITIONS_AT_ONCE` positions, padding included.

    A group has at least one row, also if this row alone exceeds the limit.
    """
    start = longest = 0
    for end, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if end > start and (end + 1 - start) * longest > _POSITIONS_AT_ONCE:
            yield rows[start:end]
            start, longest = end, length
    yield rows[start:]
