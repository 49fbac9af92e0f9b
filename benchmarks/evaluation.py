"""Time full-catalogue evaluation on Amazon Games, for several implementations that run alternately.

    python benchmarks/evaluation.py --data FILE

The implementations are ours, RecBole's (if it is installed, with its own SASRec of the same size), the usual
PyTorch code, and the bare matrix product of states and items. All except the bare product start from histories and
end with metrics. The model is an untrained SASRec with 50 units, 2 blocks and maxlen 50. All users of the test
split are evaluated.

FILE has lines of `user item` without a header, in the order of time. The memory of some implementations is
measured first, each in a separate process (Linux only).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from evaluation_recbole import Way, recbole_names, recbole_versions, recbole_ways

import sasrec
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import split_events
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import sampled_negatives, target_ranks
from sasrec.models import build_model
from sasrec.ranking.scorers import ModelScorer
from sasrec.ranking.selection import seen_items

DATA = Path(__file__).resolve().parents[1] / "../shared/data/video-kang205.tsv.gz"
OURS, BARE = "ours", "bare product, 4096 users"


def ways(data: Dataset, names: list[str] | None = None) -> dict[str, Way]:
    """Name of an implementation -> a function that evaluates once and returns HR@10, or 0 if it does not rank."""
    torch.manual_seed(0)
    config = RunConfig().replace(maxlen=50, hidden_units=50, num_blocks=2, num_heads=1)
    scorer = ModelScorer(build_model(data.num_items, config.model).eval())
    split = split_events(data).test
    order = np.argsort(split.histories.lengths, kind="stable")
    table_VD = scorer.model.item_embedding.weight.detach()
    states_BD = scorer.states(split.histories, order)
    negatives = sampled_negatives(split, data.num_items, 100, seed=0)

    def ours() -> float:
        return metrics_from_ranks(target_ranks(scorer, split).full)["hr@10"]

    def ours_and_sampled() -> float:
        return metrics_from_ranks(target_ranks(scorer, split, negatives=negatives).full)["hr@10"]

    def encode() -> float:
        scorer.states(split.histories, order)
        return 0.0

    def usual(users: int) -> float:
        """Score `users` users at a time, set seen items to -inf, and look for the target among the top 50."""
        states_BD = scorer.states(split.histories, order)
        hits = []
        for start in range(0, len(order), users):
            rows = order[start : start + users]
            scores_BV = states_BD[start : start + users] @ table_VD.T
            scores_BV[:, 0] = -torch.inf
            scores_BV[tuple(map(torch.from_numpy, seen_items(split.histories, rows)))] = -torch.inf
            top_BK = scores_BV.topk(50).indices
            hits.append(top_BK == torch.from_numpy(split.targets[rows]).unsqueeze(1))
        hits_BK = torch.cat(hits).double()
        (hits_BK / torch.arange(2, 52).log2()).sum(1).mean()  # NDCG@50
        return float(hits_BK[:, :10].sum(1).mean())

    def bare(users: int) -> float:
        for chunk_BD in states_BD.split(users):
            torch.mm(chunk_BD, table_VD.T)
        return 0.0

    made: dict[str, Way] = {OURS: ours}
    if set(recbole_names()).intersection(names or recbole_names()):
        made |= recbole_ways(data, split, config.model)
    made |= {
        "ours and 100 sampled": ours_and_sampled,
        "usual, 1024 users": lambda: usual(1024),
        "usual, 4096 users": lambda: usual(4096),
        BARE: lambda: bare(4096),
        "bare product, 22 users": lambda: bare(22),
        "encoding, of ours and usual": encode,
    }
    return {name: made[name] for name in names or made}


def memory_mb(what: str) -> float:
    """One line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


def print_memory(data: Dataset, name: str) -> None:
    """Print the peak memory of this process while an implementation runs, and its memory before."""
    way = ways(data, [name])[name]
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present memory
    before = memory_mb("VmRSS")
    way()
    print(f"memory  {name:20s} at most {memory_mb('VmHWM'):5.0f} MB, before it {before:4.0f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds, not the clock's")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.memory_of:
        for name in (OURS, *recbole_names(), "usual, 1024 users", "usual, 4096 users"):
            again = [sys.executable, __file__, "--data", str(options.data), "--threads", str(options.threads)]
            subprocess.run([*again, "--memory_of", name], check=True)
    data = sasrec.prepare(options.data)
    if options.memory_of:
        print_memory(data, options.memory_of)
        return
    print(f"torch {torch.__version__}, {options.threads} threads, load average {os.getloadavg()[0]:.2f}")
    print(f"{len(split_events(data).test.targets):,} users, {data.num_items:,} items")
    clock = time.process_time if options.cpu else time.perf_counter
    seconds: dict[str, list[float]] = {}
    made = ways(data)
    if recbole_names():
        print(f"{recbole_versions()}: the same users, histories and targets")
    for number in range(options.rounds):
        for name in list(made) if number % 2 == 0 else list(made)[::-1]:
            began = clock()
            hit_rate = made[name]()
            seconds.setdefault(name, []).append(clock() - began)
            if not number and hit_rate:
                print(f"{name}: HR@10 {hit_rate:.6f}")
    print_table(seconds)


def print_table(seconds: dict[str, list[float]]) -> None:
    """Print each median and range, and the median and range of its ratios to ours and to the bare product."""
    for name, taken in seconds.items():
        shown = f"{statistics.median(taken):6.2f} s, {min(taken):5.2f} to {max(taken):5.2f}"
        for other, called in ((OURS, "ours"), (BARE, "bare")):
            ratios = [a / b for a, b in zip(taken, seconds[other], strict=True)]
            shown += f"  {statistics.median(ratios):5.2f} × {called} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:28s}{shown}")


if __name__ == "__main__":
    main()
