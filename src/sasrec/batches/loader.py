"""Move batches to the device, with one copy per batch, and prepare each batch one step ahead.

A batch is a pure function of random seed, epoch and step (batches.py). A thread can therefore make the next batch
while the device computes the present one; the results are the same as without the thread.
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
    """A `Batch` as tensors on the device of the model. See `Batch` for the fields."""

    items_BL: Tensor
    positions_BL: Tensor
    lengths_B: Tensor
    ticks_BL: Tensor | None


@dataclass(frozen=True, eq=False)
class RunConstants:
    """Values that all batches of a run share; `Loader` moves them to the device once."""

    plan: NegativePlan
    log_q_V: Tensor | None
    """(V,) log of the probability that one draw of a negative gives the item; None without logQ correction."""
    unknown_U: Tensor | None
    """Item numbers that are not candidates, (U,); None if all items are candidates."""


@dataclass(frozen=True, eq=False)
class DeviceTrainingBatch(DeviceBatch):
    """A `TrainingBatch` as tensors on the device of the model. See `TrainingBatch` for the fields."""

    real_P: Tensor
    targets_P: Tensor
    negatives: Tensor | None
    own_BK: Tensor | None
    positions: int
    run: RunConstants

    @property
    def row_P(self) -> Tensor:  # noqa: N802
        """The row of each real position, (P,)."""
        return self.real_P // self.items_BL.shape[1]


def on_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """Return a batch of histories as tensors on a device."""
    (items_BL, positions_BL, lengths_B), (ticks_BL,) = _moved(
        device, [batch.items_BL, batch.positions_BL, batch.lengths_B], [batch.ticks_BL]
    )
    return DeviceBatch(items_BL, positions_BL, lengths_B, ticks_BL)


class Loader:
    """Moves the batches of a run to a device; prepares the next batch while the present one is in use."""

    def __init__(self, batches: TrainingBatches, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Move the `RunConstants`, which all batches share, to the device.

        `dtype`: the type of the model's weights. `log_q_V` gets this type, because losses subtract it from scores.
        """
        self.batches, self._device = batches, device
        log_q, unknown = batches.log_q_V, batches.unknown_U
        self._constants = RunConstants(
            batches.negative_plan,
            None if log_q is None else torch.as_tensor(log_q).to(dtype).to(device),
            None if unknown is None else torch.as_tensor(unknown, device=device),
        )

    def batch(self, epoch: int, step: int, part: int = 0, parts: int = 1) -> DeviceTrainingBatch:
        """Return the batch of a step, or one of its parts, on the device. See `TrainingBatches.batch`."""
        host = self.batches.batch(epoch, step, part, parts)
        (items_BL, positions_BL, lengths_B, real_P, targets_P), (ticks_BL, negatives, own_BK) = _moved(
            self._device,
            [host.items_BL, host.positions_BL, host.lengths_B, host.real_P, host.targets_P],
            [host.ticks_BL, host.negatives, host.own_BK],
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
            host.positions,
            self._constants,
        )

    def rest_of(
        self, epoch: int, step: int, own_parts: range, parts: int
    ) -> Generator[DeviceTrainingBatch, None, None]:
        """Split each batch of an epoch, from `step` on, into `parts` parts; yield those numbered in `own_parts`.

        A thread prepares the next part while the present one is in use, so at most two parts are in memory.
        """
        steps = range(step, len(self.batches.plan(epoch)))
        with ThreadPoolExecutor(1, "loader") as thread:

            def begin(step: int, part: int) -> Callable[[], DeviceTrainingBatch]:
                try:
                    return thread.submit(self.batch, epoch, step, part, parts).result
                except RuntimeError:  # Python is exiting and starts no threads, but training may still continue
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
    """Move integer arrays to the device. Except on the CPU, the tensors share one buffer, moved in one copy."""
    present = [*required, *(array for array in optional if array is not None)]
    if device.type == "cpu":
        tensors = iter([torch.from_numpy(array) for array in present])
    else:
        tensors = iter(_unpacked(_packed(present), device, present))
    return [next(tensors) for _ in required], [None if array is None else next(tensors) for array in optional]


def _packed(arrays: list[Array]) -> Tensor:
    """Return all arrays as one flat tensor in host memory."""
    return torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))


def _unpacked(buffer: Tensor, device: torch.device, arrays: list[Array]) -> list[Tensor]:
    """Move the buffer to the device; return views of it with the shapes of the arrays."""
    if device.type == "cuda":
        buffer = buffer.pin_memory()  # only copies from pinned memory run while the host continues
    pieces = torch.split(buffer.to(device, non_blocking=True), [array.size for array in arrays])
    return [piece.view(array.shape) for piece, array in zip(pieces, arrays, strict=True)]
