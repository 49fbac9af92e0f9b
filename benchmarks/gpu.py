"""Check this machine's accelerator: parity with the CPU, bits, stalls, and the time of a step.

    make gpu                                        # or: python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu           # the same rows on the CPU, to try the script

parity   Each model and loss, in fp32 and bf16: the loss and the gradients against the same model in float64 on the
         CPU. The relative distance must stay within a bound.
bits     Each model, trained twice: are the weights bit-identical? With `deterministic` they must be.
stalls   Training steps while PyTorch raises an error for every read that makes the host wait, but the one counted.
speed    Milliseconds a step, and the most memory, of each model and loss on made-up histories.

Exit status 1 if a row fails. Without an accelerator the script says what waits for one, and ends with 0.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import Loader
from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint import store
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import split_events
from sasrec.losses.loss import training_loss
from sasrec.models import build_model
from sasrec.runtime.device import pick_device, surroundings
from sasrec.training import health
from sasrec.training.optimizer import build_optimizer

MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {},
    "sasrec-mhc": {"mhc": True},
    "tisasrec": {"time": True},
    "tisasrec-mhc": {"time": True, "mhc": True},
}
LOSSES: dict[str, dict[str, Any]] = {
    "ce": {"loss": "ce"},
    "bce": {"loss": "bce"},
    "gbce 64": {"loss": "gbce", "num_negatives": 64},
    "softmax 256 shared": {"loss": "softmax", "num_negatives": 256, "share_negatives": True},
}
# Largest `distance` of a loss or gradient from that in float64. On a CPU it is 4e-6 and .10.
BOUNDS = {"fp32": 1e-4, "bf16": 0.15}
SMALL = {"maxlen": 30, "hidden_units": 32, "batch_size": 32, "lr": 1e-3}


def events(users: int, items: int, longest: int) -> Dataset:
    """Made-up histories of 3 to `longest` events, with times."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, longest + 1, users)
    user = np.repeat(np.arange(users), lengths)
    frame = {
        "user": user,
        "item": random.integers(1, items + 1, len(user)),
        "time": np.arange(len(user)) * 60 + 10**9,
    }
    return sasrec.prepare(pl.DataFrame(frame))


def loader_of(data: Dataset, config: RunConfig, device: torch.device, num_items: int = 0) -> Loader:
    """The batches of the training part of the data, on a device; of `num_items` items if given."""
    split = with_ticks(split_events(data, "leave-one-out"), data, config.model)
    return Loader(TrainingBatches.of(split.training, num_items or data.num_items, config), device)


def gradients(
    data: Dataset, config: RunConfig, device: torch.device, half: bool, double: bool
) -> dict[str, torch.Tensor]:
    """The loss ("loss") and the gradient of each weight for the first batch, in float64 on the CPU."""
    torch.manual_seed(0)
    model = build_model(data.num_items, config.model).train().to(device)
    if double:
        model = model.double()
    loader = loader_of(data, config, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        loss = training_loss(model, loader.batch(0, 0), config.loss)
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach().double().cpu(), **{name: grad.double().cpu() for name, grad in found.items()}}


def distance(found: torch.Tensor, exact: torch.Tensor, floor: float) -> float:
    """The L2 norm of a difference, relative to that of `exact`, or to `floor` if that is larger."""
    return float((found - exact).norm() / exact.norm().clamp(min=floor))


def parity(device: torch.device) -> Iterator[tuple[bool, str]]:
    """A row for each model, loss and precision."""
    data = events(200, 300, 30)
    for model, of_model in MODELS.items():
        for loss, of_loss in LOSSES.items():
            config = RunConfig().replace(**SMALL, dropout_rate=0.0, **of_model, **of_loss)
            exact = gradients(data, config, torch.device("cpu"), half=False, double=True)
            floor = 1e-3 * float(sum(grad.square().sum() for name, grad in exact.items() if name != "loss")) ** 0.5
            for precision, bound in BOUNDS.items():
                found = gradients(data, config, device, half=precision == "bf16", double=False)
                worst, name = max((distance(found[name], exact[name], floor), name) for name in exact)
                yield worst <= bound, f"{model:14s} {loss:20s} {precision}  {worst:.1e} in {name}"


def trained(data: Dataset, device: torch.device, **settings: Any) -> dict[str, torch.Tensor]:
    """The last weights of a short training."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        sasrec.train(data, run, **SMALL, num_epochs=3, device=str(device), **settings)
        return store.load(sorted((run / "checkpoints").glob("step-*"))[-1]).weights


def bits(device: torch.device) -> Iterator[tuple[bool, str]]:
    """A row for each model, without and with dropout, not deterministic and deterministic."""
    data = events(200, 300, 30)
    for model, of_model in MODELS.items():
        for dropout in (0.0, 0.2):
            for deterministic in (False, True):
                settings = {**of_model, "dropout_rate": dropout, "deterministic": deterministic}
                one, other = (trained(data, device, **settings) for _ in range(2))
                same = all(torch.equal(one[name], other[name]) for name in one)
                how = "deterministic" if deterministic else "as it comes"
                yield (
                    same or not deterministic,
                    f"{model:14s} dropout {dropout} {how}: {'equal' if same else 'differ'}",
                )


def steps(loader: Loader, config: RunConfig, num_items: int, device: torch.device) -> Iterator[int]:
    """Do a training step each time; yield the number of its targets. Reads nothing but one array a step."""
    torch.manual_seed(0)
    model = build_model(num_items, config.model).train().to(device)
    optimizer = build_optimizer(model, config.training)
    epoch = 0
    while True:
        for batch in loader.rest_of(epoch, 0, range(1), 1):
            optimizer.zero_grad()
            loss = training_loss(model, batch, config.loss)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = health.gradient_norm(model)
            optimizer.step()
            yield len(batch.targets_P)
            del norm
        epoch += 1


def stalls(device: torch.device) -> Iterator[tuple[bool, str]]:
    """A row for each model and loss: do 20 steps without a read?"""
    if device.type != "cuda":
        yield True, "only CUDA can tell; tests/contract/test_devices.py checks the same on a stand-in device"
        return
    data = events(400, 300, 30)
    for model, of_model in MODELS.items():
        for loss, of_loss in LOSSES.items():
            config = RunConfig().replace(**SMALL, **of_model, **of_loss)
            step = steps(loader_of(data, config, device), config, data.num_items, device)
            next(step)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(20):
                    next(step)
                yield True, f"{model:14s} {loss:20s} no stall in 20 steps"
            except RuntimeError as error:
                yield False, f"{model:14s} {loss:20s} {str(error).splitlines()[0]}"
            finally:
                torch.cuda.set_sync_debug_mode("default")


def speed(device: torch.device, large: bool) -> Iterator[tuple[bool, str]]:
    """A row for each shape, model and loss: milliseconds a step, targets a second, peak memory."""
    shapes = {"20,000 items, length 50": (2_000, 20_000, 50, 50)}
    if large:
        shapes |= {
            "3,400 items, length 200": (2_000, 3_400, 200, 200),
            "1,000,000 items": (2_000, 1_000_000, 50, 50),
        }
    for shape, (users, items, longest, maxlen) in shapes.items():
        data = events(users, items, longest)
        for model, of_model in MODELS.items():
            for loss, of_loss in LOSSES.items():
                if items > 100_000 and loss == "ce" and device.type == "cpu":
                    continue
                config = RunConfig().replace(maxlen=maxlen, hidden_units=64, batch_size=128, **of_model, **of_loss)
                try:
                    row = timed(data, config, device, items)
                except torch.OutOfMemoryError:
                    row = "does not fit into the memory"
                    torch.accelerator.empty_cache()
                yield True, f"{shape:25s} {model:14s} {loss:20s} {row}"


def timed(data: Dataset, config: RunConfig, device: torch.device, num_items: int) -> str:
    """Median milliseconds of 20 steps after 5, targets a second and peak memory, as text.

    The catalogue has `num_items` items, of which the data may hold fewer.
    """
    if device.type not in ("cpu", "mps"):
        torch.accelerator.reset_peak_memory_stats()
    step = steps(loader_of(data, config, device, num_items), config, num_items, device)
    for _ in range(5):
        next(step)
    times, targets = [], 0
    for _ in range(20):
        wait(device)
        began = time.perf_counter()
        targets += next(step)
        wait(device)
        times.append(time.perf_counter() - began)
    memory = "".join(f", {value:,.0f} MB" for value in health.peak_memory(device).values())
    return f"{1000 * statistics.median(times):8.2f} ms, {targets / sum(times):10,.0f} targets/s{memory}"


def wait(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def main() -> int:
    """Print each row; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=["parity", "bits", "stalls", "speed"], nargs="*")
    options = parser.parse_args()
    device = pick_device(options.device)
    if device.type == "cpu" and options.device != "cpu":
        print("This machine has no accelerator. Parity, bits, stalls and the times of steps wait for one.")
        return 0
    print(", ".join(f"{name} {value}" for name, value in surroundings(device).items()))
    rows = {
        "parity": parity,
        "bits": bits,
        "stalls": stalls,
        "speed": lambda device: speed(device, device.type != "cpu"),
    }
    failed = 0
    for name in options.only or rows:
        print(f"\n{name}", flush=True)
        for good, row in rows[name](device):
            failed += not good
            print(f"  {'ok  ' if good else 'FAIL'}  {row}", flush=True)
    print(f"\n{failed} rows failed" if failed else "\nall rows hold")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
