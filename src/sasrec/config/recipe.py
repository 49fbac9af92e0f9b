"""Read recipe files: settings of a run, with the metrics that the run is expected to reach.

[expected]                       # in recipes/NAME.toml, after the settings
data_hash = "0123456789ab"       # of the data set; at least 12 digits
seeds = [0, 1, 2]
"test.full.ndcg@10" = [0.180, 0.192]    # the mean over the seeds must lie in this band; optional

[[published]]                    # optional; may repeat
metric = "test.full.ndcg@10"
value = 0.1821
source = "author-year, and the table or figure"
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.config.toml_file import recipe_folder, tables_of
from sasrec.errors import ConfigError

METRIC_NAME = r"^(test|valid)\.(full|sampled)\.((ndcg|hr|mrr)@(1|5|10|20|50)|mrr)$"


class Expected(BaseModel):
    """The table [expected] of a recipe: the data, the seeds and the metric bands."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, tuple[float, float]]
    data_hash: str = Field(min_length=12)
    seeds: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Expected:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed occurs twice in {self.seeds}")
        for metric, (low, high) in self.bands.items():
            _check_metric(metric)
            if not low < high:
                raise ValueError(f"the band of {metric} runs from {low} to {high}; write the lower value first")
        return self

    @property
    def bands(self) -> dict[str, tuple[float, float]]:
        """Maps a metric such as test.full.ndcg@10 to its band: lowest and highest accepted mean over the seeds."""
        return self.__pydantic_extra__


class Published(BaseModel):
    """A published result under the protocol of the recipe: an entry [[published]] of the recipe."""

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
    """The content of a recipe file."""

    name: str
    config: RunConfig
    expected: Expected
    published: list[Published]

    def settings(self, seed: int) -> RunConfig:
        """Return the settings of the run with this random seed, without the settings of the data.

        `reproduce` checks the data by the hash in the recipe, so the path of the data does not matter.
        """
        return dataclasses.replace(self.config, data=DataConfig()).replace(seed=seed)


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package that have a table [expected]."""
    return sorted(
        path.stem for path in recipe_folder().glob("*.toml") if "\n[expected]" in path.read_text("utf-8")
    )


def read_recipe(name: str | Path) -> Recipe:
    """Read a recipe of the package by its name, or a file by its path, which must end in .toml.

    Raises: ConfigError if the name is unknown, or if [expected] or [[published]] is missing or malformed. Remedy:
    use a name that the message lists, or correct the entry that it names.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in recipe_names():
            raise ConfigError(
                f"unknown recipe {str(name)!r}. Use one of {', '.join(recipe_names())}, or the path of a file; "
                "a file ends in .toml."
            )
        path = recipe_folder() / f"{name}.toml"
    config = RunConfig.load(path)
    parts = tables_of(path)
    try:
        stated = _Stated.model_validate({key: parts[key] for key in ("expected", "published") if key in parts})
    except ValidationError as error:
        raise ConfigError(f"{path} {_in_words(error)}") from None
    return Recipe(path.stem, config, stated.expected, stated.published)


def _check_metric(name: str) -> str:
    """Return the name if it is a metric's name. Raises: ValueError, which pydantic collects."""
    if not re.fullmatch(METRIC_NAME, name):
        raise ValueError(f"{name} is not a metric. Use a name such as test.full.ndcg@10.")
    return name


def _in_words(error: ValidationError) -> str:
    """Describe the first error in [expected] or [[published]]; the path of the file precedes this text."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if where == "expected" and first["type"] == "missing":
        return "has no table [expected]. Add [expected] with data_hash and seeds."
    wrong = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    return f"has an error in its expected or published results: {where}: {wrong}"
