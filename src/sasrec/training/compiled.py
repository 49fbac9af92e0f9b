"""`--compile`: run the encoder through torch.compile, in training steps only."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from sasrec.models import SequenceModel


def compile_encoder(model: SequenceModel, trial: Callable[[], Tensor], say: Callable[[str], None]) -> None:
    """Compile `model.encode` with dynamic shapes, and try it on one batch.

    Evaluation stays uncompiled, so that scores do not depend on the setting `compile`. If compiling fails, usually
    because no C++ compiler is installed, training stays uncompiled too and `say` receives a warning.

    `trial` computes the loss of one batch. Its backward pass is run too, because it is compiled separately.
    """
    eager = model.encode
    model.train()
    with warnings.catch_warnings(action="ignore"):  # torch.compile warns about its own internals, here and below
        compiled = torch.compile(eager, dynamic=True)

    def encode(*inputs: Tensor | None) -> Tensor:
        return (compiled if model.training else eager)(*inputs)  # type: ignore[arg-type]

    model.encode = encode  # type: ignore[method-assign, assignment]
    try:
        with warnings.catch_warnings(action="ignore"):
            trial().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # a compiler can fail in any way; an error of the model itself will occur again
        model.encode = eager  # type: ignore[method-assign]
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        say(f"warning: compile has no effect here; training continues uncompiled. The compiler said: {reason}")
    model.zero_grad()  # the trial's gradients must not enter the first update
