"""A path that is not what a command needs: the message says what it is, and what to name instead."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest

import sasrec
from sasrec.cli.main import main
from tests.synthetic import chain_frame, small, write_csv


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of events, a data set, a run whose data is in it, a run on the data set, and an export."""
    folder = tmp_path_factory.mktemp("world")
    write_csv(folder / "events.csv")
    sasrec.prepare(chain_frame(), output=folder / "data")
    settings = small(num_epochs=1, maxlen=8, hidden_units=8, num_blocks=1)
    sasrec.train(folder / "events.csv", folder / "run", **settings)
    sasrec.train(folder / "data", folder / "prepared", **settings)
    sasrec.export(folder / "run", folder / "export")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate nix", "the run nix does not exist. Check the path."),
        ("recommend nix --user u001", "the run nix does not exist. Check the path."),
        ("export nix --output new", "the run nix does not exist. Check the path."),
        ("compare nix run", "the run nix does not exist. Check the path."),
        ("runs nix", "the folder nix does not exist."),
        ("runs events.csv", "the folder events.csv is a file. Name a folder with runs in it."),
        ("train --train_dir nix --resume", "the run nix does not exist. Check the path."),
        ("train --train_dir nix --inference_only", "the run nix does not exist. Check the path."),
        ("reproduce nix.toml --train_dir new", "the file of settings nix.toml does not exist. Name a TOML file."),
        ("recommend run --user u001 --rules nix.toml", "the file of rules nix.toml does not exist. Name a TOML file."),
        ("recommend run --user u001 --rules nix", "the file of rules nix does not exist. Name a TOML file."),
        ("evaluate run --rules events.csv", "the rules events.csv are not valid TOML:"),
        ("recommend run --user u001 --dataset nix", "nix does not exist, and neither does data/nix.txt. Name a file, a folder or a public data set"),
        ("evaluate events.csv", "events.csv is a file. Name a folder that `train` made."),
        ("evaluate data", "data is a data set, not a run. Name the folder of a run"),
        ("export data --output new", "data is a data set, not a run. Name the folder of a run"),
        ("train --train_dir data --resume", "data is a data set, not a run. Name the folder of a run; name a data set as --dataset."),
        ("train --dataset run --train_dir new", "run is a run, not a data set. Name the data of this run: run/dataset"),
        ("train --dataset prepared --train_dir new", "prepared is a run, not a data set. Name the data of this run: {world}/data"),
        ("prepare run --output new", "run is a run, not a data set. Name the data of this run: run/dataset"),
        ("prepare run --explain", "run is a run, not a data set. Name the data of this run: run/dataset"),
        ("recommend run --user u001 --dataset run", "run is a run, not a data set. Name the data of this run: run/dataset"),
        ("train --dataset export --train_dir new", "export is an export, which contains no events. Name a file or a data set."),
        ("train --dataset data --train_dir new --recipe ml-1m", "/ml-1m.toml."),
        ("train --dataset data --train_dir new --recipe my-best", "ml-100k.toml, ml-1m-papers.toml, ml-1m.toml."),
        ("train --dataset data --train_dir new --recipe runs/mine.toml", "the file of settings runs/mine.toml does not exist. Name a TOML file."),
        ("recommend run --history ghost", "--history ghost names no item that the model knows. Write the ids of items, oldest first and separated by commas, such as --history item-00,item-01."),
        ("recommend run --history item-03+item-04", "such as --history item-00,item-01."),
        ("recommend run --history item-03;item-04", "Separate ids by commas, as in --history item-03,item-04; if"),
        ("train --dataset loop.csv --train_dir new", "loop.csv is a link to loop.csv, which leads back to itself."),
        ("prepare loop.csv --output new", "the file loop.csv is a link to loop.csv, which leads back to itself. Check the path."),
        ("prepare events.csv --items loop.csv --output new", "the items file loop.csv is a link to loop.csv, which leads back to itself."),
        ("prepare broken.csv --output new", "the file broken.csv is a link to gone.csv, which does not exist. Check the path."),
        ("serve run --port 0 --rules cheap.toml", "--rules cheap.toml has no name or no value. Write --rules NAME=FILE, such as cheap=cheap.toml."),
        ("serve run --port 0 --share .1", "--share .1 has no name or no value. Write --share NAME=SHARE, such as new=0.1."),
        ("prepare empty.zip --output new", "empty.zip is an empty archive. Name a file of events."),
    ],
)  # fmt: skip
def test_the_message_says_what_the_path_is(
    words: str, message: str, world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    for name, place in (("loop.csv", "loop.csv"), ("broken.csv", "gone.csv")):
        if not os.path.islink(name):
            os.symlink(place, name)
    with zipfile.ZipFile("empty.zip", "w"):
        pass
    before = sorted(world.rglob("*"))
    assert main(words.split()) == 1
    assert message.format(world=world) in " ".join(capsys.readouterr().err.split())
    assert sorted(world.rglob("*")) in (before, sorted([*before, world / "new", world / "new/.sasrec.lock"]))


def test_a_pipe_has_its_path_in_the_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As in `sasrec prepare <(zcat events.gz)`, whose file is called 63."""
    reader, writer = os.pipe()
    feeding = threading.Thread(target=lambda: (os.write(writer, b"user,item\n"), os.close(writer)))
    feeding.start()
    assert main(["prepare", f"/dev/fd/{reader}", "--output", str(tmp_path / "new")]) == 1
    feeding.join()
    os.close(reader)
    assert f"/dev/fd/{reader} cannot be read: it is a pipe, not a file." in capsys.readouterr().err


def test_a_resume_with_a_lower_limit_says_what_the_limit_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **small(num_epochs=3))
    capsys.readouterr()
    sasrec.resume(tmp_path / "run", num_epochs=2)
    assert "training stopped after 3 epochs: num_epochs is 2, with 3 epochs done" in capsys.readouterr().err
