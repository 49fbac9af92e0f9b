"""A run -> a folder to hand over: the best weights, the settings and the items, and nobody's events."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import numpy as np

from sasrec.checkpoint import store
from sasrec.checkpoint.restore import CHECKPOINTS, KNOWN_ITEMS, checkpoint_at
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError
from sasrec.runs.evaluate import load


def export(run_dir: str | Path, output: str | Path) -> Path:
    """Write the best checkpoint of a run, without its optimizer, and its items with their titles to `output`.

    `sasrec.load(output)` recommends for histories as the run does, with the same scores to the last bit. Users and
    events stay behind, so it cannot recommend by user id, evaluate, or train on; which items were in training is
    kept, where some were not (split temporal).

    Raises: ConfigError if `output` is there already; CheckpointError, DataError as `load`.
    """
    folder = Path(output)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: name another folder")
    best = checkpoint_at(Path(run_dir))
    recommender = load(run_dir, device="cpu", checkpoint=best.path)
    items, state = recommender.data.without_events(), dict(best.state)
    if recommender.known_items is not None:
        state[KNOWN_ITEMS] = b64encode(np.packbits(recommender.known_items).tobytes()).decode()
    config = RunConfig.load(Path(run_dir) / "config.toml").replace(dataset="")
    items.save(folder / "dataset")
    store.save(folder / CHECKPOINTS, best.weights, state | {"data_hash": items.data_hash})
    config.save(folder / "config.toml")
    return folder
