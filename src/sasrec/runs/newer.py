"""Read newer events with the settings of a run, and note the effects of these settings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sasrec.config.fields import default_of
from sasrec.config.settings import DataConfig
from sasrec.data.dataset import Dataset
from sasrec.data.items import Items
from sasrec.errors import DataError, SasrecWarning, amount
from sasrec.sources.resolve import prepared_folder, resolve

_FILTERS = ("where", "duplicates", "min_user_events", "min_item_events", "k_core")


def is_read(source: Any) -> bool:
    """Whether a source is a Dataset or a prepared folder, which no setting changes any more."""
    return isinstance(source, Dataset) or (isinstance(source, str | Path) and prepared_folder(source) is not None)


def read_newer(source: Any, settings: DataConfig, run: Path) -> Dataset:
    """Read events with the settings of a run, and note how many rows its filters leave out.

    A prepared folder and a Dataset are read already, so no filter applies to them.

    Raises: the errors of `resolve`.
    """
    if is_read(source):
        return resolve(source, DataConfig())[0]
    try:
        data = resolve(source, settings)[0]
    except DataError as error:
        if settings.where and "where" in str(error):
            raise DataError(f"{error} This filter is that of {run}: its data was read with it.") from None
        raise
    left_out = data.report.get("rows_left_out", 0) + data.report["rows_filtered"]
    verb = "is" if left_out == 1 else "are"
    if left_out and (filters := filters_of(settings)):
        warnings.warn(
            f"{run} was trained with {filters}, so {amount(left_out, 'row')} of {data.name!r} {verb} left out",
            SasrecWarning,
            stacklevel=3,
        )
    return data


def filters_of(settings: DataConfig) -> str:
    """Return the filters of rows among these settings, such as "k_core=5"; "" if there are none."""
    given = {name: getattr(settings, name) for name in _FILTERS}
    return ", ".join(f"{name}={value!r}" for name, value in given.items() if value != default_of(settings, name))


def note_untitled(catalogue: Items, given: Items, chosen: npt.NDArray[np.int64], *, new: str = "") -> None:
    """Note how many items have neither title nor group, because newer events came without them.

    `catalogue`: that of the run. `given`: that of the newer events. `chosen`: item numbers of `catalogue`.
    """
    texts = {"title": (catalogue.titles, given.titles), "group": (catalogue.groups, given.groups)}
    lacking = {name: own for name, (own, theirs) in texts.items() if own is not None and theirs is None}
    bare_K = np.ones(len(chosen), bool)
    for own in lacking.values():
        bare_K &= own.gather(chosen - 1).is_null().to_numpy()
    if lacking and bare_K.any():
        options = "`items` and `items_group`" if "group" in lacking else "`items`"
        one = bare_K.sum() == 1
        warnings.warn(
            f"{int(bare_K.sum()):,} {new}item{'' if one else 's'} {'has' if one else 'have'} "
            f"{' and '.join(f'no {name}' for name in lacking)}. To give them, prepare the newer data with "
            f"{options}, and name that folder as `dataset`",
            SasrecWarning,
            stacklevel=3,
        )
