"""Time training steps on Amazon Games: our SASRec and TiSASRec, and RecTools' SASRec, alternately in one process.

All train on the same training parts (leave-one-out) with BCE, one negative, 50 units, 2 blocks, 1 head, maxlen 50,
dropout 0.2 and about 128 users per step. The times for TiSASRec are synthetic. A step builds the batch, draws the
negatives, and runs forward, backward and Adam. See README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.metadata
import json
import logging
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
from sasrec.runtime.device import seed_generators
from sasrec.training import health
from sasrec.training.optimizer import build_optimizer

DATA = Path(__file__).resolve().parents[1] / "../shared/data/video-kang205.tsv.gz"
CONFIG = RunConfig().replace(
    maxlen=50,
    hidden_units=50,
    num_blocks=2,
    num_heads=1,
    dropout_rate=0.2,
    loss="bce",
    batch_size=128,
    lr=1e-3,
)
WARM_UP = 10
Step = Callable[[], Any]  # returns the targets of the batch, which are counted outside the timing
Figures = dict[str, dict[str, list[list[float]]]]


def our_step(training: Histories, num_items: int, config: RunConfig) -> Step:
    """A function that runs one step as `Trainer` does. The returned array contains the real targets."""
    torch.manual_seed(0)
    batches = TrainingBatches(
        training,
        num_items,
        maxlen=config.model.maxlen,
        batch_size=config.training.batch_size,
        plan=NegativePlan.of(config.loss),
        seed=0,
    )
    model = build_model(num_items, config.model).train()
    optimizer = build_optimizer(model, config.training)
    loader = Loader(batches, model.device)

    def numbers() -> Iterator[tuple[int, int, Any]]:
        epoch = 0
        while True:
            for step, batch in enumerate(loader.rest_of(epoch, 0, range(1), 1)):
                yield epoch, step, batch
            epoch += 1

    numbered = numbers()

    def step() -> Any:
        epoch, number, batch = next(numbered)
        # As Trainer does, so that its cost is on our side of the scales.
        stream = np.random.SeedSequence([0, 2, epoch, number])
        seed_generators(model.device, int(stream.generate_state(1, np.uint64)[0]) >> 1)
        loss = training_loss(model, batch, config.loss)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(float(health.gradient_norm(model)) + float(loss.detach())):
            raise ArithmeticError("not finite")
        optimizer.step()
        return batch.targets_P

    return step


def their_step(training: Histories) -> Step:
    """A function that runs one step of RecTools, without Lightning: loader, negatives, network, loss, optimizer.

    The loader is created once, as in `fit`. The returned array is y, with 0 in the padding.
    """
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    torch.manual_seed(0)
    model = SASRecModel(
        n_blocks=CONFIG.model.num_blocks,
        n_heads=CONFIG.model.num_heads,
        n_factors=CONFIG.model.hidden_units,
        dropout_rate=CONFIG.model.dropout_rate,
        session_max_len=CONFIG.model.maxlen,
        loss="BCE",
        n_negatives=CONFIG.loss.num_negatives,
        lr=CONFIG.training.lr,
        batch_size=CONFIG.training.batch_size,
    )
    model._build_model_from_dataset(Dataset.construct(interactions(training)))
    module = model.lightning_model
    module.on_train_start()  # RecTools' Xavier initialisation
    module.train()
    optimizer = module.configure_optimizers()
    loader = model.data_preparator.get_dataloader_train()

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from loader

    made = batches()

    def step() -> Any:
        batch = next(made)
        # These two lines are module.training_step without self.log, which needs a trainer.
        loss = module.loss_calculator(module.get_batch_logits(batch), batch["y"], batch["yw"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return batch["y"].numpy()

    return step


def interactions(training: Histories) -> pd.DataFrame:
    """The same training parts as a RecTools table. Times one second apart keep the order of events."""
    users = np.repeat(np.arange(len(training)), training.lengths)
    pieces = [training.items[a:b] for a, b in zip(training.starts, training.ends, strict=True)]
    items = np.concatenate(pieces).astype(np.int64)
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(items)), unit="s")
    return pd.DataFrame({"user_id": users, "item_id": items, "weight": 1.0, "datetime": times})


def measure(steps: dict[str, Step], rounds: int, count: int) -> Figures:
    """Seconds and real targets of every step, as [round][step]. The systems take turns at running first."""
    figures: Figures = {name: {"seconds": [], "targets": []} for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    for number in range(rounds):
        for name in list(steps) if number % 2 == 0 else list(steps)[::-1]:
            gc.collect()
            seconds, targets = [], []
            for _ in range(count):
                began = time.perf_counter()
                learned = steps[name]()
                seconds.append(time.perf_counter() - began)
                targets.append(float(np.count_nonzero(learned)))
            figures[name]["seconds"].append(seconds)
            figures[name]["targets"].append(targets)
    return figures


def summary(figures: Figures) -> dict[str, Any]:
    """Median milliseconds, mean targets, and the ratio RecTools / ours of the medians of each round."""
    result: dict[str, Any] = {}
    for name, each in figures.items():
        seconds = [s for one_round in each["seconds"] for s in one_round]
        targets = [t for one_round in each["targets"] for t in one_round]
        result[name] = {
            "median_ms": 1e3 * statistics.median(seconds),
            "mean_ms": 1e3 * statistics.mean(seconds),
            "targets_a_step": statistics.mean(targets),
            "targets_a_second": statistics.mean(targets) / statistics.median(seconds),
        }
    medians = {name: [statistics.median(r) for r in each["seconds"]] for name, each in figures.items()}
    for name in medians.keys() - {"rectools"}:
        result[name]["ratios"] = [b / a for a, b in zip(medians[name], medians["rectools"], strict=True)]
    return result


def surroundings(threads: int) -> dict[str, Any]:
    """Date, versions and machine."""
    names = ("sasrec", "torch", "rectools", "pytorch-lightning", "numpy")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = str(sasrec.__version__) if name == "sasrec" else "unknown"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
    }


def main() -> None:
    """Measure, print, and optionally write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="header-less `user item`, in order of time")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps per system and round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to which to write all values")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    about = surroundings(options.threads)
    data = sasrec.prepare(options.data)
    training = split_events(data).training
    timed = dataclasses.replace(training, ticks=(np.arange(data.num_events) * 7 % 1000).cumsum())
    steps = {
        "SASRec": our_step(training, data.num_items, CONFIG),
        "TiSASRec": our_step(timed, data.num_items, CONFIG.replace(time=True)),
        "rectools": their_step(training),
    }
    figures = measure(steps, options.rounds, options.steps)
    result = summary(figures)
    print(f"{'':10s}{'median ms':>10s}{'mean ms':>10s}{'targets/step':>14s}{'targets/s':>12s}")
    for name in steps:
        r = result[name]
        print(f"{name:10s}{r['median_ms']:10.2f}{r['mean_ms']:10.2f}", end="")
        print(f"{r['targets_a_step']:14.0f}{r['targets_a_second']:12.0f}")
    for name in ("SASRec", "TiSASRec"):
        r = result[name]["ratios"]
        print(f"RecTools / our {name}: min {min(r):.1f}, median {statistics.median(r):.1f}, max {max(r):.1f}")
    print(f"load average before: {about['load_before']:.2f}")
    if options.json:
        content = {
            **about,
            "rounds": options.rounds,
            "steps": options.steps,
            "summary": result,
            "figures": figures,
        }
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
