"""Training steps of SASRec on Amazon Games, ours and RecTools', in turn in one process.

Both train on the same training parts (leave-one-out), BCE with one negative, 50 units, 2 blocks, 1 head,
maxlen 50, dropout 0.2, about 128 users a step. A step makes the batch, goes forward and backward, and updates.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import torch

import sasrec
from sasrec.config import RunConfig
from sasrec.data.batches import TrainingBatches
from sasrec.data.splits import training_histories
from sasrec.losses import training_loss
from sasrec.models import build_model
from sasrec.training.optimizer import build_optimizer

CONFIG = RunConfig().replace(
    maxlen=50, hidden_units=50, num_blocks=2, num_heads=1, dropout_rate=0.2, loss="bce", batch_size=128, lr=1e-3
)
Step = Callable[[], int]


def ours(data: sasrec.Dataset) -> Step:
    """A step of this package; returns the number of targets it learned from."""
    torch.manual_seed(0)
    batches = TrainingBatches(
        training_histories(data), data.num_items, maxlen=50, batch_size=128, num_negatives=1, seed=0
    )
    model = build_model(data.num_items, CONFIG.model).train()
    optimizer = build_optimizer(model, CONFIG.training)

    def numbers() -> Iterator[tuple[int, int]]:
        epoch = 0
        while True:
            yield from ((epoch, step) for step in range(len(batches.plan(epoch))))
            epoch += 1

    at = numbers()

    def step() -> int:
        batch = batches.batch(*next(at))
        loss = training_loss(model, batch, CONFIG.loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return len(batch.targets_P)

    return step


def rectools(data: sasrec.Dataset) -> Step:
    """A step of RecTools: its data loader, negatives, network, loss and optimizer, without Lightning's trainer.

    Logging, progress and callbacks of the trainer are left out, which can only make it faster.
    """
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    training = training_histories(data)
    lengths = training.lengths
    users = pd.Series(range(data.num_users)).repeat(lengths).to_numpy()
    items = [data.items[a:b] for a, b in zip(training.starts, training.ends, strict=True)]
    frame = pd.DataFrame({Columns.User: users, Columns.Item: [int(i) for row in items for i in row]})
    frame[Columns.Weight] = 1.0
    frame[Columns.Datetime] = pd.Timestamp("2020-01-01") + pd.to_timedelta(range(len(frame)), unit="s")
    torch.manual_seed(0)
    model = SASRecModel(
        n_blocks=2, n_heads=1, n_factors=50, dropout_rate=0.2, session_max_len=50, loss="BCE", n_negatives=1,
        lr=1e-3, batch_size=128, deterministic=False,
    )  # fmt: skip
    model.data_preparator.process_dataset_train(Dataset.construct(frame))
    model._build_model_from_dataset(model.data_preparator.train_dataset)
    module = model.lightning_model
    module._xavier_normal_init()
    module.train()
    optimizer = module.configure_optimizers()

    def loader() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from model.data_preparator.get_dataloader_train()

    at = loader()

    def step() -> int:
        batch = next(at)
        loss = module.loss_calculator(module.get_batch_logits(batch), batch["y"], batch["yw"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return int((batch["y"] > 0).sum())

    return step


def measure(steps: dict[str, Step], rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    """Mean seconds and targets a step, per round, the systems in turn."""
    figures: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "targets": []} for name in steps}
    for step in steps.values():
        for _ in range(10):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            targets = sum(step() for _ in range(count))
            figures[name]["seconds"].append((time.perf_counter() - began) / count)
            figures[name]["targets"].append(targets / count)
    return figures


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/video-kang205.tsv.gz"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps of each system in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    data = sasrec.prepare(options.data)
    figures = measure({"ours": ours(data), "rectools": rectools(data)}, options.rounds, options.steps)
    medians = {name: statistics.median(each["seconds"]) for name, each in figures.items()}
    for name, each in figures.items():
        targets = statistics.mean(each["targets"])
        rate = statistics.median(t / s for t, s in zip(each["targets"], each["seconds"], strict=True))
        print(
            f"{name:9s} {1e3 * medians[name]:7.2f} ms a step {targets:6.0f} targets a step {rate:9.0f} targets/s"
        )
    ratios = [b / a for a, b in zip(figures["ours"]["seconds"], figures["rectools"]["seconds"], strict=True)]
    middle = statistics.median(ratios)
    print(f"RecTools / ours, round by round: {min(ratios):.1f} to {max(ratios):.1f}, median {middle:.1f}")
    if options.json:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "rectools", "numpy")}
        about = {
            "date": str(date.today()),
            "cpus": os.cpu_count(),
            "threads": options.threads,
            "versions": versions,
        }
        content = {**about, "rounds": options.rounds, "steps": options.steps, "ratios": ratios, **figures}
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
