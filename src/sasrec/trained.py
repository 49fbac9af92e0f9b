"""A run folder that has been trained: find its checkpoint and its data, load it, measure it."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sasrec.checkpoint import store
from sasrec.config import RunConfig, write_whole
from sasrec.data.dataset import Dataset, open_dataset
from sasrec.errors import CheckpointError, ConfigError, EvaluationError
from sasrec.evaluation import metrics as figures
from sasrec.evaluation.protocol import evaluate_scorer, nobody
from sasrec.evaluation.ranking import ModelScorer
from sasrec.models import SequenceModel, build_model
from sasrec.recommend import Recommender
from sasrec.training.distributed import device_number, joined, rank
from sasrec.training.run_log import RunLog, events_of

CHECKPOINTS, METRICS, RANKS = "checkpoints", "metrics.json", "ranks.parquet"
KNOWN_ITEMS = "known_items"  # of an export's checkpoint: packed bits, one an item and padding, in base 64


@dataclass(frozen=True)
class Ending:
    """How a run came to its end."""

    reason: str
    """As the trainer words it."""
    best_epoch: int
    seconds: float
    """Of training, all parts of an interrupted run together."""
    time: str
    """When, ISO 8601."""
    measured: bool
    """Whether its metrics.json is of after that."""


def ending(run: Path) -> Ending | None:
    """How a run ended, or None if it has not: it was interrupted, has been taken up again, or left no word."""
    told = [each for each in events_of(run) if each["event"] in ("start", "resume", "stopped", "metrics")]
    at = max((place for place, each in enumerate(told) if each["event"] != "metrics"), default=-1)
    if at < 0 or told[at]["event"] != "stopped" or told[at].get("reason") == "interrupted":
        return None
    try:
        reason, best_epoch, seconds, time = (told[at][key] for key in ("reason", "best_epoch", "seconds", "time"))
        return Ending(str(reason), int(best_epoch), float(seconds), str(time), measured=at < len(told) - 1)
    except (KeyError, TypeError, ValueError):
        return None


def is_finished(run: Path) -> bool:
    """Whether a run has ended and its metrics are of that."""
    ended = ending(run)
    return ended is not None and ended.measured and (run / METRICS).exists()


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
) -> dict[str, Any]:
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


def saved_metrics(run: str | Path) -> dict[str, Any]:
    """The metrics.json of a run, as `evaluate` returns it.

    Raises: EvaluationError if it is not what `evaluate` writes.
    """
    try:
        metrics: dict[str, Any] = json.loads((Path(run) / METRICS).read_text(encoding="utf-8"))
        _check_metrics(metrics)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise EvaluationError(f"{run}/{METRICS} is damaged: measure it again: sasrec evaluate {run}") from None
    return metrics


def _check_metrics(metrics: Any) -> None:
    """Raises what the use of a part that is missing or of another kind raises."""
    card = metrics["protocol"]
    there = [split for split in ("valid", "test") if card[split]["targets"]]
    for scorer in (metrics, *metrics["baselines"].values()):
        for split, candidates, name in product(there, ("full", "sampled"), figures.METRICS):
            float(scorer[split][candidates][name])
    for field in ("data", "data_hash", "split", "sasrec"):
        card[field].split()
    int(card["sampled_negatives"] + card["sampled_seed"])
    for split, field in product(("valid", "test"), ("targets", "users")):
        int(card[split][field])


def pick_device(name: str) -> torch.device:
    """The device a setting names; "auto" is an accelerator where there is one.

    Raises: ConfigError for a device this machine or PyTorch does not have.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = accelerator.type if accelerator else "cpu"
    if name == "cuda":
        name = f"cuda:{device_number()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not available here: {str(error).splitlines()[0]}") from None
    if device.type == "meta":
        raise ConfigError(f"device {name!r} computes nothing: use cpu, cuda, mps or auto")
    return device


def prepared_folder(source: str | Path) -> Path | None:
    """The absolute path of a data set that `prepare` wrote, or None if the source is something else."""
    there = bool(str(source)) and (Path(source) / "manifest.json").exists()
    return Path(source).absolute() if there else None


def dataset_of(folder: Path, config: RunConfig) -> Dataset:
    """The data set of a run, where `_prepare_run` left it."""
    prepared = prepared_folder(config.data.dataset) if Path(config.data.dataset).is_absolute() else None
    return open_dataset(prepared or folder / "dataset")


def checkpoint_at(path: Path) -> store.Checkpoint:
    """The checkpoint in that folder, or, in that of a run, the best."""
    if path.suffix in {".pth", ".pt", ".ckpt", ".bin"}:
        raise CheckpointError(f"{path}: such files can run code when read: give a checkpoint folder or a run")
    if not (path / CHECKPOINTS).exists():
        return store.load(path)
    best = store.best(path / CHECKPOINTS)
    try:
        return store.load(best)
    except CheckpointError:
        if best.exists():
            raise
        return store.load(store.best(path / CHECKPOINTS))  # training went on meanwhile, and has another best


def check_data(found: store.Checkpoint, data: Dataset) -> None:
    """Raises: CheckpointError if it was trained on other data."""
    if found.need("data_hash") != data.data_hash:
        raise CheckpointError(
            f"{found.path} was trained on other data (hash {found.need('data_hash')[:12]}, "
            f"this data set has {data.data_hash[:12]}): name the right one with --dataset"
        )


def exported_items(found: store.Checkpoint, data: Dataset) -> npt.NDArray[np.bool_] | None:
    """(V,) which items are known, from the checkpoint of an export (exporting.py); None if it does not say."""
    if KNOWN_ITEMS not in found.state:
        return None
    try:
        bits = np.frombuffer(b64decode(found.state[KNOWN_ITEMS], validate=True), np.uint8)
    except (ValueError, TypeError):
        bits = np.zeros(0, np.uint8)
    if len(bits) != len(np.packbits(np.zeros(data.num_items + 1, bool))):
        raise CheckpointError(f"{found.path} has {KNOWN_ITEMS} that do not fit its items: export the run again")
    return np.unpackbits(bits, count=data.num_items + 1).astype(bool)


def config_of(found: store.Checkpoint) -> RunConfig:
    """The settings it was trained with."""
    return RunConfig.from_parts(found.need("config"), f"{found.path}/state.json")


def model_of(found: store.Checkpoint, data: Dataset) -> SequenceModel:
    """The model of a checkpoint, with its weights."""
    with torch.random.fork_rng(devices=[]):  # the initial values drawn here are overwritten at once
        model = build_model(data.num_items, config_of(found).model)
    put_weights(found, model)
    return model


def put_weights(found: store.Checkpoint, model: SequenceModel) -> None:
    """Raises: CheckpointError if they are of a model of another shape, or not finite."""
    try:
        model.load_state_dict(found.weights)
    except RuntimeError as error:
        raise CheckpointError(f"{found.path} has the weights of another model: {error}") from None
    if bad := [name for name, tensor in found.weights.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(f"{found.path} has weights that are not finite: {', '.join(bad[:3])}")


def measured(folder: Path, device: torch.device, log: RunLog) -> Recommender:
    """The recommender of a run, whose metrics are written to it if there is anybody to measure on."""
    recommender = load(folder, device=str(device))
    valid, test = recommender.split.valid, recommender.split.test
    if len(valid.targets) or len(test.targets):
        _measure(recommender, folder, log)
    else:
        log.say(f"note: {nobody(valid)}, and {nobody(test)}: nothing is measured, and no metrics.json is written")
    return recommender


def _measure(
    recommender: Recommender, folder: Path | None, log: RunLog, *, details: bool = False
) -> dict[str, Any]:
    scorer = ModelScorer(recommender.model)
    measured = evaluate_scorer(scorer, recommender.data, recommender.split, log=log, details=details)
    metrics = measured.metrics
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
