"""Whole files, and errors that name them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sasrec.files import whole_file, write_synced, write_whole


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    monkeypatch.setattr("os.fsync", full)
    for write in (write_whole, write_synced):
        other = path if write is write_whole else tmp_path / "synced"
        with pytest.raises(OSError, match="No space left") as failed:
            write(other, b"new")
        assert failed.value.filename == str(other)
    assert path.read_text() == "old"
    assert {each.name for each in tmp_path.iterdir()} == {"file", "synced"}


def test_an_error_that_a_library_reports_as_its_own_is_one_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as failed, whole_file(tmp_path / "file"):
        raise ValueError("parquet: underlying IO error: No space left on device (os error 28)")
    assert (failed.value.errno, failed.value.filename) == (errno.ENOSPC, str(tmp_path / "file"))
    with pytest.raises(ValueError, match="another"), whole_file(tmp_path / "file"):
        raise ValueError("another")
    assert not list(tmp_path.iterdir())


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed, whole_file(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()
    assert failed.value.filename == str(tmp_path / "missing")
