"""Damaged, mixed and hostile checkpoints: found before they are parsed, and named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from sasrec.checkpoint.sound import Progress
from sasrec.errors import CheckpointError
from sasrec.training.trainer import TrainingState
from tests.synthetic import chain_frame, small

SMALL = small(batch_size=16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    sasrec.train(chain_frame(), run, num_epochs=3, **SMALL)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def newest_of(run: Path) -> Path:
    return store.published(run / "checkpoints")[-1]


def same(one: store.Checkpoint, other: store.Checkpoint) -> bool:
    tensors = ((one.weights, other.weights), (one.optimizer, other.optimizer))
    equal = all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in tensors)
    return equal and one.state == other.state


def flips_and_cuts(run: Path, flips: int, cuts: int) -> None:
    """Every one is refused, or, in the blanks of the manifest, changes nothing."""
    path = newest_of(run)
    original, chance = store.load(path), random.Random(0)
    files = sorted(path.iterdir())
    found = 0
    for trial in range(flips + cuts):
        file = chance.choice(files)
        data = file.read_bytes()
        if trial < flips:
            place = chance.randrange(len(data))
            damaged = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
        else:
            damaged = data[: chance.randrange(len(data))]
        file.write_bytes(damaged)
        try:
            assert same(store.load(path), original), f"silent: {file.name}"
        except CheckpointError:
            found += 1
        file.write_bytes(data)
    assert found > 0.9 * (flips + cuts)
    assert same(store.load(path), original)


def test_no_flipped_bit_and_no_cut_goes_unnoticed(run: Path) -> None:
    flips_and_cuts(run, flips=200, cuts=50)


@pytest.mark.slow
def test_no_flip_of_two_thousand_and_no_cut_of_five_hundred_goes_unnoticed(run: Path) -> None:
    flips_and_cuts(run, flips=2000, cuts=500)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"])
def test_missing_and_swapped_files_are_refused_by_name(run: Path, name: str) -> None:
    older, newest = store.published(run / "checkpoints")[-2:]
    shutil.copy(older / name, newest / name)
    with pytest.raises(CheckpointError, match=r"has changed since it was written"):
        store.load(newest)
    (newest / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        store.load(newest)


def test_a_renamed_checkpoint_is_refused(run: Path) -> None:
    newest = newest_of(run)
    moved = newest.rename(newest.with_name("step-99999999"))
    with pytest.raises(
        CheckpointError, match=r"step-99999999 contains the checkpoint of step \d+, so the folder was renamed"
    ):
        store.load(moved)


def test_an_explicit_checkpoint_never_falls_back_on_another(run: Path) -> None:
    newest = newest_of(run)
    (newest / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=newest.name):
        sasrec.load(run, checkpoint=newest)


def remade(run: Path, change: Callable[[store.Checkpoint], None]) -> Path:
    """The newest checkpoint with other contents and a manifest that agrees with them, as an attacker would."""
    found = store.load(newest_of(run))
    change(found)
    return store.save(run / "checkpoints", found.weights, found.state, found.optimizer)


def test_weights_that_are_nan_or_of_another_shape_or_name_are_refused(run: Path) -> None:
    name = "blocks.0.attention.query.weight"
    changes: dict[str, Callable[[store.Checkpoint], Any]] = {
        "not finite": lambda found: found.weights[name].fill_(float("nan")),
        "another model": lambda found: found.weights.update({name: torch.zeros(3, 3)}),
        "of another model": lambda found: found.weights.pop(name),
    }
    kept = newest_of(run)
    shutil.copytree(kept, run / "kept")
    for message, change in changes.items():
        path = remade(run, change)
        with pytest.raises(CheckpointError, match=message):
            sasrec.load(run, checkpoint=path)
        shutil.rmtree(path)
        shutil.copytree(run / "kept", kept)


@pytest.mark.parametrize("key", ["data_hash", "config"])
def test_a_checkpoint_whose_state_lacks_a_part_is_refused_by_name(run: Path, key: str) -> None:
    path = remade(run, lambda found: found.state.pop(key))
    with pytest.raises(CheckpointError, match=f"has no {key}"):
        sasrec.load(run, checkpoint=path)


_MOMENT = "blocks.0.attention.query.weight:exp_avg"
_UNSOUND: dict[str, Callable[[store.Checkpoint], Any]] = {
    "it has no tensor": lambda found: found.optimizer.clear(),
    "its tensor 'more:exp_avg' is unknown": lambda found: found.optimizer.update({"more:exp_avg": torch.zeros(2)}),
    f"{_MOMENT} is float32 of shape ()": lambda found: found.optimizer.update({_MOMENT: torch.tensor(0.0)}),
    f"{_MOMENT} is float32 of shape (2,)": lambda found: found.optimizer.update({_MOMENT: torch.zeros(2)}),
    f"{_MOMENT} is float64": lambda found: found.optimizer.update({_MOMENT: found.optimizer[_MOMENT].double()}),
    f"{_MOMENT}, which are not finite": lambda found: found.optimizer[_MOMENT].fill_(float("inf")),
    f"{_MOMENT}_sq below 0": lambda found: found.optimizer[f"{_MOMENT}_sq"].fill_(-1.0),
    "item_embedding.weight is bfloat16": lambda found: found.weights.update(
        {"item_embedding.weight": found.weights["item_embedding.weight"].bfloat16()}
    ),
    "wrong entry training.epoch_step": lambda found: found.state["training"].update(epoch_step="3"),
    "wrong entry training.scaler": lambda found: found.state["training"].update(scaler={"scale": 0.0}),
    "wrong entry training: step and epoch": lambda found: found.state["training"].update(step=3),
    "wrong entry ranks": lambda found: found.state.update(ranks=True),
    "wrong entry data_hash": lambda found: found.state.update(data_hash=7),
    "wrong entry training_part.until": lambda found: found.state["training_part"].update(until=2**63),
    "`score` that is not a number": lambda found: found.state.update(score=[0.1]),
    "state.json: its settings: maxlen must be a number": lambda found: found.state["config"]["model"].update(
        maxlen="8"
    ),
    "known_items that do not fit": lambda found: found.state.update(known_items="AAAA"),
}


@pytest.mark.parametrize("reason", _UNSOUND)
def test_training_resumes_from_the_older_of_two_checkpoints_if_the_newer_is_unsound(
    reason: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, older, newer = store.published(run / "checkpoints")
    path = remade(run, _UNSOUND[reason])
    sasrec.resume(run, num_epochs=4)
    said = capsys.readouterr().err
    assert f"moved the damaged checkpoint {newer.name} to" in said
    assert reason in said.replace("its settings make it float32 of shape (16, 16)", "")
    assert f"at step {int(older.name[5:])}" in said
    assert (path.parent / "quarantine" / newer.name).exists()


def test_a_checkpoint_alone_stays_where_it_is_and_its_fault_is_named(run: Path) -> None:
    for older in store.published(run / "checkpoints")[:-1]:
        shutil.rmtree(older)
    path = remade(run, lambda found: found.optimizer.clear())
    with pytest.raises(CheckpointError, match=r"has no usable checkpoint.*has no tensor"):
        sasrec.resume(run, num_epochs=4)
    assert path.exists()


def test_the_progress_that_is_checked_is_that_of_the_trainer() -> None:
    assert set(Progress.model_fields) == {field.name for field in dataclasses.fields(TrainingState)}


def test_a_checkpoint_damaged_while_training_goes_on_is_set_aside(run: Path) -> None:
    oldest, *others = store.published(run / "checkpoints")
    (oldest / "state.json").write_text("{}")
    said: list[str] = []
    store.prune(run / "checkpoints", said.append)
    assert (run / "checkpoints/quarantine" / oldest.name).exists()
    assert "state.json has changed" in said[0]
    assert store.published(run / "checkpoints") == others


@pytest.mark.parametrize("claimed", [0, 7, 2**31, 2**63 - 1])
def test_a_hostile_header_is_an_error_not_a_crash(run: Path, claimed: int) -> None:
    path = newest_of(run)
    hostile = struct.pack("<Q", claimed) + b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'
    (path / "weights.safetensors").write_bytes(hostile)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    manifest["weights.safetensors"] = {"bytes": len(hostile), "sha256": hashlib.sha256(hostile).hexdigest()}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        sasrec.load(run, checkpoint=path)


def test_a_disk_that_fills_up_at_any_point_of_a_save_leaves_the_previous_checkpoint(run: Path) -> None:
    found = store.load(newest_of(run))
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    largest = max(file.stat().st_size for file in found.path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for percent in range(100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest * percent // 100, hard))
        try:
            with pytest.raises(CheckpointError, match="could not be written: File too large"):
                store.save(run / "checkpoints", found.weights, found.state | {"step": 10**6}, found.optimizer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    assert same(store.newest(run / "checkpoints", print), found)


def test_the_package_reads_and_writes_no_pickle() -> None:
    """torch.load and torch.save, and the object collectives of torch.distributed, are pickle too."""
    words = (
        "import pickle",
        "read_pickle",
        "torch.load",
        "torch.save",
        "gather_object",
        "broadcast_object",
        "shelve",
        "joblib",
        "marshal",
        "allow_pickle=True",
    )
    sources = sorted(Path(sasrec.__file__).parent.rglob("*.py"))
    assert len(sources) > 30
    found = [f"{path.name}: {word}" for path in sources for word in words if word in path.read_text()]
    assert found == []
