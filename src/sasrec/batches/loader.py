"""Batches on the device: packed into one array, moved once, and made one step ahead of their use.

A batch is a pure function of its place in training (batches.py), so a thread may make the next one while the
device works on this one. The numbers are the same as without the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.batches.batches import Batch, TrainingBatches
from sasrec.batches.negatives import NegativePlan

Array: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """A `Batch` as tensors where the model is."""

    items_BL: Tensor
    positions_BL: Tensor
    lengths_B: Tensor
    ticks_BL: Tensor | None


@dataclass(frozen=True, eq=False)
class RunConstants:
    """What all batches of a run share, moved to the device once."""

    plan: NegativePlan
    log_q_V: Tensor | None
    """Log of the probability that a draw of a negative is that item, if the plan needs it."""
    unknown_U: Tensor | None
    """The items that are not candidates, or None if all are."""


@dataclass(frozen=True, eq=False)
class DeviceTrainingBatch(DeviceBatch):
    """A `TrainingBatch` as tensors where the model is."""

    real_P: Tensor
    targets_P: Tensor
    negatives: Tensor | None
    own_BK: Tensor | None
    positions: int
    run: RunConstants

    @property
    def row_P(self) -> Tensor:  # noqa: N802
        """The row of each position."""
        return self.real_P // self.items_BL.shape[1]


def on_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """Move a batch of histories."""
    (items_BL, positions_BL, lengths_B), (ticks_BL,) = _moved(
        device, [batch.items_BL, batch.positions_BL, batch.lengths_B], [batch.ticks_BL]
    )
    return DeviceBatch(items_BL, positions_BL, lengths_B, ticks_BL)


class Loader:
    """Moves the batches of a run to a device, the next one while the present one is in use."""

    def __init__(self, batches: TrainingBatches, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: floating type of the model's weights, for constants that meet its scores."""
        self.batches, self._device = batches, device
        log_q, unknown = batches.log_q_V, batches.unknown_U
        self._constants = RunConstants(
            batches.negative_plan,
            None if log_q is None else torch.as_tensor(log_q).to(dtype).to(device),
            None if unknown is None else torch.as_tensor(unknown, device=device),
        )

    def batch(self, epoch: int, step: int, part: int = 0, parts: int = 1) -> DeviceTrainingBatch:
        """The batch of a step of an epoch, or one of its parts (batches.py), on the device."""
        made = self.batches.batch(epoch, step, part, parts)
        (items_BL, positions_BL, lengths_B, real_P, targets_P), (ticks_BL, negatives, own_BK) = _moved(
            self._device,
            [made.items_BL, made.positions_BL, made.lengths_B, made.real_P, made.targets_P],
            [made.ticks_BL, made.negatives, made.own_BK],
        )
        return DeviceTrainingBatch(
            items_BL,
            positions_BL,
            lengths_B,
            ticks_BL,
            real_P,
            targets_P,
            negatives,
            own_BK,
            made.positions,
            self._constants,
        )

    def rest_of(
        self, epoch: int, step: int, own_parts: range, parts: int
    ) -> Generator[DeviceTrainingBatch, None, None]:
        """The batches of an epoch from a step on: of each step the parts in `own_parts`, in order."""
        steps = range(step, len(self.batches.plan(epoch)))
        with ThreadPoolExecutor(1, "loader") as thread:

            def begin(step: int, part: int) -> Callable[[], DeviceTrainingBatch]:
                try:
                    return thread.submit(self.batch, epoch, step, part, parts).result
                except (
                    RuntimeError
                ):  # the interpreter ends and starts no work in threads; training may still go on
                    return partial(self.batch, epoch, step, part, parts)

            ahead = None
            for place in product(steps, own_parts):
                ready, ahead = ahead, begin(*place)
                if ready is not None:
                    yield ready()
            if ahead is not None:
                yield ahead()


def _moved(
    device: torch.device, required: list[Array], optional: list[Array | None]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Integer arrays -> tensors on the device, which share one buffer there."""
    present = [*required, *(array for array in optional if array is not None)]
    if device.type == "cpu":
        tensors = iter([torch.from_numpy(array) for array in present])
    else:
        tensors = iter(_unpacked(_packed(present), device, present))
    return [next(tensors) for _ in required], [None if array is None else next(tensors) for array in optional]


def _packed(arrays: list[Array]) -> Tensor:
    """One flat tensor of all arrays, on the host."""
    return torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))


def _unpacked(buffer: Tensor, device: torch.device, arrays: list[Array]) -> list[Tensor]:
    """Views of the buffer on the device, in the shapes of the arrays."""
    if device.type == "cuda":
        buffer = buffer.pin_memory()  # a copy from pageable memory would make the host wait for the device
    pieces = torch.split(buffer.to(device, non_blocking=True), [array.size for array in arrays])
    return [piece.view(array.shape) for piece, array in zip(pieces, arrays, strict=True)]
