"""Train the four models on one data set with a few seeds each, and print two tables in Markdown.

    python benchmarks/four_models.py FOLDER SETTINGS...     example: runs/four --dataset ml-100k --maxlen 100

Each model and seed is trained, evaluated and used for recommendation in FOLDER/MODEL-SEED, with the same commands.
Finished runs are skipped and interrupted runs are resumed. So several processes can fill one folder if each has
different --seeds.

The second table comes from `sasrec compare`. It compares the models with the best baseline and with the first
model.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import sasrec as package
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import events_of
from sasrec.studies.sentences import number, p_value

MODELS = {
    "SASRec": ["--no_time", "--no_mhc"],
    "TiSASRec": ["--time", "--no_mhc"],
    "SASRec + mHC": ["--no_time", "--mhc"],
    "TiSASRec + mHC": ["--time", "--mhc"],
}


def sasrec(*words: str) -> None:
    """Run the command line, and stop if it fails."""
    status = subprocess.run([sys.executable, "-m", "sasrec", *words], stdout=subprocess.DEVNULL).returncode
    if status:
        sys.exit(status)


def run(folder: Path, model: str, seed: int, settings: list[str]) -> None:
    """Train, evaluate and recommend. The last two load the weights from the run folder."""
    if is_done(folder):
        return
    resume = ["--resume"] if RunFolder(folder).can_resume() else []
    sasrec("train", "--train_dir", str(folder), *resume, "--seed", str(seed), *MODELS[model], *settings)
    trained = RunFolder(folder).metrics()
    sasrec("evaluate", str(folder))
    if RunFolder(folder).metrics() != trained:
        sys.exit(f"{folder}: the reloaded model has other metrics")
    sasrec("recommend", str(folder), "--all", "--k", "10", "--output", str(folder / "top.parquet"))


def figures(folder: Path) -> dict[str, float]:
    """What the table shows of one run."""
    ended, written, metrics = RunFolder(folder).ending(), events_of(folder), RunFolder(folder).metrics()
    assert ended is not None, "only runs that are done are shown"
    # A resumed run may have repeated an epoch, but its seconds count that epoch only once.
    epochs = max(event["epoch"] for event in written if event["event"] == "epoch")
    return {
        "valid": metrics["valid"]["full"]["ndcg@10"],
        "ndcg": metrics["test"]["full"]["ndcg@10"],
        "hr": metrics["test"]["full"]["hr@10"],
        "epochs": epochs,
        "best": ended.best_epoch,
        "seconds": ended.seconds / epochs,
        "parameters": next(event["parameters"] for event in written if event["event"] == "model"),
    }


def table(folder: Path) -> str:
    """Markdown table of means and standard deviations over existing seeds. Validation counts as epoch time."""
    lines = [
        "| model | seeds | parameters | validation NDCG@10 | test NDCG@10 | test HR@10 | best epoch | s / epoch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, runs in runs_of(folder).items():
        found = [figures(each) for each in runs]
        cells = [model, str(len(found)), f"{found[0]['parameters']:,}"]
        for key in ("valid", "ndcg", "hr"):
            values = [run[key] for run in found]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        cells.append(", ".join(f"{run['best']:.0f}" for run in found))
        cells.append(f"{statistics.mean(run['seconds'] for run in found):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    for name, of in baselines(folder).items():
        shown = [of["valid"]["full"]["ndcg@10"], of["test"]["full"]["ndcg@10"], of["test"]["full"]["hr@10"]]
        lines.append(f"| {name} | | | {' | '.join(f'{value:.4f}' for value in shown)} | | |")
    return "\n".join(lines)


def baselines(folder: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """The metrics of the baselines, which are equal in every run of the folder."""
    runs = [run for model in runs_of(folder).values() for run in model]
    return RunFolder(runs[0]).metrics()["baselines"] if runs else {}


def margins(folder: Path) -> str:
    """Differences in test NDCG@10 on the full catalogue, with confidence intervals over users and seeds."""
    found = {model: [str(run) for run in runs] for model, runs in runs_of(folder).items()}
    if not found:
        return ""
    first, counted = next(iter(found)), baselines(folder)
    best = max(counted, key=lambda name: counted[name]["test"]["full"]["ndcg@10"])
    head = ["model", "against", "NDCG@10 of the other", "difference", "95 % interval", "p"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|"]
    pairs = [(model, best, [f"{found[first][0]}:{best}"]) for model in found]
    pairs += [(model, first, found[first]) for model in found if model != first]
    for model, name, others in pairs:
        (against,) = (comparison := package.compare([*others, *found[model]])).others
        it = against.difference
        cells = [model, name, number(comparison.first.metrics["ndcg@10"]), number(it.mean)]
        cells += [f"{number(it.low)} to {number(it.high)}", p_value(against.adjusted_p)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def slug(model: str) -> str:
    """The model's name in a form for folder names."""
    return model.lower().replace(" + ", "-")


def is_done(folder: Path) -> bool:
    """Whether a run has ended, and the last of the three commands too."""
    return RunFolder(folder).is_finished() and (folder / "top.parquet").exists()


def runs_of(folder: Path) -> dict[str, list[Path]]:
    """Model -> its finished runs. Models without finished runs are omitted."""
    done = {
        model: [run for run in sorted(folder.glob(f"{slug(model)}-[0-9]*")) if is_done(run)] for model in MODELS
    }
    return {model: runs for model, runs in done.items() if runs}


def main() -> None:
    """Train the missing runs, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: only the table")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options, settings = parser.parse_known_args()
    for seed in options.seeds:
        for model in options.models:
            run(options.folder / f"{slug(model)}-{seed}", model, seed, settings)
    print(f"{table(options.folder)}\n\n{margins(options.folder)}")


if __name__ == "__main__":
    main()
