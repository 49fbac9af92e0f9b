"""The commands that come before a run: `sasrec datasets` and `sasrec prepare`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from sasrec.cli.arguments import OptionalPath, OptionalText, Values, as_options
from sasrec.cli.commands import with_options
from sasrec.cli.console import err, out, say
from sasrec.cli.outputs import saying_if_stopped
from sasrec.config.settings import DataConfig, Duplicates, TimeUnit
from sasrec.errors import ConfigError, DataError, SasrecWarning, for_shell

if TYPE_CHECKING:
    from sasrec.data.dataset import Dataset


@dataclass(frozen=True)
class Datasets:
    """List the public data sets that `sasrec train --dataset NAME` knows, with their terms of use."""

    def run(self) -> None:
        """Print each public data set with its terms of use, home page and accepted local copies."""
        from sasrec.sources.registry import CATALOG

        for dataset in CATALOG.values():
            title = f"{dataset.title}{'; ' if dataset.note else ''}{dataset.note}"
            out.print(f"[bold]{dataset.name}[/bold]  {escape(title)}")
            for line in (
                dataset.terms,
                dataset.homepage,
                f"local copy: --from one of {', '.join(dataset.accepted)}, or a folder with one",
            ):
                out.print(Padding(escape(line), (0, 0, 0, 2)) if out.is_terminal else f"  {escape(line)}")


@dataclass(frozen=True)
class Prepare:
    """Read and check files of events, and write a prepared data set, which training opens fast.

    An event is a user, an item and usually a time. The command reads CSV, TSV and other text, with or without a
    header, JSON, Parquet and Arrow, also compressed (gz, bz2, xz, zst, zip). FILE can also be a folder, a pattern
    of files, or - for stdin. The file rejects.csv in the folder of --output lists bad rows with file, line, column
    and reason.

    Example: sasrec prepare ratings.csv --output data/mine --user userId --item movieId --time timestamp
    """

    files: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FILE ...", help_behavior_hint="")
    ]
    """Files, folders or patterns of events, read in this order; - is stdin. Or a database URL, with --query."""
    output: OptionalPath = None
    """Folder to write the data set to."""
    explain: bool = False
    """Only show what each column looks like, which role it has (user, item, time) and why; write nothing."""
    user: OptionalText = None
    """Column of user ids. Default: recognised by its name."""
    item: OptionalText = None
    """Column of item ids. Default: recognised by its name."""
    time: OptionalText = None
    """Column of times. Default: recognised by its name. The word none reads no times and keeps the row order."""
    columns: str = ""
    """Role of each column in order, such as user,item,-,time (- ignores); or pairs like session_id:user,0:item."""
    time_format: str = ""
    """Format of times that are dates but not ISO 8601, such as %d.%m.%Y %H:%M (codes of Python's strptime)."""
    encoding: OptionalText = None
    """Encoding of text files, such as cp1252. Default: UTF-8, or UTF-16 where a byte order mark says so."""
    query: str = ""
    """SQL query that reads the events, if FILE is the URL of a database (sqlite:///events.db, postgresql://…)."""
    where: str = ""
    """Keep only rows that fulfil this condition in SQL, such as "event = 'purchase' AND rating >= 4"."""
    missing: Values = DataConfig().missing
    """Values, separated by commas, that mean a missing user or item; upper and lower case count as equal."""
    time_unit: TimeUnit = "auto"
    """Unit of numeric times. auto chooses the unit by the size of the numbers and prints the choice."""
    valid: OptionalPath = None
    """File of validation events; FILE then has only the training events."""
    test: OptionalPath = None
    """File of test events; FILE then has only the training events."""
    items: OptionalPath = None
    """File with the id and the title of each item: text with any usual separator, JSON Lines or Parquet."""
    items_id: OptionalText = None
    """Column of item ids in the --items file; a number from 0 without a header. Default: by name, or the first."""
    items_title: OptionalText = None
    """Column of titles in the --items file. Default: the first whose name has title or name, else the second."""
    items_group: OptionalText = None
    """Column of groups, such as genres, in the --items file; `evaluate --details` measures diversity by them."""
    max_rejects: int = 0
    """Number of bad rows to skip; data with more bad rows is refused. -1 skips any number."""
    duplicates: Duplicates = "keep"
    """What to keep of repeated (user, item) pairs: all, one for each time (drop_exact), the first, or the last."""
    min_user_events: int = 0
    """Drop users with fewer events than this, counted after --duplicates and before --k_core."""
    min_item_events: int = 0
    """Drop items with fewer events than this, counted before --min_user_events drops any user."""
    k_core: int = 0
    """Drop users and items with fewer than k events, and repeat until all have k events; 0 drops none."""
    shards: bool = False
    """Read the Parquet files of the folder FILE one at a time, to save memory; each user must be in one file."""

    def run(self) -> None:
        """Prepare, and print the report; or explain the columns."""
        from sasrec.data.dataset import Replaced
        from sasrec.events.report import BASKETS, REPEATS, summary

        if self.explain:
            self._explain()
            return
        if self.output is None:
            raise ConfigError("prepare needs `output`, the folder to write. Set it, or only look with --explain.")
        # The report shows the other notes.
        warnings.simplefilter("ignore", SasrecWarning)
        warnings.simplefilter("always", Replaced)
        with saying_if_stopped(f"interrupted; run the same command again to write {self.output}"):
            data = self._prepared()
        for sentence in summary(data.report):
            of_training = REPEATS in sentence or BASKETS in sentence
            say(out, with_options(sentence) if of_training else as_options(sentence, [Prepare]))
        say(err, f"written to {self.output}")
        say(err, f"next: sasrec train --dataset {for_shell(self.output)} --train_dir RUN")

    def _prepared(self) -> Dataset:
        from sasrec.sources.resolve import prepare

        return prepare(
            list(self.files),
            user=self.user,
            item=self.item,
            time=self.time,
            valid=self.valid,
            test=self.test,
            output=self.output,
            items=self.items,
            items_id=self.items_id,
            items_title=self.items_title,
            items_group=self.items_group,
            columns=self.columns,
            time_format=self.time_format,
            encoding=self.encoding,
            query=self.query,
            where=self.where,
            missing=self.missing,
            time_unit=self.time_unit,
            max_rejects=self.max_rejects,
            duplicates=self.duplicates,
            min_user_events=self.min_user_events,
            min_item_events=self.min_item_events,
            k_core=self.k_core,
            shards=self.shards,
        )

    def _explain(self) -> None:
        from sasrec.data.manifest import refuse_run
        from sasrec.events.events import explain

        for file in self.files:
            refuse_run(Path(file))
        settings = {
            name: getattr(self, name)
            for name in ("columns", "encoding", "query", "where", "missing", "time_unit", "time_format")
        }
        config = DataConfig(user_column=self.user, item_column=self.item, time_column=self.time, **settings)
        name, columns, notes, refusal = explain(list(self.files), config)
        table = Table("column", "looks like (first rows)", "role", "why", box=None, pad_edge=False)
        for each in columns:
            table.add_row(*map(escape, (each.name, each.looks_like, each.role, each.why)))
        say(out, name)
        out.print(table)
        for note in notes:
            say(err, as_options(note, [Prepare]), label="note:", style="yellow")
        if refusal:
            raise DataError(refusal)
