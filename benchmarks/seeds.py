r"""Measure the false positives of `sasrec compare`: compare many seeds of one model as if they were two models.

    python benchmarks/seeds.py FOLDER --data FILE --runs 21 --maxlen 50 --hidden_units 32 --num_epochs 12

The script trains the runs; it reuses finished runs and resumes interrupted ones. Since all runs belong to one
model, at most 5 % of the comparisons should show a difference. The script prints this share twice: for intervals
over users only, as `compare` computes them with one run per side, and for intervals over users and seeds. With up
to 40 runs, the comparisons share runs (all pairs, or 200 random draws). With more runs, they are disjoint.

With the synthetic data and the settings of the slow test:

    python -c "from tests.synthetic import chain_frame as made; made(200, 40, longest=12).write_csv('made.csv')"
    python benchmarks/seeds.py FOLDER --data made.csv --runs 400 --maxlen 12 --hidden_units 16 --dropout_rate 0.2 \
        --batch_size 32 --lr 1e-2 --num_epochs 10 --eval_every 1 --patience 3
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

import sasrec
from sasrec.evaluation.metrics import of_targets
from sasrec.evaluation.significance import paired_bootstrap, seed_noise
from sasrec.runs.folder import RunFolder

SETTINGS = {
    "maxlen": 50,
    "hidden_units": 32,
    "dropout_rate": 0.3,
    "batch_size": 16,
    "lr": 2e-3,
    "num_epochs": 12,
    "eval_every": 2,
    "patience": 10,
}


def ranks(folder: Path, data: str, seed: int, settings: dict[str, float]) -> np.ndarray:
    """(rows,) the model's full ranks on test. Trains the model if it is not trained."""
    run = folder / str(seed)
    if not RunFolder(run).is_finished():
        if RunFolder(run).can_resume():
            sasrec.resume(run, seed=seed, **settings)
        else:
            sasrec.train(data, run, seed=seed, device="cpu", **settings)
    frame = pl.read_parquet(run / "ranks.parquet")
    frame = frame.filter(pl.col("scorer") == "model", pl.col("split") == "test").sort("event")
    return frame["full"].cast(pl.Float64).to_numpy()


def sides(runs: int, size: int, random: np.random.Generator) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Pairs of groups of `size` runs each."""
    if size == 1 and runs <= 40:
        return [((a,), (b,)) for a, b in itertools.combinations(range(runs), 2)]
    if runs <= 40:
        drawn = [random.permutation(runs)[: 2 * size] for _ in range(200)]
    else:
        drawn = [np.arange(2 * size) + start for start in range(0, runs - 2 * size + 1, 2 * size)]
    return [(each[:size], each[size:]) for each in drawn]


def main() -> None:
    """Train, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=21)
    for name, value in SETTINGS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args()
    if options.runs < 6:
        parser.error("three a side need --runs 6 or more")
    settings = {name: getattr(options, name) for name in SETTINGS}
    found = [ranks(options.folder, options.data, seed, settings) for seed in range(options.runs)]
    for metric in ("ndcg@10", "hr@10"):
        values = np.stack([of_targets(each, metric) for each in found])
        means = values.mean(1)
        print(f"{metric}: mean {means.mean():.4f}, standard deviation over seeds {means.std(ddof=1):.4f}")
        for size in (1, 2, 3):
            users_only, with_seeds = [], []
            for first, second in sides(options.runs, size, np.random.default_rng(0)):
                noise = seed_noise([means[list(side)].tolist() for side in (first, second)])
                differences = values[list(second)].mean(0) - values[list(first)].mean(0)
                users = np.arange(len(differences))
                users_only.append(paired_bootstrap(differences, users, 1000).p_value <= 0.05)
                with_seeds.append(paired_bootstrap(differences, users, 1000, noise=noise).p_value <= 0.05)
            shown = f"{np.mean(users_only):6.1%} by users alone"
            if size > 1:
                shown += f", {np.mean(with_seeds):6.1%} with seeds"
            print(f"  {size} a side, {len(users_only)} comparisons, called different: {shown}")


if __name__ == "__main__":
    main()
