"""Causal self-attention over right-padded sequences.

Padding follows the last real item. The causal mask therefore already hides padding from every real position,
and a key mask is not needed. Ignore the states at padded positions; they are meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sasrec.config.settings import ModelConfig
from sasrec.models.dropout import Dropout


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with H heads and an output projection (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.hidden_units, config.hidden_units)
        self.key = nn.Linear(config.hidden_units, config.hidden_units)
        self.value = nn.Linear(config.hidden_units, config.hidden_units)
        self.output = nn.Linear(config.hidden_units, config.hidden_units)
        self.weight_dropout = Dropout(config.dropout_rate)

    def forward(self, queries_BLD: Tensor, keys_BLD: Tensor) -> Tensor:
        """Attend from each position to itself and to earlier positions; return (B, L, D).

        `keys_BLD` also provides the values. The two arguments are equal unless the norm placement is `original`.
        """
        q_BHLK = split_heads(self.query(queries_BLD), self.num_heads)
        k_BHLK = split_heads(self.key(keys_BLD), self.num_heads)
        v_BHLK = split_heads(self.value(keys_BLD), self.num_heads)
        if self.training and self.weight_dropout.rate > 0:
            mixed_BHLK = self._attend_with_dropout(q_BHLK, k_BHLK, v_BHLK)
        else:
            mixed_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, is_causal=True)
        return self.output(mixed_BHLK.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _attend_with_dropout(self, q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor) -> Tensor:
        """Compute attention step by step, because PyTorch's fused CPU kernel cannot drop attention weights."""
        scores_BHLL = (q_BHLK / math.sqrt(q_BHLK.shape[3])) @ k_BHLK.transpose(2, 3) + future_LL(q_BHLK)
        return self.weight_dropout(scores_BHLL.softmax(-1)) @ v_BHLK  # type: ignore[no-any-return]


class TimeAwareMultiHeadAttention(nn.Module):
    """Attention by content, position and personal time interval (Li, Wang & McAuley 2020, eq. 7 to 10).

        e_ij = q_i . (k_j + P_key[j] + E_key[r_ij]) / sqrt(K)        a = softmax(e), j <= i
        z_i  = sum_j a_ij (v_j + P_value[j] + E_value[r_ij])

    r_ij is the interval between events i and j; K is the width of a head. The model owns the position tables P and
    the interval tables E, and all blocks share these tables. Like the authors' code, the layer omits the output
    projection.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.hidden_units, config.hidden_units)
        self.key = nn.Linear(config.hidden_units, config.hidden_units)
        self.value = nn.Linear(config.hidden_units, config.hidden_units)
        self.weight_dropout = Dropout(config.dropout_rate)

    def forward(
        self,
        queries_BLD: Tensor,
        keys_BLD: Tensor,
        position_keys_BLD: Tensor,
        position_values_BLD: Tensor,
        interval_keys_TD: Tensor,
        interval_values_TD: Tensor,
        intervals_BLL: Tensor,
    ) -> Tensor:
        """Attend from each event to itself and to earlier events of its row; return (B, L, D).

        `intervals_BLL` contains row numbers of the interval tables, from 0 to T-1. Memory is O(B·H·L·(L + T)):
        a (B, L, L, D) tensor of interval embeddings is never formed.
        """
        q_BHLK = split_heads(self.query(queries_BLD), self.num_heads)
        k_BHLK = split_heads(self.key(keys_BLD) + position_keys_BLD, self.num_heads)
        v_BHLK = split_heads(self.value(keys_BLD) + position_values_BLD, self.num_heads)
        time_keys_HTK = split_heads(interval_keys_TD.unsqueeze(0), self.num_heads)[0]
        time_values_HTK = split_heads(interval_values_TD.unsqueeze(0), self.num_heads)[0]
        q_BHLK = q_BHLK / math.sqrt(q_BHLK.shape[3])  # scaling the queries scales all three score terms at once
        mixed_BHLK = bucket_attention(
            q_BHLK, k_BHLK, v_BHLK, time_keys_HTK, time_values_HTK, intervals_BLL, self.weight_dropout
        )
        return mixed_BHLK.transpose(1, 2).flatten(2)


def bucket_attention(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    time_keys_HTK: Tensor,
    time_values_HTK: Tensor,
    intervals_BLL: Tensor,
    dropout: Callable[[Tensor], Tensor],
) -> Tensor:
    """Causal attention that adds time keys to item keys and time values to item values; return (B, H, L, K).

    For a pair of events, the interval in `intervals_BLL` (0 to T-1) selects one row of `time_keys_HTK` and one of
    `time_values_HTK`. The queries must already be divided by sqrt(K).

    The result equals `plain_attention` up to rounding, but needs less memory. For each query, attention weights of
    equal intervals are summed first, and each sum is multiplied by the interval's time value once.
    """
    per_head_BHLL = intervals_BLL.unsqueeze(1).expand(-1, q_BHLK.shape[1], -1, -1)
    # Score each query against the T interval keys, then look up the score of each pair of events. A separate key
    # for each pair would need a (B, H, L, L, K) tensor.
    by_bucket_BHLT = q_BHLK @ time_keys_HTK.transpose(1, 2)
    scores_BHLL = q_BHLK @ k_BHLK.transpose(2, 3) + by_bucket_BHLT.gather(3, per_head_BHLL)
    weights_BHLL = dropout((scores_BHLL + future_LL(q_BHLK)).softmax(-1))
    # Sum the weights of pairs with equal intervals, so that each interval value is multiplied only once.
    weights_BHLT = weights_BHLL.new_zeros(by_bucket_BHLT.shape).scatter_add(3, per_head_BHLL, weights_BHLL)
    return weights_BHLL @ v_BHLK + weights_BHLT @ time_values_HTK


def plain_attention(
    q_BHLK: Tensor,
    k_BHLK: Tensor,
    v_BHLK: Tensor,
    time_keys_HTK: Tensor,
    time_values_HTK: Tensor,
    intervals_BLL: Tensor,
    dropout: Callable[[Tensor], Tensor],
) -> Tensor:
    """Compute the result of `bucket_attention` by the formula of the TiSASRec paper, in O(B·L·L·D) memory.

    Only tests use this function: they compare the two results.
    """
    time_keys_BHLLK = time_keys_HTK[:, intervals_BLL].transpose(0, 1)
    time_values_BHLLK = time_values_HTK[:, intervals_BLL].transpose(0, 1)
    scores_BHLL = (q_BHLK.unsqueeze(3) * (k_BHLK.unsqueeze(2) + time_keys_BHLLK)).sum(-1)
    weights_BHLL = dropout((scores_BHLL + future_LL(q_BHLK)).softmax(-1))
    return (weights_BHLL.unsqueeze(4) * (v_BHLK.unsqueeze(2) + time_values_BHLLK)).sum(3)


def future_LL(q_BHLK: Tensor) -> Tensor:  # noqa: N802
    """Return the causal mask (L, L): -inf where the key is later than the query, else 0."""
    length = q_BHLK.shape[2]
    return torch.full((length, length), -torch.inf, dtype=q_BHLK.dtype, device=q_BHLK.device).triu(1)


def split_heads(x_BLD: Tensor, num_heads: int) -> Tensor:
    """Split the width D into H heads of width K: (B, L, D) -> (B, H, L, K)."""
    batch, length, width = x_BLD.shape
    return x_BLD.view(batch, length, num_heads, width // num_heads).transpose(1, 2)
