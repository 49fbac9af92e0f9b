"""From events to a trained run: prepare, train, resume. What can be done with a run is in trained.py.

RUN/  config.toml  log.jsonl  metrics.json  ranks.parquet  checkpoints/
      dataset/, unless a prepared folder was named
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sasrec.batches.batches import TrainingBatches
from sasrec.checkpoint import store
from sasrec.checkpoint.restore import CHECKPOINTS, check_data, checkpoint_at, config_of, model_of, put_weights
from sasrec.config.settings import ModelConfig, RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import split_events
from sasrec.errors import CheckpointError, ConfigError, DataError
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.events.report import summary
from sasrec.models import SequenceModel, build_model
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.evaluate import measured
from sasrec.runs.folder import dataset_of, holds_checkpoints, launch_of, prepared_folder
from sasrec.runtime.device import pick_device
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import from_main, joined, launch_id, rank, restarted, world
from sasrec.sources.resolve import from_source, refuse_reading_options, resolve
from sasrec.training.trainer import Trainer, TrainingState

# What may differ when a run is resumed: nothing that an update depends on.
_MAY_CHANGE = {
    "num_epochs",
    "max_minutes",
    "patience",
    "save_minutes",
    "device",
    "dataset",
    "diagnose_every",
    "show_shapes",
    "tensorboard",
    "detect_anomaly",
}


def train(
    data: Dataset | str | Path | Any,
    train_dir: str | Path,
    *,
    recipe: str | Path | RunConfig | None = None,
    log: RunLog | None = None,
    local_copy: Path | None = None,
    start_from: str | Path | None = None,
    **settings: Any,
) -> Recommender:
    """Train a model on `data`, keep the best checkpoint by validation NDCG@10, and measure it.

    `data`: a Dataset, the name of a public data set, a prepared folder, a file, or a frame. `settings` are
    the fields of RunConfig (`maxlen=50`); they override those of `recipe`. `start_from`: a checkpoint, or a run
    of which the best is taken, of the same model (but for dropout), data and split: its weights are the first.
    Started again by torchrun after a failure, it goes on with the run that it began.

    Raises: CheckpointError if `start_from` does not fit; ConfigError if `train_dir` holds a run already or a
    setting is wrong; DataError, DownloadError, TrainingError. KeyboardInterrupt goes on after the weights are
    saved.
    """
    config = recipe if isinstance(recipe, RunConfig) else RunConfig.load(recipe) if recipe else RunConfig()
    if "dataset" in settings:
        raise ConfigError("the first argument of train is the data: leave the setting dataset away")
    # A recipe may be another run's settings, and name its data.
    config = config.replace(**settings, dataset=str(data) if isinstance(data, str | Path) else "")
    _refuse_to_train(config, anew=True)
    folder = Path(train_dir)
    device = pick_device(config.training.device)
    with joined(device.type):
        if restarted() and from_main("began", lambda: launch_of(folder) if holds_checkpoints(folder) else ""):
            return _go_on(config, {}, folder, device, RunLog.of_run(folder / "log.jsonl", log))
        if holds_checkpoints(folder):
            raise ConfigError(
                f"{folder} holds a run already: go on with it (--resume), name another --train_dir, or remove it"
            )
        log = RunLog.of_run(folder / "log.jsonl", log)
        from_main("prepared", lambda: _prepare_run(data, config, folder, log, local_copy))
        config = RunConfig.load(folder / "config.toml")
        data = dataset_of(folder, config)
        start = None if start_from is None else checkpoint_at(Path(start_from))
        log.event(
            "start",
            data_hash=data.data_hash,
            ranks=world(),
            launch=launch_id(),
            start_from=start and str(start.path.absolute()),
            config=dataclasses.asdict(config),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            model = build_model(data.num_items, config.model)
            if start is not None:
                _start_from(start, model, data, config)
            _fit(model.to(device), data, config, folder, log)
        return measured(folder, device, log)


def resume(
    train_dir: str | Path, *, recipe: RunConfig | None = None, log: RunLog | None = None, **settings: Any
) -> Recommender:
    """Go on with a run from its newest undamaged checkpoint, to the bit as if it had not been interrupted.

    The settings are the run's own. Only those that say how long and where to train may be others
    (num_epochs unless the schedule is cosine, max_minutes, patience, save_minutes, device) or what is shown
    (diagnose_every, show_shapes, tensorboard, detect_anomaly); `recipe` and `settings` may repeat the others, and
    name another place of the prepared data. A run that has ended is measured again, or trained on if its limits
    were raised; the validation with which it ended then still counts.

    Raises: CheckpointError if there is nothing to go on from, or the data has changed; ConfigError naming a
    setting that differs.
    """
    folder = Path(train_dir)
    if not holds_checkpoints(folder):
        raise CheckpointError(
            f"{folder} holds no checkpoint to resume from: check the path, or start without --resume"
        )
    device = pick_device((recipe or RunConfig.load(folder / "config.toml")).replace(**settings).training.device)
    with joined(device.type):
        return _go_on(recipe, settings, folder, device, RunLog.of_run(folder / "log.jsonl", log))


def _refuse_to_train(config: RunConfig, *, anew: bool) -> None:
    """What no training should begin with, or if not `anew` go on with, though a run that has it can be used."""
    model, training = config.model, config.training
    of_streams = (model.mhc_projection, model.mhc_sinkhorn_iter, model.mhc_init_gate)
    if anew and model.mhc_expansion_rate == 1 and of_streams != ("sinkhorn", 20, 0.01):
        raise ConfigError("mhc_expansion_rate 1 is the plain residual: the other settings of mHC do nothing")
    if training.detect_anomaly and training.precision == "fp16":
        raise ConfigError(
            "detect_anomaly would stop at the overflows by which fp16 finds its scale: "
            "use --no_detect_anomaly, or --precision bf16 or fp32"
        )


def _start_from(found: store.Checkpoint, model: SequenceModel, data: Dataset, config: RunConfig) -> None:
    check_data(found, data)
    if (theirs := config_of(found).evaluation.split) != config.evaluation.split:
        raise ConfigError(
            f"{found.path} was trained under split {theirs}, so it may have seen the targets of "
            f"{config.evaluation.split}: start from weights of the same split"
        )
    of_model = {each.name for each in dataclasses.fields(ModelConfig)}
    differing = config_of(found).differences(config).keys() & of_model
    # With equal shapes too, other settings than these make another function of the same weights.
    if other := differing - {"dropout_rate", "mhc_sinkhorn_iter", "mhc_init_gate"}:
        raise CheckpointError(f"{found.path} is of a model with another {', '.join(sorted(other))}")
    put_weights(found, model)


def _go_on(
    recipe: RunConfig | None, settings: dict[str, Any], folder: Path, device: torch.device, log: RunLog
) -> Recommender:
    checkpoints = folder / CHECKPOINTS
    found = store.load(checkpoints / from_main("checkpoint", lambda: store.newest(checkpoints, log.say).path.name))
    began = config_of(found)
    config = (recipe or began).replace(**settings)
    # Whether it is the same data is for its hash to say: it may have moved.
    moved, asked = prepared_folder(config.data.dataset), config.data.dataset
    if asked not in ("", began.data.dataset) and moved is None:
        raise ConfigError(
            f"dataset was {began.data.dataset!r} when this run began, and {asked!r} is no prepared folder"
        )
    config = config.replace(dataset=str(moved or began.data.dataset))
    frozen = {"num_epochs"} if config.training.schedule == "cosine" else set()
    for name, (before, now) in began.differences(config).items():
        if name not in _MAY_CHANGE - frozen:
            raise ConfigError(
                f"{name} was {before!r} when this run began and is {now!r} now: leave it, or start anew"
            )
    _refuse_to_train(config, anew=False)
    data = dataset_of(folder, config)
    check_data(found, data)
    if rank() == 0:
        config.save(folder / "config.toml")
    log.event(
        "resume",
        checkpoint=found.path.name,
        step=found.state["step"],
        ranks=world(),
        config=dataclasses.asdict(config),
    )
    log.say(f"resuming {folder} at step {found.state['step']}")
    if found.need("ranks") != world() and config.model.dropout_rate > 0:
        log.say(f"note: {found.need('ranks')} ranks began this run, {world()} go on: other dropout masks")
    with torch.random.fork_rng(devices=[]):
        _fit(model_of(found, data).to(device), data, config, folder, log, found)
    return measured(folder, device, log)


def _prepare_run(data: Any, config: RunConfig, folder: Path, log: RunLog, local_copy: Path | None) -> str:
    """Keep data and settings where `load` finds them: RUN/dataset, or the prepared folder named; config.toml."""
    rejects = folder / "rejects.csv"
    prepared = None
    if local_copy is not None and not isinstance(data, str | Path):
        raise ConfigError("local_copy stands in for the download of a public data set: give its name, not data")
    if isinstance(data, str | Path):
        prepared = prepared_folder(data)
        config = config.replace(dataset=str(prepared)) if prepared else config
        data = resolve(config.data, local_copy=local_copy, rejects_path=rejects, say=log.say)
    elif isinstance(data, Dataset):
        refuse_reading_options(config.data)
    else:
        data = from_source(data, config.data, rejects_path=rejects)
    for sentence in summary(data.report):
        log.say(sentence)
    folder.mkdir(parents=True, exist_ok=True)
    if prepared is None:
        data.save(folder / "dataset")
    config.save(folder / "config.toml")
    return ""


def _fit(
    model: SequenceModel,
    data: Dataset,
    config: RunConfig,
    folder: Path,
    log: RunLog,
    resumed: store.Checkpoint | None = None,
) -> None:
    split = split_events(data, config.evaluation.split, config.model)
    batches = TrainingBatches(
        split.training,
        data.num_items,
        maxlen=config.model.maxlen,
        batch_size=config.training.batch_size,
        loss=config.loss,
        seed=config.training.seed,
        windows=config.training.windows,
        known_V=split.known_V,
    )
    if not len(batches):
        raise DataError(f"no user has two events to train on with split {split.how}: this data has no sequences")

    def validate() -> float | None:
        if not len(split.valid.targets):
            return None
        return metrics_from_ranks(target_ranks(ModelScorer(model), split.valid).full)["ndcg@10"]

    def save(state: TrainingState, score: float | None, optimizer: dict[str, torch.Tensor]) -> None:
        record = {
            "step": state.step,
            "epoch": state.epoch,
            "score": score,
            "score_is": "validation NDCG@10, full catalogue",
            "training": dataclasses.asdict(state),
            "num_items": data.num_items,
            "data_hash": data.data_hash,
            "ranks": world(),
            "config": dataclasses.asdict(config),
            "versions": {"sasrec": version("sasrec"), "torch": torch.__version__},
        }
        if rank() == 0:
            store.save(folder / CHECKPOINTS, dict(model.state_dict()), record, optimizer)
            store.prune(folder / CHECKPOINTS, log.say)

    parameters = sum(p.numel() for p in model.parameters())
    log.event("model", parameters=parameters, device=str(model.device))
    log.say(f"training {parameters:,} parameters on {model.device}; results in {folder}")
    targets = f"{len(split.valid.targets):,} validation and {len(split.test.targets):,} test targets"
    log.say(f"split {split.how}: {split.training.lengths.sum():,} events to train on, {targets}")
    if not len(split.valid.targets):
        log.say(f"note: nobody has a validation target ({split.valid.why_skipped}): the last weights are kept")
    if config.training.tensorboard:
        log.show_in_tensorboard(0 if resumed is None else resumed.state["step"])
    trainer = Trainer(model, batches, config, validate=validate, save=save, log=log)
    if resumed is not None:
        try:
            trainer.restore(TrainingState(**resumed.need("training")), resumed.optimizer)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{resumed.path} has the optimizer or state of another model: {error}") from None
    trainer.fit()
