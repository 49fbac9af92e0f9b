"""From whatever names a data set (a public name, a prepared folder, a file, a frame) to the Dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.config import DataConfig
from sasrec.data import catalog
from sasrec.data.dataset import Dataset, build, open_dataset
from sasrec.data.events import read_events
from sasrec.errors import ConfigError, DataError


def resolve(
    config: DataConfig,
    *,
    local_copy: Path | None = None,
    rejects_path: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Dataset:
    """The data set that `config.dataset` names: a prepared folder is mapped, a file is read and checked, a
    public name is downloaded once into the cache (or read from `local_copy`).

    Raises: DataError or DownloadError, each with its remedy; ConfigError for settings that do nothing here.
    """
    if not config.dataset:
        raise DataError("no data set was named: give --dataset a public name, a prepared folder or a file")
    path = Path(config.dataset)
    public = config.dataset in catalog.CATALOG and (local_copy is not None or not path.exists())
    if local_copy is not None and not public:
        if not path.exists():
            catalog.find(config.dataset)
        raise ConfigError(f"--from stands in for a download, and {path} needs none: leave one of the two away")
    if not public and (path / "manifest.json").exists():
        refuse_reading_options(config)
        return open_dataset(path)
    if public:
        return _public(config, local_copy, say)
    if not path.exists():
        names = ", ".join(catalog.CATALOG)
        raise DataError(f"there is no file or folder {path}, and the public data sets are: {names}")
    if path.is_dir():
        raise DataError(f"{path} is a folder without a manifest.json: name a file, or `sasrec prepare` it first")
    return from_source(path, config, rejects_path=rejects_path)


def refuse_reading_options(config: DataConfig) -> None:
    """For data that is already prepared. Raises: ConfigError naming the settings that come too late."""
    late = [name for name in _given(config) if name != "dataset"]
    if late:
        raise ConfigError(
            f"the data is prepared already, so {', '.join(late)} would do nothing: give it to `prepare`"
        )


def _given(config: DataConfig) -> list[str]:
    """Settings that are not the default."""
    defaults = DataConfig()
    return [f.name for f in fields(config) if getattr(config, f.name) != getattr(defaults, f.name)]


def from_source(
    source: Any,
    config: DataConfig,
    *,
    titles: dict[str, str] | None = None,
    groups: dict[str, str] | None = None,
    name: str | None = None,
    rejects_path: Path | None = None,
) -> Dataset:
    """Read, check and number events of a file, several files, or a Polars or pandas frame."""
    events = read_events(source, config, rejects_path)
    stem = events.sources[0].split(".")[0].lower() if events.sources else "events"
    return build(events, config, name=name or stem, titles=titles, groups=groups)


def item_texts(path: Path, id_column: str | None, text_column: str | None) -> dict[str, str]:
    """item id -> title, or another text, from a tab- or comma-separated file with a header; by default its first
    two columns.

    Raises: DataError naming the columns there are.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            separator = "\t" if "\t" in stream.readline() else ","
        frame = pl.read_csv(
            path, separator=separator, infer_schema=False, quote_char='"' if separator == "," else None
        )
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"the items file {path} cannot be read: {error}") from None
    columns = [column.split(":")[0] for column in frame.columns]
    wanted = [id_column or columns[0], text_column or columns[min(1, len(columns) - 1)]]
    for column in wanted:
        if column not in columns:
            raise DataError(f"{path} has no column {column!r}; its columns are: {', '.join(columns)}")
    ids, texts = (frame.to_series(columns.index(column)) for column in wanted)
    return {str(i): t for i, t in zip(ids, texts, strict=True) if i is not None and t is not None}


def _public(config: DataConfig, local_copy: Path | None, say: Callable[[str], None]) -> Dataset:
    plain = _given(config) == ["dataset"]
    prepared = catalog.cache_root() / config.dataset / "prepared"
    if plain and local_copy is None and (prepared / "manifest.json").exists():
        return open_dataset(prepared)
    if local_copy is None:
        _refuse_other(catalog.DOWNLOADED, config)  # before the download
    located = catalog.locate(config.dataset, cache=catalog.cache_root(), local_copy=local_copy)
    say(f"{config.dataset}: {located.source}")
    titles = item_texts(located.items, located.item_column, located.title_column) if located.items else None
    _refuse_other(located.data_config_overrides, config)
    options = replace(config, **located.data_config_overrides)
    data = from_source(located.events, options, titles=titles, name=config.dataset)
    if plain and local_copy is None:
        data.save(prepared)
    return data


def _refuse_other(known: dict[str, Any], config: DataConfig) -> None:
    """Raises: ConfigError naming settings that are not how the events of a public data set are read."""
    if given := [name for name in _given(config) if name in known and known[name] != getattr(config, name)]:
        raise ConfigError(f"how {config.dataset} is read is known: leave {', '.join(given)} away")
