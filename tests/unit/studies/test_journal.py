"""The journal of a study is read although its last line was cut, and a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sasrec.cli.main import main
from sasrec.studies.plan import read_plan
from sasrec.studies.queue import Queue


def queue_of(folder: Path, seeds: str = "[0, 1]") -> Queue:
    file = folder / "study.toml"
    file.write_text(f'dataset = "x"\ntrain_dir = "{folder / "study"}"\nseeds = {seeds}\n')
    return Queue(read_plan(file).keep(add=True))


def test_a_last_line_that_was_cut_is_removed_before_the_next_entry(tmp_path: Path) -> None:
    queue_of(tmp_path)
    journal = tmp_path / "study/journal.log"
    with journal.open("a") as file:
        file.write('{"op_code": 4, "worker')  # as a full disk leaves it
    queue = queue_of(tmp_path, "[0, 1, 2]")
    with queue.claim() as entry:
        assert entry is not None
        queue.done(entry, 0.5, 1.0)
    assert [entry.state for entry in queue_of(tmp_path, "[0, 1, 2]").entries()] == ["done", "queued", "queued"]
    assert "worker\n" not in journal.read_text()


def test_a_look_writes_nothing(tmp_path: Path) -> None:
    queue_of(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "study").rglob("*") if path.is_file()}
    assert main(["study", "status", str(tmp_path / "study.toml")]) == 0
    assert main(["study", "status", str(tmp_path / "study")]) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "study").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", [b"garbage\n", b"3\n", b"\xff\xfe\x00\n", b"{}\n"])
def test_a_damaged_journal_is_named_with_its_remedy(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_of(tmp_path)
    journal = tmp_path / "study/journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], damage, *lines[2:]]))
    assert main(["study", "status", str(tmp_path / "study.toml")]) == 1
    assert f"{journal} is damaged after line 2" in capsys.readouterr().err
    journal.unlink()
    assert main(["study", "status", str(tmp_path / "study.toml")]) == 0
    assert capsys.readouterr().out.count("queued") == 2
