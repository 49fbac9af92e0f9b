"""Two processes that write one folder, some of them killed: each folder is that of one writer, whole."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sasrec
from sasrec.config.settings import RunConfig
from sasrec.errors import CheckpointError, DataError, FolderError
from tests.synthetic import chain_frame, small

WRITE = """
import sys
import sasrec
from sasrec.errors import FolderError
data, target = sasrec.open_dataset(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
refused = written = 0
while written < int(sys.argv[3]):
    try:
        data.save(target)
        written += 1
    except FolderError as error:
        assert "in use" in str(error), error
        refused += 1
print(refused, flush=True)
"""


def interleaved(folder: Path, rounds: int, chance: random.Random) -> tuple[int, int]:
    """Let two processes save other data to one folder, and kill one in every third round.

    Returns how often a save was refused, and how many openings found no data set, which only the first may.
    """
    hashes = set()
    for name, users in (("a", 20), ("b", 30)):
        hashes.add(sasrec.prepare(chain_frame(users=users), output=folder / name).data_hash)
    target = folder / "target"
    refused = missing = before = 0
    for number in range(rounds):
        command = [sys.executable, "-c", WRITE]
        writers = [
            subprocess.Popen(
                [*command, folder / name, target, "8"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for name in ("a", "b")
        ]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("\n")
            writer.stdin.flush()
        if number % 3 == 2:
            time.sleep(chance.random() * 0.2)
            writers[chance.randrange(2)].kill()
        while any(writer.poll() is None for writer in writers):
            try:
                assert sasrec.open_dataset(target).data_hash in hashes
            except DataError as error:
                if not re.search("contains no data set|does not exist", str(error)):
                    raise
                missing += 1
        for writer in writers:
            said, _ = writer.communicate()
            assert writer.returncode in (0, -9)
            refused += int(said.strip() or 0)
        assert sasrec.open_dataset(target).data_hash in hashes
        before = missing if number == 0 else before
        assert missing == before, "a data set that was there stays there"
    assert len([path for path in target.iterdir() if path.name.startswith("data-")]) <= 2
    return refused, missing


@pytest.mark.slow
def test_two_writers_of_a_data_set_never_mix(tmp_path: Path) -> None:
    refused, _ = interleaved(tmp_path, 6, random.Random(16))
    assert refused > 0


@pytest.mark.slow
def test_two_hundred_rounds_of_two_writers_never_mix(tmp_path: Path) -> None:
    refused, _ = interleaved(tmp_path, 200, random.Random(16))
    assert refused > 100


TRAIN = """
import sys
import sasrec
from sasrec.errors import SasrecError
try:
    sasrec.train(sasrec.open_dataset(sys.argv[1]), sys.argv[2], maxlen=8, hidden_units=8, num_blocks=1, num_epochs=2,
                 batch_size=16, device="cpu", seed=int(sys.argv[3]))
except SasrecError as error:
    print(type(error).__name__, error)
    sys.exit(1)
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_the_second_of_two_trainings_is_refused(rounds: int, tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(users=20), output=tmp_path / "data")
    for number in range(rounds):
        run = tmp_path / f"run-{number}"
        both = [
            subprocess.Popen(
                [sys.executable, "-c", TRAIN, tmp_path / "data", run, str(seed)], stdout=subprocess.PIPE, text=True
            )
            for seed in (1, 2)
        ]
        said = [process.communicate()[0] for process in both]
        statuses = [process.returncode for process in both]
        assert sorted(statuses) == [0, 1], said
        winner = 1 + statuses.index(0)
        assert any(words in said[2 - winner] for words in ("in use", "already holds a run")), said
        assert RunConfig.load(run / "config.toml").training.seed == winner
        assert sasrec.load(run).recommend(["item-01"])


class StopError(Exception):
    """Ends a training before its first checkpoint."""


def test_resume_says_that_a_run_which_has_saved_nothing_yet_is_in_use(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def first_step(model: object, batch: object) -> None:
        with pytest.raises(FolderError, match=r"run is in use: process \d+ .*\(training\)"):
            sasrec.resume(run)
        raise StopError

    with pytest.raises(StopError):
        sasrec.train(chain_frame(), run, loss_function=first_step, **small(num_epochs=1))
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        sasrec.resume(run)
