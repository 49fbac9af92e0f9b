"""What a training begins with: the size of the model, the split, the baselines on validation, other weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sasrec.checkpoint import store
from sasrec.checkpoint.restore import check_data, config_of, put_weights
from sasrec.config.settings import ModelConfig, RunConfig
from sasrec.config.split_rule import ALL
from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit, Split
from sasrec.errors import CheckpointError, ConfigError, amount
from sasrec.evaluation.measure import Ranks, baseline_ranks
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.models import SequenceModel
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import RunLog


def announce(
    model: SequenceModel, split: Split, config: RunConfig, folder: RunFolder, log: RunLog, step: int
) -> None:
    """Log the size of the model and of the split before training begins."""
    parameters = sum(p.numel() for p in model.parameters())
    log.event("model", parameters=parameters, device=str(model.device))
    log.say(f"training {parameters:,} parameters on {model.device}; results in {folder.path}")
    targets = f"{len(split.valid.targets):,} validation and {amount(len(split.test.targets), 'test target')}"
    log.say(f"split {split.how}: {amount(split.training.lengths.sum(), 'event')} to train on, {targets}")
    if split.how == ALL:
        log.say("note: nothing is held out, so the last weights are kept, and nothing is measured")
    elif not len(split.valid.targets):
        log.say(f"note: nobody has a validation target ({split.valid.why_skipped}); the last weights are kept")
    if config.training.tensorboard:
        log.show_in_tensorboard(step)


def validated_baselines(data: Dataset, split: Split, log: RunLog) -> Ranks:
    """Measure the baselines on validation, and log their metrics, so that one can judge progress during training.

    Returns their ranks, for `measure`, so that nothing is measured twice; empty without validation targets.
    No random generator of training is used.
    """
    if not len(split.valid.targets):
        return {}
    known = baseline_ranks(data, split, log)
    metrics = {name: metrics_from_ranks(ranks.full) for (name, _), ranks in known.items()}
    log.event("baselines", baselines={name: {"valid": {"full": each}} for name, each in metrics.items()})
    best = max(metrics, key=lambda name: metrics[name]["ndcg@10"])
    log.say(f"best baseline on validation: {best}, NDCG@10 {metrics[best]['ndcg@10']:.4f}")
    return known


def validated_part(split: Split, config: RunConfig) -> EvaluationSplit:
    """Return the validation targets that training is judged by: all, or those of some users (`valid_users`)."""
    count = config.training.valid_users
    return split.valid.of_users(count, config.training.seed) if count else split.valid


def validator(model: SequenceModel, valid: EvaluationSplit) -> Callable[[Callable[[str], None]], float | None]:
    """Return the function by which the trainer validates: NDCG@10 on the full catalogue, None without a target."""

    def validate(report: Callable[[str], None]) -> float | None:
        done, total = 0, len(valid.targets)

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            report(f"validating {done:,} of {total:,}")

        if not total:
            return None
        return metrics_from_ranks(target_ranks(ModelScorer(model), valid, advance=advance).full)["ndcg@10"]

    return validate


def start_from_weights(start: store.Checkpoint, model: SequenceModel, data: Dataset, config: RunConfig) -> None:
    """Copy the weights of a checkpoint to a new model (warm start).

    Raises: CheckpointError if the checkpoint has other data or model settings than this run, ConfigError if it has
    another split. Remedy: start from a checkpoint with the same data, model settings and split.
    """
    check_data(start, data)
    other = config_of(start)
    if other.evaluation.split != config.evaluation.split:
        raise ConfigError(
            f"{start.path} was trained with split {other.evaluation.split}, so it may have seen targets of split "
            f"{config.evaluation.split}. Start from weights of the same split."
        )
    of_model = {field.name for field in dataclasses.fields(ModelConfig)}
    # Equal shapes do not suffice: another setting turns the same weights into another function.
    differing = other.differences(config).keys() & of_model - {
        "dropout_rate",
        "mhc_sinkhorn_iter",
        "mhc_init_gate",
    }
    if differing:
        raise CheckpointError(
            f"{start.path} is of a model with another {', '.join(sorted(differing))} than this run. "
            "Give this run the values of that model, or start from another checkpoint."
        )
    put_weights(start, model)
