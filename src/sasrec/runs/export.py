"""Export: the best weights, the settings and the items of a run, without users and events."""

from __future__ import annotations

from pathlib import Path

from sasrec.checkpoint import store
from sasrec.checkpoint.restore import CHECKPOINTS, checkpoint_at
from sasrec.config.settings import RunConfig
from sasrec.errors import ConfigError
from sasrec.files import file_digest
from sasrec.runs.evaluate import ITEMS_DIGEST, load
from sasrec.runs.folder import ITEMS


def export(run_dir: str | Path, output: str | Path) -> Path:
    """Write the best checkpoint of a run, without its optimizer, and its items with their titles to `output`.

    `sasrec.load(output)` recommends for histories as the run does, with bit-identical scores. The folder holds no
    users and no events, so it cannot recommend by user id, be evaluated or be trained further.

    Raises: ConfigError if `output` is not empty; CheckpointError and DataError as `load`.
    """
    folder = Path(output)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; name another folder")
    best = checkpoint_at(Path(run_dir))
    recommender = load(run_dir, device="cpu", checkpoint=best.path)
    folder.mkdir(parents=True, exist_ok=True)
    recommender.items.save(folder / ITEMS)
    state = best.state | {ITEMS_DIGEST: file_digest(folder / ITEMS)}
    store.save(folder / CHECKPOINTS, best.weights, state)
    RunConfig.load(Path(run_dir) / "config.toml").replace(dataset="").save(folder / "config.toml")
    return folder
