"""Turn any source of data (public name, prepared folder, file, list of files, frame) into a Dataset."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.config.spellings import ROLES
from sasrec.data.dataset import Dataset, build, open_dataset
from sasrec.data.manifest import refuse_run
from sasrec.data.parts import TRAIN, joined
from sasrec.errors import ConfigError, DataError, SasrecWarning
from sasrec.events.events import read_events
from sasrec.events.inputs import STDIN, is_database
from sasrec.files import missing
from sasrec.sources import public
from sasrec.sources.registry import CATALOG, DOWNLOADED, find
from sasrec.sources.shards import prepare_shards, without_scratch
from sasrec.sources.tables import open_table
from sasrec.sources.titles import Wanted, titled

_NAME = re.compile(r"[\w -]{1,200}")  # of a data set, as published code takes it; a file cannot have a longer one


def resolve(
    source: Any,
    config: DataConfig,
    *,
    valid: Any = None,
    test: Any = None,
    local_copy: Path | None = None,
    rejects_path: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> tuple[Dataset, Path | None]:
    """Return the data set of a source, and its folder if the source is a prepared folder (else None).

    `source`: a Dataset, a Polars or pandas frame, a list of files, or a text. A text names a public data set, a
    prepared folder (memory-mapped) or a file of events. A public data set is downloaded once, or read from
    `local_copy`. `valid` and `test`: files, lists of files or frames with validation and test events; `source`
    then has the training events. `say` receives progress messages.

    Raises: DataError or DownloadError if the source cannot be read. Remedy: the message names one. ConfigError if
    a setting would have no effect. Remedy: remove the setting.
    """
    if local_copy is not None and not isinstance(source, str | Path):
        raise ConfigError(
            "`local_copy` only replaces the download of a public data set, but the data is a Dataset, a frame or "
            "a list of files. Pass the name of a public data set as the data, or remove `local_copy`."
        )
    own_files = {"valid": valid, "test": test}
    if isinstance(source, Dataset):
        _refuse_reading_options(config, own_files)
        return source, None
    if not isinstance(source, str | Path):
        return from_source(source, config, **own_files, rejects_path=rejects_path), None
    if not str(source):
        raise DataError(
            "no data set was named. Set `dataset` to a public data set (by name), a prepared folder or a file."
        )
    # A local path wins over a public name, unless local_copy says that the name is meant. Path.exists would raise
    # OSError for a text that cannot be a path.
    path, name, exists = Path(source), str(source), os.path.exists(source)
    public_name = name in CATALOG and (local_copy is not None or not exists)
    if local_copy is not None and not public_name:
        if not exists:
            find(name)  # raises an error that suggests similar public names
        raise ConfigError(
            f"`local_copy` is only for public data sets, and {path} is a local path. Remove `local_copy`."
        )
    if public_name:
        if local_copy is None and (published := _published(name)):
            _note(f"{name} is the public data set; for the file, name {published}")
        _refuse_own_files(f"{name} is a public data set", own_files)
        return _public(name, config, local_copy, say), None
    if (prepared := prepared_folder(path)) is not None:
        _refuse_reading_options(config, own_files)
        return open_dataset(prepared), prepared
    if name.startswith(("http:/", "https:/", "s3:/", "gs:/", "hdfs:/")):
        raise DataError(f"{name} is not on this machine. Download the file, and name its path.")
    if is_database(name):
        return from_source(name, config, **own_files, rejects_path=rejects_path), None
    if not exists and name != STDIN and not any(sign in name for sign in "*?["):
        path, config = _looked_up(name, config)
    return from_source(path, config, **own_files, rejects_path=rejects_path), None


def _published(name: str) -> Path | None:
    """Return data/NAME.txt, where published code looks for `--dataset NAME`, or None if it does not exist."""
    path = Path("data", f"{name}.txt")
    return path if _NAME.fullmatch(name) and path.is_file() else None


def _looked_up(name: str, config: DataConfig) -> tuple[Path, DataConfig]:
    """Return data/NAME.txt and how it is read, and note both.

    Such files mostly have lines of a user and an item, without a header, in order of time (Kang & McAuley, 2018).
    Raises: DataError if it does not exist. Remedy: name a file.
    """
    path = _published(name)
    if path is None:
        reason = missing(Path(name))
        if reason == "does not exist" and _NAME.fullmatch(name):
            reason += f", and neither does data/{name}.txt"
        raise DataError(f"{name} {reason}. Name a file, a folder or a public data set ({', '.join(CATALOG)}).")
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        fields = lines.readline().split()
    unnamed = not (config.columns or config.user_column or config.item_column)
    if unnamed and len(fields) == 2 and all(field.isdecimal() for field in fields):
        _note(f"{path} is read as lines of a user and an item, in order of time, as published code has them")
        return path, replace(config, columns="user,item")
    _note(f"{path} is read")
    return path, config


def _note(sentence: str) -> None:
    warnings.warn(sentence, SasrecWarning, stacklevel=3)


def prepared_folder(source: str | Path) -> Path | None:
    """Return the absolute path of a folder that `prepare` wrote, or None for any other source."""
    prepared = bool(str(source)) and os.path.exists(Path(source) / "manifest.json")
    return Path(source).absolute() if prepared else None


def _refuse_reading_options(config: DataConfig, own_files: dict[str, Any]) -> None:
    """Refuse settings that only apply while data is read. Raises: ConfigError. Remedy: give them to `prepare`."""
    _refuse_own_files("the data is already prepared", own_files)
    if late := _given(config):
        raise ConfigError(
            f"the data is already prepared, so {_named(late)} would do nothing. "
            "Give such settings to `sasrec prepare`."
        )


def _refuse_own_files(because: str, own_files: dict[str, Any]) -> None:
    """Refuse own validation and test files for data that is not read from a file of training events now."""
    if given := [name for name, source in own_files.items() if source is not None]:
        raise ConfigError(
            f"{because}, so {_named(given)} cannot be added to it. Give the file of training events as the data, "
            "or name the files to `sasrec prepare`."
        )


def _named(settings: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in settings)


def _given(config: DataConfig) -> list[str]:
    """Return the names of data settings that differ from their default, except dataset."""
    own, defaults = asdict(config), asdict(DataConfig())
    return [name for name, value in own.items() if name != "dataset" and value != defaults[name]]


def from_source(
    source: Any,
    config: DataConfig,
    *,
    valid: Any = None,
    test: Any = None,
    name: str | None = None,
    rejects_path: Path | None = None,
) -> Dataset:
    """Read and check the events of a file, several files or a frame, and number their users and items.

    `valid` and `test`: files or frames with validation and test events, which are read like `source`. Bad rows are
    written to `rejects_path`.
    """
    for each in source if isinstance(source, list | tuple) else [source]:
        if isinstance(each, str | Path):
            refuse_run(Path(each))
    sources = {part: each for part, each in enumerate((source, valid, test)) if part == TRAIN or each is not None}
    read = {part: read_events(each, config, rejects_path) for part, each in sources.items()}
    events = read[TRAIN] if len(read) == 1 else joined(read, config, rejects_path)
    stem = events.sources[0].split(".")[0].lower() if events.sources else "events"
    return build(events, config, name=name or stem)


def _public(name: str, config: DataConfig, local_copy: Path | None, say: Callable[[str], None]) -> Dataset:
    """Read a public data set. With default settings and no local copy, cache the prepared folder."""
    plain = not _given(config)
    prepared = public.cache_root() / name / "prepared"
    if plain and local_copy is None and (prepared / "manifest.json").exists():
        try:
            return _noted(open_dataset(prepared), public.unverified(name, cache=public.cache_root()))
        except DataError as error:  # such as one of an older version
            say(f"{name} is prepared again, because {error}")
            shutil.rmtree(prepared, ignore_errors=True)
    if local_copy is None:
        _refuse_other(name, DOWNLOADED, config)  # fail before the download, not after
    located = public.locate(name, cache=public.cache_root(), local_copy=local_copy)
    say(f"{name}: {located.source}")
    _refuse_other(name, located.data_config_overrides, config)
    options = replace(config, **located.data_config_overrides)
    data = from_source(located.events, options, name=name)
    if located.items:
        wanted = Wanted(located.item_column, located.title_column)
        data = titled(data, open_table(located.items), wanted, partial=True)
    if local_copy is None:
        data = _noted(data, public.unverified(name, cache=public.cache_root()))
    if plain and local_copy is None:
        data.save(prepared)
    return data


def _noted(data: Dataset, note: str) -> Dataset:
    """Return the data set with a note in the warnings of its report; "" adds none."""
    warned = data.report.get("warnings", [])
    if not data.report or note in ("", *warned):
        return data
    return replace(data, report=data.report | {"warnings": [note, *warned]})


def _refuse_other(name: str, known: dict[str, Any], config: DataConfig) -> None:
    """Refuse settings that contradict the format of a public data set.

    Raises: ConfigError if such a setting is given. Remedy: remove the setting.
    """
    if given := [field for field in _given(config) if field in known and known[field] != getattr(config, field)]:
        raise ConfigError(
            f"the columns and times of {name} are always read the same way; remove {_named(given)} from the "
            "settings."
        )


def prepare(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    valid: Any = None,
    test: Any = None,
    output: str | Path | None = None,
    items: str | Path | None = None,
    items_id: str | None = None,
    items_title: str | None = None,
    items_group: str | None = None,
    shards: bool = False,
    **options: Any,
) -> Dataset:
    """Read and check events, give each user and item a number, and return the data set.

    With `output`, also write the data set to this folder. The list `report["warnings"]` of the data set says what
    was assumed while reading, and what looks odd. Each entry of this list is also a SasrecWarning.

    `source`: a file of events (text, JSON, Parquet or Arrow, also compressed), a folder of such files, a pattern
    such as "logs/*.csv", a frame of Polars, pandas or pyarrow, or a list of these. `user`, `item`, `time`: the
    names of columns in `source`; by default, columns with usual names are found. `valid`, `test`: files or frames
    with your own validation and test events; `source` must then have only the training events. `items`: a file
    with titles or groups (such as genres) of the items: separated text, JSON Lines or Parquet. `items_id`,
    `items_title`, `items_group`: the names of columns in the file `items`. For a file without a header, give the
    numbers of the columns, counted from 0. `shards`: read the Parquet files of a folder one after the other, to
    save memory. All events of a user must be in one file. Needs `output`. Under torchrun, the processes share the
    files (sources/shards.py). `**options`: other settings of the section data (docs/reference/settings.md), such
    as k_core=5.

    Raises: DataError if rows are not valid events. Remedy: fix these rows (the message lists the first five), or
    set max_rejects to skip them. ConfigError if an option is unknown or invalid. Remedy: as the message says.
    """
    if items is None and (items_id or items_title or items_group):
        raise ConfigError(
            "`items_id`, `items_title` and `items_group` name columns of the items file. Pass the file as `items`."
        )
    config = _reading({"user": user, "item": item, "time": time}, options)
    if items is not None and not isinstance(items, str | Path):
        raise ConfigError(f"`items` must be the path of a file, not a {type(items).__name__}. Write it to a file.")
    table = None if items is None else open_table(Path(items))  # before the events, which can take minutes
    names = Wanted(items_id, items_title, items_group)

    def finished(found: Dataset) -> Dataset:
        return found if table is None else titled(found, table, names)

    own = {"valid": valid, "test": test}
    if shards:
        data = prepare_shards(source, config, output, finished, own)
    elif output is None:
        data = finished(from_source(source, config, **own))
    else:
        with Dataset.writing(output), without_scratch(output):
            data = finished(from_source(source, config, **own, rejects_path=Path(output) / "rejects.csv"))
            data.save(output)
    for note in data.report["warnings"]:
        _note(note)
    return data


def _reading(columns: dict[str, str | None], options: dict[str, Any]) -> DataConfig:
    """Return the settings of `prepare` with these options; `columns`: the names of those of user, item and time.

    Raises: ConfigError if an option is unknown, or given under both of its names. Remedy: remove it.
    """
    for name, setting in ROLES.items():
        if columns[name] is not None and options.get(setting) is not None:
            raise ConfigError(f"`{name}` and `{setting}` are one setting of `prepare`. Remove one of them.")
    allowed = {f.name for f in dataclasses.fields(DataConfig)} - {"dataset"}
    if wrong := sorted(options.keys() - allowed):
        own = [
            "user",
            "item",
            "time",
            "valid",
            "test",
            "output",
            "items",
            "items_id",
            "items_title",
            "items_group",
        ]
        known = ", ".join([*own, *sorted(allowed - set(ROLES.values()))])
        raise ConfigError(f"prepare has no option {', '.join(wrong)}. Its options are: {known}.")
    named = {setting: columns[name] for name, setting in ROLES.items() if columns[name] is not None}
    return RunConfig().replace(**named, **options).data
