"""Dropout with a fast CPU path; drawing PyTorch's own masks takes a quarter of a SASRec training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_LEVELS = 2**16


class Dropout(nn.Module):
    """Set each element to zero with probability `rate`; divide the others by 1 - `rate` to preserve the mean.

    On CPU, PyTorch draws one random number for each element from a serial generator. This class draws 64 bits for
    four elements, which rounds the rate to a multiple of 2^-16. Other devices use PyTorch's own kernel.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape; return the input unchanged in evaluation mode."""
        if not self.training or self.rate == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate, training=True)
        # min() guards against rates that round to 1, for which the scale would divide by zero.
        dropped = min(round(self.rate * _LEVELS), _LEVELS - 1)
        # torch.compile cannot trace the drawing, so compiled code calls an opaque operator with the same numbers.
        if torch.compiler.is_compiling():
            return x * _factors_in_turn(x.detach(), _TURN, dropped)  # type: ignore[no-any-return]
        return x * _factors(x.detach(), dropped)

    def extra_repr(self) -> str:
        """Show the rate in print(model)."""
        return f"rate={self.rate}"


def _factors(like: Tensor, dropped: int) -> Tensor:
    """Return random factors: 0 with probability `dropped` / 65,536, else the scale that preserves the mean."""
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    # Read each 64-bit word as four 16-bit numbers from -32,768 to 32,767, one for each element.
    lanes = words.view(torch.int16)[: like.numel()].view(like.shape)
    kept = (lanes >= dropped - _LEVELS // 2).to(like.dtype)
    return kept.mul_(_LEVELS / (_LEVELS - dropped))


# A stand-in for the state of the random generator: compiled code must not reorder the operators that change it.
_TURN = torch.zeros(1)


@torch.library.custom_op("sasrec::dropout_factors", mutates_args=("turn",))
def _factors_in_turn(like: Tensor, turn: Tensor, dropped: int) -> Tensor:
    return _factors(like, dropped)


@_factors_in_turn.register_fake
def _(like: Tensor, turn: Tensor, dropped: int) -> Tensor:
    return like.new_empty(like.shape)
