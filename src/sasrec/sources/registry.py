"""The public data sets that `sasrec` can download: sources, file formats and terms of use."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sasrec.errors import DataError

Form: TypeAlias = Literal["tab", "comma", "colons", "pipe", "inter", "json", "literal"]
"""The format of a file. `json` and `literal` files contain one review in each line: a JSON object (Amazon) or a
Python literal (Steam). The other formats are tables; their events have the columns user, item, rating, seconds."""
COLUMNS = {"user_column": "user", "item_column": "item"}
# Reading options for the events of a downloaded data set, after conversion.
DOWNLOADED = {**COLUMNS, "time_column": "time", "time_unit": "s"}
TABLES = (".tsv", ".csv", ".txt", ".dat", ".inter", ".jsonl", ".parquet")
"""Endings that the events reader accepts without conversion, also with .gz appended."""


@dataclass(frozen=True)
class Source:
    """One place from which a data set can be downloaded."""

    address: str
    """A web address, or a requirement for pip such as recbole==1.2.1."""
    file: str
    """Name of the downloaded file."""
    sha256: str | None = None
    """The expected checksum. If None, the first download records its checksum, and later downloads must match."""
    md5: str | None = None
    """The MD5 checksum that the publisher states."""
    pip: bool = False
    """Whether pip downloads the file. The file is then a wheel, which is read as a zip and never installed."""

    @property
    def told(self) -> str:
        """Describe the source to the user."""
        return f"the example data in the wheel of {self.address}" if self.pip else self.address


@dataclass(frozen=True)
class Member:
    """One file of a data set. Its name is looked up in any folder of an archive, with or without .gz."""

    file: str
    form: Form


@dataclass(frozen=True)
class PublicDataset:
    """A data set that users select by name."""

    name: str
    title: str
    homepage: str
    terms: str
    sources: tuple[Source, ...]
    """Sources, in the order in which they are tried."""
    events: tuple[Member, ...]
    """Event files that `convert` can read; the first one that exists is used."""
    items: tuple[Member, ...] = ()
    """Files with item titles; the first one that exists is used."""
    max_bytes: int = 1 << 31
    """Maximum unpacked size of one file of a zip, against zip bombs; the largest real file has 0.5 GB (ML-20M)."""
    note: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        """Names of files that `local_copy` accepts. It also accepts a folder with one of these files."""
        named = [source.file for source in self.sources] + [member.file for member in self.events]
        return (*dict.fromkeys(named), f"{self.name}.tsv.gz")


_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_STEAM = "https://mcauleylab.ucsd.edu/public_datasets/data/steam"
_MCAULEY_TERMS = "McAuley Lab: used for research by convention; cite the papers named on its page."


def _amazon(name: str, category: str) -> PublicDataset:
    ratings = f"ratings_{category}.csv"
    return PublicDataset(
        name=name,
        title=f"Amazon {category.replace('_', ' ')}, 2014: all ratings",
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        terms=_MCAULEY_TERMS,
        sources=(Source(f"{_AMAZON}/{ratings}", ratings),),
        events=(Member(ratings, "comma"), Member(f"reviews_{category}_5.json", "json")),
        note="most papers use its 5-core; set k_core = 5 to do the same",
    )


def _movielens(
    size: str, sha256: str, md5: str, events: tuple[Member, ...], items: tuple[Member, ...], *more: Source
) -> PublicDataset:
    name = f"ml-{size.lower()}"
    zipped = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    return PublicDataset(
        name=name,
        title=f"MovieLens {size}",
        homepage=f"https://grouplens.org/datasets/movielens/{size.lower()}/",
        terms="GroupLens: research use; no commercial use without permission; no redistribution.",
        sources=(Source(zipped, f"{name}.zip", sha256, md5), *more),
        events=events,
        items=items,
        note=f"second source: the example data in the wheel of {more[0].address}" if more else "",
    )


_RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_DATASETS = (
    _movielens(
        "100K",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "0e33842e24a9c977be4e0107933c0723",
        (Member("u.data", "tab"), Member("ml-100k.inter", "inter")),
        (Member("u.item", "pipe"), Member("ml-100k.item", "inter")),
        Source("recbole==1.2.1", "recbole-1.2.1-py3-none-any.whl", _RECBOLE_SHA256, pip=True),
    ),
    _movielens(
        "1M",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "c4d9eecfca2ab87c1945afe126590906",
        (Member("ratings.dat", "colons"),),
        (Member("movies.dat", "colons"),),
    ),
    _movielens(
        "20M",
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "cd245b17a1ae2cc31bb14903e1204af3",
        (Member("ratings.csv", "comma"),),
        (Member("movies.csv", "comma"),),
    ),
    _amazon("amazon-beauty", "Beauty"),
    _amazon("amazon-games", "Video_Games"),
    PublicDataset(
        name="steam",
        title="Steam reviews",
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        terms=_MCAULEY_TERMS,
        sources=(
            Source("https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz", "steam_reviews.json.gz"),
            Source(f"{_STEAM}/steam_reviews.json.gz", "steam_reviews.json.gz"),
        ),
        events=(Member("steam_reviews.json", "literal"), Member("steam_new.json", "literal")),
        note="1.3 GB download; its times are whole days",
    ),
)
CATALOG: dict[str, PublicDataset] = {dataset.name: dataset for dataset in _DATASETS}


def find(name: str) -> PublicDataset:
    """Return the public data set of this name.

    Raises: DataError for an unknown name. The message lists all names and suggests the most similar one.
    """
    if name in CATALOG:
        return CATALOG[name]
    close = difflib.get_close_matches(name.lower(), CATALOG, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"{name!r} is not a public data set. Use one of {', '.join(CATALOG)}{hint}")
