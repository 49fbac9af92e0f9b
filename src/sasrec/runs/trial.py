"""Train a refreshed model without the newest events, and compare it on them with the run that it began with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec.batches.batches import TrainingBatches
from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint.store import Checkpoint
from sasrec.config.settings import RunConfig
from sasrec.data.baskets import with_baskets
from sasrec.data.dataset import Dataset
from sasrec.data.histories import Histories
from sasrec.data.parts import TEST, TRAIN
from sasrec.data.splits import EvaluationSplit, split_by_parts
from sasrec.errors import DataError, amount
from sasrec.evaluation.metrics import of_targets
from sasrec.evaluation.significance import paired_bootstrap
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.models import SequenceModel, build_model
from sasrec.models.own import OwnCode
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.grown import put_grown_weights
from sasrec.runtime.device import deterministic, own_generators, pick_device
from sasrec.runtime.log import RunLog
from sasrec.training.trainer import Trainer

_TABLE = "item_embedding.weight"
_METRICS = ("ndcg@10", "hr@10", "hr@20")


@dataclass(frozen=True, eq=False)
class Trial:
    """A run, the events up to now, and how a model of these events begins with the weights of the run."""

    found: Checkpoint
    """The best checkpoint of the run."""
    old: Dataset
    """The data of the run."""
    now: Dataset
    """All events up to now, with the catalogue of the run, extended."""
    known_V: npt.NDArray[np.bool_]
    """(V,) true for items that the run knows; V counts the extended catalogue."""
    config: RunConfig
    own: OwnCode

    def put_weights(self, model: SequenceModel, histories: Histories) -> dict[str, int]:
        """Give a model the weights of the run; `histories` say beside which items new ones stand."""
        counts_V = np.bincount(self.old.items, minlength=self.now.num_items + 1)
        return put_grown_weights(self.found, model, self.now.catalogue, self.known_V, histories, counts_V)


@dataclass(frozen=True, eq=False)
class Compared:
    """A model that was refreshed without the newest events, and what it was worth on them."""

    figures: dict[str, Any] | None
    """The metrics of the run and of the refreshed model, and their difference; None for targets of one user."""
    weights: dict[str, Tensor]
    learned_V: npt.NDArray[np.bool_]
    """(V,) true for the items that the run knew or that the model was trained on."""

    def put_weights(self, model: SequenceModel) -> None:
        """Give a model these weights; the vectors of items that were not learned stay as they are."""
        weights = dict(self.weights)
        learned_V1 = torch.from_numpy(self.learned_V)[:, None]
        weights[_TABLE] = torch.where(learned_V1, weights[_TABLE], model.item_embedding.weight.detach())
        model.load_state_dict(weights)


def compared(trial: Trial, held_out_E: npt.NDArray[np.bool_], *, unmeasured: bool, log: RunLog) -> Compared:
    """Train a refreshed model without the held-out events, and compare it on them with the run.

    Each model is measured as it would serve: with the items that it knows, in histories and as candidates. A
    target that a model does not know counts as not found; one that neither knows is left out. New users have
    targets too. With targets of fewer than two users nothing can be compared; `unmeasured` accepts that.

    Raises: DataError if it is not accepted. Remedy: give more new events, or accept it.
    """
    config, now = trial.config, trial.now
    data = dataclasses.replace(now, parts=np.where(held_out_E, TEST, TRAIN).astype(np.int8))
    device = pick_device(config.training.device)

    def split_of(known_V: npt.NDArray[np.bool_] | None) -> Any:
        found = split_by_parts(data, known_V, repeats=config.evaluation.repeats, new_users=True)
        found = with_baskets(found, data) if config.evaluation.baskets else found
        return with_ticks(found, data, config.model)

    before, after = split_of(trial.known_V), split_of(None)
    events = np.union1d(before.test.events, after.test.events)
    user_T = np.searchsorted(now.offsets, events, side="right") - 1
    few = (users := len(np.unique(user_T))) < 2
    if few and not unmeasured:
        raise DataError(
            f"the two models cannot be compared, because only newest events of {amount(users, 'user')} "
            "can be targets. Give more new events, or accept the new model unmeasured with `worse` 1."
        )
    batches = TrainingBatches.of(after.training, now.num_items, config, after.known_V, after.basket_starts)
    if not len(batches):
        raise DataError("no user has two events to train on. Give more events.")
    newest = amount(int(held_out_E.sum()), "event")
    log.say(f"first training, to compare the two models: on all but the newest {newest}, which measure them")
    with own_generators(device), deterministic(config.training.deterministic):
        torch.manual_seed(config.training.seed)
        model = build_model(now.num_items, config.model, trial.own.encoder)
        trial.put_weights(model, after.training)
        model.to(device)
        # Before the update, the model is the run: rows of new items are neither read nor ranked.
        old_T = _ranks(model, before.test, events)
        Trainer(
            model,
            batches,
            config,
            validate=lambda _: None,
            save=lambda *_: None,
            log=log,
            loss_function=trial.own.loss_function,
        ).fit()
        model.__dict__.pop("encode", None)  # the compiled encoder, if the settings ask for one
        new_T = _ranks(model, after.test, events)
    figures = None if few else _figures(old_T, new_T, user_T, ~trial.known_V[now.items[events]])
    learned_V = trial.known_V.copy()
    learned_V[after.training.items[after.training.flat()]] = True
    return Compared(figures, {name: each.cpu() for name, each in model.state_dict().items()}, learned_V)


def _ranks(model: SequenceModel, part: EvaluationSplit, events: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the rank of the target of each event, (T,); infinite where the model cannot rank it."""
    rank_T = np.full(len(events), np.inf)
    if len(part.targets):
        rank_T[np.searchsorted(events, part.events)] = target_ranks(ModelScorer(model), part).full
    return rank_T


def _figures(
    old_T: npt.NDArray[np.float64],
    new_T: npt.NDArray[np.float64],
    user_T: npt.NDArray[np.int64],
    fresh_T: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """Return the metrics of both rankings, their difference with its interval, and the hits of new items."""
    means = [{name: float(of_targets(each, name).mean()) for name in _METRICS} for each in (old_T, new_T)]
    difference = paired_bootstrap(of_targets(new_T, "ndcg@10") - of_targets(old_T, "ndcg@10"), user_T)
    fresh = {"targets": int(fresh_T.sum())}
    found = {"hr@20": float(of_targets(new_T[fresh_T], "hr@20").mean())} if fresh_T.any() else {}
    return {
        "targets": len(old_T),
        "users": len(np.unique(user_T)),
        "old": means[0],
        "new": means[1],
        "difference": dataclasses.asdict(difference),
        "new_items": fresh | found,
    }
