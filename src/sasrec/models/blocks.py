"""One transformer block: self-attention, then a feed-forward layer; both with norm, dropout and residual."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sasrec.config.settings import ModelConfig
from sasrec.models.dropout import Dropout
from sasrec.models.residual import build_residual

NORM_EPS = 1e-8  # the value in the authors' code


class PointWiseFeedForward(nn.Module):
    """Two linear layers, D to W and W to D, with dropout after each and ReLU between them.

    W is the setting `feed_forward_width`; in the papers, W = D. They describe the same layers as convolutions with
    kernel size 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.feed_forward_width or config.hidden_units
        self.inner = nn.Linear(config.hidden_units, width)
        self.outer = nn.Linear(width, config.hidden_units)
        self.inner_dropout = Dropout(config.dropout_rate)
        self.outer_dropout = Dropout(config.dropout_rate)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Transform each position independently: (B, L, D) -> (B, L, D)."""
        # Dropout may precede ReLU: its factors are never negative, so the two commute.
        hidden_BLD = self.inner_dropout(self.inner(x_BLD)).relu()
        return self.outer_dropout(self.outer(hidden_BLD))  # type: ignore[no-any-return]


class SwiGLUFeedForward(nn.Module):
    """The gated unit (silu(x W1) * (x W2)) W3 of Shazeer (2020, arXiv 2002.05202, eq. 6), without biases.

    Dropout follows the product and W3, as in `PointWiseFeedForward`. W1 and W2 map D to W, and W3 maps W to D.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.feed_forward_width or config.hidden_units
        self.gate = nn.Linear(config.hidden_units, width, bias=False)
        self.inner = nn.Linear(config.hidden_units, width, bias=False)
        self.outer = nn.Linear(width, config.hidden_units, bias=False)
        self.inner_dropout = Dropout(config.dropout_rate)
        self.outer_dropout = Dropout(config.dropout_rate)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Transform each position independently: (B, L, D) -> (B, L, D)."""
        hidden_BLD = self.inner_dropout(F.silu(self.gate(x_BLD)) * self.inner(x_BLD))
        return self.outer_dropout(self.outer(hidden_BLD))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One block, with LayerNorm (LN) in one of three placements.

    pre:       x = x + Attention(LN(x));            x = x + FeedForward(LN(x))
    post:      x = LN(x + Attention(x));            x = LN(x + FeedForward(x))
    original:  q = LN(x); x = q + Attention(q, x);  y = LN(x); x = y + FeedForward(y)

    With pre, the residual x + F(LN(x)) can also be gated or mHC (residual.py).
    """

    def __init__(self, config: ModelConfig, attention: nn.Module, index: int) -> None:
        """`index` is the number of the block, from 0.

        `attention(queries_BLD, keys_BLD, *context)` returns (B, L, D); `context` is what `forward` passes on.
        """
        super().__init__()
        if config.norm == "pre":
            self.attention_residual = build_residual(config, 2 * index)
            self.feed_forward_residual = build_residual(config, 2 * index + 1)
        self.norm = config.norm
        self.attention = attention
        self.feed_forward = (SwiGLUFeedForward if config.feed_forward == "swiglu" else PointWiseFeedForward)(
            config
        )
        self.attention_norm = nn.LayerNorm(config.hidden_units, eps=NORM_EPS)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_units, eps=NORM_EPS)

    def forward(self, x_BLD: Tensor, *context: Tensor) -> Tensor:
        """Transform (B, L, D), or the S streams of mHC (B, L, S, D) (residual.py), into the same shape.

        `*context`: tensors that are passed on to the attention, such as the interval tables of TiSASRec.
        """
        if self.norm == "pre":
            x_BLD = self.attention_residual(x_BLD, lambda h_BLD: self._attend(h_BLD, context))
            return self.feed_forward_residual(x_BLD, self._feed_forward)  # type: ignore[no-any-return]
        if self.norm == "post":
            x_BLD = self.attention_norm(x_BLD + self.attention(x_BLD, x_BLD, *context))
            return self.feed_forward_norm(x_BLD + self.feed_forward(x_BLD))  # type: ignore[no-any-return]
        queries_BLD = self.attention_norm(x_BLD)
        x_BLD = self.feed_forward_norm(queries_BLD + self.attention(queries_BLD, x_BLD, *context))
        return x_BLD + self.feed_forward(x_BLD)  # type: ignore[no-any-return]

    def _attend(self, h_BLD: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        normed_BLD = self.attention_norm(h_BLD)
        return self.attention(normed_BLD, normed_BLD, *context)  # type: ignore[no-any-return]

    def _feed_forward(self, h_BLD: Tensor) -> Tensor:
        return self.feed_forward(self.feed_forward_norm(h_BLD))  # type: ignore[no-any-return]
