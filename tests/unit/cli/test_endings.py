"""How a command ends when the system fails it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sasrec.cli import endings
from sasrec.cli.main import main
from sasrec.errors import ConfigError


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free disk space, and run the same command again."),
        (errno.EROFS, "Fix the permissions, or name another folder."),
        (errno.EMFILE, "Allow more open files (ulimit -n)."),
        (errno.EISDIR, "Check the path."),
    ],
)
def test_an_error_of_the_system_names_the_file_the_reason_and_the_remedy(number: int, remedy: str) -> None:
    error = OSError(number, os.strerror(number), "top.csv")
    assert endings.of_system(error) == f"top.csv: {os.strerror(number)}. {remedy}"
    assert endings.of_system(OSError(number, os.strerror(number))) == f"{os.strerror(number)}. {remedy}"


def test_no_temporary_folder_is_named_with_its_remedy() -> None:
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert endings.of_system(error).endswith("Set TMPDIR to a folder that can be written.")


def test_a_limit_of_the_address_space_is_refused_only_where_it_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"soft": -1}
    monkeypatch.setattr(endings.resource, "getrlimit", lambda _: (limits["soft"], -1))
    endings.check_address_space()
    limits["soft"] = 4_000_000_000
    endings.check_address_space()
    limits["soft"] = 900_000_000
    with pytest.raises(ConfigError, match=r"limited to 0\.9 GB \(ulimit -v\).* need 3 GB"):
        endings.check_address_space()


def test_memory_that_runs_out_outside_training_has_a_remedy_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def prepare(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("sasrec.sources.resolve.prepare", prepare)
    assert main(["prepare", "x.csv", "--output", str(tmp_path / "data")]) == 1
    assert "out of memory: close other programs" in capsys.readouterr().err
