"""On any device: no tensor stays behind on the CPU, and no step waits for a value.

PyTorch's device "meta" stands in for an accelerator: it computes shapes alone, so reading a value raises, and so
does an operator whose output size depends on values. Both would make the host wait for a GPU.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import Loader
from sasrec.batches.ticks import with_ticks
from sasrec.config.settings import RunConfig
from sasrec.data.splits import split_events
from sasrec.losses.loss import training_loss
from sasrec.models import build_model
from sasrec.training import health
from tests.synthetic import chain_frame, small

MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {},
    "sasrec without dropout": {"dropout_rate": 0.0},
    "sasrec-mhc": {"mhc": True},
    "sasrec-birkhoff": {"mhc": True, "mhc_projection": "birkhoff"},
    "sasrec-orthogonal": {"mhc": True, "mhc_projection": "orthogonal"},
    "sasrec-gated": {"gated": True},
    "sasrec-swiglu": {"feed_forward": "swiglu", "feed_forward_width": 24},
    "tisasrec": {"time": True},
    "tisasrec-mhc": {"time": True, "mhc": True},
}
LOSSES: dict[str, dict[str, Any]] = {
    "ce": {"loss": "ce"},
    "smoothed ce": {"loss": "ce", "label_smoothing": 0.1},
    "bce": {"loss": "bce"},
    "gbce": {"loss": "gbce", "num_negatives": 64},
    "softmax": {"loss": "softmax", "num_negatives": 64},
    "popular": {"loss": "softmax", "num_negatives": 64, "negatives": "popularity"},
    "shared": {"loss": "softmax", "num_negatives": 64, "share_negatives": True},
    "in batch": {"loss": "softmax", "num_negatives": 64, "negatives": "in_batch"},
}


class Watch(TorchDispatchMode):
    """Count operators; collect those that have tensors of two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(operator)
        self.seen[name] += 1
        # A single number on the CPU may join in; a copy must have both devices.
        given = [x for x in tree_leaves([args, kwargs]) if isinstance(x, torch.Tensor) and x.dim()]
        if len({x.device.type for x in given}) > 1 and "copy" not in name:
            self.mixed.append(name)
        return operator(*args, **(kwargs or {}))


def batches_of(config: RunConfig) -> tuple[int, TrainingBatches]:
    data = sasrec.prepare(chain_frame())
    split = with_ticks(split_events(data, "leave-one-out"), data, config.model)
    return data.num_items, TrainingBatches.of(split.training, data.num_items, config)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_a_step_on_an_accelerator_reads_nothing_and_copies_one_buffer(
    model: dict[str, Any], loss: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know "meta"
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    config = RunConfig().replace(**small(), **model, **loss)
    num_items, batches = batches_of(config)
    built = build_model(num_items, config.model).to("meta")
    loader = Loader(batches, torch.device("meta"))
    with Watch() as watch:
        batch = loader.batch(0, 0)
        copies = sum(count for name, count in watch.seen.items() if "_to_copy" in name)
        training_loss(built, batch, config.loss).backward()
        norm = health.gradient_norm(built)
    assert norm.device.type == "meta"
    assert watch.mixed == []
    assert copies == 1
    assert [name for name, weight in built.named_parameters() if weight.grad is None] == []


def test_training_reads_one_array_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the loss, the flags and the norm. Single numbers are read at the end of an epoch only: three."""
    reads: Counter[int] = Counter()
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.update([epochs]) or original(tensor))
    single = {}
    for epochs in (2, 6):
        with Watch() as watch:
            settings = small(num_epochs=epochs, eval_every=100, clip_norm=1)
            sasrec.train(chain_frame(), tmp_path / str(epochs), **settings)
        single[epochs] = sum(count for name, count in watch.seen.items() if "_local_scalar_dense" in name)
    assert reads[6] - reads[2] == 4 * 2, "four more epochs of two steps"
    assert single[6] - single[2] == 4 * 3
