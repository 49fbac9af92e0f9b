"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018).

Guarantees: a state never depends on later items or on the amount of padding; padding is never recommended.

Differences from the paper:

- Sequences are padded on the right, and positions are counted from the last item. Every real item gets the same
  position as under the paper's left padding, and attention needs no key mask.
- The default norm placement is `pre`; the paper uses `original`.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from sasrec.config.settings import ModelConfig
from sasrec.models.attention import MultiHeadAttention
from sasrec.models.blocks import NORM_EPS, Block
from sasrec.models.dropout import Dropout
from sasrec.models.interface import SequenceModel, initialise
from sasrec.models.residual import expand, reduce


class SASRec(SequenceModel):
    """Sum of item and position embeddings, then blocks of causal self-attention, then a final LayerNorm."""

    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__(num_items, config)
        self.position_embedding = nn.Embedding(config.maxlen + 1, config.hidden_units, padding_idx=0)
        self.input_dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(
            Block(config, MultiHeadAttention(config), index) for index in range(config.num_blocks)
        )
        self.last_norm = nn.LayerNorm(config.hidden_units, eps=NORM_EPS)
        initialise(self)

    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, ticks_BL: Tensor | None = None) -> Tensor:
        """Return states_BLD; `ticks_BL` is ignored.

        As in the authors' code, the item embeddings are multiplied by sqrt(D), the position embeddings are not.
        """
        x_BLD = item_vectors_BLD * math.sqrt(self.config.hidden_units) + self.position_embedding(positions_BL)
        x_BLD = self.input_dropout(x_BLD)
        x_BLD = expand(x_BLD, self.config)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.last_norm(reduce(x_BLD, self.config))  # type: ignore[no-any-return]
