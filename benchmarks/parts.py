"""Time parts of a training step, alternately in one process: dropout, time-aware attention, the four models.

Prints medians in milliseconds. See README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import Loader
from sasrec.batches.negatives import NegativePlan
from sasrec.config.settings import RunConfig
from sasrec.data.splits import split_events
from sasrec.losses.loss import training_loss
from sasrec.models import build_model
from sasrec.models.attention import bucket_attention, plain_attention
from sasrec.models.dropout import Dropout
from sasrec.models.tisasrec import intervals
from sasrec.training import health
from sasrec.training.compiled import compile_encoder
from sasrec.training.optimizer import build_optimizer

MODELS = {"plain": {}, "time": {"time": True}, "mhc": {"mhc": True}, "time+mhc": {"time": True, "mhc": True}}
SHARED = Path(__file__).resolve().parents[1] / "../shared/data"


def in_turn(systems: dict[str, Callable[[], object]], rounds: int) -> str:
    """Median milliseconds of each function. Each is called once per round, after one call for warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for counted, (name, call) in itertools.product(range(rounds + 1), systems.items()):
        began = time.perf_counter()
        call()
        if counted:
            seconds[name].append(time.perf_counter() - began)
    return "  ".join(f"{name} {1e3 * statistics.median(taken):.2f}" for name, taken in seconds.items())


def dropout_masks() -> str:
    """Time dropout masks of 640,000 elements at rate 0.2."""
    x, ours = torch.randn(640_000), Dropout(0.2)
    return in_turn({"ours": lambda: ours(x), "F.dropout": lambda: F.dropout(x, 0.2, training=True)}, 50)


def attention_call(batch: int, length: int, form: Callable[..., torch.Tensor]) -> Callable[[], object]:
    """A function that runs one time-aware attention forward and backward: 50 units, 1 head, 257 buckets."""
    inputs = [torch.randn(batch, 1, length, 50, requires_grad=True) for _ in range(3)]
    inputs += [torch.randn(1, 257, 50, requires_grad=True) for _ in range(2)]
    for leaf in inputs:
        leaf.grad = torch.zeros_like(leaf)
    between = intervals(torch.randint(0, 60, (batch, length)).cumsum(1), 256)
    return lambda: form(*inputs, between, lambda weights: weights).sum().backward()


def attention(batch: int, length: int) -> str:
    """Time the bucket form and the plain form of attention."""
    forms = {"bucket": bucket_attention, "plain": plain_attention}
    return in_turn({name: attention_call(batch, length, form) for name, form in forms.items()}, 7)


def memory(batch: int, length: int) -> str:
    """Peak memory that one attention adds, forward and backward, measured in a separate process.

    The peak before the call, with inputs and their gradients, is subtracted. A small call before that loads the
    libraries.
    """
    script = (  # VmHWM, because ru_maxrss of a child starts at its parent's value
        "import re, torch; from pathlib import Path; from parts import attention_call, bucket_attention;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024;"
        f"torch.set_num_threads({torch.get_num_threads()});"
        "attention_call(1, 8, bucket_attention)();"
        f"call = attention_call({batch}, {length}, bucket_attention); before = peak(); call();"
        "print(f'{peak() - before:.0f} MB')"
    )
    return subprocess.check_output([sys.executable, "-c", script], text=True, cwd=Path(__file__).parent).strip()


def steps(path: Path, maxlen: int, models: dict[str, dict[str, bool]]) -> str:
    """Time training steps of the models: BCE, 128 users, 50 units, 1 head, synthetic times."""
    data = sasrec.prepare(path)
    made_up = (np.arange(data.num_events) * 7 % 1000).cumsum()

    def step_of(changed: dict[str, bool]) -> Callable[[], object]:
        torch.manual_seed(0)
        config = RunConfig().replace(maxlen=maxlen, hidden_units=50, num_heads=1, loss="bce", **changed)
        training = split_events(data).training
        training = dataclasses.replace(training, ticks=made_up if config.model.time else None)
        batches = TrainingBatches(
            training, data.num_items, maxlen=maxlen, batch_size=128, plan=NegativePlan.of(config.loss), seed=0
        )
        model = build_model(data.num_items, config.model).train()
        loader = Loader(batches, model.device)
        if config.training.compile:
            compile_encoder(model, lambda: training_loss(model, loader.batch(0, 0), config.loss), sys.exit)
        optimizer, numbers = build_optimizer(model, config.training), itertools.cycle(range(len(batches.plan(0))))

        def step() -> None:
            loss = training_loss(model, loader.batch(0, next(numbers)), config.loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            float(health.gradient_norm(model))  # Trainer also computes this norm at every step
            optimizer.step()

        return step

    return in_turn({name: step_of(changed) for name, changed in models.items()}, 25)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with video-kang205 and ml-1m (.tsv.gz)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="also time compiled models; compiling takes a minute each"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print("dropout masks         ", dropout_masks())
    print("attention B=16 L=200  ", attention(16, 200))
    print("attention B=128 L=50  ", attention(128, 50))
    print("memory    B=128 L=200 ", memory(128, 200))
    models = {**MODELS, "mhc compiled": {"mhc": True, "compile": True}} if options.compile else MODELS
    print("step, Games           ", steps(options.data / "video-kang205.tsv.gz", 50, models))
    print("step, ML-1M           ", steps(options.data / "ml-1m.tsv.gz", 200, models))


if __name__ == "__main__":
    main()
