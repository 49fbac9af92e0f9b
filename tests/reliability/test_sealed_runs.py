"""What a run says about itself is tied to the checkpoint: a changed file is named, not believed."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

import sasrec
from sasrec.errors import EvaluationError, SasrecError, SasrecWarning
from sasrec.runs.folder import RunFolder
from tests.synthetic import chain_frame

SMALL = {"maxlen": 8, "hidden_units": 8, "num_blocks": 1, "num_epochs": 2, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed")
    for name, seed in (("one", 1), ("two", 2)):
        sasrec.train(chain_frame(users=20), folder / name, seed=seed, **SMALL)  # the data is in the run
    return folder


def told(run: Path, other: Path) -> dict[str, Any]:
    """All that a run says of itself: figures, the comparison with another run, its end, lists, and its data."""
    folder = RunFolder(run)
    recommender = sasrec.load(run, device="cpu")
    data = folder.dataset()
    found = sasrec.compare([f"{run}:popularity", other, run], resamples=200)
    return {
        "metrics": json.dumps(folder.metrics()),
        "compared": repr(found),
        "ended": folder.ending(),
        "list": recommender.recommend(["item-01", "item-02"]),
        "user's": recommender.recommend_user("u003"),
        "settings": folder.config(),
        "histories": [data.history(user) for user in data.user_ids],
        "hash": data.data_hash,
    }


def flips(finished: Path, folder: Path, count: int) -> None:
    """Flip one bit of a file of a run or of its data, at random: it is named, or nothing that is told changes."""
    chance = random.Random(5)
    run, original = finished / "one", finished / "two"
    right = told(shutil.copytree(run, folder / "copy"), original)
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.name.startswith("."))
    silent = []
    for number in range(count):
        source = files[number % len(files)]
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        path = copy / source.relative_to(run)
        content = bytearray(path.read_bytes())
        place = chance.randrange(len(content))
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", SasrecWarning)
            with contextlib.suppress(SasrecError):
                if told(copy, original) != right and not said:
                    silent.append((path.relative_to(copy), place))
    assert not silent


def test_a_flipped_bit_in_a_run_changes_nothing_silently(finished: Path, tmp_path: Path) -> None:
    flips(finished, tmp_path, 60)


@pytest.mark.slow
def test_two_thousand_flipped_bits_in_a_run_change_nothing_silently(finished: Path, tmp_path: Path) -> None:
    flips(finished, tmp_path, 2000)


@pytest.mark.parametrize("name", ["metrics.json", "ranks.parquet", "log.jsonl", "checkpoints"])
def test_files_of_another_run_are_named(name: str, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "one", tmp_path / "run")
    theirs = finished / "two" / name
    if theirs.is_dir():
        shutil.rmtree(run / name)
        shutil.copytree(theirs, run / name)
    else:
        shutil.copy(theirs, run / name)
    with pytest.raises(SasrecError, match=r"has changed since the run .* was measured\. Restore it"):
        told(run, finished / "two")
    sasrec.evaluate(run)
    assert told(run, finished / "two")["metrics"]


def test_settings_that_were_edited_are_said_and_those_of_the_checkpoint_count(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished / "one", tmp_path / "run")
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("maxlen = 8", "maxlen = 5"))
    for _ in range(2):  # a measurement does not make the edited settings those of the weights
        with pytest.warns(SasrecWarning, match=r"config\.toml was edited: maxlen 5 \(trained with 8\)\. These"):
            assert sasrec.load(run, device="cpu").model.config.maxlen == 8
        with pytest.raises(EvaluationError, match=r"config\.toml was edited after the run was measured"):
            sasrec.compare([run, finished / "two"])
        with pytest.warns(SasrecWarning):
            sasrec.evaluate(run, device="cpu")
    (run / "config.toml").write_text(text)
    assert sasrec.compare([run, finished / "two"])
    sasrec.resume(run, num_epochs=3)
    assert json.loads((run / "seal.json").read_text())["checkpoint"].startswith("step-")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SasrecWarning)
        sasrec.load(run, device="cpu")


def test_a_damaged_seal_is_named(finished: Path, tmp_path: Path) -> None:
    for content in ("{", "[]", "{}", json.dumps({"files": [], "log": 3, "checkpoint": 4, "manifest": None})):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished / "one", run)
        (run / "seal.json").write_text(content)
        if content == "{}":
            continue  # as a run of which nothing is sealed
        with pytest.raises(SasrecError, match=r"seal\.json has changed|has changed since"):
            RunFolder(run).metrics()
