"""Check the files of a stored data set before they are used: kinds, counts, ranges and order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sasrec.config.settings import RunConfig
from sasrec.data.parts import TEST, TRAIN
from sasrec.errors import DataError
from sasrec.files import missing
from sasrec.untrusted import in_words, json_of

FORMAT = 2
MANIFEST = "manifest.json"
_AGAIN = "Prepare the data set again."
_YEARS = (-62_135_596_800_000_000, 253_402_300_800_000_000)  # the years 1 to 9999, in microseconds since 1970

Count = Annotated[int, Field(ge=0, lt=2**48)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
File = Literal[
    "items.bin", "times.bin", "offsets.bin", "parts.bin", "users.parquet", "items.parquet", "report.json"
]
FILES = frozenset(get_args(File))
_NEEDED = {"items.bin", "offsets.bin", "users.parquet", "items.parquet", "report.json"}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class StoredFile(_Strict):
    """The size and the SHA-256 of a file."""

    bytes: Count
    sha256: Hash


class Manifest(_Strict):
    """The content of manifest.json."""

    format: Literal[2]
    folder: Annotated[str, Field(pattern=r"^data-[0-9]{1,9}$")]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    users: Count
    items: Annotated[int, Field(ge=0, lt=2**31 - 1)]
    events: Count
    data_hash: Hash
    files: dict[File, StoredFile]


class Report(_Strict):
    """The entries of report.json that are shown. Others may be there."""

    model_config = ConfigDict(extra="allow")
    sources: list[str]
    rows_read: Count
    rows_rejected: Count
    rows_left_out: Count = 0  # by `where`
    rows_filtered: Count
    users: Count
    items: Count
    events: Count
    density: float
    repeated: float
    length_min: Count
    length_median: float
    length_mean: float
    length_max: Count
    time_unit: str | None
    first_event: str = ""
    last_event: str = ""
    warnings: list[str]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a data set.

    Raises: DataError if it is missing, damaged or of another format version. Remedy: prepare the data set again.
    """
    path = folder / MANIFEST
    try:
        content = json_of(path)
        version = content["format"]
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise DataError(
                f"the folder {folder} {missing(folder)}. Name a folder that `sasrec prepare` made."
            ) from None
        refuse_run(folder)
        raise DataError(
            f"{folder} contains no data set (manifest.json is missing). Make one with `sasrec prepare`."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {_AGAIN}") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is damaged. {_AGAIN}") from None
    if version != FORMAT:
        raise DataError(
            f"{folder} has format {str(version)[:20]}, but this sasrec reads format {FORMAT}. {_AGAIN}"
        )
    found = check_manifest(content, path)
    if not found.files.keys() >= _NEEDED:
        raise DataError(f"{path} is damaged: it does not list {min(_NEEDED - found.files.keys())}. {_AGAIN}")
    return found


def check_manifest(content: Any, path: Path) -> Manifest:
    """Return the content of the manifest at `path`. Raises: DataError if it is wrong."""
    found: Manifest = _valid(Manifest, content, path)
    return found


def refuse_run(folder: Path) -> None:
    """Raise DataError for a folder that is a run or an export. Remedy: name the data of the run."""
    settings = folder / "config.toml"
    if not (os.path.isfile(settings) and (folder / "checkpoints").is_dir()):
        return
    if (folder / "items.parquet").exists():
        raise DataError(f"{folder} is an export, which contains no events. Name a file or a data set.")
    own = folder / "dataset"
    data = str(own) if is_manifest(own / MANIFEST) else RunConfig.load(settings).data.dataset
    raise DataError(
        f"{folder} is a run, not a data set. Name the data of this run: {data or 'a file or a data set'}"
    )


def is_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a data set, and not one of somebody's own."""
    try:
        content = json_of(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "data_hash", "files"} <= content.keys()


def read_report(path: Path) -> dict[str, Any]:
    """Read report.json. Raises: DataError if it is damaged. Remedy: prepare the data set again."""
    try:
        content: dict[str, Any] = json_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. {_AGAIN}") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. {_AGAIN}") from None
    if content != {}:  # data that was not read from events has an empty report
        _valid(Report, content, path)
    return content


def _valid(kind: Any, content: Any, path: Path) -> Any:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path} is damaged: {in_words(error)}. {_AGAIN}") from None


def check_numbers(arrays: Mapping[str, npt.NDArray[Any]], items: int, folder: Path) -> None:
    """Check offsets, item numbers, times and parts, as `Dataset` describes them.

    Raises: DataError naming the file. Remedy: prepare the data set again.
    """
    offsets, numbers = arrays["offsets"], arrays["items"]
    ends = offsets[0] == 0 and offsets[-1] == len(numbers)
    sound = {"offsets": bool(ends and (offsets[1:] > offsets[:-1]).all())}
    if len(numbers):
        sound["items"] = bool(numbers.min() >= 1 and numbers.max() <= items)
        if sound["offsets"] and (times := arrays.get("times")) is not None:
            earlier = 1 + np.flatnonzero(times[1:] < times[:-1])  # only the first event of a user can be earlier
            starts = offsets[np.searchsorted(offsets, earlier)]
            in_range = times.min() >= _YEARS[0] and times.max() < _YEARS[1]
            sound["times"] = bool(in_range and (starts == earlier).all())
        if (parts := arrays.get("parts")) is not None:
            sound["parts"] = bool(parts.min() >= TRAIN and parts.max() <= TEST)
    for name, fits in sound.items():
        if not fits:
            raise DataError(f"{folder / name}.bin has numbers that are out of range or out of order. {_AGAIN}")
