"""Read new events for a trained run to serve: known items, whoever the users are, without training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from sasrec.checkpoint.restore import check_data, config_of
from sasrec.checkpoint.store import Checkpoint
from sasrec.config.settings import DataConfig
from sasrec.data.dataset import Dataset
from sasrec.data.items import Items
from sasrec.data.onto import onto
from sasrec.errors import DataError
from sasrec.events.inputs import is_database
from sasrec.runs.folder import RunFolder
from sasrec.runs.newer import note_untitled, read_newer

# Filters count the events of a whole data set, so they would drop users and items that the run knows.
_FILTERS = ("min_user_events", "min_item_events", "k_core", "dataset")


def to_serve(
    source: Any, folder: RunFolder, found: Checkpoint, exported: Items | None, *, everybody: bool = False
) -> tuple[Dataset, Dataset | None]:
    """Return the data set to serve users from, with the item numbers of the run, and the run's own data.

    `source`: the data of the run, or other events: a Dataset, a prepared folder, a file or a frame. Files are read
    with the columns and conditions of the run, without its filters. `exported`: the catalogue of an export, which
    has no data of its own. `everybody`: see `onto`.

    Raises: CheckpointError if the events are other ones and the data of the run is missing. Remedy: restore it.
    DataError if no item is known, or times are missing that the model reads. Remedy: as the message says.
    """
    given = _read(source, config_of(found).data, folder.path)
    if given.data_hash == found.need("data_hash"):
        return given, given
    own = None if exported is not None else _own(folder, found)
    if own is None and exported is None:
        check_data(found, given)  # raises: only the data of the run can say which number an item has
    catalogue = own.catalogue if own is not None else exported
    assert catalogue is not None, "a run has data, and an export has a catalogue"
    if config_of(found).model.time and given.times is None:
        raise DataError(
            f"the model of {folder.path} reads times, and {given.name!r} has none. Add times, or name their "
            "column when the data is prepared."
        )
    data = onto(catalogue.filled(given.catalogue), given, everybody=everybody)
    note_untitled(data.catalogue, given.catalogue, np.unique(data.items[data.items > 0]))
    return data, own


def _own(folder: RunFolder, found: Checkpoint) -> Dataset | None:
    """The data set that the run was trained on; None if it is missing.

    Raises: CheckpointError if its folder has other data now. Remedy: prepare that of the run again.
    """
    try:
        own = folder.dataset()
    except DataError:
        return None
    check_data(found, own, folder.data_folder())
    return own


def _read(source: Any, settings: DataConfig, run: Path) -> Dataset:
    """Read events with the columns of a run; a prepared folder and a Dataset are read already."""
    defaults = DataConfig()
    of_database = isinstance(source, str) and is_database(source)
    plain = {name: getattr(defaults, name) for name in (*_FILTERS, *(() if of_database else ("query",)))}
    return read_newer(source, dataclasses.replace(settings, **plain), run)
