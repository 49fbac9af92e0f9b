"""The journal of a study: a file with a line for each change of the queue, which survives a line that was cut."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from sasrec.errors import FolderError
from sasrec.files import naming


class Journal(JournalFileBackend):
    """The journal of Optuna, but the next writer removes a last line that a full disk or a crash has cut.

    Else this writer would append to the part of a line, and nobody could read the journal from then on.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Lock(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries. Raises: OSError, with the name of the file, if the disk is full."""
        with naming(self._path):
            super().append_logs(logs)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from a number on.

        Raises: FolderError if a line is not an entry. Remedy: remove the file, and run the study again.
        """
        number = log_number_from
        try:
            for entry in super().read_logs(log_number_from):
                if not isinstance(entry, dict) or "op_code" not in entry:
                    raise ValueError("not an entry")
                number += 1
                yield entry
        except ValueError as error:
            raise FolderError(
                f"{self._path} is damaged after line {number} ({error}). Restore this file; or remove it, and run "
                "the study again: finished runs are not trained again."
            ) from None


class _Lock(JournalFileSymlinkLock):
    """Whoever holds it finds a journal that ends with a whole line."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        held = super().acquire()
        try:
            self._remove_cut_line()
        except BaseException:
            self.release()
            raise
        return held

    def _remove_cut_line(self) -> None:
        with self._path.open("r+b") as journal:
            size = journal.seek(0, os.SEEK_END)
            journal.seek(max(0, size - 1))
            if journal.read() not in (b"", b"\n"):
                journal.seek(0)
                journal.truncate(journal.read().rfind(b"\n") + 1)
