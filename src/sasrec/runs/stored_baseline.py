"""The file of an export that holds a baseline, which the export then serves instead of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from sasrec.errors import ConfigError, DataError
from sasrec.evaluation.baselines import KINDS, Stored
from sasrec.files import file_digest, write_whole
from sasrec.ranking.blend import Blend
from sasrec.ranking.scorers import Scorer
from sasrec.untrusted import content_of

SERVES = "serves"
"""Key in state.json of an export: {"name": of the baseline, "sha256": of its file, "weight": see `Blend`}."""


def save_served(scorer: Scorer, path: Path) -> dict[str, Any]:
    """Write a baseline, or that of a blend; return the entry SERVES of state.json.

    Raises: ConfigError for another scorer. Remedy: name a baseline.
    """
    simple = scorer.second if isinstance(scorer, Blend) else scorer
    names = [name for name, kind in KINDS.items() if type(simple) is kind]
    if not names or not isinstance(simple, Stored):
        raise ConfigError(f"{type(simple).__name__} cannot be exported. Name a baseline of the run.")
    write_whole(path, save(simple.arrays()))
    weight = {"weight": scorer.weight} if isinstance(scorer, Blend) else {}
    return {"name": names[0], "sha256": file_digest(path)} | weight


def read_baseline(path: Path, name: str, num_items: int) -> Scorer:
    """Read what `save_served` wrote. Raises: DataError if it is damaged. Remedy: export again."""
    try:
        return KINDS[name].restored(num_items, load(content_of(path)))
    except (KeyError, ValueError, OSError, SafetensorError) as error:
        raise DataError(
            f"{path} has no baseline {name} for this catalogue: {error}. Export the run again."
        ) from None
