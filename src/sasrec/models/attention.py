"""Causal self-attention over right-padded sequences.

Padding stands after the last real item, so the causal mask alone hides it from every real position: there
is no key mask. States at padded positions are meaningless and nobody reads them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sasrec.models.dropout import Dropout


class CausalSelfAttention(nn.Module):
    """Scaled dot-product attention with H heads and an output projection (Vaswani et al. 2017)."""

    def __init__(self, hidden_units: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_units, hidden_units)
        self.key = nn.Linear(hidden_units, hidden_units)
        self.value = nn.Linear(hidden_units, hidden_units)
        self.output = nn.Linear(hidden_units, hidden_units)
        self.weight_dropout = Dropout(dropout_rate)

    def forward(self, queries_BLD: Tensor, keys_BLD: Tensor) -> Tensor:
        """Queries attend to keys (and values) at their own and earlier positions -> (B, L, D).

        The two arguments differ only in the `original` norm placement.
        """
        q_BHLK = self._split_heads(self.query(queries_BLD))
        k_BHLK, v_BHLK = self._split_heads(self.key(keys_BLD)), self._split_heads(self.value(keys_BLD))
        if self.training and self.weight_dropout.rate > 0:
            mixed_BHLK = self._attend_with_dropout(q_BHLK, k_BHLK, v_BHLK)
        else:
            mixed_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, is_causal=True)
        return self.output(mixed_BHLK.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _attend_with_dropout(self, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor) -> Tensor:
        """Written out, because PyTorch's fused CPU kernel has no dropout on the weights."""
        length = q_BHLK.shape[2]
        future_LL = torch.full((length, length), -torch.inf, dtype=q_BHLK.dtype, device=q_BHLK.device).triu(1)
        scores_BHLL = (q_BHLK / math.sqrt(q_BHLK.shape[3])) @ k_BHLK.transpose(2, 3) + future_LL
        return self.weight_dropout(scores_BHLL.softmax(-1)) @ v_BHLK  # type: ignore[no-any-return]

    def _split_heads(self, x_BLD: Tensor) -> Tensor:
        batch, length, width = x_BLD.shape
        return x_BLD.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)
