"""What a run says: one JSON line per event in log.jsonl, and progress for people on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sasrec.training.distributed import rank


class Bar(Protocol):
    """Progress on one piece of work."""

    def __call__(self, done: int, note: str = "") -> None:
        """Report `done` more units, and a short note to show beside the bar."""
        ...


class RunLog:
    """Writes events and shows progress. A bar appears only on a terminal; sentences appear everywhere."""

    def __init__(self, path: Path | None, console: Console | None = None) -> None:
        """`path`: the JSON lines file, or None to write none."""
        self.console = console or Console(stderr=True)
        self._path = path

    @staticmethod
    def of_run(path: Path | None, log: RunLog | None) -> RunLog:
        """The log of a run, on the console of `log`; of several ranks only the first writes and speaks."""
        if rank() > 0:
            return RunLog(None, Console(quiet=True))
        return RunLog(path, log.console if log else None)

    def event(self, name: str, **fields: Any) -> None:
        """Append one line: the time, the event's name, its fields. Flushed, so a crash loses nothing."""
        if self._path is not None:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **fields}
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def say(self, sentence: str) -> None:
        """A sentence for people."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """A progress bar for `total` units of work."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        note_column = TextColumn("{task.fields[note]}")
        disable = not self.console.is_terminal
        with Progress(*columns, note_column, console=self.console, transient=True, disable=disable) as progress:
            task = progress.add_task(what, total=total, note="")
            yield lambda done, note="": progress.update(task, advance=done, note=note)
