"""From whatever names a data set (a public name, a prepared folder, a file, a frame) to the Dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl

from sasrec.config.settings import DataConfig, RunConfig
from sasrec.data.dataset import Dataset, build, open_dataset
from sasrec.errors import ConfigError, DataError
from sasrec.events.events import read_events
from sasrec.sources import public
from sasrec.sources.registry import CATALOG, DOWNLOADED, find


def resolve(
    source: Any,
    config: DataConfig,
    *,
    local_copy: Path | None = None,
    rejects_path: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> tuple[Dataset, Path | None]:
    """The data set that a source names, and the folder that it is mapped from, if it was prepared before.

    `source`: a Dataset; a Polars or pandas frame; a list of files; or a text or path. A text names a public data
    set (downloaded once, or read from `local_copy`), a prepared folder (mapped) or a file of events.

    Raises: DataError or DownloadError, each with its remedy; ConfigError for settings that would do nothing.
    """
    if local_copy is not None and not isinstance(source, str | Path):
        raise ConfigError("local_copy replaces the download of a public data set; pass the name of one, not data")
    if isinstance(source, Dataset):
        _refuse_reading_options(config)
        return source, None
    if not isinstance(source, str | Path):
        return from_source(source, config, rejects_path=rejects_path), None
    if not str(source):
        raise DataError("no data set was named: give --dataset a public name, a prepared folder or a file")
    path, name = Path(source), str(source)
    public_name = name in CATALOG and (local_copy is not None or not path.exists())
    if local_copy is not None and not public_name:
        if not path.exists():
            find(name)
        raise ConfigError(f"--from is only for public data sets, and {path} is a local path; remove --from")
    if public_name:
        return _public(name, config, local_copy, say), None
    if (prepared := prepared_folder(path)) is not None:
        _refuse_reading_options(config)
        return open_dataset(prepared), prepared
    if not path.exists():
        raise DataError(f"{path} does not exist, and is not a public data set ({', '.join(CATALOG)})")
    if path.is_dir():
        raise DataError(f"{path} is a folder without a manifest.json; name a file, or run `sasrec prepare` first")
    return from_source(path, config, rejects_path=rejects_path), None


def prepared_folder(source: str | Path) -> Path | None:
    """The absolute path of a folder that `prepare` wrote, or None for any other source."""
    prepared = bool(str(source)) and (Path(source) / "manifest.json").exists()
    return Path(source).absolute() if prepared else None


def _refuse_reading_options(config: DataConfig) -> None:
    """For data that is already prepared. Raises: ConfigError naming the settings that come too late."""
    if late := _given(config):
        raise ConfigError(
            f"the data is prepared already, so {', '.join(late)} would do nothing: give it to `prepare`"
        )


def _given(config: DataConfig) -> list[str]:
    """Settings of reading that are not the default."""
    own, defaults = asdict(config), asdict(DataConfig())
    return [name for name, value in own.items() if name != "dataset" and value != defaults[name]]


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


def _public(name: str, config: DataConfig, local_copy: Path | None, say: Callable[[str], None]) -> Dataset:
    plain = not _given(config)
    prepared = public.cache_root() / name / "prepared"
    if plain and local_copy is None and (prepared / "manifest.json").exists():
        return open_dataset(prepared)
    if local_copy is None:
        _refuse_other(name, DOWNLOADED, config)  # before the download
    located = public.locate(name, cache=public.cache_root(), local_copy=local_copy)
    say(f"{name}: {located.source}")
    titles = item_texts(located.items, located.item_column, located.title_column) if located.items else None
    _refuse_other(name, located.data_config_overrides, config)
    options = replace(config, **located.data_config_overrides)
    data = from_source(located.events, options, titles=titles, name=name)
    if plain and local_copy is None:
        data.save(prepared)
    return data


def _refuse_other(name: str, known: dict[str, Any], config: DataConfig) -> None:
    """Raises: ConfigError naming settings that are not how the events of a public data set are read."""
    if given := [field for field in _given(config) if field in known and known[field] != getattr(config, field)]:
        raise ConfigError(f"{name} is always read the same way; remove {', '.join(given)}")


def prepare(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    output: str | Path | None = None,
    items: str | Path | None = None,
    items_id: str | None = None,
    items_title: str | None = None,
    items_group: str | None = None,
    **options: Any,
) -> Dataset:
    """Read, check and number events.

    `source`: a file (CSV, TSV, Parquet, JSON Lines, header-less text; .gz), a list of files, or a Polars or
    pandas frame. `user`, `item`, `time` name its columns; `items` is a file of titles and, in the column
    `items_group`, of a group for each item, such as a genre, by which `evaluate(…, details=True)` measures
    diversity. `options` are the fields of DataConfig. With `output`, the data set is also written to that folder.

    Raises: DataError with the bad rows and the remedy; ConfigError for options that cannot be.
    """
    if items is None and (items_id or items_title or items_group):
        raise ConfigError(
            "items_id, items_title and items_group name columns of the file of titles: give it with items"
        )
    config = DataConfig(user_column=user, item_column=item, time_column=time)
    allowed = {f.name for f in dataclasses.fields(DataConfig)} - {
        "dataset",
        "user_column",
        "item_column",
        "time_column",
    }
    if wrong := sorted(options.keys() - allowed):
        columns = ["user", "item", "time", "output", "items", "items_id", "items_title", "items_group"]
        known = ", ".join([*columns, *sorted(allowed)])
        raise ConfigError(f"prepare has no option {', '.join(wrong)}. Its options are: {known}")
    config = RunConfig(data=config).replace(**options).data
    rejects = None if output is None else Path(output) / "rejects.csv"
    titles = None if items is None else item_texts(Path(items), items_id, items_title)
    groups = None if items is None or items_group is None else item_texts(Path(items), items_id, items_group)
    data = from_source(source, config, titles=titles, groups=groups, rejects_path=rejects)
    if output is not None:
        data.save(output)
    return data
