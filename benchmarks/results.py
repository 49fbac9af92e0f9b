"""docs/results.md from runs: one command for the whole page.

    python benchmarks/results.py [--folder runs/reproduce] [--models runs/models] > docs/results.md

A row for each recipe and protocol that has runs of `sasrec reproduce` in the first folder; seeds that are missing
are said to be. Two tables for each folder of four_models.py in the second one, under the folder's name.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import four_models

from sasrec.config import RunConfig
from sasrec.reproduction import Recipe, metric_of, read_recipe, recipe_names

HEAD = """# Results

Made by `python benchmarks/results.py` from runs of `sasrec reproduce NAME`, {date}, and, farther down, of
`python benchmarks/four_models.py`. Means over seeds ± standard deviation; the checkpoint is chosen on
validation, figures are of test. "Best baseline" is the best of popularity, recent popularity, item-to-item
and Markov under the same protocol. Published values are of the same data and protocol, by their sources.
Minutes are of training, on one thread of a shared CPU with other work beside it. Rows that fall short stay;
what was tried is in [lab.md](lab.md).
"""


MODELS_HEAD = """## SASRec and TiSASRec, leave-one-out and temporal

Full catalogue, without the items a user has had; both models with the same settings, chosen for SASRec. The
second table of each is `sasrec compare` on test NDCG@10: differences of means over seeds, intervals over users
and seeds, p of each line by itself; [evaluation.md](evaluation.md#comparing-runs) says how to read them.
"""


def of_models(folder: Path) -> str:
    """The tables of a folder of four_models.py, under what its runs share."""
    runs = four_models.runs_of(folder)
    first = next(iter(runs.values()))[0]
    protocol = json.loads((first / "metrics.json").read_text())["protocol"]
    changed = RunConfig().differences(RunConfig.load(first / "config.toml"))
    settings = " ".join(
        f"--{name}" if value is True else f"--{name} {value}"
        for name, (_, value) in changed.items()
        if name not in ("dataset", "seed", "time", "device")
    )
    return (
        f"### {protocol['data']}, {RunConfig.load(first / 'config.toml').evaluation.split}\n\n"
        f"{protocol['test']['targets']:,} test targets; `{settings}`\n\n"
        f"{four_models.table(folder)}\n\n{four_models.margins(folder)}\n"
    )


def both(values: list[float]) -> str:
    """Mean and spread."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def row(recipe: Recipe, runs: list[Path], candidates: str) -> str:
    """One line of the table of a protocol."""
    found: list[dict[str, Any]] = [json.loads((run / "metrics.json").read_text()) for run in runs]
    shown = []
    for metric in ("ndcg@10", "hr@10"):
        name = f"test.{candidates}.{metric}"
        said = [f"{each.value:.4f} ({each.source})" for each in recipe.published if each.metric == name]
        shown.append((both([metric_of(each, name) for each in found]), "; ".join(said)))
    best = max(
        found[0]["baselines"],
        key=lambda name: metric_of(found[0], f"baselines.{name}.test.{candidates}.ndcg@10"),
    )
    baseline = metric_of(found[0], f"baselines.{best}.test.{candidates}.ndcg@10")
    seconds = [
        json.loads(line)["seconds"]
        for run in runs
        for line in (run / "log.jsonl").read_text().splitlines()
        if '"stopped"' in line
    ]
    missing = len(recipe.expected.seeds) - len(runs)
    seeds = f"{len(runs)}" + (f" ({missing} to come)" if missing else "")
    protocol = found[0]["protocol"]
    published = " / ".join(said for _, said in shown if said)
    cells = [
        f"{protocol['data']} {protocol['data_hash'][:8]}",
        f"[{recipe.name}](../recipes/{recipe.name}.toml)",
        seeds,
        *(value for value, _ in shown),
        f"{best} {baseline:.4f}",
        published,
        f"{statistics.mean(seconds) / 60:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--models", type=Path, default=Path("runs/models"))
    options = parser.parse_args()
    folder = options.folder
    made = {}
    for name in recipe_names():
        recipe = read_recipe(name)
        runs = [folder / f"{name}-{seed}" for seed in recipe.expected.seeds]
        if runs := [run for run in runs if (run / "metrics.json").exists()]:
            made[name] = (recipe, runs)
    dates = [
        json.loads((runs[0] / "log.jsonl").read_text().splitlines()[0])["time"][:10] for _, runs in made.values()
    ]
    print(HEAD.format(date=f"{min(dates)} to {max(dates)}" if dates else "no runs"))
    for candidates, title in (
        ("full", "Full catalogue, without the items a user has had"),
        ("sampled", "The papers' protocol: the target among 100 sampled negatives; not comparable with the above"),
    ):
        print(f"## {title}\n\n| data | recipe | seeds | NDCG@10 | HR@10 | best baseline | published | minutes |")
        print("|---|---|---|---|---|---|---|---|")
        for recipe, runs in made.values():
            print(row(recipe, runs, candidates))
        print()
    print(MODELS_HEAD)
    for each in sorted(options.models.iterdir()) if options.models.exists() else ():
        print(of_models(each))


if __name__ == "__main__":
    main()
