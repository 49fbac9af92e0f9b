"""The file of an export that holds a baseline, which the export then serves instead of its model."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, save

from sasrec.errors import ConfigError, DataError
from sasrec.evaluation.baselines import KINDS, Stored
from sasrec.files import write_whole
from sasrec.ranking.scorers import Scorer
from sasrec.untrusted import content_of

SERVES = "serves"
"""Key in state.json of an export: {"name": of the baseline, "sha256": of its file}."""


def save_baseline(scorer: Scorer, path: Path) -> None:
    """Write a baseline. Raises: ConfigError for another scorer. Remedy: name a baseline."""
    if not isinstance(scorer, Stored):
        raise ConfigError(f"{type(scorer).__name__} cannot be exported. Name a baseline of the run.")
    write_whole(path, save(scorer.arrays()))


def read_baseline(path: Path, name: str, num_items: int) -> Scorer:
    """Read what `save_baseline` wrote. Raises: DataError if it is damaged. Remedy: export again."""
    try:
        return KINDS[name].restored(num_items, load(content_of(path)))
    except (KeyError, ValueError, OSError, SafetensorError) as error:
        raise DataError(
            f"{path} has no baseline {name} for this catalogue: {error}. Export the run again."
        ) from None
