"""Settings, recipes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError


def test_a_saved_recipe_loads_equal(tmp_path: Path) -> None:
    config = RunConfig().replace(maxlen=50, loss="bce", user_column="who", lr=3e-4)
    config.save(tmp_path / "recipe.toml")
    assert RunConfig.load(tmp_path / "recipe.toml") == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"maxlem": 3}, "'maxlem' is not a setting. Did you mean maxlen?"),
        ({"zzzz": 3}, "'zzzz' is not a setting. The settings are: dataset, "),
        ({"maxlen": "long"}, "maxlen"),
        ({"maxlen": 0}, "`maxlen` must be at least 1"),
        ({"num_heads": 3}, "must divide `hidden_units`"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
        ({"lr": 0.0}, "`lr` must be above 0"),
        ({"lr": float("nan")}, "`lr` must be above 0"),
        ({"l2_emb": -1.0}, "l2_emb"),
        ({"max_minutes": -1.0}, "max_minutes"),
        ({"lr": float("inf")}, "`lr` must be above 0 and at most 1,000,000,000, not inf"),
        ({"clip_norm": float("inf")}, "`clip_norm` must be at least 0 and at most 1,000,000,000"),
        (
            {"mhc": True, "mhc_init_gate": float("nan")},
            "`mhc_init_gate` must be at least -1,000 and at most 1,000, not nan",
        ),
        ({"loss": "softmax", "negatives": "in_batch"}, "one negative for a whole batch"),
        ({"patience": -1}, "patience"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 10**400}, "`seed` must be"),
        ({"k_core": -1}, "`k_core` must be at least 0"),
        ({"lr": True}, "lr must be a number, not True"),
        ({"num_epochs": "3"}, "num_epochs must be a number, not '3'"),
        ({"mhc": 1}, "mhc must be true or false, not 1"),
        ({"weight_decay": 0.1}, "`weight_decay` does nothing with optimizer=adam; use optimizer=adamw"),
        ({"l2_emb_tables": "all"}, "`l2_emb_tables` does nothing with l2_emb=0; use l2_emb=5e-5, or remove"),
        ({"gamma": 0.1}, "`gamma` does nothing with schedule=constant; use schedule=step"),
        ({"schedule": "step", "gamma": 0.0}, "`gamma` must be above 0"),
        ({"accumulate": 0}, "`accumulate` must be at least 1"),
        ({"accumulate": 129}, "`accumulate` \\(129\\) must not exceed `batch_size` \\(128\\)"),
        ({"mhc": True, "mhc_projection": "birkhoff", "mhc_expansion_rate": 5}, "too many permutations"),
        ({"mhc": True, "mhc_projection": "birkhoff", "mhc_sinkhorn_iter": 5}, "does nothing with .*birkhoff"),
        ({"max_rejects": -2}, "max_rejects"),
        ({"loss": "mse"}, "loss"),
        ({"num_negatives": 5}, "does nothing with loss=ce; use loss=bce, loss=gbce or loss=softmax"),
        ({"negatives": "popularity"}, "does nothing with loss=ce; use loss=bce, loss=gbce or loss=softmax"),
        ({"negatives": "in_batch"}, "does nothing with loss=ce; use loss=bce, loss=gbce or loss=softmax"),
        ({"share_negatives": True}, "does nothing with loss=ce; use loss=bce, loss=gbce or loss=softmax"),
        ({"gbce_t": 0.5}, "`gbce_t` does nothing with loss=ce; use loss=gbce"),
        ({"loss": "bce", "gbce_t": 0.5}, "`gbce_t` does nothing with loss=bce; use loss=gbce"),
        ({"loss": "gbce", "gbce_t": 1.5}, "`gbce_t` must be at least 0 and at most 1"),
        (
            {"loss": "softmax", "label_smoothing": 0.1},
            "`label_smoothing` does nothing with loss=softmax; use loss=ce",
        ),
        ({"label_smoothing": 1.0}, "`label_smoothing` must be at least 0 and below 1"),
        ({"loss": "gbce", "logq": False}, "`logq` does nothing with loss=gbce"),
        ({"logq": False}, "`logq` does nothing with loss=ce"),
        ({"temperature": 0.0}, "`temperature` must be above 0"),
        ({"temperature": float("nan")}, "`temperature` must be above 0"),
        ({"temperature": float("inf")}, "`temperature` must be above 0"),
        ({"loss": "softmax", "num_negatives": 0}, "`num_negatives` must be at least 1"),
        ({"time_span": 5}, "`time_span` does nothing without `time`"),
        ({"time": True, "time_span": 0}, "`time_span` must be at least 1"),
        ({"mhc": True, "norm": "post"}, "mHC is defined for norm=pre only, not norm=post"),
        ({"mhc": True, "mhc_expansion_rate": 0}, "`mhc_expansion_rate` must be at least 1"),
        ({"mhc_sinkhorn_iter": 5}, "`mhc_sinkhorn_iter` does nothing without `mhc`"),
        ({"mhc_projection": "orthogonal"}, "`mhc_projection` does nothing without `mhc`; use mhc=True"),
        (
            {"mhc": True, "mhc_projection": "orthogonal", "mhc_sinkhorn_iter": 5},
            "`mhc_sinkhorn_iter` does nothing with mhc_projection=orthogonal; use mhc_projection=sinkhorn",
        ),
        ({"gated": True, "mhc": True}, "gated=True and mhc=True are two kinds of residual; use mhc=False"),
        (
            {"gated": True, "norm": "post"},
            "gated residual is defined for norm=pre only, not norm=post; use norm=pre",
        ),
        ({"gated": True, "norm": "original"}, "gated residual is defined for norm=pre only, not norm=original"),
        ({"feed_forward": "gelu"}, "feed_forward"),
        ({"feed_forward_width": -1}, "`feed_forward_width` must be at least 0 and at most 1,000,000, not -1"),
        ({"feed_forward_width": 2_000_000}, "`feed_forward_width` must be at least 0 and at most 1,000,000"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig().replace(**setting)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nmaxlem = 5", "maxlem"),
        ("[modle]\nmaxlen = 5", "modle"),
        ("[model\n", "not valid TOML"),
        ("[model]\nmaxlen = 5.5", "maxlen"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_by_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        RunConfig.load(tmp_path / "recipe.toml")


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        RunConfig.load(tmp_path / "gone.toml")


@pytest.mark.parametrize("recipe", sorted(Path("recipes").glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_loads(recipe: Path) -> None:
    assert RunConfig.load(recipe).data.dataset or "--dataset" in recipe.read_text()


def test_a_recipe_that_is_no_text_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(b"seed = 1\xff\xfe")
    with pytest.raises(ConfigError, match=r"recipe\.toml are not UTF-8"):
        RunConfig.load(tmp_path / "recipe.toml")


def test_a_configuration_shows_only_what_differs_from_the_defaults() -> None:
    assert repr(RunConfig()) == "RunConfig()"
    config = RunConfig().replace(maxlen=50, dataset="<b>")
    assert repr(config) == "RunConfig(dataset='<b>', maxlen=50)"
    assert config._repr_html_() == "<code>RunConfig(dataset=&#x27;&lt;b&gt;&#x27;, maxlen=50)</code>"
