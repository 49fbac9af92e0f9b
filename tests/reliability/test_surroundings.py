"""W8: every command in odd surroundings ends with its usual status, or with one sentence; never with a traceback."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

import sasrec
from tests.synthetic import chain_frame

TINY = ["--maxlen=8", "--hidden_units=8", "--num_blocks=1", "--num_epochs=1", "--batch_size=16", "--device=cpu"]
TITLES = ("宇宙戦艦ヤマト", "Amélie 🎬", "tab\there", "straße", "плюс [bold]", "plain")
USER, ITEM = "Zoë 太郎", "項目-03"
BROKEN = re.compile(
    r"Traceback|Exception ignored|Fatal Python error|panicked|terminate called|core dumped|backtrace"
)

# Name, arguments, the usual exit status. The first commands need no PyTorch.
COMMANDS = [
    ("version", ["--version"], 0),
    ("help", ["--help"], 0),
    ("help of train", ["train", "--help"], 0),
    ("datasets", ["datasets"], 0),
    ("recipes", ["reproduce"], 0),
    ("wrong command", ["trian"], 2),
    ("wrong option", ["train", "--train_dir", "{out}", "--maxlem", "5"], 2),
    ("wrong value", ["train", "--train_dir", "{out}", "--num_heads", "3"], 1),
    ("wrong kind", ["train", "--train_dir", "{out}", "--maxlen", "many"], 2),
    ("no data named", ["train", "--train_dir", "{out}"], 1),
    ("prepare", ["prepare", "events.csv", "--output", "{out}"], 0),
    ("prepare with titles", ["prepare", "events.csv", "--output", "{out}", "--items", "titles.csv"], 0),
    ("explain", ["prepare", "events.csv", "--explain"], 0),
    ("prepare stdin", ["prepare", "-", "--output", "{out}"], 0),
    ("prepare no file", ["prepare", "missing.csv", "--output", "{out}"], 1),
    ("prepare bad rows", ["prepare", "bad.csv", "--output", "{out}"], 1),
    ("compare", ["compare", "run", "run:popularity"], 0),
    ("compare no run", ["compare", "run", "nowhere"], 1),
    ("train", ["train", "--dataset", "data", "--train_dir", "{out}", *TINY], 0),
    ("train a file", ["train", "--dataset", "events.csv", "--train_dir", "{out}", *TINY], 0),
    ("train public", ["train", "--dataset", "ml-100k", "--from", "public", "--train_dir", "{out}", *TINY], 0),
    ("train no data", ["train", "--dataset", "missing.csv", "--train_dir", "{out}"], 1),
    ("train again", ["train", "--dataset", "data", "--train_dir", "run", *TINY], 1),
    ("resume", ["train", "--train_dir", "run", "--resume", "--num_epochs", "2"], 0),
    ("inference only", ["train", "--train_dir", "run", "--inference_only"], 0),
    ("evaluate", ["evaluate", "run", "--device", "cpu"], 0),
    ("details", ["evaluate", "run", "--details", "--sampled", "--device", "cpu"], 0),
    ("evaluate a file", ["evaluate", "run", "--test", "test.csv", "--device", "cpu"], 0),
    ("evaluate no run", ["evaluate", "nowhere"], 1),
    ("recommend history", ["recommend", "run", "--history", f"{ITEM},項目-04"], 0),
    ("recommend user", ["recommend", "run", "--user", USER, "--k", "25", "--include_seen"], 0),
    ("recommend nobody", ["recommend", "run", "--user", "nobody"], 1),
    ("recommend all csv", ["recommend", "run", "--all", "--output", "{out}.csv"], 0),
    ("recommend all parquet", ["recommend", "run", "--all", "--output", "{out}.parquet"], 0),
    ("export", ["export", "run", "--output", "{out}"], 0),
    ("reproduce", ["reproduce", "recipe.toml", "--dataset", "data", "--train_dir", "{out}"], 0),
]
BY_NAME = {name: (name, arguments, usual) for name, arguments, usual in COMMANDS}
WRITES_RUN = {"resume", "inference only", "evaluate", "details"}


@dataclass(frozen=True)
class Surrounding:
    """How a command is started; see `SURROUNDINGS`."""

    environment: dict[str, str | None] = field(default_factory=dict)
    """Variables to set, or to remove (None)."""
    shell: str = 'exec "$@"'
    """The script of bash that starts the command, whose words are its arguments."""
    stdin: bool = True
    terminal: bool = False
    """Whether stdout and stderr are a terminal of 40 columns."""
    closed_reader: str = ""
    """"stdout" or "stderr" is a pipe whose reader has gone."""
    may_fail: frozenset[str] | bool = frozenset()
    """Commands that may also end with status 1 and a sentence; True: all."""
    ends: frozenset[int] = frozenset()
    """Further statuses of commands that print."""


AS_ROOT = "exec setpriv --bounding-set=-dac_override " if os.geteuid() == 0 else "exec "
STRANGER = (
    "chmod -R a+rwX .; exec setpriv --reuid 54321 --regid 54321 --clear-groups "
    "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search "
)
# Only the working folder can be written.
FROZEN = """
exec unshare --mount bash -c 'mount --bind "$0" "$0" && mount --rbind /tmp /tmp && mount -o remount,bind,ro /tmp &&
mount --bind /var/tmp /var/tmp && mount -o remount,bind,ro /var/tmp && cd "$0" && exec "$@"' "$PWD" "$@"
"""
WITH_PUBLIC = frozenset({"train public"})
SURROUNDINGS = {
    "usual": Surrounding(),
    "no HOME": Surrounding({"HOME": None}),
    "C locale": Surrounding({"LC_ALL": "C", "LANG": None}),
    "ASCII": Surrounding(
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        may_fail=frozenset({"recommend history", "recommend user"}),
    ),
    "Latin-1": Surrounding({"PYTHONIOENCODING": "latin-1"}),
    "stdout closed": Surrounding(shell='exec "$@" >&-'),
    "stderr closed": Surrounding(shell='exec "$@" 2>&-'),
    "stdin closed": Surrounding(shell='exec "$@" <&-', may_fail=frozenset({"prepare stdin"})),
    "all closed": Surrounding(shell='exec "$@" <&- >&- 2>&-', may_fail=frozenset({"prepare stdin"})),
    "pipe to head": Surrounding(shell='"$@" | head -n 1; exit "${PIPESTATUS[0]}"', ends=frozenset({141})),
    "reader of stdout gone": Surrounding(closed_reader="stdout", ends=frozenset({141})),
    "reader of stderr gone": Surrounding(closed_reader="stderr"),
    "stdout on a full disk": Surrounding(shell='exec "$@" >/dev/full', may_fail=True),
    "run read-only": Surrounding(shell="chmod -R a-w run; " + AS_ROOT + '"$@"', may_fail=frozenset(WRITES_RUN)),
    "TMPDIR missing": Surrounding({"TMPDIR": "/nonexistent", "TMP": "/nonexistent", "TEMP": "/nonexistent"}),
    "temporary folders read-only": Surrounding(shell=FROZEN),
    "900 MB": Surrounding(shell='ulimit -v 900000; exec "$@"', may_fail=True),
    "400 MB": Surrounding(shell='ulimit -v 400000; exec "$@"', may_fail=True),
    "unknown user": Surrounding(shell=STRANGER + '"$@"'),
    "unknown user, no HOME": Surrounding(
        {"HOME": None, "USER": None, "LOGNAME": None}, shell=STRANGER + '"$@"', may_fail=WITH_PUBLIC
    ),
    "40 columns": Surrounding({"COLUMNS": None, "TERM": "xterm"}, terminal=True),
    "dumb terminal": Surrounding({"TERM": "dumb"}, terminal=True),
    "NO_COLOR": Surrounding({"NO_COLOR": "1", "TERM": "xterm-256color"}, terminal=True),
    "no TERM": Surrounding({"TERM": None}, terminal=True),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events with ids and titles that few encodings have, a data set, a run, a recipe, a copy of public data."""
    folder = tmp_path_factory.mktemp("world")
    frame = chain_frame(users=30).with_columns(
        user=pl.when(pl.col("user") == "u001").then(pl.lit(USER)).otherwise("user"),
        item=pl.col("item").str.replace("item", "項目"),
    )
    frame.write_csv(folder / "events.csv")
    frame.group_by("user", maintain_order=True).last().write_csv(folder / "test.csv")
    (folder / "bad.csv").write_text(frame.write_csv() + "lonely\n")
    ids = frame["item"].unique().sort()
    titles = [TITLES[number % len(TITLES)] for number in range(len(ids))]
    pl.DataFrame({"id": ids, "title": titles}).write_csv(folder / "titles.csv")
    (folder / "public").mkdir()
    numbered = frame.with_columns(pl.col("item").str.slice(-2).cast(int), pl.col("user").rank("dense"), rating=3)
    numbered.select("user", "item", "rating", "time").write_csv(
        folder / "public/u.data", separator="\t", include_header=False
    )
    data = sasrec.prepare(folder / "events.csv", items=folder / "titles.csv", output=folder / "data")
    (folder / "recipe.toml").write_text(
        "[model]\nmaxlen = 8\nhidden_units = 8\nnum_blocks = 1\n[training]\nnum_epochs = 1\nbatch_size = 16\n"
        f'device = "cpu"\n[expected]\nseeds = [0]\ndata_hash = "{data.data_hash}"\n'
    )
    settings = {option[2:].split("=")[0]: option.split("=")[1] for option in TINY[:-1]}
    numbers = {name: int(value) for name, value in settings.items()}
    sasrec.train(folder / "data", folder / "run", device="cpu", **numbers)
    return folder


def started(place: Path, surrounding: Surrounding, arguments: list[str]) -> tuple[int, str]:
    """The exit status of a command in its surroundings, and all that it said. `place`: the working folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SASREC_CACHE": str(place / "cache")}
    if "HOME" in surrounding.environment:
        environment.pop("SASREC_CACHE")
    for name, value in surrounding.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    command = ["bash", "-c", "ulimit -c 0; " + surrounding.shell, "_", sys.executable, "-m", "sasrec", *arguments]
    streams: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    said = b""
    with contextlib.ExitStack() as stack:
        if surrounding.closed_reader:
            reader, writer = os.pipe()
            os.close(reader)
            stack.callback(os.close, writer)
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, surrounding.closed_reader: writer}
        if surrounding.terminal:
            ours, theirs = pty.openpty()
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
            streams = {"stdout": theirs, "stderr": theirs}
            stack.callback(os.close, ours)
        source = stack.enter_context((place / "events.csv").open("rb"))
        process = subprocess.Popen(command, cwd=place, env=environment, stdin=source, **streams)
        if surrounding.terminal:
            os.close(theirs)
            said = b"".join(read_all(ours))
            process.wait(timeout=60)
        else:
            said = b"".join(each or b"" for each in process.communicate(timeout=60))
    return process.returncode, said.decode(errors="replace")


def read_all(descriptor: int) -> Iterator[bytes]:
    """What comes from a terminal until the other side is closed."""
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 1 << 16):
            yield data


def fault(place: Path, surrounding: Surrounding, command: tuple[str, list[str], int]) -> str:
    """What is wrong with a command in its surroundings, or an empty text."""
    name, arguments, usual = command
    out = place / "out" / name.replace(" ", "-")
    status, said = started(place, surrounding, [word.replace("{out}", str(out)) for word in arguments])
    if BROKEN.search(said):
        return f"{name}: status {status}, {said[-1500:]}"
    may_fail = surrounding.may_fail is True or name in (surrounding.may_fail or ())
    if status not in {usual, *([1] if may_fail else ()), *surrounding.ends}:
        return f"{name}: status {status} instead of {usual}: {said[-1500:]}"
    if status == 1 and "2>&-" not in surrounding.shell and surrounding.closed_reader != "stderr":
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
        sentences = [line for line in plain.splitlines() if line.startswith("error: ")]
        if len(sentences) != 1:
            return f"{name}: {len(sentences)} sentences instead of one: {said[-1500:]}"
    return ""


def faults(world: Path, folder: Path, name: str, commands: list[tuple[str, list[str], int]]) -> list[str]:
    """The faults of commands in one surrounding; each surrounding has a world of its own."""
    surrounding = SURROUNDINGS[name]
    if "setpriv" in surrounding.shell and (shutil.which("setpriv") is None or os.geteuid() != 0):
        pytest.skip("another user needs setpriv, and root")
    if surrounding.shell == FROZEN and subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("a read-only folder needs unshare, and root")
    place = folder / "world"
    shutil.copytree(world, place)
    (place / "out").mkdir()
    found = [fault(place, surrounding, command) for command in commands]
    return [each for each in found if each]


# Where something was wrong once, and what is likeliest to break.
LIKELIEST = {
    "ASCII": ["recommend user"],
    "stdout closed": ["datasets"],
    "stdin closed": ["prepare stdin"],
    "reader of stdout gone": ["version", "help", "help of train", "datasets", "prepare"],
    "reader of stderr gone": ["wrong option", "wrong kind", "prepare"],
    "stdout on a full disk": ["version", "datasets"],
    "run read-only": ["evaluate"],
    "900 MB": ["version", "datasets", "prepare", "train"],
    "40 columns": ["wrong value", "compare"],
}


@pytest.mark.parametrize("name", LIKELIEST)
def test_what_is_likeliest_to_break_in_odd_surroundings(name: str, world: Path, tmp_path: Path) -> None:
    found = faults(world, tmp_path, name, [BY_NAME[command] for command in LIKELIEST[name]])
    assert not found, "\n\n".join(found)


def test_a_public_data_set_without_a_home_folder_is_refused_with_the_remedy(world: Path, tmp_path: Path) -> None:
    place = shutil.copytree(world, tmp_path / "world")
    (place / "out").mkdir()
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("another user needs setpriv, and root")
    command = ["train", "--dataset", "ml-100k", "--from", "public", "--train_dir", "out/run"]
    status, said = started(place, SURROUNDINGS["unknown user, no HOME"], command)
    assert (status, "Set the environment variable SASREC_CACHE" in said) == (1, True), said


def test_a_limit_of_the_address_space_is_named(world: Path) -> None:
    status, said = started(world, SURROUNDINGS["900 MB"], ["prepare", "events.csv", "--explain"])
    assert (status, said) == (
        1,
        "error: the address space of a process is limited to 0.9 GB (ulimit -v), but the libraries need 3 GB to "
        "start. Raise the limit: ulimit -v unlimited.\n",
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_every_command_in_odd_surroundings(name: str, world: Path, tmp_path: Path) -> None:
    found = faults(world, tmp_path, name, COMMANDS)
    assert not found, "\n\n".join([f"{len(found)} of {len(COMMANDS)}", *found])
