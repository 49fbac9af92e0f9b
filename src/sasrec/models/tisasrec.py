"""TiSASRec: time-interval aware self-attention (Li, Wang & McAuley, WSDM 2020).

Promises: as SASRec; and intervals enter as (B, L) times, never as a (B, L, L, D) tensor.
Departures from the paper: right padding and positions counted from the last item, as in SASRec. Dropout on the
interval tables is drawn once a forward pass on their rows, not once for every pair of events: the same mean,
another variance. The default norm placement is `pre`; the authors' is `original`. The unit of a user's
intervals is taken from the training part (`interval_unit`), the authors' from the whole history.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sasrec.config.settings import ModelConfig
from sasrec.errors import ConfigError
from sasrec.models.attention import TimeAwareMultiHeadAttention
from sasrec.models.blocks import NORM_EPS, Block
from sasrec.models.dropout import Dropout
from sasrec.models.interface import SequenceModel, initialise
from sasrec.models.residual import expand, reduce


class TiSASRec(SequenceModel):
    """Item embedding, blocks of time-aware self-attention that share their tables, a last LayerNorm."""

    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__(num_items, config)
        width = config.hidden_units
        self.position_key_embedding = nn.Embedding(config.maxlen + 1, width, padding_idx=0)
        self.position_value_embedding = nn.Embedding(config.maxlen + 1, width, padding_idx=0)
        self.interval_keys = nn.Parameter(torch.empty(config.time_span + 1, width))
        self.interval_values = nn.Parameter(torch.empty(config.time_span + 1, width))
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(
            Block(config, TimeAwareMultiHeadAttention(config), index) for index in range(config.num_blocks)
        )
        self.last_norm = nn.LayerNorm(width, eps=NORM_EPS)
        initialise(self)

    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, times_BL: Tensor | None = None) -> Tensor:
        """The item part is scaled by sqrt(D), as published. Raises: ConfigError without `times_BL`."""
        if times_BL is None:
            raise ConfigError("this model needs the times of a history: give them, or assume_regular")
        context = (
            self.dropout(self.position_key_embedding(positions_BL)),
            self.dropout(self.position_value_embedding(positions_BL)),
            self.dropout(self.interval_keys),
            self.dropout(self.interval_values),
            intervals(times_BL, self.config.time_span),
        )
        x_BLD = self.dropout(item_vectors_BLD * math.sqrt(self.config.hidden_units))
        x_BLD = expand(x_BLD, self.config)
        for block in self.blocks:
            x_BLD = block(x_BLD, *context)
        return self.last_norm(reduce(x_BLD, self.config))  # type: ignore[no-any-return]


def intervals(times_BL: Tensor, time_span: int) -> Tensor:
    """(B, L, L) personal intervals between events, at most `time_span`; formed where the times are."""
    return (times_BL.unsqueeze(2) - times_BL.unsqueeze(1)).abs().clamp(max=time_span)
