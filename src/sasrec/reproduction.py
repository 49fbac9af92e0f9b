"""A recipe that says what it gives, run over its seeds and held against that.

[expected]                       # beside the settings, in recipes/NAME.toml
data_hash = "0123456789ab"       # of the data the bands are for; at least 12 digits
seeds = [0, 1, 2]
"test.full.ndcg@10" = [0.180, 0.192]

[[published]]                    # as many as there are
metric = "test.full.ndcg@10"
value = 0.1821
source = "author-year, and what it is there"
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sasrec import run
from sasrec.config import DataConfig, RunConfig
from sasrec.data.dataset import Dataset
from sasrec.data.prepare import resolve
from sasrec.errors import ConfigError, DataError, SasrecError
from sasrec.trained import METRICS, saved_metrics
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
    def _check_bands(self) -> Expected:
        for metric, (low, high) in self.bands.items():
            if not _METRIC.fullmatch(metric):
                raise ValueError(f"{metric} is no metric; one is test.full.ndcg@10")
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


@dataclass(frozen=True)
class Recipe:
    """A recipe file."""

    name: str
    config: RunConfig
    expected: Expected
    published: list[Published]


@dataclass(frozen=True)
class Outcome:
    """What a recipe gave over its seeds."""

    recipe: Recipe
    metrics: list[dict[str, Any]]
    """metrics.json of each seed."""
    seconds: list[float]
    """Of training, of each seed."""

    def values(self, metric: str) -> list[float]:
        """Of a metric, one a seed."""
        return [metric_of(each, metric) for each in self.metrics]

    def outside(self) -> list[str]:
        """A sentence for each metric whose mean is not in its band."""
        return [
            f"{metric} is {mean:.4f}, and {low:g} to {high:g} was expected"
            for metric, (low, high) in self.recipe.expected.bands.items()
            if not low <= (mean := statistics.mean(self.values(metric))) <= high
        ]


def recipe_names() -> list[str]:
    """Of the recipes that come with the package and say what they give."""
    return sorted(path.stem for path in _folder().glob("*.toml") if "\n[expected]" in path.read_text("utf-8"))


def read_recipe(name: str | Path) -> Recipe:
    """A recipe that comes with the package, by name, or a file.

    Raises: ConfigError if there is none of that name, or it does not say what it gives.
    """
    path = Path(name) if str(name).endswith(".toml") else _folder() / f"{name}.toml"
    if path.stem not in recipe_names() and not str(name).endswith(".toml"):
        raise ConfigError(f"there is no recipe {str(name)!r} to reproduce; there are: {', '.join(recipe_names())}")
    config = RunConfig.load(path)
    parts = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        expected = Expected.model_validate(parts.get("expected", {}))
        published = [Published.model_validate(each) for each in parts.get("published", [])]
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: expected or published: {first['loc']}: {first['msg']}") from None
    return Recipe(path.stem, config, expected, published)


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

    Raises: DataError if the data is not that of the recipe; ConfigError; what `train` raises.
    """
    recipe = read_recipe(name)
    data = _data_of(recipe, dataset)
    config = dataclasses.replace(recipe.config, data=DataConfig())
    metrics, seconds = [], []
    for seed in recipe.expected.seeds if seeds is None else seeds:
        train_dir = Path(folder) / f"{recipe.name}-{seed}"
        if not run.holds_checkpoints(train_dir):
            run.train(data, train_dir, recipe=config, seed=seed, log=log)
        elif _ended(train_dir) is None or not (train_dir / METRICS).exists():
            run.resume(train_dir, recipe=config.replace(seed=seed), log=log)
        _check_run(train_dir, config.replace(seed=seed), data)
        metrics.append(saved_metrics(train_dir))
        seconds.append(_ended(train_dir) or 0.0)
    return Outcome(recipe, metrics, seconds)


def metric_of(metrics: dict[str, Any], name: str) -> float:
    """`test.full.ndcg@10`, or `baselines.markov.test.full.ndcg@10`, of a metrics.json.

    Raises: ConfigError if there is none of that name.
    """
    found: Any = metrics
    try:
        for key in name.split("."):
            found = found[key]
        return float(found)
    except (KeyError, TypeError):
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


def _check_run(train_dir: Path, config: RunConfig, data: Dataset) -> None:
    """Whether the run that is there is one of this recipe and data."""
    own = dataclasses.replace(RunConfig.load(train_dir / "config.toml"), data=DataConfig())
    if other := sorted(own.differences(config).keys() - {"device"}):
        raise ConfigError(
            f"{train_dir} was trained with another {', '.join(other)}: remove it, or name another folder"
        )
    if saved_metrics(train_dir)["protocol"]["data_hash"] != data.data_hash:
        raise DataError(f"{train_dir} was trained on other data: remove it, or name another folder")


def _ended(train_dir: Path) -> float | None:
    """The seconds of a run that came to its end, or None."""
    stopped: dict[str, Any] = {}
    for line in (train_dir / "log.jsonl").read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # a line that a kill cut short
            event = json.loads(line)
            stopped = event if event["event"] in ("stopped", "start", "resume") else stopped
    ended = stopped.get("event") == "stopped" and stopped["reason"] != "interrupted"
    return float(stopped["seconds"]) if ended else None


def _folder() -> Path:
    """In a checkout the recipes are beside src, in a wheel inside the package."""
    return _SHIPPED if _SHIPPED.exists() else _CHECKOUT
