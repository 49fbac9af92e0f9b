"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018).

Promises: causal; padding changes nothing; scores item 1..num_items, never padding.
Departures from the paper: sequences are padded on the right and positions counted from the last item, which
gives every real position the same numbers as the paper's padding on the left; no key mask is then needed.
The default norm placement is `pre`; the paper's is `original`.
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
    """Item + position embedding, blocks of causal self-attention, a last LayerNorm."""

    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__(num_items, config)
        self.position_embedding = nn.Embedding(config.maxlen + 1, config.hidden_units, padding_idx=0)
        self.input_dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(
            Block(config, MultiHeadAttention(config), index) for index in range(config.num_blocks)
        )
        self.last_norm = nn.LayerNorm(config.hidden_units, eps=NORM_EPS)
        initialise(self)

    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, times_BL: Tensor | None = None) -> Tensor:
        """The item part is scaled by sqrt(D), the position part is not, as published."""
        x_BLD = item_vectors_BLD * math.sqrt(self.config.hidden_units) + self.position_embedding(positions_BL)
        x_BLD = self.input_dropout(x_BLD)
        x_BLD = expand(x_BLD, self.config)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.last_norm(reduce(x_BLD, self.config))  # type: ignore[no-any-return]
