"""`--compile`: the encoder through torch.compile, for training steps only."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from sasrec.models import SequenceModel


def compile_encoder(model: SequenceModel, trial: Callable[[], Tensor], say: Callable[[str], None]) -> None:
    """Compile `model.encode` for every shape at once, and try it: `trial` makes a loss, which goes backward.

    Evaluation stays eager, so that a score does not depend on whether its model was compiled. Where it cannot be
    compiled (no C++ compiler, as a rule), the model stays as it was, and `say` is told.
    """
    eager = model.encode
    model.train()
    with warnings.catch_warnings(action="ignore"):  # the compiler warns of its own doings, here and below
        compiled = torch.compile(eager, dynamic=True)

    def encode(*inputs: Tensor | None) -> Tensor:
        return (compiled if model.training else eager)(*inputs)  # type: ignore[arg-type]

    model.encode = encode  # type: ignore[method-assign, assignment]
    try:
        with warnings.catch_warnings(action="ignore"):
            trial().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever stops the compiler, eager code goes on or says so itself
        model.encode = eager  # type: ignore[method-assign]
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        say(f"warning: --compile has no effect here, training goes on uncompiled: {reason}")
    model.zero_grad()
