"""What every model is to the rest of the package, and the legend of the shape suffixes.

B users (rows of a batch) · L positions · D width (hidden_units) · H heads · K width of a head ·
V items + padding · P real positions of a batch, row after row · N negatives
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name the field uses

from sasrec.batches.loader import DeviceBatch
from sasrec.config.settings import ModelConfig


class SequenceModel(nn.Module, ABC):
    """Histories -> states; the score of an item is the dot product of a state and the item's embedding.

    The embedding table is both the input and the output of the model (tied), not scaled at the output.
    """

    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.item_embedding = nn.Embedding(num_items + 1, config.hidden_units, padding_idx=0)

    @abstractmethod
    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, times_BL: Tensor | None = None) -> Tensor:
        """Looked-up item embeddings, position ids and personal times (0 in padding) -> states_BLD.

        Models without time ignore `times_BL`. A state depends on its own position and earlier ones of its row.
        """

    def embed(self, items: Tensor) -> Tensor:
        """Item numbers of any shape (...) -> their embeddings (..., D)."""
        return F.embedding(items, self.item_embedding.weight, padding_idx=0)

    def forward(self, items_BL: Tensor, positions_BL: Tensor, times_BL: Tensor | None = None) -> Tensor:
        """Item numbers, position ids and personal times as a Batch has them -> states_BLD."""
        return self.encode(self.embed(items_BL), positions_BL, times_BL)

    def last_states(self, batch: DeviceBatch) -> Tensor:
        """states_BD after the last real item of each row; a row without items gets the state of padding."""
        states_BLD: Tensor = self(batch.items_BL, batch.positions_BL, batch.ticks_BL)
        last_B = batch.lengths_B.sub(1).clamp(min=0)
        return states_BLD[torch.arange(len(last_B), device=last_B.device), last_B]

    def scores(self, states_BD: Tensor) -> Tensor:
        """scores_BV of every item; column 0 (padding) is -inf."""
        scores_BV = states_BD @ self.item_embedding.weight.T
        scores_BV[:, 0] = -torch.inf
        return scores_BV

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.item_embedding.weight.device


def initialise(model: SequenceModel) -> None:
    """Xavier-normal matrices, biases 0, padding rows 0 (Kang & McAuley 2018, as published).

    Residuals keep the values they were made with: theirs are no weights of layers.
    """
    for name, parameter in _matrices(model):
        nn.init.xavier_normal_(parameter)
        if "embedding" in name:
            nn.init.zeros_(parameter[0])
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)


def _matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "_residual." not in name:
            yield name, parameter.data
