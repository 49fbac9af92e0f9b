"""Parts of a training step, timed in turn in one process: dropout masks, time-aware attention, the four models.

Medians, in milliseconds. See README.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

import sasrec
from sasrec.config import RunConfig
from sasrec.data.batches import TrainingBatches
from sasrec.data.splits import training_histories
from sasrec.losses import training_loss
from sasrec.models import build_model
from sasrec.models.attention import bucket_attention, plain_attention
from sasrec.models.dropout import Dropout
from sasrec.models.tisasrec import intervals
from sasrec.training.optimizer import build_optimizer

MODELS = {"plain": {}, "time": {"time": True}, "mhc": {"mhc": True}, "time+mhc": {"time": True, "mhc": True}}
SHARED = Path(__file__).resolve().parents[1] / "../shared/data"


def in_turn(systems: dict[str, Callable[[], object]], rounds: int) -> str:
    """Median milliseconds of each, one call of each a round, after one call that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for counted, (name, call) in itertools.product(range(rounds + 1), systems.items()):
        began = time.perf_counter()
        call()
        if counted:
            seconds[name].append(time.perf_counter() - began)
    return "  ".join(f"{name} {1e3 * statistics.median(taken):.2f}" for name, taken in seconds.items())


def dropout_masks() -> str:
    """640,000 elements at rate 0.2."""
    x, ours = torch.randn(640_000), Dropout(0.2)
    return in_turn({"ours": lambda: ours(x), "F.dropout": lambda: F.dropout(x, 0.2, training=True)}, 50)


def attention(batch: int, length: int) -> str:
    """One time-aware attention, forward and backward: 50 units, 1 head, 257 buckets."""
    inputs = [torch.randn(batch, 1, length, 50, requires_grad=True) for _ in range(3)]
    inputs += [torch.randn(1, 257, 50, requires_grad=True) for _ in range(2)]
    between = intervals(torch.randint(0, 60, (batch, length)).cumsum(1), 256)

    def call(form: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: form(*inputs, between, lambda weights: weights).sum().backward()

    return in_turn({"bucket": call(bucket_attention), "plain": call(plain_attention)}, 7)


def steps(path: Path, maxlen: int) -> str:
    """Training steps of the four models, BCE, 128 users, 50 units, 1 head; times are made up."""
    data = sasrec.prepare(path)
    made_up = (np.arange(data.num_events) * 7 % 1000).cumsum()

    def step_of(changed: dict[str, bool]) -> Callable[[], object]:
        config = RunConfig().replace(maxlen=maxlen, hidden_units=50, num_heads=1, loss="bce", **changed)
        training = training_histories(data, made_up if config.model.time else None)
        batches = TrainingBatches(training, data.num_items, maxlen=maxlen, batch_size=128, num_negatives=1, seed=0)
        torch.manual_seed(0)
        model = build_model(data.num_items, config.model).train()
        optimizer, numbers = build_optimizer(model, config.training), itertools.cycle(range(len(batches.plan(0))))

        def step() -> None:
            loss = training_loss(model, batches.batch(0, next(numbers)), config.loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    return in_turn({name: step_of(changed) for name, changed in MODELS.items()}, 15)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with video-kang205 and ml-1m (.tsv.gz)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print("dropout masks         ", dropout_masks())
    print("attention B=16 L=200  ", attention(16, 200))
    print("attention B=128 L=50  ", attention(128, 50))
    print("step, Games           ", steps(options.data / "video-kang205.tsv.gz", 50))
    print("step, ML-1M           ", steps(options.data / "ml-1m.tsv.gz", 200))


if __name__ == "__main__":
    main()
