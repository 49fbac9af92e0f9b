"""A GPU is held by one run at a time, or by as many as the user allows, whichever study they belong to."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from sasrec.studies.devices import devices_here, held_device


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_without_a_gpu_nothing_is_held() -> None:
    assert devices_here() == []
    with held_device([], 1, print) as device:
        assert device == ""


def test_idle_devices_come_first_and_each_is_the_only_visible_one() -> None:
    with ExitStack() as held:
        found = [held.enter_context(held_device(["0", "1"], 2, print)) for _ in range(4)]
        assert found == ["0", "1", "0", "1"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_run_waits_until_a_device_is_free_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sasrec.studies.devices._PAUSE", 0.01)
    said: list[str] = []
    waits, ends = threading.Event(), threading.Event()

    def say(sentence: str) -> None:
        said.append(sentence)
        waits.set()

    def second() -> None:
        with held_device(["0"], 1, say):
            ends.set()

    with held_device(["0"], 1, print):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        assert not ends.is_set()
    assert ends.wait(10)
    thread.join()
    assert said == ["waiting: other runs hold the devices 0"]
