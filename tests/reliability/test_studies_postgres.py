"""The queue of a study in PostgreSQL: killed workers, and one that is cut off from the data base."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sasrec.cli.main import main
from sasrec.studies.plan import read_plan
from sasrec.studies.queue import Queue
from sasrec.studies.study import open_study, rows
from tests.postgres import needs_postgres, server
from tests.reliability.test_studies import epochs_trained, results, started, study, trials

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server("studies") as found:
        yield found


class Cable:
    """A connection to a server that can be cut: it forwards a port of loopback until `cut` is set."""

    def __init__(self, port: int) -> None:
        self._to, self.is_cut = port, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut.set()
        for end in self._open:
            end.close()

    def join(self) -> None:
        self.is_cut.clear()

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            if self.is_cut.is_set():
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self._to))
            self._open += [here, there]
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.is_cut.is_set():
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()


def cable_to(url: str) -> tuple[Cable, str]:
    port = int(url.rpartition(":")[2].partition("/")[0])
    cable = Cable(port)
    return cable, url.replace(str(port), str(cable.port))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_two_workers_cut_off_for_a_minute_lose_nothing(tmp_path: Path, url: str) -> None:
    seconds, epochs = 60.0, 30
    quiet = started(study(tmp_path, "quiet", epochs))
    quiet.communicate(timeout=240)
    assert quiet.returncode == 0
    cable, cut_url = cable_to(url)
    path = study(tmp_path, "cut", epochs, storage=cut_url)
    open_study(path)
    command = [sys.executable, "-m", "sasrec", "study", "work", str(tmp_path / "cut")]
    said = tmp_path / "said"
    with said.open("ab") as stream:
        workers = [
            subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=stream, stderr=stream)
            for _ in range(2)
        ]
    wait_until(lambda: any(epochs_trained(tmp_path / "cut").values()))
    cable.cut()
    time.sleep(seconds)
    wait_until(lambda: "does not answer; trying again" in said.read_text())
    cable.join()
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0], said.read_text()
    assert "Traceback" not in said.read_text()
    assert results(tmp_path / "cut") == results(tmp_path / "quiet")
    for run, trained in epochs_trained(tmp_path / "cut").items():
        assert trained == list(range(1, epochs + 1)), run
    assert [row.entry.state for row in rows(*open_study(path))] == ["done"] * 4


def test_a_run_that_ends_while_the_data_base_is_away_is_recorded_later(tmp_path: Path, url: str) -> None:
    cable, cut_url = cable_to(url)
    said: list[str] = []
    queue = Queue(read_plan(study(tmp_path, "study", storage=cut_url)), said.append)
    with queue.claim() as entry:
        assert entry is not None
        cable.cut()
        threading.Timer(3.0, cable.join).start()
        queue.done(entry, 0.5, seconds=1.0)
    assert [each.state for each in queue.entries()] == ["done", "queued", "queued", "queued"]
    assert len(said) == 1
    assert "does not answer; trying again" in said[0]


@pytest.mark.slow
def test_twenty_studies_in_a_data_base_with_killed_workers_end_as_a_quiet_one(tmp_path: Path, url: str) -> None:
    trials(tmp_path, 20, url)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("postgresql://postgres@127.0.0.1:1/postgres", "cannot be reached"),
        ("postgresql://me:secret@127.0.0.1/postgres", "PGPASSWORD"),
        ("sqlite:///study.db", "storage"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_before_anything_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str, said: str
) -> None:
    assert main(["study", "run", str(study(tmp_path, "study", storage=storage))]) == 1
    error = capsys.readouterr().err
    assert said in error.replace("\n", " ")
    assert "secret" not in error
    assert not list(tmp_path.rglob("log.jsonl"))
