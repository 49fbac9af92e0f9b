"""Dropout whose masks are cheap on CPU, where drawing them costs a quarter of a plain training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_LEVELS = 2**16


class Dropout(nn.Module):
    """Zeroes each element with probability `rate` and scales the rest to keep the mean.

    PyTorch's CPU kernel draws one 32-bit random number per element from a serial generator. Here each 64-bit
    draw of the same generator decides four elements, so the rate is rounded to a multiple of 2^-16 on CPU
    (and the scale matches the rounded rate). Other devices use PyTorch's own kernel.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate, training=True)
        # Compiled code calls the operator, which torch.compile does not trace; it draws the same numbers.
        factors = _factors_operator if torch.compiler.is_compiling() else _factors
        return x * factors(x.detach(), min(round(self.rate * _LEVELS), _LEVELS - 1))

    def extra_repr(self) -> str:
        """The rate, for print(model)."""
        return f"rate={self.rate}"


def _factors(like: Tensor, dropped: int) -> Tensor:
    """0 for `dropped` of 65,536 elements in the mean, and what keeps the mean for the others."""
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    lanes = words.view(torch.int16)[: like.numel()].view(like.shape)
    kept = (lanes >= dropped - _LEVELS // 2).to(like.dtype)
    return kept.mul_(_LEVELS / (_LEVELS - dropped))


_factors_operator = torch.library.custom_op("sasrec::dropout_factors", _factors, mutates_args=())


@_factors_operator.register_fake
def _(like: Tensor, dropped: int) -> Tensor:
    return like.new_empty(like.shape)
