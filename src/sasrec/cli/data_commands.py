"""The commands that come before a run: `sasrec datasets` and `sasrec prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.markup import escape

from sasrec.cli.tables import err, out
from sasrec.config.settings import Duplicates, TimeUnit
from sasrec.events.report import summary
from sasrec.sources.registry import CATALOG
from sasrec.sources.resolve import prepare


@dataclass(frozen=True)
class Datasets:
    """List the public data sets that `sasrec train --dataset NAME` knows, with their terms."""

    def run(self) -> None:
        """Print them."""
        for dataset in CATALOG.values():
            out.print(
                f"[bold]{dataset.name}[/bold]  {escape(dataset.title)}{'; ' if dataset.note else ''}{dataset.note}"
            )
            out.print(f"  {escape(dataset.terms)}  {dataset.homepage}")
            out.print(f"  a copy you have: --from one of {', '.join(dataset.accepted)}, or a folder with it")


@dataclass(frozen=True)
class Prepare:
    """Read and check files of events, and write a data set that training maps from disk.

    Takes CSV, TSV, header-less `user item [time]` text, Parquet and JSON Lines, also .gz. Bad rows are listed
    in OUTPUT/rejects.csv with file, line, column and reason.

    Example: sasrec prepare ratings.csv --output data/mine --user userId --item movieId --time timestamp
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files of events, read in this order."""
    output: Path
    """Folder to write."""
    user: str | None = None
    """Column of user ids. Default: found by its name."""
    item: str | None = None
    """Column of item ids. Default: found by its name."""
    time: str | None = None
    """Column of times: seconds, ms, us, ns or ISO 8601. Default: found by its name; none: file order."""
    time_unit: TimeUnit = "auto"
    """Unit of numeric times; auto decides by their size and says so."""
    items: Path | None = None
    """File with item titles (CSV or TSV with a header)."""
    items_id: str | None = None
    """Column of item ids in that file. Default: the first."""
    items_title: str | None = None
    """Column of titles in that file. Default: the second."""
    items_group: str | None = None
    """Column of one group an item, such as a genre, taken as it is: for the diversity of `evaluate --details`."""
    max_rejects: int = 0
    """How many bad rows to tolerate; -1 for any number."""
    duplicates: Duplicates = "keep"
    """Repeats of a (user, item) pair: keep all, drop rows equal in time too, or keep the first or last."""
    min_user_events: int = 0
    """Drop users with fewer events, counted once."""
    min_item_events: int = 0
    """Drop items with fewer events, counted once."""
    k_core: int = 0
    """Drop users and items with fewer than k events until none is left to drop."""

    def run(self) -> None:
        """Prepare, and print the report."""
        data = prepare(
            list(self.files),
            user=self.user,
            item=self.item,
            time=self.time,
            output=self.output,
            items=self.items,
            items_id=self.items_id,
            items_title=self.items_title,
            items_group=self.items_group,
            time_unit=self.time_unit,
            max_rejects=self.max_rejects,
            duplicates=self.duplicates,
            min_user_events=self.min_user_events,
            min_item_events=self.min_item_events,
            k_core=self.k_core,
        )
        for sentence in summary(data.report):
            out.print(escape(sentence))
        err.print(
            f"written to {self.output}; train on it with: sasrec train --dataset {self.output} --train_dir RUN"
        )
