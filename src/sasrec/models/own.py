"""An encoder and a loss of your own: Python code that the caller passes, and that a checkpoint records by name.

A name is only compared with that of the code that the caller passes. It never makes this package import anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sasrec.batches.loader import DeviceTrainingBatch
from sasrec.config.settings import ModelConfig
from sasrec.errors import ConfigError
from sasrec.models.interface import SequenceModel

Encoder: TypeAlias = type[SequenceModel]
LossFunction: TypeAlias = Callable[[SequenceModel, DeviceTrainingBatch], Tensor]
_MAIN = "__main__"


@dataclass(frozen=True)
class OwnCode:
    """What the caller of `train` passes in place of the encoder and the loss of this package; None for ours."""

    encoder: Encoder | None = None
    loss_function: LossFunction | None = None

    def names(self) -> dict[str, str]:
        """Return the qualified names of the own code, by argument, for state.json and log.jsonl."""
        given = {"encoder": self.encoder, "loss_function": self.loss_function}
        return {argument: name_of(code) for argument, code in given.items() if code is not None}

    def check(self, num_items: int, config: ModelConfig) -> None:
        """Check the own code before training.

        Raises: ConfigError if the loss cannot be called, or if the encoder is not a SequenceModel or cannot be
        built without values, as checkpoints need it. Remedy: docs/how-to/own-model.md.
        """
        if self.loss_function is not None and not callable(self.loss_function):
            raise ConfigError(
                f"`loss_function` must be a function of a model and a batch, not {self.loss_function!r}. Pass one."
            )
        if self.encoder is None:
            return
        check_class(self.encoder)
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                self.encoder(num_items, config)
        except Exception as error:  # the code of the caller can fail in any way
            raise ConfigError(
                f"{name_of(self.encoder)}(num_items, config) fails on the device meta, where tensors have no "
                f"values ({type(error).__name__}: {error}). Correct its constructor."
            ) from error


def check_class(encoder: Any) -> None:
    """Raise ConfigError unless `encoder` is a class of models. Remedy: pass a subclass of SequenceModel."""
    if not (isinstance(encoder, type) and issubclass(encoder, SequenceModel)):
        raise ConfigError(
            f"`encoder` must be a subclass of sasrec.models.SequenceModel, not {encoder!r}. Pass the class itself."
        )


def refuse_other(argument: str, recorded: str | None, given: Any, checkpoint: Path) -> None:
    """Check that a checkpoint is used with the code that it was trained with.

    `argument`: "encoder" or "loss_function". `recorded`: the name in state.json; `given`: what the caller passes.
    A module may have the name __main__ where its file is the program, so this name equals every other.

    Raises: ConfigError. Remedy: pass the code that the checkpoint names, or none.
    """
    name = None if given is None else name_of(given)
    if recorded == name or (recorded and name and _same(recorded, name)):
        return
    if recorded is None:
        raise ConfigError(
            f"{checkpoint} was trained without `{argument}`, so {name} does not fit. Remove `{argument}`."
        )
    instead = "" if name is None else f", not {name}"
    raise ConfigError(
        f"{checkpoint} was trained with your own code {recorded}{instead}. Import it in Python, and pass it as "
        f"`{argument}`."
    )


def name_of(code: Any) -> str:
    """Return the module and the qualified name of a class or function; for another object, those of its class."""
    named = code if hasattr(code, "__qualname__") else type(code)
    return f"{named.__module__}.{named.__qualname__}"


def _same(one: str, other: str) -> bool:
    """Whether two names are equal if the module of one of them is __main__."""
    for main, full in ((one, other), (other, one)):
        if main.startswith(f"{_MAIN}."):
            return full.endswith(main.removeprefix(_MAIN))
    return False
