"""A recipe file: settings, and what they are expected to give.

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
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.errors import ConfigError

_METRIC = re.compile(r"(test|valid)\.(full|sampled)\.((ndcg|hr|mrr)@(1|5|10|20|50)|mrr)")
_SHIPPED = Path(__file__).parents[1] / "recipes"
_CHECKOUT = Path(__file__).parents[3] / "recipes"


class Expected(BaseModel):
    """The results that a recipe promises."""

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
    """A published result under the same protocol."""

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
        """The settings of the run with that seed. They do not name the data, whose hash is compared instead."""
        return dataclasses.replace(self.config, data=DataConfig()).replace(seed=seed)


def recipe_names() -> list[str]:
    """The names of the recipes of the package that state expected results."""
    return sorted(path.stem for path in _folder().glob("*.toml") if "\n[expected]" in path.read_text("utf-8"))


def read_recipe(name: str | Path) -> Recipe:
    """Read a recipe of the package, by name, or a recipe file, by a path that ends in .toml.

    Raises: ConfigError if the recipe does not exist, or does not state expected results.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in recipe_names():
            raise ConfigError(f"{str(name)!r} is not a recipe. Use {', '.join(recipe_names())}, or a .toml file")
        path = _folder() / f"{name}.toml"
    config = RunConfig.load(path)
    parts = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        stated = _Stated.model_validate({key: parts[key] for key in ("expected", "published") if key in parts})
    except ValidationError as error:
        raise ConfigError(f"{path} {_in_words(error)}") from None
    return Recipe(path.stem, config, stated.expected, stated.published)


def _check_metric(name: str) -> str:
    if not _METRIC.fullmatch(name):
        raise ValueError(f"{name} is not a metric; an example is test.full.ndcg@10")
    return name


def _in_words(error: ValidationError) -> str:
    """A clause about what is wrong in the tables [expected] or [[published]]."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if where == "expected" and first["type"] == "missing":
        return "does not state expected results. Add a table [expected] with data_hash and seeds"
    wrong = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    return f"has a mistake in {where}: {wrong}"


def _folder() -> Path:
    """The folder of recipes: inside the package in a wheel, beside src in a checkout."""
    return _SHIPPED if _SHIPPED.exists() else _CHECKOUT
