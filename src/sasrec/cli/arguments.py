"""Words of the command line that need more than a type: recipes, spellings, lists."""

from __future__ import annotations

from pathlib import Path

from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError
from sasrec.runtime.ranks import launched


def recipe_named_in(arguments: list[str]) -> RunConfig:
    """The recipe gives the defaults that the other flags override, so it is read before they are parsed.

    To resume or measure a run, its own config.toml is the recipe.
    """
    given: dict[str, str] = {}
    for flag, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = flag.partition("=")
        given[name.replace("-", "_").replace("__", "--", 1)] = value or following
    own = Path(given.get("--train_dir", "")) / "config.toml"
    if "--recipe" in given:
        return RunConfig.load(given["--recipe"])
    existing = own.exists() and ("--resume" in given or "--inference_only" in given)
    return RunConfig.load(own) if existing else RunConfig()


def seed_document_flags(arguments: list[str]) -> list[str]:
    """`--norm_first`, as the published PyTorch code spells the norm placement, and `--multi_gpu`."""
    spelled = {"--norm_first": ["--norm", "pre"], "--no_norm_first": ["--norm", "post"], "--multi_gpu": []}
    words = [word.replace("-", "_").replace("__", "--", 1) for word in arguments]
    if "--multi_gpu" in words and not launched():
        raise ConfigError(
            "--multi_gpu: start a process for each device: torchrun --nproc_per_node=N -m sasrec train …"
        )
    return [part for given, word in zip(arguments, words, strict=True) for part in spelled.get(word, [given])]


def ids(text: str) -> list[str]:
    """Ids separated by commas, or one a line in the file of @FILE."""
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{text[1:]} cannot be read: {error}") from None
        return [line.strip() for line in lines if line.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]


def seconds(text: str) -> list[float]:
    """Numbers separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--times must be numbers separated by commas: {error}") from None
