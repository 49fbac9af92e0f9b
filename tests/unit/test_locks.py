"""One writer a folder, also across processes, and nothing in folders of others."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sasrec
from sasrec.checkpoint import store
from sasrec.errors import ConfigError, FolderError
from sasrec.locks import alone, is_claimed, only_writer, refuse_lost
from sasrec.runtime.log import RunLog
from tests.synthetic import chain_frame, small

HOLD = """
import sys, time
from pathlib import Path
from sasrec.locks import only_writer
with only_writer(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.readline()
"""
SMALL = {"maxlen": 8, "hidden_units": 8, "num_blocks": 1, "num_epochs": 1, "batch_size": 16, "device": "cpu"}


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that writes into tmp_path / run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_whatever_would_write_into_a_folder_in_use_is_refused(holder: subprocess.Popen, tmp_path: Path) -> None:
    run, data = tmp_path / "run", sasrec.prepare(chain_frame(users=20))
    in_use = rf"run is in use: process {holder.pid} on .* since 20.*\(training\)\. Wait"
    for attempt in (lambda: sasrec.train(data, run, **SMALL), lambda: data.save(run)):
        with pytest.raises(FolderError, match=in_use):
            attempt()
    assert {path.name for path in run.iterdir()} == {".sasrec.lock", ".sasrec.writer"}


def test_a_killed_writer_leaves_no_lock(holder: subprocess.Popen, tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    began = time.monotonic()
    sasrec.train(sasrec.prepare(chain_frame(users=20)), tmp_path / "run", **SMALL)
    assert sasrec.load(tmp_path / "run").recommend(["item-01"])
    assert time.monotonic() - began < 60
    assert not (tmp_path / "run" / ".sasrec.writer").exists()


def test_a_run_in_use_is_neither_resumed_nor_measured_nor_replaced_by_an_export(tmp_path: Path) -> None:
    sasrec.train(sasrec.prepare(chain_frame(users=20)), tmp_path / "run", **SMALL)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        for attempt in (sasrec.resume, sasrec.evaluate):
            with pytest.raises(FolderError, match="in use"):
                attempt(tmp_path / "run")
        assert sasrec.load(tmp_path / "run").recommend(["item-01"])  # reading is not writing
        process.stdin.write(b"\n")
    assert sasrec.evaluate(tmp_path / "run")["protocol"]


@pytest.mark.parametrize("name", ["config.toml", "log.jsonl", "notes.txt", "dataset", "metrics.json"])
def test_a_strangers_folder_does_not_become_a_run(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FolderError, match="has files and is not a run"):
        sasrec.train(sasrec.prepare(chain_frame(users=20)), tmp_path, **SMALL)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_refused_training_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(sasrec.SasrecError, match="does not exist"):
        sasrec.train(tmp_path / "nowhere.csv", tmp_path / "deep" / "run", **SMALL)
    assert not (tmp_path / "deep" / "run").exists()


def test_an_interrupted_export_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sasrec.train(sasrec.prepare(chain_frame(users=20)), tmp_path / "run", **SMALL)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sasrec.config.settings.RunConfig.save", stop)
        with pytest.raises(KeyboardInterrupt):
            sasrec.export(tmp_path / "run", tmp_path / "export")
    assert is_claimed(tmp_path / "export")
    (tmp_path / "export/.items.parquet.4321.tmp").write_bytes(b"PAR1")  # as a kill within a file leaves it
    sasrec.export(tmp_path / "run", tmp_path / "export")
    (tmp_path / "export/.items.parquet.4321.tmp").unlink()
    assert {path.name for path in (tmp_path / "export").iterdir()} == {
        "checkpoints",
        "config.toml",
        "counts.parquet",
        "items.parquet",
        "README.md",
    }
    with pytest.raises(ConfigError, match="not empty"):
        sasrec.export(tmp_path / "run", tmp_path / "export")


def test_a_thread_that_holds_a_folder_may_hold_it_again(tmp_path: Path) -> None:
    with only_writer(tmp_path / "new", "training"), only_writer(tmp_path / "new" / ".", "writing"):
        assert (tmp_path / "new" / ".sasrec.lock").exists()
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".sasrec.lock").touch()
    tried: list[int] = []

    def acquire(*_: object, **__: object) -> None:
        tried.append(1)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    monkeypatch.setattr("sasrec.locks._WAIT", 1.0)
    with pytest.raises(FolderError, match=r"cannot be written: .*Permission denied"), alone(tmp_path, "testing"):
        pass
    assert tried == [1]


def test_a_folder_that_was_deleted_or_replaced_is_not_written_into(tmp_path: Path) -> None:
    """As after Ctrl-Z: the folder is deleted, somebody else starts there, and the first one wakes."""
    folder = tmp_path / "run"
    refuse_lost(folder)  # nobody holds it
    with only_writer(folder, "training"):
        refuse_lost(folder)
        shutil.rmtree(folder)
        with pytest.raises(FolderError, match="was deleted, moved or replaced while it was written into"):
            refuse_lost(folder)
        folder.mkdir()
        (folder / ".sasrec.lock").touch()
        with pytest.raises(FolderError, match="replaced"):
            refuse_lost(folder)
        with pytest.raises(FolderError, match="replaced"):
            store.save(folder / "checkpoints", {}, {"step": 1, "score": None})
        with pytest.raises(FolderError, match="replaced"):
            RunLog(folder / "log.jsonl").event("epoch")
    assert sorted(path.name for path in folder.iterdir()) == [".sasrec.lock"]


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    run, data, other = tmp_path / "run", tmp_path / "data", tmp_path / "other"
    sasrec.prepare(chain_frame(), output=data)
    for folder in (run, other):
        sasrec.train(chain_frame(), folder, **small(num_epochs=1))
    sasrec.export(run, tmp_path / "export")
    (other / "config.toml").unlink()  # of which an export once deleted all checkpoints
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder in (run, data, other, tmp_path / "export"):
        with pytest.raises(ConfigError, match="not empty"):
            sasrec.export(run, folder)
    for folder in (run, tmp_path / "export"):
        with pytest.raises(FolderError, match="does not contain a data set"):
            sasrec.prepare(chain_frame(), output=folder)
    with pytest.raises(FolderError, match="is a data set, not a run"):
        sasrec.train(chain_frame(), data, **small())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
