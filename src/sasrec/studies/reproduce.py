"""Train a recipe with each of its seeds, and compare the mean metrics with its bands (accepted ranges)."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.config.recipe import Recipe, read_recipe
from sasrec.config.settings import KEEP_WEIGHTS, DataConfig
from sasrec.data.dataset import Dataset
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecError, for_shell
from sasrec.runs.folder import Ending, RunFolder, metric_of
from sasrec.runs.train import resume, train
from sasrec.runtime.log import RunLog
from sasrec.sources.resolve import resolve


class ReproductionError(SasrecError):
    """A run of a recipe is not finished or not measured, or a mean metric is outside the accepted range (band).

    Remedy: resume the run, or compare the PyTorch version and the device with those in the comment
    at the top of the recipe.
    """


@dataclass(frozen=True)
class Outcome:
    """The results of a recipe, one run per seed."""

    recipe: Recipe
    metrics: list[dict[str, Any]]
    """The content of metrics.json of each run, in the order of the seeds."""
    endings: list[Ending]
    """How each run ended, in the order of the seeds."""

    def values(self, metric: str) -> list[float]:
        """The values of one metric, such as "test.full.ndcg@10", one per seed."""
        return [metric_of(metrics, metric) for metrics in self.metrics]

    def outside(self) -> list[str]:
        """A sentence for each metric whose mean is outside its band, and one if a time limit may be the cause."""
        missed = [
            f"{metric} is {mean:.4f}, outside the expected {low:g} to {high:g}"
            for metric, (low, high) in self.recipe.expected.bands.items()
            if not low <= (mean := statistics.mean(self.values(metric))) <= high
        ]
        cut = sum(end.reason.endswith("minutes are over") for end in self.endings)
        if missed and cut:
            missed.append(
                f"max_minutes stopped {cut} of {len(self.endings)} runs, "
                "and a slower machine trains less in that time"
            )
        return missed


def reproduce(
    name: str | Path,
    folder: str | Path,
    *,
    dataset: str | Path | None = None,
    seeds: list[int] | None = None,
    log: RunLog | None = None,
) -> Outcome:
    """Train and measure a recipe with each of its seeds, in the folders `folder`/NAME-SEED.

    An existing run is continued. If its training has ended, the run is reused, and measured if necessary.

    `name`: a recipe's name, or the path of a .toml file. `dataset`: the path of the data, for a recipe that names
    no public data set. `seeds`: use these random seeds instead of the recipe's.

    Raises:
        DataError: the data, or the data of an existing run, is not the recipe's. Use the recipe's data, or remove
            the run.
        ConfigError: an existing run has other settings; remove it, or name another folder. Or the recipe is
            unknown, or a seed is named twice; correct it.
        Also the errors that `train` raises. The errors above are raised before any training.
    """
    recipe = read_recipe(name)
    seeds = recipe.expected.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds is {seeds}. Give at least one seed, and each only once")
    settings = {seed: recipe.settings(seed) for seed in seeds}
    folders = {seed: Path(folder) / f"{recipe.name}-{seed}" for seed in seeds}
    data = _data_of(recipe, dataset)
    for seed, train_dir in folders.items():
        if RunFolder(train_dir).can_resume():
            _check_run(train_dir, recipe, seed)
    # All existing runs are checked above, so that a wrong one is reported before hours of training.
    results = []
    for seed, train_dir in folders.items():
        if not RunFolder(train_dir).can_resume():
            train(data, train_dir, recipe=settings[seed], log=log)
        elif not RunFolder(train_dir).is_finished():
            resume(train_dir, recipe=settings[seed], log=log)
        results.append(result_of(train_dir, recipe, seed))
    return Outcome(recipe, [metrics for metrics, _ in results], [ended for _, ended in results])


def result_of(train_dir: Path, recipe: Recipe, seed: int) -> tuple[dict[str, Any], Ending]:
    """The contents of metrics.json of a finished run of this recipe and seed, and how its training ended.

    Raises: ConfigError or DataError if the run has other settings or data. Remedy: remove the run.
    ReproductionError if its training has not ended, or if the run was not measured afterwards. Remedy: resume it.
    """
    _check_run(train_dir, recipe, seed)
    folder = RunFolder(train_dir)
    ended = folder.ending()
    if ended is None or not folder.is_finished():
        raise ReproductionError(
            f"the training of {train_dir} has not ended, or was not measured afterwards. "
            f"Finish it: sasrec train --train_dir {for_shell(train_dir)} --resume"
        )
    return folder.metrics(), ended


def _data_of(recipe: Recipe, dataset: str | Path | None) -> Dataset:
    config = recipe.config.data if dataset is None else recipe.config.replace(dataset=str(dataset)).data
    data, _ = resolve(config.dataset, config)
    if not data.data_hash.startswith(recipe.expected.data_hash):
        raise DataError(
            f"{recipe.name} expects data with the hash {recipe.expected.data_hash[:12]}, but {config.dataset} has "
            f"{data.data_hash[:12]}. Use the data that the comment at the top of the recipe describes, with "
            "the same events in the same order."
        )
    return data


def _check_run(train_dir: Path, recipe: Recipe, seed: int) -> None:
    """Check that an existing run has the settings, the seed and the data of this recipe.

    Raises: ConfigError if a setting or the seed differs, DataError if the data differs. Remedy: remove the run, or
    name another folder. EvaluationError if metrics.json has no data hash. Remedy: evaluate the run again.
    """
    folder = RunFolder(train_dir)
    own = folder.config()
    differing = dataclasses.replace(own, data=DataConfig()).differences(recipe.settings(seed)).keys()
    if other := differing - KEEP_WEIGHTS:
        raise ConfigError(
            f"{train_dir} was trained with different settings: {', '.join(sorted(other))}. "
            f"Remove {train_dir}, or name another folder."
        )
    if folder.is_finished():
        data_hash = _measured_on(train_dir)
    else:  # metrics.json may be missing, so check the data with which training would continue
        data_hash = folder.dataset(own).data_hash
    if not data_hash.startswith(recipe.expected.data_hash):
        raise DataError(
            f"{train_dir} was trained on data with the hash {data_hash[:12]}, but {recipe.name} expects "
            f"{recipe.expected.data_hash[:12]}. Remove {train_dir}, or name another folder."
        )


def _measured_on(train_dir: Path) -> str:
    """The hash of the data on which a run was measured, from its metrics.json."""
    try:
        return str(RunFolder(train_dir).metrics()["protocol"]["data_hash"])
    except (KeyError, TypeError):
        raise EvaluationError(
            f"{train_dir}/metrics.json has no hash of its data. Measure the run again: sasrec evaluate "
            f"{for_shell(train_dir)}"
        ) from None
