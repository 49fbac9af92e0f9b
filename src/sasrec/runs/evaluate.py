"""A run folder that has been trained: find its checkpoint and its data, load it, measure it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

from sasrec.checkpoint.restore import check_data, checkpoint_at, config_of, exported_items, model_of
from sasrec.config.settings import RunConfig
from sasrec.data.dataset import open_dataset
from sasrec.errors import CheckpointError, EvaluationError
from sasrec.evaluation.measure import evaluate_scorer, nobody
from sasrec.evaluation.metrics import Metrics
from sasrec.files import write_whole
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.folder import METRICS, RANKS, dataset_of
from sasrec.runtime.device import pick_device
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import joined, rank


def load(
    run: str | Path,
    *,
    device: str = "auto",
    dataset: str | Path | None = None,
    checkpoint: str | Path | None = None,
) -> Recommender:
    """The recommender of a run: its best checkpoint (or the one named) and its data set (or another copy).

    Raises: CheckpointError or DataError if anything is missing, damaged, or belongs to other data.
    """
    folder = Path(run)
    if not (folder / "config.toml").exists():
        raise CheckpointError(f"{folder} is not a run folder (no config.toml): name one that `sasrec train` made")
    config = RunConfig.load(folder / "config.toml")
    data = open_dataset(dataset) if dataset else dataset_of(folder, config)
    found = checkpoint_at(Path(checkpoint) if checkpoint else folder)
    check_data(found, data)
    model = model_of(found, data).to(pick_device(device)).eval()
    return Recommender(model, data, config_of(found).evaluation.split, exported_items(found, data))


def evaluate(
    run: str | Path,
    *,
    device: str = "auto",
    dataset: str | Path | None = None,
    checkpoint: str | Path | None = None,
    details: bool = False,
    log: RunLog | None = None,
) -> Metrics:
    """Measure the best checkpoint of a run, or the one named, on validation and test.

    The metrics of the best are also written to RUN/metrics.json, its ranks to RUN/ranks.parquet for `compare`, and
    that they were to RUN/log.jsonl.
    `details`: also measure what lies beyond accuracy, and slices of users and targets, on test.

    Returns {split: {"full" | "sampled": {"ndcg@10": …}}, "baselines": …, "protocol": the card that
    evaluation/card.py describes, and, if asked for, "details": as evaluation/details.py says}. A split without
    targets is not there.

    Raises: EvaluationError for an export, which has no events, or if neither split has a target; as `load`.
    """
    with joined(pick_device(device).type):
        log = RunLog.of_run(None if checkpoint else Path(run) / "log.jsonl", log or RunLog(None))
        recommender = load(run, device=device, dataset=dataset, checkpoint=checkpoint)
        if not recommender.data.num_events:
            raise EvaluationError(f"{run} is an export, which has no events: evaluate the run that it was made of")
        return _measure(recommender, None if checkpoint else Path(run), log, details=details)


def measured(folder: Path, device: torch.device, log: RunLog) -> Recommender:
    """The recommender of a run, whose metrics are written to it if there is anybody to measure on."""
    recommender = load(folder, device=str(device))
    valid, test = recommender.split.valid, recommender.split.test
    if len(valid.targets) or len(test.targets):
        _measure(recommender, folder, log)
    else:
        log.say(f"note: {nobody(valid)}, and {nobody(test)}: nothing is measured, and no metrics.json is written")
    return recommender


def _measure(recommender: Recommender, folder: Path | None, log: RunLog, *, details: bool = False) -> Metrics:
    scorer = ModelScorer(recommender.model)
    measured = evaluate_scorer(scorer, recommender.data, recommender.split, log=log, details=details)
    metrics = Metrics(measured.metrics)
    if rank() == 0 and folder is not None:
        ranks = io.BytesIO()
        measured.ranks.write_parquet(ranks)
        write_whole(folder / RANKS, ranks.getvalue())
        write_whole(folder / METRICS, json.dumps(metrics, indent=2))
    try:
        log.event("metrics", **{split: metrics[split] for split in ("valid", "test") if split in metrics})
    except OSError as error:  # another user's file, in a folder that both may write to
        log.say(f"note: that it was measured is not in its log: {error}")
    return metrics
