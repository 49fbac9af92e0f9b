"""Train on all events with what another run has chosen: its settings, and its best epoch on validation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sasrec.checkpoint.restore import checkpoint_at, config_of
from sasrec.checkpoint.store import Checkpoint
from sasrec.config.settings import DataConfig, RunConfig
from sasrec.config.split_rule import ALL
from sasrec.data.dataset import Dataset
from sasrec.errors import ConfigError
from sasrec.events.inputs import without_password
from sasrec.models.own import Encoder, LossFunction, OwnCode, refuse_other
from sasrec.ranking.recommender import Recommender
from sasrec.runs.blend import hand_on
from sasrec.runs.folder import RunFolder
from sasrec.runs.origin import CHOSEN_BY, Origin
from sasrec.runs.train import new_run
from sasrec.runtime.log import RunLog
from sasrec.sources.resolve import prepared_folder


def final_fit(
    run: str | Path,
    train_dir: str | Path,
    *,
    data: Any = None,
    device: str | None = None,
    log: RunLog | None = None,
    encoder: Encoder | None = None,
    loss_function: LossFunction | None = None,
) -> Recommender:
    """Train a new run on all events, also those that `run` held out for validation and test; return the model.

    The new run in `train_dir` has the settings of `run`, except that it trains on all events and without a limit
    of time. It trains for as many epochs as `run` had trained at its best validation. The model has the weights of
    the last epoch. It is not measured, because no event is held out. Its checkpoints contain the metrics of `run`
    instead.

    `data`: the events to train on instead of the data of `run`, such as all events up to now, old and new; in any
    form that `train` takes. `device`: by default, the device of `run`. `encoder`, `loss_function`: the model and
    the loss of your own that `train` was given.

    Raises: ConfigError if `run` is an export, if its training has not ended, or if it had no validation. Remedy:
    as the message says. The errors of `train`.
    """
    folder = RunFolder(run)
    folder.refuse_no_run()
    if folder.items_file.exists():
        raise ConfigError(f"{folder.path} is an export, which chose nothing. Name the run it came from.")
    ending = folder.ending()
    if ending is None:
        raise ConfigError(f"the training of {folder.path} has not ended. Continue it with `resume`.")
    if not ending.best_epoch:
        raise ConfigError(
            f"{folder.path} had no validation, so it chose no epoch. Train with split=all, and give `num_epochs`."
        )
    best = checkpoint_at(folder.path, encoder)
    if (own_loss := best.state.get("loss_function")) is not None:
        refuse_other("loss_function", own_loss, loss_function, best.path)
    chosen = config_of(best)
    cosine = chosen.training.schedule == "cosine"  # its learning rate depends on the number of epochs
    config = chosen.replace(
        split=ALL,
        max_minutes=0.0,
        device=device or chosen.training.device,
        **{"stop_epoch" if cosine else "num_epochs": ending.best_epoch},
    )
    if data is None:
        data = prepared_folder(chosen.data.dataset) or folder.dataset(chosen)
    if isinstance(data, Dataset) or (isinstance(data, str | Path) and prepared_folder(data)):
        config = dataclasses.replace(config, data=DataConfig())  # the events are read already
    config = config.replace(dataset=without_password(str(data)) if isinstance(data, str | Path) else "")
    following = RunFolder(train_dir)
    origin = Origin(
        {CHOSEN_BY: _origin(folder, best, chosen, ending.best_epoch)}, begin=lambda: hand_on(folder, following)
    )
    return new_run((data, None, None), config, following, log, OwnCode(encoder, loss_function), origin=origin)


def _origin(folder: RunFolder, best: Checkpoint, chosen: RunConfig, epoch: int) -> dict[str, Any]:
    """What each checkpoint records on the run that chose its settings."""
    return {
        "run": folder.path.absolute().name,  # an export contains it, and a path says whose machine it was
        "checkpoint": best.path.name,
        "data_hash": best.need("data_hash"),
        "split": chosen.evaluation.split,
        "epoch": epoch,
        "metrics": _figures(folder),
    }


def _figures(folder: RunFolder) -> dict[str, dict[str, float]]:
    """The metrics of a run on the full catalogue, by split."""
    if not folder.metrics_file.exists():
        return {}
    metrics = folder.metrics()
    return {name: metrics[name]["full"] for name in ("valid", "test") if name in metrics}
