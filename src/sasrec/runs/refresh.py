"""Bring a run up to date with newer events: new users and items, old numbers, and weights that train on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.checkpoint.restore import check_data, checkpoint_at, config_of, known_items
from sasrec.checkpoint.store import Checkpoint
from sasrec.config.choices import REFRESH_EPOCHS, REFRESH_WORSE
from sasrec.config.settings import RunConfig
from sasrec.config.split_rule import ALL
from sasrec.data.dataset import Dataset
from sasrec.data.newest import drift, held_out, new_events
from sasrec.data.onto import known_numbers, onto
from sasrec.data.splits import split_events
from sasrec.errors import CheckpointError, ConfigError, DataError, EvaluationError, amount, for_shell
from sasrec.events.inputs import without_password
from sasrec.files import file_digest, write_whole
from sasrec.models import SequenceModel
from sasrec.models.own import Encoder, LossFunction, OwnCode, refuse_other
from sasrec.ranking.recommender import Recommender
from sasrec.runs.blend import hand_on
from sasrec.runs.folder import RunFolder
from sasrec.runs.grown import mean_cosine
from sasrec.runs.newer import filters_of, is_read, note_untitled, read_newer
from sasrec.runs.origin import REFRESHED_FROM, Origin
from sasrec.runs.refusals import refuse_to_train
from sasrec.runs.seal import refuse_changed
from sasrec.runs.train import new_run
from sasrec.runs.trial import Compared, Trial, compared
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import launched

REPORT = "refresh.json"


def refresh(
    run: str | Path,
    data: Any,
    train_dir: str | Path,
    *,
    epochs: int = REFRESH_EPOCHS,
    worse: float = REFRESH_WORSE,
    device: str | None = None,
    log: RunLog | None = None,
    encoder: Encoder | None = None,
    loss_function: LossFunction | None = None,
) -> Recommender:
    """Train the model of `run` further on newer events, as the new run `train_dir`; return the refreshed model.

    A first training continues from the best weights of `run` for `epochs` epochs, without the newest of the new
    events. Then the old model and the continued model are measured on these newest events (runs/trial.py). If the
    continued model is not worse than `worse` allows, a second training also trains on the newest events, for a
    quarter as many epochs, rounded up. Its last weights are the result.

    The new run has the settings of `run`, except that it trains on all events, for other epochs and without a
    limit of time. Known items keep their numbers, and new items get the next numbers. Nothing is written to `run`.

    `data`: all events up to now, old and new, as for `train`; files are read with the settings of `run`. `worse`:
    how much lower the NDCG@10 of the continued model may be, as a share of the NDCG@10 of the old model. The
    default .05 accepts a loss of 5 %, and 1 accepts any loss. Only with 1, a model is also refreshed if the two
    models cannot be compared, because fewer than two users have targets. `device`: by default, that of `run`.
    `encoder`, `loss_function`: the model and the loss of your own that `train` was given.

    The file refresh.json in `train_dir` has the numbers of new users, items and events, how much popularity and
    item vectors have changed, and the metrics of both models. The message of each error says what to do.

    Raises: EvaluationError if the continued model is worse than `worse` allows; nothing is then written. DataError
    if `run` knows no item of `data`, if no event is new, if times are missing, or if the two models cannot be
    compared. ConfigError if `run` is an export, or its training has not ended. The errors of `train`.
    """
    began = time.monotonic()
    own, folder, following = OwnCode(encoder, loss_function), RunFolder(run), RunFolder(train_dir)
    _refuse(folder, following, epochs, worse)
    found = checkpoint_at(folder.path, encoder)
    if (own_loss := found.state.get("loss_function")) is not None:
        refuse_other("loss_function", own_loss, loss_function, found.path)
    config = _settings(config_of(found), data, epochs, device)
    refuse_to_train(config, own, new=False)
    with following.writing("refreshing"):
        old = _data_of(folder, found)
        now = _up_to_now(old, data, config, folder)
        new_E = new_events(old, now)
        filters = "" if is_read(data) else filters_of(config.data)
        report = _facts(old, now, new_E, folder, filters)
        trial = Trial(found, old, now, _known(found, old, now), config, own)
        newest_E, trial_log = held_out(now, new_E), RunLog.of_run(None, log)
        found_out = compared(trial, newest_E, unmeasured=worse == 1, log=trial_log)
        report["metrics"] = found_out.figures
        if found_out.figures is not None:
            _refuse_worse(found_out.figures, worse, folder)
        report |= {"worse": worse, "epochs": epochs, REFRESHED_FROM: _origin(folder, found, report["metrics"])}
        report["seconds"] = {"comparison": round(time.monotonic() - began, 1)}
        hand_on(folder, following)
        return _trained(trial, found_out, following, report, log)


def _trained(
    trial: Trial, found_out: Compared, following: RunFolder, report: dict[str, Any], log: RunLog | None
) -> Recommender:
    """Train the new run on all events, and write the report: before, and with the new vectors after."""
    began = time.monotonic()

    def weights(model: SequenceModel) -> None:
        report["items"]["began_as"] = trial.put_weights(model, split_events(trial.now, ALL).training)
        found_out.put_weights(model)
        _write(following, report)

    config = trial.config.replace(num_epochs=-(-trial.config.training.num_epochs // 4))
    origin = Origin({REFRESHED_FROM: report[REFRESHED_FROM]}, weights, read=True)
    RunLog.of_run(None, log).say(
        f"second training, for the new run: continues on all {amount(trial.now.num_events, 'event')}"
    )
    refreshed = new_run((trial.now, None, None), config, following, log, trial.own, origin=origin)
    report["vectors"] = mean_cosine(trial.found, refreshed.model, trial.known_V)
    report["seconds"]["training"] = round(time.monotonic() - began, 1)
    _write(following, report)
    return refreshed


def _origin(folder: RunFolder, found: Checkpoint, metrics: dict[str, Any] | None) -> dict[str, Any]:
    """What each checkpoint records on the run whose weights it began with."""
    return {
        "run": folder.path.absolute().name,  # an export contains it, and a path says whose machine it was
        "checkpoint": found.path.name,
        "manifest": file_digest(found.path / "MANIFEST.json"),
        "data_hash": found.need("data_hash"),
        "metrics": {name: metrics[name] for name in ("old", "new")} if metrics else {},
    }


def _refuse(folder: RunFolder, following: RunFolder, epochs: int, worse: float) -> None:
    """Raise the errors of `refresh` that need no data."""
    folder.refuse_no_run()
    if folder.items_file.exists():
        raise ConfigError(
            f"{folder.path} is an export, which has no events and cannot be trained. Refresh the run it came from."
        )
    if folder.ending() is None and folder.can_resume():
        raise ConfigError(f"the training of {folder.path} has not ended. Continue it with `resume`.")
    if launched():
        raise ConfigError("a refresh is trained by one process. Start it without torchrun.")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(
            f"`epochs` must be a whole number of at least 1, not {epochs!r}. Use a number such as 5."
        )
    if isinstance(worse, bool) or not isinstance(worse, int | float) or not 0 <= worse <= 1:
        raise ConfigError(
            f"`worse` must be a share from 0 to 1, not {worse!r}. Use a number such as {REFRESH_WORSE}."
        )
    if following.can_resume():
        raise ConfigError(
            f"{following.path} already holds a run. Name another `train_dir`, or continue this run with "
            f"sasrec train --train_dir {for_shell(following.path)} --resume."
        )
    refuse_changed(folder.path, "checkpoint")


def _settings(chosen: RunConfig, data: Any, epochs: int, device: str | None) -> RunConfig:
    """Return the settings of the new run: those of the run, for these epochs, on all events."""
    # A prepared folder is not named: the new run has its own copy, in which items have the numbers of the run.
    named = isinstance(data, str | Path) and not is_read(data)
    cosine = {"stop_epoch": 0} if chosen.training.stop_epoch else {}
    return chosen.replace(
        split=ALL,
        num_epochs=epochs,
        max_minutes=0.0,
        device=device or chosen.training.device,
        dataset=without_password(str(data)) if named else "",
        **cosine,
    )


def _data_of(folder: RunFolder, found: Checkpoint) -> Dataset:
    """Return the data that a run was trained on, which says which number an item has."""
    try:
        old = folder.dataset()
        check_data(found, old)
    except (DataError, CheckpointError) as error:
        raise DataError(
            f"the data that {folder.path} was trained on is missing, damaged or replaced, and only this data says "
            "which number an item has. Restore it, and prepare newer events in another folder."
        ) from error
    return old


def _up_to_now(old: Dataset, source: Any, config: RunConfig, folder: RunFolder) -> Dataset:
    """Read all events up to now, and number their items as the catalogue of the run, extended."""
    given = read_newer(source, config.data, folder.path)
    if old.times is not None and given.times is None:
        raise DataError(
            f"the run's data has times and {given.name!r} has none, so nobody can say which events are new. Add "
            "the times, or name their column when the data is prepared."
        )
    known_numbers(old.catalogue, given)  # refuses data without a known item
    now = onto(old.catalogue.extended(given.catalogue), given)
    note_untitled(now.catalogue, given.catalogue, np.arange(old.num_items, now.num_items) + 1, new="new ")
    return now


def _known(found: Checkpoint, old: Dataset, now: Dataset) -> npt.NDArray[np.bool_]:
    """Return (V,): true for the items of the extended catalogue that the run knows."""
    known_V = np.zeros(now.num_items + 1, bool)
    own = known_items(found, old.num_items)
    known_V[1 : old.num_items + 1] = True if own is None else own[1:]
    return known_V


def _facts(
    old: Dataset, now: Dataset, new_E: npt.NDArray[np.bool_], folder: RunFolder, filters: str
) -> dict[str, Any]:
    """Return what is new. `filters`: those of the run that newer events were read with.

    Raises: DataError if no event is new, or most events of the run are missing. Remedy: give all events.
    """
    new, missing = int(new_E.sum()), old.num_events - int((~new_E).sum())
    if not new:
        cause = f" Rows that {filters} leaves out do not count: {folder.path} was trained so." if filters else ""
        raise DataError(f"{now.name!r} has no event that {folder.path} lacks. Give all events up to now.{cause}")
    if 2 * missing > old.num_events:
        raise DataError(
            f"{missing:,} of {old.num_events:,} events of {folder.path} are not in {now.name!r}, so the new run "
            "would forget them and their users. Give all events, old and new, in one file or several, as `train` "
            "takes them; to drop old events for good, train a new run."
        )
    known = now.user_ids.cast(pl.String).is_in(old.user_ids.cast(pl.String).implode())
    without = now.num_items - len(np.unique(now.items))
    return {
        "users": {"new": int((~known).sum()), "all": now.num_users},
        "items": {"new": now.num_items - old.num_items, "all": now.num_items, "without_events": without},
        "events": {"new": new, "all": now.num_events, "missing": missing},
        "popularity": drift(old, now, new_E),
    }


def _refuse_worse(figures: dict[str, Any], worse: float, folder: RunFolder) -> None:
    """Raise EvaluationError if the refreshed model lost more than the share `worse` of the run's NDCG@10."""
    old, new = (figures[name]["ndcg@10"] for name in ("old", "new"))
    if new < (1 - worse) * old:
        between, users = figures["difference"], amount(figures["users"], "user")
        raise EvaluationError(
            f"the refreshed model is worse than {folder.path} on the newest events: NDCG@10 {new:.4f} against "
            f"{old:.4f} ({amount(figures['targets'], 'target')} of {users}; 95 % interval of the "
            f"difference {between['low']:.4f} to {between['high']:.4f}). Keep {folder.path}, or allow a larger "
            "loss with `worse`."
        )


def _write(folder: RunFolder, report: dict[str, Any]) -> None:
    write_whole(folder.path / REPORT, json.dumps(report, indent=2))
