"""The interface that all models implement, and the legend of the shape suffixes.

B users (rows of a batch) · L positions · D width (hidden_units) · H heads · K width of a head, or items per row ·
V items plus padding · P real (not padding) positions of a batch, row by row · N negatives ·
T interval buckets · S residual streams · C positions of one chunk
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
    """Turn histories into states; score an item by the dot product of a state and the item's embedding.

    Input and output share one embedding table (tied weights). Some models scale the embeddings at the input;
    the output always uses them unscaled.
    """

    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config
        self.item_embedding = nn.Embedding(num_items + 1, config.hidden_units, padding_idx=0)

    @abstractmethod
    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, ticks_BL: Tensor | None = None) -> Tensor:
        """Return states_BLD from item embeddings, position ids and ticks. All three inputs are 0 at padding.

        A state depends only on its own position and on earlier positions of its row. Ticks are times in the user's
        own unit (batches/ticks.py); SASRec ignores them.
        """

    def embed(self, items: Tensor) -> Tensor:
        """Look up the embeddings (..., D) of item numbers of any shape (...)."""
        return F.embedding(items, self.item_embedding.weight, padding_idx=0)  # row 0 gets no gradient

    def embedding_tables(self) -> list[Tensor]:
        """Return every table whose rows are looked up by a number: items first, then for example positions."""
        return [module.weight for module in self.children() if isinstance(module, nn.Embedding)]

    def forward(self, items_BL: Tensor, positions_BL: Tensor, ticks_BL: Tensor | None = None) -> Tensor:
        """Return states_BLD from the item numbers, position ids and ticks of a `Batch`."""
        return self.encode(self.embed(items_BL), positions_BL, ticks_BL)

    def last_states(self, batch: DeviceBatch) -> Tensor:
        """Return the state at the last real item of each row, states_BD; an empty row gets a state of padding."""
        states_BLD: Tensor = self(batch.items_BL, batch.positions_BL, batch.ticks_BL)
        # clamp: an empty row has no last item, and index -1 would wrap around.
        last_B = batch.lengths_B.sub(1).clamp(min=0)
        return states_BLD[torch.arange(len(last_B), device=last_B.device), last_B]

    def scores(self, states_BD: Tensor) -> Tensor:
        """Score every item: return scores_BV, where column 0 (padding) is -inf."""
        scores_BV = states_BD @ self.item_embedding.weight.T
        scores_BV[:, 0] = -torch.inf
        return scores_BV

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.item_embedding.weight.device


def initialise(model: SequenceModel) -> None:
    """Draw all matrices Xavier-normal; set biases and padding rows to 0 (Kang & McAuley 2018).

    The residuals (residual.py) keep the initial values from their own constructor.
    """
    for name, parameter in _matrices(model):
        nn.init.xavier_normal_(parameter)
        if "embedding" in name:
            nn.init.zeros_(parameter[0])  # row 0 is padding
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)


def _matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and values of all weight matrices, except those of the residuals (residual.py)."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "_residual." not in name:
            yield name, parameter.data
