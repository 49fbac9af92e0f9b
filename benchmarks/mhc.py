"""The study of residuals over depth: collect its runs, time its steps, and write docs/measurements/mhc-study.md.

    sasrec study run benchmarks/mhc-ml-100k.toml              # hours; continues after an interruption
    python benchmarks/mhc.py collect runs/mhc-ml-100k         # runs -> benchmarks/results/mhc.json
    python benchmarks/mhc.py time --data FILE                 # milliseconds a step, the cells interleaved
    python benchmarks/mhc.py write                            # -> docs/measurements/mhc-study.md and its figure

`collect` needs the run folders; `write` needs only the stored results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/mhc.json"
DOC, FIGURE = ROOT / "docs/measurements/mhc-study.md", ROOT / "docs/pictures/mhc-study.svg"
RESIDUALS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gated": {"gated": True},
    "mHC sinkhorn": {"mhc": True},
    "mHC birkhoff": {"mhc": True, "mhc_projection": "birkhoff"},
    "mHC orthogonal": {"mhc": True, "mhc_projection": "orthogonal"},
}
Row = dict[str, Any]


def residual_of(model: Any) -> str:
    """The name of a model's residual connection."""
    if model.mhc:
        return f"mHC {model.mhc_projection}"
    return "gated" if model.gated else "plain"


def collect(folders: list[Path]) -> None:
    """Store what the runs of studies measured, and the comparisons with the plain residual of the same depth."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": [], "differences": [], "steps": {}}
    for folder in folders:
        rows, differences = _of_study(folder)
        for name, found in (("runs", rows), ("differences", differences)):
            stored[name] = [row for row in stored[name] if row["study"] != folder.name] + found
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def _of_study(folder: Path) -> tuple[list[Row], list[Row]]:
    from sasrec.runs.folder import RunFolder
    from sasrec.studies.compare import compare
    from sasrec.studies.study import open_study

    rows, paths = [], defaultdict(list)
    _, queue = open_study(folder)
    for entry in queue.entries():
        if entry.state != "done" or entry.job is None:
            continue
        run, model = RunFolder(folder / entry.run), entry.job.config.model
        metrics, events, ended = run.metrics(), run.events(), run.ending()
        assert ended is not None
        measured = [event for event in events if event["event"] == "diagnostics"]
        row = {
            "study": folder.name,
            "encoder": "TiSASRec" if model.time else "SASRec",
            "residual": residual_of(model),
            "depth": model.num_blocks,
            "width": model.hidden_units,
            "lr": entry.job.config.training.lr,
            "seed": entry.job.seed,
            "parameters": next(event["parameters"] for event in events if event["event"] == "model"),
            "valid": metrics["valid"]["full"]["ndcg@10"],
            "test": metrics["test"]["full"]["ndcg@10"],
            "hr": metrics["test"]["full"]["hr@10"],
            "best_epoch": ended.best_epoch,
            "gradient_norm": statistics.median(event["gradient_norm"] for event in measured[1:]),
            "gain": measured[-1].get("gain", []),
            "diversity": measured[-1].get("diversity", []),
        }
        rows.append(row)
        paths[_cell(row)].append(str(folder / entry.run))
    differences = []
    for cell, runs in paths.items():
        encoder, residual, depth, width, lr = cell
        base = paths.get((encoder, "plain", depth, width, lr), [])
        for name, others in (("plain", base), ("shallow", paths.get((encoder, residual, 2, width, lr), []))):
            if others and others != runs:
                labels = dict.fromkeys(others, "first") | dict.fromkeys(runs, "other")
                found = compare([*others, *runs], labels=labels).others[0].difference
                numbers = {"mean": found.mean, "low": found.low, "high": found.high, "p": found.p_value}
                differences.append({"study": folder.name, "cell": cell, "against": name, **numbers})
    return rows, differences


def _cell(row: Row) -> tuple[Any, ...]:
    return (row["encoder"], row["residual"], row["depth"], row["width"], row["lr"])


def measure_steps(data: str, rounds: int) -> None:
    """Store the median time of a training step of each cell, in ms; the cells take turns."""
    import torch

    import sasrec
    from sasrec.batches.batches import TrainingBatches
    from sasrec.batches.loader import Loader
    from sasrec.batches.ticks import with_ticks
    from sasrec.config.settings import RunConfig
    from sasrec.data.splits import split_events
    from sasrec.losses.loss import training_loss
    from sasrec.models import build_model
    from sasrec.training.optimizer import build_optimizer

    events = sasrec.prepare(data)
    base = RunConfig().replace(
        maxlen=50, num_heads=2, dropout_rate=0.3, loss="ce", batch_size=32, windows="random"
    )
    steps: dict[str, list[float]] = defaultdict(list)
    kinds = [
        *(("SASRec", residual, 64) for residual in RESIDUALS),
        *(("TiSASRec", residual, 64) for residual in ("plain", "mHC sinkhorn")),
        ("SASRec", "plain", 128),
    ]
    for _ in range(rounds):
        for (encoder, residual, width), depth in itertools.product(kinds, (2, 4, 8, 12)):
            own = RESIDUALS[residual] | {"hidden_units": width, "time": encoder == "TiSASRec"}
            config = base.replace(num_blocks=depth, **own)
            split = with_ticks(split_events(events, "leave-one-out"), events, config.model)
            batches = TrainingBatches.of(split.training, events.num_items, config, split.known_V)
            model = build_model(events.num_items, config.model)
            optimizer = build_optimizer(model, config.training)
            loader = Loader(batches, torch.device("cpu"))
            for step in range(8):
                batch = loader.batch(0, step)
                began = time.perf_counter()
                training_loss(model, batch, config.loss).backward()
                optimizer.step()
                optimizer.zero_grad()
                if step >= 3:
                    steps[f"{encoder}, {residual}, {depth}, {width}"].append(1000 * (time.perf_counter() - began))
    stored = json.loads(RESULTS.read_text())
    stored["steps"] = {cell: round(statistics.median(found), 2) for cell, found in steps.items()}
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["collect", "time", "write"])
    parser.add_argument("folders", nargs="*", type=Path, help="collect: folders of studies")
    parser.add_argument("--data", help="time: the events of MovieLens 100K")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    if asked.action == "collect":
        collect(asked.folders)
    elif asked.action == "time":
        measure_steps(asked.data, asked.rounds)
    else:
        from benchmarks.mhc_page import write

        write(json.loads(RESULTS.read_text()), DOC, FIGURE)


if __name__ == "__main__":
    main()
