"""Explain why metrics on 100 sampled negatives are several times higher than on the full catalogue.

    python benchmarks/sampled.py --figure docs/pictures/sampled-against-full.svg
    python benchmarks/sampled.py --run RUN

Suppose that a target has rank r among itself and M other items. A random negative ranks above the target with
probability (r - 1) / M, so the sampled rank is 1 + Binomial(100, (r - 1) / M). With --run, the script predicts the
sampled NDCG@10 and HR@10 on test from the run's full ranks, and prints them beside the measured values. --figure
needs matplotlib.
"""

from __future__ import annotations

import argparse
from math import comb
from pathlib import Path

import numpy as np
import polars as pl

import sasrec
from sasrec.data.splits import split_events
from sasrec.runs.folder import RunFolder

NEGATIVES, K = 100, 10


def expected(above: np.ndarray, others: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """The expected NDCG@10 and HR@10 of a target over random negatives."""
    p = np.asarray(above / others, np.float64)
    chance = [comb(NEGATIVES, j) * p**j * (1 - p) ** (NEGATIVES - j) for j in range(K)]
    return sum(c / np.log2(2 + j) for j, c in enumerate(chance)), sum(chance)


def check(run: Path) -> None:
    """Predicted and measured, model and baselines."""
    split, metrics = split_events(sasrec.load(run, device="cpu").data).test, RunFolder(run).metrics()
    histories = split.histories
    seen = [
        len({*histories.items[start:end].tolist(), int(target)})
        for start, end, target in zip(histories.starts, histories.ends, split.targets, strict=True)
    ]
    others = int(split.known_V.sum()) - np.array(seen)
    frame = pl.read_parquet(run / "ranks.parquet").filter(pl.col("split") == "test")
    for scorer in frame["scorer"].unique(maintain_order=True):
        above = frame.filter(pl.col("scorer") == scorer)["full"].cast(pl.Float64).to_numpy() - 1
        measured = (metrics if scorer == "model" else metrics["baselines"][scorer])["test"]
        for name, predicted in zip(("ndcg@10", "hr@10"), expected(above, others), strict=True):
            full, sampled = (measured[candidates][name] for candidates in ("full", "sampled"))
            print(f"{scorer} {name}: full {full:.4f}, sampled {sampled:.4f}, predicted {predicted.mean():.4f}")


def draw(path: Path) -> None:
    """Draw NDCG@10 and HR@10 of one target against its rank in the full catalogue."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sasrec", "font.size": 9})
    figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for others, colour in ((1_600, "C0"), (20_000, "C1")):
        rank = np.unique(np.geomspace(1, others / 2, 60).round())
        for panel, gain in zip(panels, expected(rank - 1, others), strict=True):
            panel.plot(rank, gain, colour, label=f"100 negatives from {others:,} items")
    rank = np.array([*range(1, 11), 10.001, 10_000])
    panels[0].plot(rank, np.where(rank <= K, 1 / np.log2(1 + rank), 0), "k--", label="full catalogue")
    panels[1].plot(rank, np.where(rank <= K, 1, 0), "k--")
    for panel, title in zip(panels, ("NDCG@10", "HR@10"), strict=True):
        panel.set(title=f"what a target adds to {title}", xlabel="its rank in the full catalogue", xscale="log")
        panel.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Draw or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    if options.figure:
        draw(options.figure)
    if options.run:
        check(options.run)


if __name__ == "__main__":
    main()
