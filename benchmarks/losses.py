"""Time one training step of each loss on the same batches, alternately in one process: median milliseconds.

    python benchmarks/losses.py --data FILE

FILE has lines of `user item` without a header, in the order of time. A step builds the batch with its negatives
and runs forward, loss, backward and Adam. It has 128 users, 64 units, 2 blocks and 2 heads. --only selects losses
by name.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import Loader
from sasrec.batches.negatives import NegativePlan
from sasrec.config.settings import RunConfig
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.losses.loss import training_loss
from sasrec.models import build_model
from sasrec.training.optimizer import build_optimizer

DATA = Path(__file__).resolve().parents[1] / "../shared/data/video-kang205.tsv.gz"
LOSSES: dict[str, dict[str, object]] = {
    "ce": {},
    "ce, smoothed": {"label_smoothing": 0.1, "temperature": 0.5},
    "bce 1": {"loss": "bce"},
    "bce 256": {"loss": "bce", "num_negatives": 256},
    "gbce 256": {"loss": "gbce", "num_negatives": 256},
    "gbce 256 popular": {"loss": "gbce", "num_negatives": 256, "negatives": "popularity"},
    "softmax 256": {"loss": "softmax", "num_negatives": 256},
    "gbce 256 shared": {"loss": "gbce", "num_negatives": 256, "share_negatives": True},
    "softmax 256 shared": {"loss": "softmax", "num_negatives": 256, "share_negatives": True},
    "softmax 256 in batch": {"loss": "softmax", "num_negatives": 256, "negatives": "in_batch"},
    "softmax 4096 shared": {"loss": "softmax", "num_negatives": 4096, "share_negatives": True},
    "softmax 4096 popular": {
        "loss": "softmax",
        "num_negatives": 4096,
        "share_negatives": True,
        "negatives": "popularity",
    },
}


def step_of(training: Histories, num_items: int, config: RunConfig) -> Callable[[], int]:
    """A function that runs one training step and returns the number of targets."""
    torch.manual_seed(0)
    batches = TrainingBatches(
        training, num_items, maxlen=config.model.maxlen, batch_size=128, plan=NegativePlan.of(config.loss), seed=0
    )
    model = build_model(num_items, config.model).train()
    optimizer = build_optimizer(model, config.training)
    loader = Loader(batches, model.device)
    numbers = ((epoch, step) for epoch in range(10**9) for step in range(len(batches.plan(epoch))))

    def step() -> int:
        batch = loader.batch(*next(numbers))
        optimizer.zero_grad()
        training_loss(model, batch, config.loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return len(batch.targets_P)

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--maxlen", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10, help="steps of each loss, after two for warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(LOSSES), choices=list(LOSSES), metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = sasrec.prepare(options.data)
    training, common = split_events(data).training, RunConfig().replace(maxlen=options.maxlen)
    print(f"{data.num_items:,} items, torch {torch.__version__}, load average {os.getloadavg()[0]:.2f}")
    steps = {name: step_of(training, data.num_items, common.replace(**LOSSES[name])) for name in options.only}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    targets: dict[str, list[int]] = {name: [] for name in steps}
    for number in range(options.rounds + 2):
        for name in list(steps) if number % 2 == 0 else list(steps)[::-1]:
            began = time.perf_counter()
            learned = steps[name]()
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
                targets[name].append(learned)
    for name in steps:
        milliseconds, learned = 1e3 * statistics.median(seconds[name]), statistics.mean(targets[name])
        print(f"{name:22s}{milliseconds:9.1f} ms{learned:8.0f} targets")


if __name__ == "__main__":
    main()
