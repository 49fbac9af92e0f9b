"""TiSASRec: time-interval aware self-attention (Li, Wang & McAuley, WSDM 2020).

Guarantees: those of SASRec. The model never forms a (B, L, L, D) tensor of interval embeddings.

Differences from the paper:

- Sequences are padded on the right, and positions are counted from the last item, as in our SASRec.
- Dropout acts on the interval tables, once in each forward pass, so all pairs of events with equal intervals
  share a mask. The authors draw a mask for every pair. An interval embedding has the same mean and variance with
  both methods, but sums over pairs have another variance.
- The default norm placement is `pre`; the authors use `original`.
- By default, the time unit of a user's intervals comes from the training events only (`interval_unit`). The
  authors use the user's whole history.
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
    """Item embedding, blocks of time-aware self-attention, final LayerNorm.

    All blocks share the position and interval tables.
    """

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

    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, ticks_BL: Tensor | None = None) -> Tensor:
        """Return states_BLD. As in the authors' code, the item embeddings are multiplied by sqrt(D).

        Raises: ConfigError if `ticks_BL` is None. Remedy: pass ticks; `Recommender.recommend` computes them from
        its arguments `times` or `assume_regular`.
        """
        if ticks_BL is None:
            raise ConfigError(
                "TiSASRec needs the time of each event. Pass `ticks_BL`, or call `Recommender.recommend` with "
                "`times` or assume_regular=True."
            )
        # Dropout on the tables rather than on pairs of events, to avoid a (B, L, L, D) tensor.
        context = (
            self.dropout(self.position_key_embedding(positions_BL)),
            self.dropout(self.position_value_embedding(positions_BL)),
            self.dropout(self.interval_keys),
            self.dropout(self.interval_values),
            intervals(ticks_BL, self.config.time_span),
        )
        x_BLD = self.dropout(item_vectors_BLD * math.sqrt(self.config.hidden_units))
        x_BLD = expand(x_BLD, self.config)
        for block in self.blocks:
            x_BLD = block(x_BLD, *context)
        return self.last_norm(reduce(x_BLD, self.config))  # type: ignore[no-any-return]

    def embedding_tables(self) -> list[Tensor]:
        """Return the tables of items, positions (keys, values) and intervals (keys, values)."""
        return [*super().embedding_tables(), self.interval_keys, self.interval_values]


def intervals(ticks_BL: Tensor, time_span: int) -> Tensor:
    """Return the difference in ticks between each pair of events of a row, (B, L, L), at most `time_span`.

    Ticks are times in the user's own unit (batches/ticks.py), so the paper calls these intervals personal.
    """
    return (ticks_BL.unsqueeze(2) - ticks_BL.unsqueeze(1)).abs().clamp(max=time_span)
