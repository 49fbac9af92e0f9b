"""Batches made ahead in a thread are the batches made in time."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch

from sasrec.batches import loader
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import DeviceTrainingBatch, Loader
from sasrec.batches.negatives import NegativePlan
from sasrec.config.settings import LossConfig
from sasrec.data.splits import split_events
from tests.synthetic import dataset, random_lists

CPU = torch.device("cpu")


def made(**loss: object) -> Loader:
    plan = NegativePlan.of(LossConfig(**loss))
    training = split_events(dataset(random_lists(120, 30, seed=3), 30)).training
    return Loader(TrainingBatches(training, 30, maxlen=10, batch_size=16, plan=plan, seed=0), CPU)


def assert_equal(one: DeviceTrainingBatch, other: DeviceTrainingBatch) -> None:
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name != "run":  # constants, of which each loader has its own
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


@pytest.mark.parametrize("parts", [range(1), range(3), range(1, 6, 2)])
@pytest.mark.parametrize(
    "loss", [{}, {"loss": "bce"}, {"loss": "softmax", "num_negatives": 8, "share_negatives": True}]
)
def test_the_rest_of_an_epoch_has_the_batches_of_each_step_in_order(parts: range, loss: dict[str, object]) -> None:
    ahead, direct = made(**loss), made(**loss)
    count = 6 if len(parts) == 3 and parts.start else len(parts)
    for epoch, first in ((0, 0), (1, 2)):
        steps = range(first, len(direct.batches.plan(epoch)))
        expected = [(step, part) for step in steps for part in parts]
        batches = list(ahead.rest_of(epoch, first, parts, count))
        assert len(batches) == len(expected) > 0
        for batch, (step, part) in zip(batches, expected, strict=True):
            assert_equal(batch, direct.batch(epoch, step, part, count))


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = made().rest_of(0, 0, range(1), 1)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_an_error_in_the_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = made()
    original = TrainingBatches.batch

    def failing(self: TrainingBatches, epoch: int, step: int, *part: int) -> object:
        if step == 2:
            raise MemoryError("no room")
        return original(self, epoch, step, *part)

    monkeypatch.setattr(TrainingBatches, "batch", failing)
    batches = ahead.rest_of(0, 0, range(1), 1)
    assert [next(batches).positions > 0 for _ in range(2)] == [True, True]
    with pytest.raises(MemoryError, match="no room"):
        next(batches)


def test_arrays_packed_into_one_buffer_come_out_as_they_were() -> None:
    arrays = [np.arange(6).reshape(2, 3), np.zeros((0, 4), np.int64), np.array([7, 8])]
    buffer = loader._packed(arrays)
    assert buffer.shape == (8,)
    for tensor, array in zip(loader._unpacked(buffer, CPU, arrays), arrays, strict=True):
        assert np.array_equal(tensor.numpy(), array)
