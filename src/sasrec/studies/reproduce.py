"""Train a recipe over its seeds, and compare the means with the bands it states."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.config.recipe import Recipe, read_recipe
from sasrec.config.settings import KEEP_WEIGHTS, DataConfig
from sasrec.data.dataset import Dataset
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecError
from sasrec.runs.folder import Ending, RunFolder, metric_of
from sasrec.runs.train import resume, train
from sasrec.runtime.log import RunLog
from sasrec.sources.resolve import resolve


class ReproductionError(SasrecError):
    """A recipe did not give what it says: compare versions and data, then the recipe's header."""


@dataclass(frozen=True)
class Outcome:
    """What a recipe gave over its seeds."""

    recipe: Recipe
    metrics: list[dict[str, Any]]
    """metrics.json of each seed."""
    endings: list[Ending]
    """Of each seed."""

    def values(self, metric: str) -> list[float]:
        """Of a metric, one a seed."""
        return [metric_of(each, metric) for each in self.metrics]

    def outside(self) -> list[str]:
        """A sentence for each metric whose mean is not in its band, and one if the clock may be why."""
        missed = [
            f"{metric} is {mean:.4f}, and {low:g} to {high:g} was expected"
            for metric, (low, high) in self.recipe.expected.bands.items()
            if not low <= (mean := statistics.mean(self.values(metric))) <= high
        ]
        cut = sum(each.reason.endswith("minutes are over") for each in self.endings)
        if missed and cut:
            missed.append(
                f"max_minutes ended {cut} of {len(self.endings)} runs, so on a slower machine they learn less"
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
    """Train a recipe with each of its seeds in `folder`/NAME-SEED, and measure it.

    `dataset`: where the data is, if the recipe names none or it cannot be fetched. `seeds`: others than the
    recipe's. A run that is there already is gone on with, or measured if it has ended.

    Raises: before anything is trained, DataError if the data, or that of a run that is there, is not the recipe's,
    and ConfigError if such a run has other settings; what `train` raises.
    """
    recipe = read_recipe(name)
    seeds = recipe.expected.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"name at least one seed, and none twice: not {seeds}")
    settings = {seed: recipe.settings(seed) for seed in seeds}
    folders = {seed: Path(folder) / f"{recipe.name}-{seed}" for seed in seeds}
    data = _data_of(recipe, dataset)
    for seed, train_dir in folders.items():
        if RunFolder(train_dir).can_resume():
            _check_run(train_dir, recipe, seed)
    results = []
    for seed, train_dir in folders.items():
        if not RunFolder(train_dir).can_resume():
            train(data, train_dir, recipe=settings[seed], log=log)
        elif not RunFolder(train_dir).is_finished():
            resume(train_dir, recipe=settings[seed], log=log)
        results.append(result_of(train_dir, recipe, seed))
    return Outcome(recipe, [metrics for metrics, _ in results], [ended for _, ended in results])


def result_of(train_dir: Path, recipe: Recipe, seed: int) -> tuple[dict[str, Any], Ending]:
    """The metrics.json of a run of that recipe and seed, and how it ended.

    Raises: ConfigError or DataError if it is another run; ReproductionError if it has not ended or has no metrics.
    """
    _check_run(train_dir, recipe, seed)
    folder = RunFolder(train_dir)
    ended = folder.ending()
    if ended is None or not folder.is_finished():
        raise ReproductionError(f"{train_dir} has not ended, or was not measured since")
    return folder.metrics(), ended


def _data_of(recipe: Recipe, dataset: str | Path | None) -> Dataset:
    config = recipe.config.data if dataset is None else recipe.config.replace(dataset=str(dataset)).data
    data, _ = resolve(config.dataset, config)
    if not data.data_hash.startswith(recipe.expected.data_hash):
        raise DataError(
            f"the figures of {recipe.name} are for data {recipe.expected.data_hash[:12]}, and {config.dataset} "
            f"has {data.data_hash[:12]}: other events, or another order of them"
        )
    return data


def _check_run(train_dir: Path, recipe: Recipe, seed: int) -> None:
    """Whether the run that is there, ended or not, is one of this recipe and data."""
    folder = RunFolder(train_dir)
    own = folder.config()
    differing = dataclasses.replace(own, data=DataConfig()).differences(recipe.settings(seed)).keys()
    if other := differing - KEEP_WEIGHTS:
        raise ConfigError(
            f"{train_dir} was trained with another {', '.join(sorted(other))}: remove it, or name another folder"
        )
    if folder.is_finished():
        data_hash = _measured_on(train_dir)
    else:  # there may be no metrics.json yet; this is what it would go on with
        data_hash = folder.dataset(own).data_hash
    if not data_hash.startswith(recipe.expected.data_hash):
        raise DataError(f"{train_dir} was trained on other data: remove it, or name another folder")


def _measured_on(train_dir: Path) -> str:
    """The hash of the data in a run's metrics.json."""
    try:
        return str(RunFolder(train_dir).metrics()["protocol"]["data_hash"])
    except (KeyError, TypeError):
        raise EvaluationError(
            f"{train_dir}/metrics.json does not name its data; measure the run again: sasrec evaluate {train_dir}"
        ) from None
