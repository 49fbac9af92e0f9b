"""Compare one process with two threads against two processes with one thread each, on the same training.

    python benchmarks/ranks.py DATASET [--rounds 3] [--epochs 3] [settings of `sasrec train`]

Prints the positions per second of both, from log.jsonl without the first epoch. Prints the median and the range of
their ratio over rounds. Both run alternately. On GPUs, set CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def positions_per_second(words: list[str], threads: int, run: Path) -> float:
    """Train one run, and return its positions per second. The caller removes its folder."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([*words, f"--train_dir={run}"], env=environment, check=True, capture_output=True)
    events = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    speeds = [event["positions_per_second"] for event in events if event["event"] == "epoch"]
    return statistics.median(speeds[1:])


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    arguments, settings = parser.parse_known_args()
    work = ["-m", "sasrec", "train", f"--dataset={arguments.dataset}", f"--num_epochs={arguments.epochs}"]
    work += ["--eval_every=1000000", *settings]
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            alone = positions_per_second([sys.executable, *work], 2, Path(folder) / f"threads-{number}")
            shared = positions_per_second([sys.executable, *ranks, *work], 1, Path(folder) / f"ranks-{number}")
            ratios.append(shared / alone)
            print(f"2 threads {alone:9,.0f}   2 ranks {shared:9,.0f} positions a second   ratio {ratios[-1]:.2f}")
    print(f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
