"""Show how each split leaks later events into training: as a picture, and as a share of the training events.

    python benchmarks/leaks.py --figure docs/pictures/leaks.svg
    python benchmarks/leaks.py --data FILE

The picture shows synthetic users, split by `split_events`. For FILE, which must have times, the script prints the
share of training events that are later than a test target, averaged over targets. The figure needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

import sasrec
from sasrec.data.dataset import Dataset
from sasrec.data.splits import split_events

SPLITS = ("leave-one-out", "last-2", "temporal:0.8")


def made() -> Dataset:
    """Nine synthetic users who come and go within a hundred days, with items that change over time."""
    random = np.random.default_rng(5)
    rows = []
    for user in range(9):
        first = random.uniform(0, 60)
        days = np.sort(random.uniform(first, min(100, first + random.uniform(20, 70)), random.integers(6, 11)))
        rows += [(f"u{user}", f"i{each}", int(86_400 * day)) for each, day in enumerate(days)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return sasrec.prepare(frame, time_unit="s")


def draw(path: Path) -> None:
    """Draw each user's events on a line of time, coloured by their role in each split."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sasrec", "font.size": 9})
    figure, panels = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained", sharey=True)
    data = made()
    days = data.times / 86_400e6
    user_of = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    for panel, how in zip(panels, SPLITS, strict=True):
        split = split_events(data, how)
        kind = np.full(data.num_events, "only shown, or unused", dtype=object)
        kind[np.flatnonzero(split.known_V[data.items])[split.training.flat()]] = "training"
        kind[split.valid.events], kind[split.test.events] = "validation target", "test target"
        earliest = days[split.test.events].min()
        later = (kind == "training") & (days > earliest)
        for name, colour, marker in (
            ("training", "0.55", "o"),
            ("validation target", "C0", "D"),
            ("test target", "C3", "s"),
            ("only shown, or unused", "0.8", "x"),
        ):
            panel.scatter(days[kind == name], user_of[kind == name], 14, colour, marker=marker, label=name)
        label = "training, after the first test target"
        panel.scatter(days[later], user_of[later], 40, facecolors="none", edgecolors="C1", label=label)
        panel.axvline(earliest, color="C3", linewidth=0.7)
        for boundary in split.boundaries or ():
            panel.axvline(boundary / 86_400e6, color="k", linestyle=":", linewidth=0.9)
        panel.set(title=f"{how}: {later.sum()} of {(kind == 'training').sum()}", xlabel="day", yticks=[])
    panels[0].set_ylabel("users")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize="small", frameon=False)
    figure.savefig(path, metadata={"Date": None})


def measure(path: Path) -> None:
    """Print a line for each split."""
    data = sasrec.prepare(path)
    for how in SPLITS:
        split = split_events(data, how)
        training = np.sort(split.event_times[split.training.flat()])
        targets = data.times[split.test.events]
        if not len(targets):
            print(f"{how}: nobody has a target")
            continue
        share = 1 - np.searchsorted(training, targets, side="right") / len(training)
        print(
            f"{how}: {len(targets):,} targets; of {len(training):,} training events later than a target: "
            f"mean {share.mean():.1%}, median {np.median(share):.1%}, most {share.max():.1%}"
        )


def main() -> None:
    """Draw or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    if options.figure:
        draw(options.figure)
    if options.data:
        measure(options.data)


if __name__ == "__main__":
    main()
