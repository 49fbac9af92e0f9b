"""Train a model from events, or resume a run. The class RunFolder lists the files of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from sasrec.batches.batches import TrainingBatches
from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint import store
from sasrec.checkpoint.restore import (
    check_data,
    checkpoint_at,
    config_of,
    model_of,
    newest,
    put_weights,
)
from sasrec.config.settings import DataConfig, RunConfig, split_of_files
from sasrec.config.split_rule import ALL
from sasrec.data.baskets import split_of
from sasrec.data.dataset import Dataset
from sasrec.data.splits import Split, check_files
from sasrec.errors import CheckpointError, ConfigError, DataError
from sasrec.evaluation.measure import Ranks, nobody
from sasrec.events.inputs import without_password
from sasrec.events.report import BASKETS, REPEATS, SHORT, summary
from sasrec.locks import refuse_busy
from sasrec.models import SequenceModel, build_model
from sasrec.models.own import Encoder, LossFunction, OwnCode
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.evaluate import measure, recommender_of
from sasrec.runs.folder import RunFolder
from sasrec.runs.origin import Origin, origin_of
from sasrec.runs.record import check_ranks, other_surroundings, record
from sasrec.runs.refusals import refuse_to_train, resumed_config
from sasrec.runs.seal import unseal
from sasrec.runs.start import announce, start_from_weights, validated_baselines, validated_part, validator
from sasrec.runtime.device import deterministic, own_generators, pick_device
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import from_main, joined, launch_id, rank, restarted, world
from sasrec.sources.resolve import resolve
from sasrec.training.optimizer import schedule_warning
from sasrec.training.trainer import Trainer, TrainingState


def train(
    data: Dataset | str | Path | Any,
    train_dir: str | Path,
    *,
    valid: Any = None,
    test: Any = None,
    recipe: str | Path | RunConfig | None = None,
    log: RunLog | None = None,
    local_copy: Path | None = None,
    start_from: str | Path | None = None,
    encoder: Encoder | None = None,
    loss_function: LossFunction | None = None,
    **settings: Any,
) -> Recommender:
    """Train a model in the new run folder `train_dir`; return it with the weights of its best epoch.

    The best epoch is the epoch with the highest NDCG@10 on validation. At the end, the weights of this epoch are
    measured on validation and test, and the metrics are written to `train_dir`. The message of each error says
    what to do.

    `data`: a Dataset, the name of a public data set, a folder that `prepare` wrote, a file, several files, or a
    frame (a table of Polars, pandas or pyarrow). `valid`, `test`: files or frames with your own validation and
    test events; `data` must then have only the training events, and the setting `split` becomes "files", unless it
    is "all". With `test` but without `valid`, the run keeps the weights of the last epoch. `recipe`: a TOML file
    with settings, or a RunConfig. `settings`: settings as keyword arguments (docs/reference/settings.md), such as
    `maxlen=50`; they override `recipe`. `start_from`: a run or a checkpoint with weights to begin with (warm
    start), instead of random weights. From a run, the best weights are taken. Data, split and model settings must
    be those of the run that trained these weights; only dropout_rate, mhc_sinkhorn_iter and mhc_init_gate may
    differ. `local_copy`: a file or folder with a copy of a public data set, which is then not downloaded.
    `encoder`, `loss_function`: a model and a loss of your own (docs/how-to/own-model.md). `encoder` is a subclass
    of SequenceModel; `loss_function(model, batch)` returns the loss, a scalar. Checkpoints record only the names
    of both, so give `encoder` again to `load`, and both again to `resume`.

    If torchrun restarts the processes after a failure, they continue the run that they had begun.

    Raises: ConfigError if `train_dir` already contains a run, or a setting is wrong. CheckpointError or
    ConfigError if training cannot begin with the weights of `start_from`. DataError or DownloadError if the data
    cannot be read. TrainingError if the loss is infinite or NaN. KeyboardInterrupt after Ctrl-C; if the first step
    is done, the weights are saved before, and `resume` continues the run.
    """
    own = OwnCode(encoder, loss_function)
    config = _asked(data, recipe, settings, own, own_files=valid is not None or test is not None)
    sources = (data, valid, test)
    return new_run(sources, config, RunFolder(train_dir), log, own, local_copy=local_copy, start_from=start_from)


def new_run(
    sources: tuple[Any, Any, Any],
    config: RunConfig,
    folder: RunFolder,
    log: RunLog | None,
    own: OwnCode,
    *,
    local_copy: Path | None = None,
    start_from: str | Path | None = None,
    origin: Origin | None = None,
) -> Recommender:
    """Train the new run in `folder`. See `train`, also for the errors.

    `sources`: the data, and own validation and test events or None. `origin`: what the run takes from another
    (runs/final.py, runs/refresh.py); every checkpoint records it.
    """
    device = pick_device(config.training.device)
    with joined(device.type), folder.writing("training"), deterministic(config.training.deterministic):
        check_ranks(config)
        if restarted() and from_main("began", lambda: folder.launch() if folder.can_resume() else ""):
            return _resumed(config, {}, folder, device, folder.log(log), own)
        if folder.can_resume():
            raise ConfigError(
                f"{folder.path} already holds a run. Continue it with `resume`, or name another `train_dir`."
            )
        log, origin = folder.log(log), origin or Origin()
        dataset, config = _prepared(sources, config, folder, log, local_copy, is_read=origin.read)
        return _begun(dataset, config, folder, device, log, own, start_from, origin)


def _begun(
    data: Dataset,
    config: RunConfig,
    folder: RunFolder,
    device: torch.device,
    log: RunLog,
    own: OwnCode,
    start_from: str | Path | None,
    origin: Origin,
) -> Recommender:
    """Train the new run from random weights, or from those of the checkpoint `start_from` or of `origin`."""
    own.check(data.num_items, config.model)
    start = None if start_from is None else checkpoint_at(Path(start_from), own.encoder)
    log.event(
        "start",
        data_hash=data.data_hash,
        ranks=world(),
        launch=launch_id(),
        start_from=start and str(start.path.absolute()),
        config=dataclasses.asdict(config),
        **origin.recorded,
        **own.names(),
    )
    # The initial weights must depend on the seed alone, not on what the caller drew before.
    with own_generators(device):
        torch.manual_seed(config.training.seed)
        model = build_model(data.num_items, config.model, own.encoder)
        if start is not None:
            start_from_weights(start, model, data, config)
        if origin.begin is not None:
            origin.begin()
        elif rank() == 0 and not origin.recorded:
            folder.blend_file.unlink(missing_ok=True)  # of another start, which saved no checkpoint
        if origin.weights is not None:
            origin.weights(model)
        check_ranks(config, data, start, {"own code": str(own.names())})
        return _fitted(model.to(device), data, config, folder, log, own, origin)


def _asked(
    data: Any,
    recipe: str | Path | RunConfig | None,
    settings: dict[str, Any],
    own: OwnCode,
    *,
    own_files: bool,
) -> RunConfig:
    """Return the settings of a new run. `own_files`: there are own validation or test events.

    Raises: ConfigError if a setting is wrong. Remedy: as the message says.
    """
    config = recipe if isinstance(recipe, RunConfig) else RunConfig.load(recipe) if recipe else RunConfig()
    if "dataset" in settings:
        raise ConfigError("the first argument of train is already the data; remove the setting dataset")
    # A recipe can be the config.toml of another run; never train on the data that it names.
    config = config.replace(
        **settings, dataset=without_password(str(data)) if isinstance(data, str | Path) else ""
    )
    refuse_to_train(config, own, new=True)
    return split_of_files(config) if own_files and config.evaluation.split != ALL else config


def resume(
    train_dir: str | Path,
    *,
    recipe: str | Path | RunConfig | None = None,
    log: RunLog | None = None,
    encoder: Encoder | None = None,
    loss_function: LossFunction | None = None,
    **settings: Any,
) -> Recommender:
    """Continue a run from its newest undamaged checkpoint. With the same device, number of threads and processes,
    and versions of PyTorch and NumPy, the final weights are bit-identical to those of an uninterrupted run. On a
    GPU, this also depends on the operators (docs/how-to/resume.md).

    The run keeps its settings. `recipe` and the keyword arguments `settings` may change only these:

    `num_epochs`, `max_minutes`, `patience`: the limits of the training; num_epochs only if the schedule is not
    cosine. `save_minutes`, `device`, `deterministic`: when to save checkpoints, and how to compute.
    `diagnose_every`, `show_shapes`, `tensorboard`, `detect_anomaly`: the diagnostics. `dataset`: the folder of the
    prepared data, if it has moved.

    If the training has ended, `resume` only measures the run again. To train further, raise the limit that ended
    the training, such as `num_epochs`.

    `encoder`, `loss_function`: the model and the loss of your own that `train` was given; give them again.

    Raises: CheckpointError if the run has no checkpoint, or if its data has changed. Remedy: start a new run, or
    name the right data. ConfigError if another setting differs. Remedy: keep the value of the run. FolderError if
    another process trains the run. Remedy: wait until it ends.
    """
    folder = RunFolder(train_dir)
    recipe = RunConfig.load(recipe) if isinstance(recipe, str | Path) else recipe
    if not folder.path.exists():
        raise CheckpointError(f"the run {folder.path} does not exist. Check the path.")
    if not folder.can_resume():
        refuse_busy(folder.path)  # a run that trains, and has saved nothing yet
        raise CheckpointError(f"{folder.path} holds no checkpoint. Check the path, or start a new run there.")
    if not folder.config_file.exists():
        raise CheckpointError(
            f"{folder.config_file}, the settings of the run, is missing. Restore it, or start a new run."
        )
    if folder.items_file.exists():
        raise CheckpointError(f"{folder.path} is an export, which cannot be trained. Resume the run it came from.")
    training = (recipe or folder.config()).replace(**settings).training
    device = pick_device(training.device)
    with joined(device.type), folder.writing("training"), deterministic(training.deterministic):
        own = OwnCode(encoder, loss_function)
        return _resumed(recipe, settings, folder, device, folder.log(log), own)


def _resumed(
    recipe: RunConfig | None,
    settings: dict[str, Any],
    folder: RunFolder,
    device: torch.device,
    log: RunLog,
    own: OwnCode,
) -> Recommender:
    """Continue the run in `folder`; every rank calls this function. See `resume` for the arguments and errors."""
    # Rank 0 chooses the checkpoint, so all ranks load the same one.
    name = from_main("checkpoint", lambda: newest(folder.checkpoints, log.say, own))
    found = store.load(folder.checkpoints / name)
    config = resumed_config(config_of(found), recipe, settings)
    refuse_to_train(config, own, new=False)
    data = folder.dataset(config)
    check_data(found, data)
    check_ranks(config, data, found)
    if rank() == 0:
        unseal(folder.path)
        config.save(folder.config_file)
    step = found.state["step"]
    log.event("resume", checkpoint=found.path.name, step=step, ranks=world(), config=dataclasses.asdict(config))
    log.say(f"resuming {folder.path} at step {step}")
    if note := other_surroundings(found, device):
        log.say(note)
    with own_generators(device):
        model = model_of(found, data.num_items, own.encoder).to(device)
        return _fitted(model, data, config, folder, log, own, origin_of(found), found)


def _prepared(
    sources: tuple[Any, Any, Any],
    config: RunConfig,
    folder: RunFolder,
    log: RunLog,
    local_copy: Path | None,
    *,
    is_read: bool,
) -> tuple[Dataset, RunConfig]:
    """Prepare the data of a new run and write it, with the settings, to the run folder; return data and settings.

    `sources`: the data, and own validation and test events or None. Only rank 0 prepares and writes; every rank
    returns both. The data is written to RUN/dataset, unless the source is a prepared folder.
    """
    own: list[Dataset] = []
    source, valid, test = sources
    rejects = folder.path / "rejects.csv"

    def write() -> str:
        data, prepared = resolve(
            source,
            DataConfig() if is_read else config.data,
            valid=valid,
            test=test,
            local_copy=local_copy,
            rejects_path=rejects,
            say=log.say,
        )
        used = config if data.parts is None or config.evaluation.split == ALL else split_of_files(config)
        check_files(data, used.evaluation.split)
        for sentence in summary(data.report):
            followed = {REPEATS: config.evaluation.repeats, BASKETS: config.evaluation.baskets}
            followed[SHORT] = used.evaluation.split != "leave-one-out"
            if not any(advice in sentence and done for advice, done in followed.items()):
                log.say(sentence)
        folder.path.mkdir(parents=True, exist_ok=True)
        if prepared is None:
            data.save(folder.path / "dataset")
        else:
            rejects.unlink(missing_ok=True)  # of an earlier start, which read a file
        (used.replace(dataset=str(prepared)) if prepared else used).save(folder.config_file)
        own.append(data)
        return ""

    from_main("prepared", write)
    config = folder.config()
    # Rank 0 has the data in memory; the other ranks open the files that it wrote.
    return own[0] if own else folder.dataset(), config


def _fitted(
    model: SequenceModel,
    data: Dataset,
    config: RunConfig,
    folder: RunFolder,
    log: RunLog,
    own: OwnCode,
    origin: Origin,
    resumed: store.Checkpoint | None = None,
) -> Recommender:
    """Train to a limit or early stopping, measure the best checkpoint, and return its Recommender."""
    split = with_ticks(split_of(data, config.evaluation), data, config.model)
    batches = TrainingBatches.of(split.training, data.num_items, config, split.known_V, split.basket_starts)
    if not len(batches):
        raise DataError(
            f"under split {split.how} no user has two training events, so training has no sequences. "
            "Use data with longer histories, or another `split`."
        )
    announce(model, split, config, folder, log, 0 if resumed is None else resumed.state["step"])
    # A resumed run has them in its log since it began.
    valid = validated_part(split, config)
    known = validated_baselines(data, dataclasses.replace(split, valid=valid), log) if resumed is None else {}

    def save(state: TrainingState, score: float | None, optimizer: dict[str, torch.Tensor]) -> None:
        if rank() == 0:
            state_json = record(state, score, data, split, config, model.device, own) | origin.recorded
            store.save(folder.checkpoints, dict(model.state_dict()), state_json, optimizer)
            store.prune(folder.checkpoints, log.say)

    if warning := schedule_warning(config.training, len(batches.plan(0))):
        log.say(f"warning: {warning}")
    trainer = Trainer(
        model,
        batches,
        config,
        validate=validator(model, valid),
        save=save,
        log=log,
        loss_function=own.loss_function,
    )
    if resumed is not None:
        try:
            trainer.restore(TrainingState(**resumed.need("training")), resumed.optimizer)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the optimizer state or the progress of training in {resumed.path} does not fit this run "
                f"({error}). Use another checkpoint."
            ) from None
    trainer.fit()
    return _measured(model, data, split, folder, log, own, known if valid is split.valid else {})


def _measured(
    model: SequenceModel,
    data: Dataset,
    split: Split,
    folder: RunFolder,
    log: RunLog,
    own: OwnCode,
    known: Ranks,
) -> Recommender:
    """Load the best checkpoint, measure it if validation or test has a target, and return its Recommender.

    `known`: ranks that were measured before training.
    """
    best = checkpoint_at(folder.path, own.encoder)
    check_ranks(config_of(best), data, best)  # other machines may have an old copy of the folder
    put_weights(best, model)
    # The recommender outlives training: without the gradients, and without the compiled encoder, which is bound to
    # this very model.
    model.zero_grad(set_to_none=True)
    model.__dict__.pop("encode", None)
    recommender = recommender_of(best, model, data.catalogue, data)
    if len(split.valid.targets) or len(split.test.targets):
        recommender = dataclasses.replace(
            recommender, metrics=measure(ModelScorer(model), data, split, folder, log, known=known)
        )
    elif split.how != ALL:
        log.say(f"note: {nobody(split.valid)}, and {nobody(split.test)}; metrics.json is not written")
    return recommender
