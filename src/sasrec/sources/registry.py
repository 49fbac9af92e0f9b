"""The public data sets: where each comes from, and on what terms."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sasrec.errors import DataError

Form: TypeAlias = Literal["tab", "comma", "colons", "pipe", "inter", "json", "literal"]
"""How a file is written. json and literal: a review a line, as a JSON object (Amazon) or as a Python literal
(Steam), which JSON cannot read. The others are tables; events in them are user, item, rating and seconds."""
COLUMNS = {"user_column": "user", "item_column": "item"}
# How the events of a downloaded data set are read, once converted.
DOWNLOADED = {**COLUMNS, "time_column": "time", "time_unit": "s"}
TABLES = (".tsv", ".csv", ".txt", ".dat", ".inter", ".jsonl", ".parquet")
"""What the events reader takes by itself, also with .gz after it."""


@dataclass(frozen=True)
class Source:
    """One place to fetch a data set from."""

    address: str
    """A web address, or what pip is asked for."""
    file: str
    """Name of the file it gives."""
    sha256: str | None = None
    """None where no checksum is known: then the first download's is recorded beside it and checked after."""
    md5: str | None = None
    """As its publisher states it."""
    pip: bool = False
    """Whether pip fetches it, as a wheel that is read as a zip and never installed."""

    @property
    def told(self) -> str:
        """In words, for the user."""
        return f"the examples in the wheel of {self.address}" if self.pip else self.address


@dataclass(frozen=True)
class Member:
    """A file of a data set by its own name, wherever it lies in an archive or folder; perhaps with .gz."""

    file: str
    form: Form


@dataclass(frozen=True)
class PublicDataset:
    """A data set that `sasrec` knows by name."""

    name: str
    title: str
    homepage: str
    terms: str
    sources: tuple[Source, ...]
    """Tried in this order."""
    events: tuple[Member, ...]
    """Files of events that are understood; the first one found is taken."""
    items: tuple[Member, ...] = ()
    max_bytes: int = 1 << 31
    """Most that one member of a zip may unpack to: several times the largest there is, ML-20M's 0.5 GB."""
    note: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        """The file names that `--from` takes; a folder with one of them will do too."""
        named = [source.file for source in self.sources] + [member.file for member in self.events]
        return (*dict.fromkeys(named), f"{self.name}.tsv.gz")


_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_STEAM = "https://mcauleylab.ucsd.edu/public_datasets/data/steam"
_MCAULEY_TERMS = "McAuley Lab: research use by convention; cite the papers that its page names."


def _amazon(name: str, category: str) -> PublicDataset:
    ratings = f"ratings_{category}.csv"
    return PublicDataset(
        name=name,
        title=f"Amazon {category.replace('_', ' ')}, 2014: all ratings",
        homepage="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        terms=_MCAULEY_TERMS,
        sources=(Source(f"{_AMAZON}/{ratings}", ratings),),
        events=(Member(ratings, "comma"), Member(f"reviews_{category}_5.json", "json")),
        note="most papers report its 5-core: set k_core = 5",
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
        note=f"or from the examples in the wheel of {more[0].address}" if more else "",
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
        note="1.3 GB to download; times are days",
    ),
)
CATALOG: dict[str, PublicDataset] = {dataset.name: dataset for dataset in _DATASETS}


def find(name: str) -> PublicDataset:
    """The data set of that name.

    Raises: DataError listing the names there are, and the closest.
    """
    if name in CATALOG:
        return CATALOG[name]
    close = difflib.get_close_matches(name.lower(), CATALOG, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"there is no public data set {name!r}: the names are {', '.join(CATALOG)}{hint}")
