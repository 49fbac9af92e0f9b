"""Event files that were made to hang, crash or fill the memory are refused at once, with a sentence."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import sasrec
from sasrec.errors import ConfigError, DataError, SasrecError
from sasrec.events import streams
from sasrec.sources.tables import open_table
from tests.synthetic import chain_frame, write_csv

_WIDE = 100_000


def refusal(source: Any, **options: Any) -> str:
    """The one sentence with which data is refused, within seconds."""
    began = time.monotonic()
    with pytest.raises(DataError) as refused:
        sasrec.prepare(source, **options)
    assert time.monotonic() - began < 10
    assert len(str(refused.value)) < 1000
    return str(refused.value)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null"])
def test_devices_are_refused(device: str, tmp_path: Path) -> None:
    assert "cannot be read: it is a device, not a file" in refusal(device)
    (tmp_path / "events.csv").symlink_to(device)
    assert "it is a device" in refusal(tmp_path / "events.csv")
    assert "it is a device" in refusal(tmp_path)  # as a part of a folder
    with pytest.raises(DataError, match="it is a device"):
        open_table(tmp_path / "events.csv")
    with pytest.raises(ConfigError, match=r"it is a device, not a file\. Name a TOML file"):
        sasrec.RunConfig.load(device)


def test_pipes_and_sockets_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "it is a pipe, not a file" in refusal(tmp_path / "pipe.csv")
    assert "it is a pipe, not a file" in refusal(tmp_path)
    with pytest.raises(DataError, match="it is a pipe, not a file"):
        sasrec.prepare(chain_frame(), items=tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match="it is a pipe, not a file"):
        sasrec.RunConfig.load(tmp_path / "pipe.csv")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / "socket.csv"))
        assert "it is a socket, not a file" in refusal(tmp_path / "socket.csv")


@pytest.mark.parametrize("ending", ["gz", pytest.param("bz2", marks=pytest.mark.slow), "xz", "zip"])
def test_a_bomb_is_refused_before_it_fills_the_memory(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_MOST_UNPACKED", 2**20)
    content, bomb = b"user,item,time\n" + b"1,1,1600000000\n" * 2_000_000, tmp_path / f"events.csv.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("events.csv", content)
    else:
        bomb.write_bytes({"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[ending](content))
    assert "unpacks to more than 200 times as many" in refusal(bomb)


def test_a_bomb_of_titles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MOST_UNPACKED", 2**20)
    with gzip.open(tmp_path / "items.csv.gz", "wb") as stream:
        stream.write(b"1,1\n" * 2_000_000)
    with pytest.raises(DataError, match="unpacks to more than 200 times as many"):
        open_table(tmp_path / "items.csv.gz")


def test_what_repeats_itself_is_no_bomb_below_256_mib(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "events.csv.gz", "wb") as stream:
        stream.write(b"user,item,time\n" + b"1,1,1600000000\n" * 300_000)
    assert sasrec.prepare(tmp_path / "events.csv.gz").num_events == 300_000


def test_a_parquet_file_that_claims_more_rows_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sasrec.events.frames.free_memory", lambda: 2**20)
    pl.DataFrame({"user": 1, "item": pl.zeros(300_000, pl.Int64, eager=True)}).write_parquet(
        tmp_path / "a.parquet"
    )
    assert "claims 300,000 rows, which do not fit into memory" in refusal(tmp_path / "a.parquet")


def _objects(names: list[str]) -> str:
    return json.dumps(dict.fromkeys(names, 1))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_a_hundred_thousand_columns_are_refused_within_seconds(ending: str, known: bool, tmp_path: Path) -> None:
    names = [f"column-{place}" for place in range(_WIDE)]
    names[:3] = ["user", "item", "time"] if known else names[:3]
    path = tmp_path / f"events.{ending}"
    separator = {"csv": ",", "tsv": "\t"}.get(ending, "")
    if ending == "parquet":
        pl.DataFrame(dict.fromkeys(names, 1)).write_parquet(path)
    elif separator:
        path.write_text(separator.join(names) + "\n" + (separator.join("1" * _WIDE) + "\n") * 5)
    else:
        each = _objects(names)
        path.write_text(f"{each}\n" * 3 if ending == "jsonl" else f"[{each},{each}]")
    assert "has 100,000 columns, more than 2,000. Keep only the columns of user, item and time" in refusal(path)


def test_a_very_long_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    for begin in (b"user,item,time\n", b"", b'{"user":"'):
        path.write_bytes(begin + b"x" * 40_000_000)
        assert "has a line of more than 8,388,608 bytes" in refusal(path)
    path.write_bytes(b"user,item,time\n" + b"1,1,1600000000\n" * 9 + b"x" * 20_000_000 + b"\n1,1,1600000000\n")
    assert "has a line of more than 8,388,608 bytes" in refusal(path)


@pytest.mark.parametrize("depth", [*range(900, 1000, 7), 100_000])
def test_deep_json_is_refused_or_read(depth: int, tmp_path: Path) -> None:
    path, sound = tmp_path / "events.jsonl", '{"user":1,"item":2}\n' * 3
    for deep in ('{"a":' * depth + "1" + "}" * depth, "[" * depth + "]" * depth):
        for text in (f'{sound}{{"user":1,"item":2,"more":{deep}}}\n', f'{{"user":1,"item":{deep}}}\n', deep):
            path.write_text(text)
            with contextlib.suppress(SasrecError):
                sasrec.prepare(path)
        path.write_text(f'[{{"user":1,"item":{deep}}}]')
        assert "recursion" not in refusal(path)


def test_a_number_of_ten_thousand_digits_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"user":1,"item":2}\n{"user":1,"item":' + "9" * 10_000 + "}\n")
    assert "a number has very many digits" in refusal(tmp_path / "events.jsonl")


def test_a_pipe_on_the_command_line_ends_with_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    write_csv(tmp_path / "events.csv")
    for arguments in (
        ["prepare", "pipe.csv", "--output", "data"],
        ["prepare", "events.csv", "--output", "data", "--items", "pipe.csv"],
        ["train", "--dataset", "events.csv", "--train_dir", "run", "--recipe", "pipe.csv"],
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "sasrec", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode
        assert "pipe, not a file" in ran.stderr, ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_folder_of_everything_is_refused_before_all_of_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1_100):
        (tmp_path / f"{number}.{number % 25}").touch()
    (tmp_path / "below").mkdir()
    walked, walk = [], os.walk

    def seen(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(folder):
            walked.append(found[0])
            yield found

    monkeypatch.setattr(os, "walk", seen)
    with pytest.raises(DataError, match="files of several formats"):
        sasrec.prepare(tmp_path)
    assert walked == [str(tmp_path)]
