"""Hash the results of training and evaluation, to check that two versions of the code give bit-identical numbers.

    python benchmarks/bits.py --data FOLDER > before.txt      # on one commit
    python benchmarks/bits.py --data FOLDER > after.txt       # on another commit
    diff before.txt after.txt                                 # no output: the numbers are bit-identical

Each line describes a run of two epochs. It has the run's name and two SHA-256 hashes: of metrics.json without the
version of the code and the device, and of the contents of ranks.parquet. FOLDER must contain the files of DATA
below. It takes ten minutes on one thread, or one minute with --quick.
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
    """Name of each run -> arguments of `sasrec train`, except the data and the run folder."""
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
    """The file on which the run of this name trains."""
    return folder / DATA[next(data for data in DATA if name.startswith(data))]


def digest(run: Path) -> str:
    """Two hashes: of a run's metrics, and of its ranks."""
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("sasrec", "computed_on"):
        metrics["protocol"].pop(name, None)
    ranks = pl.read_parquet(run / "ranks.parquet").write_csv().encode()
    return " ".join(
        hashlib.sha256(each).hexdigest()[:16] for each in (json.dumps(metrics, sort_keys=True).encode(), ranks)
    )


def main() -> None:
    """Train each run and print its line."""
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
