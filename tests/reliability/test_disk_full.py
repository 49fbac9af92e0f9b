"""W6 and W7: the disk is full from any call on, or the command is killed: what was there stays whole."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sasrec
from tests.synthetic import chain_frame

SHIM = Path(__file__).with_name("full_disk.c")
TINY = ["--maxlen=8", "--hidden_units=8", "--num_blocks=1", "--batch_size=16", "--device=cpu"]
# Runs the command of each line in a fork, so that the libraries are imported once.
SERVE = """
import json, os, sys, traceback
import polars, torch, torch._dynamo
import sasrec.cli.tables, sasrec.runs.export, sasrec.runs.train, sasrec.sources.convert, sasrec.studies.compare
from sasrec.__main__ import start
print("ready", flush=True)
for line in sys.stdin:
    place, said, environment, words = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(place)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        os.environ.update(environment)
        sys.argv = ["sasrec", *words]
        status = 1
        try:
            status = start()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Case:
    """A command that writes."""

    words: str
    names: str
    """What the message has to name: one of these words."""
    changes: str = ""
    """Files that the command may change before it fails."""
    again: str = ""
    """How it is continued, where the same command may not begin again."""


RESUME = "train --train_dir new --resume"
CASES = {
    "prepare": Case("prepare more.csv --output data", "data place/tmp/"),
    "prepare with rejects": Case("prepare bad.csv --max_rejects 1 --output new", "new place/tmp/"),
    "train": Case("train --dataset data --num_epochs 1 --train_dir new", "new", again=RESUME),
    "train a file": Case(
        "train --dataset events.csv --num_epochs 1 --train_dir new", "new place/tmp/", again=RESUME
    ),
    "resume": Case(
        "train --train_dir run --resume --num_epochs 2",
        "run",
        changes="log.jsonl config.toml seal.json metrics.json ranks.parquet",
    ),
    "evaluate": Case("evaluate run --device cpu", "run", changes="log.jsonl seal.json"),
    "recommend csv": Case("recommend run --all --output top.csv --k 3", "top.csv"),
    "recommend parquet": Case("recommend run --all --output top.parquet --k 3", "top.parquet"),
    "export": Case("export run --output new", "new"),
    "public": Case(
        "train --dataset ml-100k --from public --num_epochs 1 --train_dir new",
        "new cache place/tmp/",
        again=RESUME,
    ),
}


class Server:
    """Runs commands with a full disk from a given call on."""

    def __init__(self, folder: Path, library: Path | None) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        if library is not None:
            environment["LD_PRELOAD"] = str(library)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self.process.stdout.readline() == "ready\n"

    def close(self) -> None:
        """End the server, and wait for its end."""
        self.process.communicate(timeout=60)

    def run(
        self, place: Path, words: str, *, full_at: int = 0, kills: bool = False, kill_after: float | None = None
    ) -> tuple[int, str, int]:
        """Exit status, all that was said, and how many calls needed space. `place`: the working folder.

        `kills`: the process is killed at that call. `kill_after`: it is killed after so many seconds.
        """
        said, log = self.folder / "said", self.folder / "log"
        log.unlink(missing_ok=True)
        environment = {"FULL_UNDER": str(place), "FULL_AT": str(full_at), "FULL_LOG": str(log)}
        environment |= {"TMPDIR": str(place / "tmp"), "SASREC_CACHE": str(place / "cache")}
        environment |= {"FULL_KILLS": "1"} if kills else {}
        options = TINY if words.startswith("train") and "--resume" not in words else []
        request = [str(place), str(said), environment, [*words.split(), *options]]
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(child, 9)
        status = int(self.process.stdout.readline())
        return status, said.read_text(errors="replace"), log.read_text().count("\n") if log.exists() else 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fault injection needs Linux and a compiler of C")
    library = folder / "full_disk.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    serves = Server(folder, library)
    yield serves
    serves.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events, a data set, a run, lists for all users, a copy of public data."""
    folder = tmp_path_factory.mktemp("world")
    frame = chain_frame(users=20)
    frame.write_csv(folder / "events.csv")
    chain_frame(users=30).write_csv(folder / "more.csv")
    (folder / "bad.csv").write_text(frame.write_csv() + "lonely\n")
    (folder / "tmp").mkdir()
    (folder / "public").mkdir()
    columns = (frame["user"].str.slice(1).cast(int), frame["item"].str.slice(-2).cast(int), frame["time"])
    rows = (f"{user}\t{item}\t3\t{time}\n" for user, item, time in zip(*columns, strict=True))
    (folder / "public/u.data").write_text("".join(rows))
    data = sasrec.prepare(frame, output=folder / "data")
    numbers = {name[2:]: int(value) for name, value in (option.split("=") for option in TINY[:-1])}
    sasrec.train(data, folder / "run", device="cpu", num_epochs=1, **numbers)
    for name in ("top.csv", "top.parquet"):
        (folder / name).write_bytes(b"the lists of yesterday")
    return folder


def content_of(place: Path) -> dict[str, bytes]:
    """The bytes of all files, except locks."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and not path.name.startswith(".sasrec")
    }


def result(place: Path, case: Case) -> Any:
    """What a command has made, so that two times can be compared."""
    folder = place / case.names.split()[0]
    if folder.is_file():
        return folder.read_bytes()
    if (folder / "metrics.json").exists():
        return json.loads((folder / "metrics.json").read_text())
    if (folder / "manifest.json").exists():
        return sasrec.open_dataset(folder).data_hash
    return sasrec.load(folder, device="cpu").recommend(["item-01"])


def leftovers(place: Path) -> list[str]:
    """Temporary files, and second copies of a data set."""
    found = [str(path) for path in place.rglob(".*") if not path.name.startswith(".sasrec.")]
    found += [str(path) for path in (place / "tmp").iterdir() if not path.name.startswith("torchinductor")]
    found += [str(path) for path in place.rglob("data-*") if len(list(path.parent.glob("data-*"))) > 1]
    return found


def fault(server: Server, case: Case, world: Path, place: Path, number: int, right: Any) -> str:
    """What is wrong after the disk was full from one call on, or an empty text."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(world, place)
    before = content_of(place)
    status, said, _ = server.run(place, case.words, full_at=number)
    calls = (server.folder / "log").read_text().splitlines()
    where = f"call {number} ({calls[number - 1].replace(str(place), '')}): status {status}: {said[-1500:]}"
    after = content_of(place)
    if status not in (0, 1) or "Traceback" in said or "Exception ignored" in said:
        return where
    sentences = [line for line in said.splitlines() if line.startswith("error: ")]
    named = [name for name in case.names.split() if any(name in line for line in sentences)]
    if status == 1 and (len(sentences) != 1 or not named or "o space left" not in sentences[0]):
        return f"no sentence: {where}"
    if status == 1:
        kept = {name for name in before if name.rsplit("/", 1)[-1] not in case.changes.split()}
        if lost := [name for name in kept if after.get(name) != before[name]]:
            return f"{lost} changed: {where}"
    elif result(place, case) != right:
        return f"wrong: {where}"
    repeated, again, _ = server.run(place, case.words)
    if "already holds a run" in again:
        repeated, again, _ = server.run(place, case.again)
    if repeated != 0 and not (status == 0 and "not empty" in again):
        return f"cannot be repeated: {where}; then {again}"
    if result(place, case) != right:
        return f"repeated, it is another: {where}"
    return f"left {leftovers(place)}: {where}" if leftovers(place) else ""


def check(server: Server, name: str, world: Path, place: Path, count: int | None) -> None:
    """Let the disk be full from each call on; `count`: from so many of them, by chance."""
    case = CASES[name]
    shutil.copytree(world, place)
    status, said, calls = server.run(place, case.words)
    assert (status, calls > 3) == (0, True), said
    right = result(place, case)
    numbers = range(1, calls + 1)
    chosen = numbers if count is None else random.Random(name).sample(numbers, count)
    faults = [fault(server, case, world, place, number, right) for number in chosen]
    found = [each for each in faults if each]
    assert not found, "\n\n".join([f"{len(found)} of {len(faults)} of {calls}", *found])


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_leaves_all_files_whole(name: str, server: Server, world: Path, tmp_path: Path) -> None:
    check(server, name, world, tmp_path / "place", 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CASES)
def test_a_disk_full_at_each_call_leaves_all_files_whole(
    name: str, server: Server, world: Path, tmp_path: Path
) -> None:
    check(server, name, world, tmp_path / "place", None)


KILLED = ("prepare", "recommend csv", "recommend parquet", "export")


def whole_after_a_kill(server: Server, case: Case, place: Path, right: Any, old: Any, **kill: Any) -> bool:
    """Kill a command: its result is the old one or the new one, never a part; repeated, it succeeds.

    Returns whether the kill came before the end.
    """
    status, said, _ = server.run(place, case.words, **kill)
    assert status in (0, -9), said
    folder = place / case.names
    published = not folder.is_dir() or any((folder / name).exists() for name in ("config.toml", "manifest.json"))
    found = result(place, case) if folder.exists() and published else None
    assert found in (right, old), (kill, "a part")
    again, said, _ = server.run(place, case.words)
    assert again == 0 or (found == right and "not empty" in said), (kill, said)
    assert result(place, case) == right, kill
    return status == -9


def killed(name: str, server: Server, world: Path, folder: Path, calls: int | None, moments: int) -> int:
    """Kill a command at so many calls by chance, or at each (None), and at so many moments; how many were killed."""
    case, chance = CASES[name], random.Random(name)
    place = shutil.copytree(world, folder / "first")
    old = result(place, case) if (place / case.names).exists() else None
    begun = time.monotonic()
    _, said, total = server.run(place, case.words)
    seconds, right = time.monotonic() - begun, result(place, case)
    assert right != old, said
    numbers = range(1, total + 1) if calls is None else chance.sample(range(1, total + 1), calls)
    kills: list[dict[str, Any]] = [{"full_at": number, "kills": True} for number in numbers]
    kills += [{"kill_after": chance.random() * seconds} for _ in range(moments)]
    count = 0
    for number, kill in enumerate(kills):
        place = shutil.copytree(world, folder / str(number))
        count += whole_after_a_kill(server, case, place, right, old, **kill)
        shutil.rmtree(place)
    return count


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_command_never_leaves_a_part_under_the_final_name(
    name: str, server: Server, world: Path, tmp_path: Path
) -> None:
    assert killed(name, server, world, tmp_path, 1, 1) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KILLED)
def test_commands_killed_at_each_call_and_at_random_moments_never_leave_a_part(
    name: str, server: Server, world: Path, tmp_path: Path
) -> None:
    count = killed(name, server, world, tmp_path, None, 25)
    assert count >= 20
    print(name, count)  # noqa: T201
