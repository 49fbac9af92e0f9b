"""A recipe that says what it gives, run over its seeds and held against that.

[expected]                       # beside the settings, in recipes/NAME.toml
data_hash = "0123456789ab"       # of the data the bands are for; at least 12 digits
seeds = [0, 1, 2]
"test.full.ndcg@10" = [0.180, 0.192]    # the mean over these seeds; without any band nothing is checked

[[published]]                    # as many as there are
metric = "test.full.ndcg@10"
value = 0.1821
source = "author-year, and what it is there"
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sasrec import run
from sasrec.config import NO_WEIGHT, DataConfig, RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.prepare import resolve
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecError
from sasrec.trained import METRICS, Ending, dataset_of, ending, is_finished, saved_metrics
from sasrec.training.run_log import RunLog

_METRIC = re.compile(r"(test|valid)\.(full|sampled)\.((ndcg|hr|mrr)@(1|5|10|20|50)|mrr)")
_SHIPPED = Path(__file__).parent / "recipes"
_CHECKOUT = Path(__file__).parents[2] / "recipes"


class ReproductionError(SasrecError):
    """A recipe did not give what it says: compare versions and data, then the recipe's header."""


class Expected(BaseModel):
    """What a recipe says it gives."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, tuple[float, float]]
    data_hash: str = Field(min_length=12)
    seeds: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Expected:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed is named twice in {self.seeds}")
        for metric, (low, high) in self.bands.items():
            _check_metric(metric)
            if not low < high:
                raise ValueError(f"the band of {metric} goes from {low} to {high}")
        return self

    @property
    def bands(self) -> dict[str, tuple[float, float]]:
        """Metric, as in "test.full.ndcg@10" -> the lowest and highest mean over the seeds."""
        return self.__pydantic_extra__


class Published(BaseModel):
    """What others say they got under this protocol."""

    model_config = ConfigDict(extra="forbid")
    metric: str
    value: float
    source: str

    @field_validator("metric")
    @classmethod
    def _check(cls, metric: str) -> str:
        return _check_metric(metric)


class _Stated(BaseModel):
    expected: Expected
    published: list[Published] = []


@dataclass(frozen=True)
class Recipe:
    """A recipe file."""

    name: str
    config: RunConfig
    expected: Expected
    published: list[Published]

    def settings(self, seed: int) -> RunConfig:
        """Of the run with that seed. Where the data lies is no part of them: its hash is compared."""
        return dataclasses.replace(self.config, data=DataConfig()).replace(seed=seed)


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


def recipe_names() -> list[str]:
    """Of the recipes that come with the package and say what they give."""
    return sorted(path.stem for path in _folder().glob("*.toml") if "\n[expected]" in path.read_text("utf-8"))


def read_recipe(name: str | Path) -> Recipe:
    """A recipe that comes with the package, by name, or a file.

    Raises: ConfigError if there is none of that name, or it does not say what it gives.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in recipe_names():
            raise ConfigError(
                f"there is no recipe {str(name)!r} to reproduce; there are: {', '.join(recipe_names())}; "
                "the name of a file ends in .toml"
            )
        path = _folder() / f"{name}.toml"
    config = RunConfig.load(path)
    parts = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        stated = _Stated.model_validate({key: parts[key] for key in ("expected", "published") if key in parts})
    except ValidationError as error:
        raise ConfigError(f"{path} {_in_words(error)}") from None
    return Recipe(path.stem, config, stated.expected, stated.published)


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
        if run.holds_checkpoints(train_dir):
            _check_run(train_dir, recipe, seed)
    results = []
    for seed, train_dir in folders.items():
        if not run.holds_checkpoints(train_dir):
            run.train(data, train_dir, recipe=settings[seed], log=log)
        elif not is_finished(train_dir):
            run.resume(train_dir, recipe=settings[seed], log=log)
        results.append(result_of(train_dir, recipe, seed))
    return Outcome(recipe, [metrics for metrics, _ in results], [ended for _, ended in results])


def result_of(train_dir: Path, recipe: Recipe, seed: int) -> tuple[dict[str, Any], Ending]:
    """The metrics.json of a run of that recipe and seed, and how it ended.

    Raises: ConfigError or DataError if it is another run; ReproductionError if it has not ended or has no metrics.
    """
    _check_run(train_dir, recipe, seed)
    ended = ending(train_dir)
    if ended is None or not is_finished(train_dir):
        raise ReproductionError(f"{train_dir} has not ended, or was not measured since")
    return saved_metrics(train_dir), ended


def best_baseline(metrics: dict[str, Any], metric: str) -> tuple[str, float]:
    """Of those in a metrics.json: its name and what it has."""
    found = {name: metric_of(metrics, f"baselines.{name}.{metric}") for name in metrics["baselines"]}
    return max(found.items(), key=lambda each: each[1])


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """`test.full.ndcg@10`, or `baselines.markov.test.full.ndcg@10`, of a metrics.json.

    Raises: ConfigError if there is none of that name; EvaluationError if nobody has a target there.
    """
    found: Any = metrics
    for part in ("valid", "test"):
        if part in name.split(".") and part not in metrics:
            raise EvaluationError(f"there is no {name}: nobody has a {part} target, the protocol card says why")
    try:
        for key in name.split("."):
            found = found[key]
        return float(found)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"there is no metric {name!r}; one is test.full.ndcg@10") from None


def _data_of(recipe: Recipe, dataset: str | Path | None) -> Dataset:
    config = recipe.config.data if dataset is None else recipe.config.replace(dataset=str(dataset)).data
    data = resolve(config)
    if not data.data_hash.startswith(recipe.expected.data_hash):
        raise DataError(
            f"the figures of {recipe.name} are for data {recipe.expected.data_hash[:12]}, and {config.dataset} "
            f"has {data.data_hash[:12]}: other events, or another order of them"
        )
    return data


def _check_run(train_dir: Path, recipe: Recipe, seed: int) -> None:
    """Whether the run that is there, ended or not, is one of this recipe and data."""
    own = RunConfig.load(train_dir / "config.toml")
    differing = dataclasses.replace(own, data=DataConfig()).differences(recipe.settings(seed)).keys()
    if other := differing - set(NO_WEIGHT):
        raise ConfigError(
            f"{train_dir} was trained with another {', '.join(sorted(other))}: remove it, or name another folder"
        )
    if is_finished(train_dir):
        data_hash = _measured_on(train_dir)
    else:  # there may be no metrics.json yet; this is what it would go on with
        data_hash = dataset_of(train_dir, own).data_hash
    if not data_hash.startswith(recipe.expected.data_hash):
        raise DataError(f"{train_dir} was trained on other data: remove it, or name another folder")


def _measured_on(train_dir: Path) -> str:
    """The hash of the data in a run's metrics.json."""
    try:
        return str(saved_metrics(train_dir)["protocol"]["data_hash"])
    except (KeyError, TypeError):
        raise EvaluationError(
            f"{train_dir / METRICS} does not say of which data it is: sasrec evaluate {train_dir} writes it anew"
        ) from None


def _check_metric(name: str) -> str:
    if not _METRIC.fullmatch(name):
        raise ValueError(f"{name} is no metric; one is test.full.ndcg@10")
    return name


def _in_words(error: ValidationError) -> str:
    """What is wrong with the two tables of a recipe that are no settings."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if where == "expected" and first["type"] == "missing":
        return "does not say what it gives: it has no [expected] with data_hash and seeds"
    wrong = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    return f"does not say well what it gives: {where}: {wrong}"


def _folder() -> Path:
    """In a checkout the recipes are beside src, in a wheel inside the package."""
    return _SHIPPED if _SHIPPED.exists() else _CHECKOUT
