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
        dropped = round(self.rate * _LEVELS)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        lanes = words.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (lanes >= dropped - _LEVELS // 2).to(x.dtype)
        return x * kept.mul_(_LEVELS / (_LEVELS - dropped))

    def extra_repr(self) -> str:
        """The rate, for print(model)."""
        return f"rate={self.rate}"
