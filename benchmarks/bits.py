"""Hashes of what training and evaluation give, so that two versions of the code can be held against each other.

    python benchmarks/bits.py --data FOLDER > before.txt      # on one commit
    python benchmarks/bits.py --data FOLDER > after.txt       # on the other
    diff before.txt after.txt                                 # empty: the numbers are bit-identical

Each line is a run of two epochs: its name, then the SHA-256 of metrics.json without the version of the code, and
of the contents of ranks.parquet. FOLDER has the files of DATA below. One thread; ten minutes, or one with --quick.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

RECIPES = Path(__file__).parents[1] / "recipes"
DATA = {
    "ml-1m": "ml-1m.tsv.gz",
    "ml-100k": "ml-100k.tsv.gz",
    "games": "video-kang205.tsv.gz",
    "beauty": "beauty-ticoserec.tsv.gz",
}
MODELS = {"sasrec": [], "tisasrec": ["--time"], "sasrec-mhc": ["--mhc"], "tisasrec-mhc": ["--time", "--mhc"]}
SMALL = ["--maxlen", "50", "--hidden_units", "32"]


def runs(quick: bool) -> dict[str, list[str]]:
    """Name -> arguments of `sasrec train`, without the data and the folder of the run."""
    found = {f"ml-100k {name}": [*SMALL, *flags] for name, flags in MODELS.items()}
    found["ml-100k temporal"] = [
        *SMALL,
        "--split",
        "temporal:0.8",
        "--time",
        "--loss",
        "softmax",
        "--num_negatives",
        "16",
    ]
    found["ml-100k popularity"] = [*SMALL, "--loss", "gbce", "--num_negatives", "8", "--negatives", "popularity"]
    found["ml-100k accumulate"] = [*SMALL, "--loss", "bce", "--accumulate", "3", "--windows", "random"]
    if not quick:
        found |= {f"{path.stem} recipe": ["--recipe", str(path)] for path in sorted(RECIPES.glob("*.toml"))}
    return found


def data_of(name: str, folder: Path) -> Path:
    """The file that a run trains on."""
    return folder / DATA[next(data for data in DATA if name.startswith(data))]


def digest(run: Path) -> str:
    """The hashes of a run's metrics and ranks."""
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["protocol"]["sasrec"]
    ranks = pl.read_parquet(run / "ranks.parquet").write_csv().encode()
    return " ".join(
        hashlib.sha256(each).hexdigest()[:16] for each in (json.dumps(metrics, sort_keys=True).encode(), ranks)
    )


def main() -> None:
    """Train each, print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, arguments in runs(options.quick).items():
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            words = ["train", *arguments, "--dataset", str(data_of(name, options.data)), "--train_dir", str(run)]
            words += ["--num_epochs", "2", "--eval_every", "1"]
            done = subprocess.run(
                [sys.executable, "-m", "sasrec", *words],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            print(f"{name}: {digest(run) if done.returncode == 0 else done.stderr}", flush=True)


if __name__ == "__main__":
    main()
