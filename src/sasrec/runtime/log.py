"""Report on a run: one JSON line per event in log.jsonl, and progress for people on stderr."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from sasrec.errors import CheckpointError, ConfigError
from sasrec.files import naming
from sasrec.locks import refuse_lost
from sasrec.runtime.ranks import rank
from sasrec.untrusted import content_of, json_text

_SAY_EVERY = 60.0  # seconds between two lines, without a terminal to show a bar
_SHOW_EVERY = 0.5  # seconds, in a notebook, where each change travels to a browser


class Bar(Protocol):
    """Progress on one piece of work."""

    def __call__(self, done: int, note: str = "") -> None:
        """Report `done` more units, and a short note to show beside the bar."""
        ...


class RunLog:
    """Writes events and shows progress: a live line on a terminal and in a notebook, elsewhere a line a minute."""

    def __init__(
        self,
        path: Path | None,
        console: Console | None = None,
        words: Callable[[str], str] = str,
        watch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """`path`: the JSON lines file, or None to write none. `words`: rewords each sentence to show.

        `watch`: is called with each event once it is written. What it raises ends the work.
        """
        self.words, self.watch = words, watch
        self.console = console or Console(stderr=True)
        self._path = path
        self._board: Any = None
        self._live: _Live | None = None

    @staticmethod
    def of_run(path: Path | None, log: RunLog | None) -> RunLog:
        """Return a log that writes to `path` and prints to the console of `log`, or to stderr if `log` is None.

        With several ranks, only rank 0 writes and prints.
        """
        if rank() > 0:
            return RunLog(None, Console(quiet=True))
        return RunLog(path, log.console, log.words, log.watch) if log else RunLog(path)

    def event(self, name: str, **fields: Any) -> None:
        """Append one line: the time, the event's name, its fields. Flushed, so a crash loses nothing."""
        if self._path is None:
            return
        refuse_lost(self._path.parent)
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **fields}
        with naming(self._path), self._path.open("a+b") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
            whole = stream.read(1) in (b"\n", b"")  # a kill can leave a part of a line
            stream.write((b"" if whole else b"\n") + json.dumps(line).encode() + b"\n")
        if self._board is not None and "step" in fields:
            for field, value in fields.items():
                if field != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"{name}/{field}", value, fields["step"])
            self._board.flush()
        if self.watch is not None:
            self.watch(line)

    def show_in_tensorboard(self, step: int) -> None:
        """From now on, also write the numeric fields of each logged event that has a step to RUN/tensorboard.

        TensorBoard then hides the values of steps after `step`, which an interrupted run may have written.

        Raises: ConfigError if the package tensorboard is not installed. Remedy: install it, or set
        tensorboard=False.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "tensorboard is not installed. Run `pip install tensorboard`, or set tensorboard=False."
            ) from None
        if self._path is not None:
            self._board = SummaryWriter(str(self._path.parent / "tensorboard"), purge_step=step + 1)

    def say(self, sentence: str) -> None:
        """Print a sentence for people. While a notebook shows a bar, each sentence replaces the previous one.

        Sentences that begin with "note" or "warning" always stay.
        """
        sentence = self.words(sentence)
        if self._live is not None and self._live.running and not sentence.startswith(("note", "warning")):
            self._live.say(sentence)
            return
        # Where a person reads, it wraps at words; elsewhere a sentence stays one line.
        whole = not (self.console.is_terminal or self.console.is_jupyter)
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=whole)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        """Show progress over `total` units of work. The block calls the yielded `Bar` to report units."""
        if self.console.is_jupyter and not self.console.quiet:
            self._live = self._live or _Live()
            self._live.begin(what, total)
            try:
                yield self._live
            finally:
                self._live.end()
            return
        if not self.console.is_terminal:
            yield self._lines(what, total)
            return
        # Imported only to show a bar, so that `sasrec --help` need not load it.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        width = max(4, min(40, self.console.width - 60))  # so that count and note are never cut
        columns = (TextColumn("{task.description}"), BarColumn(width), MofNCompleteColumn(), TimeRemainingColumn())
        note_column = TextColumn("{task.fields[note]}")
        with Progress(*columns, note_column, console=self.console, transient=True) as progress:
            task = progress.add_task(what, total=total, note="")
            yield lambda done, note="": progress.update(task, advance=done, note=note)

    def _lines(self, what: str, total: int) -> Bar:
        reached, said = 0, time.monotonic()

        def advance(done: int, note: str = "") -> None:
            nonlocal reached, said
            reached += done
            if time.monotonic() - said > _SAY_EVERY:
                said = time.monotonic()
                self.say(_line(what, reached, total, note))

        return advance


class _Live:
    """Shows the progress bars of a log in one output of a notebook's cell, one at a time, each in the same place.

    The output is empty while no bar runs.

    rich's own display for notebooks is not used, because it needs the package ipywidgets.
    """

    def __init__(self) -> None:
        self._notebook = import_module("IPython.display")  # a notebook has it; sasrec does not depend on it
        self._name = f"sasrec-{uuid.uuid4().hex}"
        self._notebook.display({"text/plain": ""}, display_id=self._name, raw=True)
        self.running = False

    def begin(self, what: str, total: int) -> None:
        """Show the progress of the next piece of work, from 0 of `total` units."""
        self._what, self._total, self._done, self._note, self._sentence = what, total, 0, "", ""
        self.running = True
        self._show(self._text())

    def __call__(self, done: int, note: str = "") -> None:
        self._done, self._note = self._done + done, note
        if time.monotonic() - self._shown >= _SHOW_EVERY:
            self._show(self._text())

    def say(self, sentence: str) -> None:
        """Show a sentence below the progress line, in place of the previous sentence."""
        self._sentence = sentence
        self._show(self._text())

    def end(self) -> None:
        """Erase the progress line and the sentence below it."""
        self.running = False
        self._show({"text/plain": ""})

    def _show(self, text: dict[str, str]) -> None:
        self._shown = time.monotonic()
        self._notebook.update_display(text, display_id=self._name, raw=True)

    def _text(self) -> dict[str, str]:
        line = _line(self._what, self._done, self._total, self._note)
        return {"text/plain": f"{line}\n{self._sentence}".rstrip()}


def _line(what: str, done: int, total: int, note: str) -> str:
    return f"{what}: {done:,} of {total:,}{'  ' if note else ''}{note}"


def events_of(run: Path) -> list[dict[str, Any]]:
    """The events in a run's log.jsonl. Lines that are not events, such as one cut by a kill, are skipped."""
    found = []
    path = run / "log.jsonl"
    try:
        text = content_of(path).decode(errors="replace") if path.exists() else ""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Remove or restore it.") from None
    for line in text.splitlines():
        try:
            event = json_text(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            found.append(event)
    return found
