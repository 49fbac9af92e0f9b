"""A default can change without breaking a rule, a recipe or the configuration itself."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from sasrec.config import settings
from sasrec.config.recipe import recipe_names
from sasrec.config.settings import KEEP_WEIGHTS, MAY_CHANGE_ON_RESUME, PARTS, RunConfig
from sasrec.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
# Another valid value of each setting whose type alone does not give one.
OTHER = {
    "encoding": "cp1252", "where": "rating > 3", "query": "SELECT 1",
    "user_column": "who", "item_column": "what", "time_column": "when", "dataset": "other", "split": "last-2",
    "num_heads": 1, "dropout_rate": 0.3, "gbce_t": 0.25, "label_smoothing": 0.05, "gamma": 0.9, "device": "cpu",
    "duplicates": "first", "time_unit": "ms", "norm": "post", "interval_unit": "history", "step_unit": "steps",
    "mhc_projection": "birkhoff", "loss": "bce", "negatives": "popularity", "windows": "random",
    "feed_forward": "swiglu", "optimizer": "adamw", "columns": "user,item,-,time", "time_format": "%d.%m.%Y", "missing": "?",
    "schedule": "cosine", "precision": "bf16", "hidden_units": 32, "l2_emb_tables": "all",
}  # fmt: skip


def names() -> Iterator[str]:
    for part in PARTS:
        yield from (field.name for field in dataclasses.fields(part))


def with_default(name: str, value: object) -> types.ModuleType:
    """The module of settings, made again from its source with another default of one setting."""
    pattern = rf"(^    {name}: [^=\n]+ = (?!field)(?:setting\()?)(?:r\x22[^\x22]*\x22|[^,\n)]+)"
    changed, count = re.subn(
        pattern, lambda match: match[1] + repr(value), inspect.getsource(settings), flags=re.M
    )
    assert count == 1, name
    module = types.ModuleType(f"settings_with_another_{name}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(changed, module.__name__, "exec"), module.__dict__)
    return module


def other_value(name: str) -> object:
    default = {field.name: field.default for part in PARTS for field in dataclasses.fields(part)}[name]
    if name in OTHER:
        return OTHER[name]
    return not default if isinstance(default, bool) else default + 1


@pytest.mark.parametrize("name", list(names()))
def test_a_changed_default_leaves_the_configuration_valid_and_every_recipe_loadable(name: str) -> None:
    changed = with_default(name, other_value(name))
    config = changed.RunConfig()
    values = {k: v for part in dataclasses.asdict(config).values() for k, v in part.items()}
    assert values[name] == other_value(name)
    for recipe in RECIPES:
        changed.RunConfig.load(recipe)
    assert len(RECIPES) >= len(recipe_names()) > 0


def test_settings_that_decide_no_weight_may_all_change_on_resume() -> None:
    assert KEEP_WEIGHTS < MAY_CHANGE_ON_RESUME
    assert {"num_epochs", "max_minutes", "patience", "dataset"} == MAY_CHANGE_ON_RESUME - KEEP_WEIGHTS


def test_a_setting_that_does_nothing_is_refused_wherever_it_differs_from_its_default() -> None:
    module = with_default("time_span", 5)
    assert module.RunConfig().model.time_span == 5
    with pytest.raises(module.ConfigError, match="`time_span` does nothing without `time`"):
        module.RunConfig().replace(time_span=256)
    assert RunConfig().replace(time_span=256).model.time_span == 256


def of_numbers() -> list[str]:
    return [field.name for part in PARTS for field in dataclasses.fields(part) if field.type in ("int", "float")]


@pytest.mark.parametrize("name", of_numbers())
def test_a_number_that_no_run_could_use_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` must be .*(at most|below) "):
        RunConfig().replace(**{name: 10**20})
    assert len(of_numbers()) > 25
