"""Export the best weights, the settings and the catalogue of a run, without users and events."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Set
from pathlib import Path

from sasrec.checkpoint import store
from sasrec.checkpoint.restore import checkpoint_at, config_of
from sasrec.errors import ConfigError
from sasrec.files import TEMPORARY, file_digest, write_whole
from sasrec.locks import OWN_FILES, is_claimed, only_writer
from sasrec.models.own import Encoder
from sasrec.ranking.fallback import Counts
from sasrec.runs.evaluate import COUNTS_DIGEST, ITEMS_DIGEST, load
from sasrec.runs.folder import RunFolder, named_run
from sasrec.runs.model_card import model_card
from sasrec.runs.stored_baseline import SERVES, save_served

_CARD = "README.md"
_OWN = OWN_FILES | {
    "items.parquet",
    "counts.parquet",
    "baseline.safetensors",
    "checkpoints",
    _CARD,
}  # what an interrupted export has


def export(run_dir: str | Path, output: str | Path, *, encoder: Encoder | None = None) -> Path:
    """Write what recommending needs to a new folder: the best weights of a run, its catalogue and a model card.

    `run_dir`: RUN, the folder of the run; or RUN:NAME, to export a baseline of the run or its blend (RUN:blend).

    `sasrec.load(output)` recommends for histories as the run does, with bit-identical scores. An export contains
    no users and no events, so it cannot recommend by user id, be evaluated or be trained further.

    `encoder`: the class that `train` was given, if the run has a model of your own. `load` needs this class again.

    Raises: ConfigError if `output` is not empty. Remedy: name another folder. The errors of `load`.
    """
    run, simple = named_run(run_dir)
    run.refuse_no_run()
    folder = RunFolder(output)
    refuse_full(folder.path, _OWN)
    best = checkpoint_at(run.path, encoder)
    recommender = load(run.path, device="cpu", checkpoint=best.path, encoder=encoder)
    served = load(run_dir, dataset=recommender.data, encoder=encoder).scorer if simple else None
    with only_writer(folder.path, "exporting"):
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        recommender.items.save(folder.items_file)
        if recommender.data is not None:
            Counts.of(recommender.data).save(folder.counts_file)
        elif run.counts_file.exists():  # an export of an export
            shutil.copyfile(run.counts_file, folder.counts_file)
        counts = {COUNTS_DIGEST: file_digest(folder.counts_file)} if folder.counts_file.exists() else {}
        config = config_of(best).replace(dataset="")  # a path can tell whose data it was
        state = best.state | {
            "config": dataclasses.asdict(config),
            ITEMS_DIGEST: file_digest(folder.items_file),
        }
        state |= counts
        if served is not None:
            state[SERVES] = save_served(served, folder.baseline_file)
        elif best.state.get(SERVES):  # an export of such an export
            shutil.copyfile(run.baseline_file, folder.baseline_file)
        store.save(folder.checkpoints, best.weights, state)
        if recommender.data is not None:
            card = model_card(run, recommender, config_of(best), best.state, state.get(SERVES))
            write_whole(folder.path / _CARD, card)
        elif (run.path / _CARD).exists():  # an export of an export
            write_whole(folder.path / _CARD, (run.path / _CARD).read_bytes())
        config.save(folder.config_file)  # the last file: with it, the export is whole
        for name in OWN_FILES:
            (folder.path / name).unlink(missing_ok=True)
    return folder.path


def refuse_full(folder: Path, own: Set[str]) -> None:
    """Refuse a file, or a folder that has more than the rest of an interrupted export. Raises: ConfigError.

    `own`: the names of files that an interrupted export can have.
    """
    begun = folder.is_dir() and is_claimed(folder)
    interrupted = begun and all(each.name in own or TEMPORARY.fullmatch(each.name) for each in folder.iterdir())
    if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not interrupted):
        raise ConfigError(f"{folder} is a file or a folder that is not empty. Name another folder.")
