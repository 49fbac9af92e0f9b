"""A run -> a folder to hand over: the best weights, the settings and the items, and nobody's events."""

from __future__ import annotations

from pathlib import Path

from sasrec.checkpoint import store
from sasrec.config import RunConfig
from sasrec.errors import ConfigError
from sasrec.trained import CHECKPOINTS, checkpoint_at, load


def export(run_dir: str | Path, output: str | Path) -> Path:
    """Write the best checkpoint of a run, without its optimizer, and its items with their titles to `output`.

    `sasrec.load(output)` recommends for histories as the run does, with the same scores to the last bit. Users and
    events stay behind, so it cannot recommend by user id, evaluate, or train on.

    Raises: ConfigError if `output` is there already; CheckpointError, DataError as `load`.
    """
    folder = Path(output)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: name another folder")
    best = checkpoint_at(Path(run_dir))
    items = load(run_dir, device="cpu", checkpoint=best.path).data.without_events()
    config = RunConfig.load(Path(run_dir) / "config.toml").replace(dataset="")
    items.save(folder / "dataset")
    store.save(folder / CHECKPOINTS, best.weights, best.state | {"data_hash": items.data_hash})
    config.save(folder / "config.toml")
    return folder
