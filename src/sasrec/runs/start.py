"""Say what a training begins with: the size of the model, the split, and the baselines on validation."""

from __future__ import annotations

from sasrec.config.settings import RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import Split
from sasrec.evaluation.measure import Ranks, baseline_ranks
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.models import SequenceModel
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import RunLog


def announce(
    model: SequenceModel, split: Split, config: RunConfig, folder: RunFolder, log: RunLog, step: int
) -> None:
    """Log the size of the model and of the split before training begins."""
    parameters = sum(p.numel() for p in model.parameters())
    log.event("model", parameters=parameters, device=str(model.device))
    log.say(f"training {parameters:,} parameters on {model.device}; results in {folder.path}")
    targets = f"{len(split.valid.targets):,} validation and {len(split.test.targets):,} test targets"
    log.say(f"split {split.how}: {split.training.lengths.sum():,} events to train on, {targets}")
    if not len(split.valid.targets):
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
