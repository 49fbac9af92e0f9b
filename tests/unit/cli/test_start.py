"""What the command line answers at once, without PyTorch."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import sasrec
from sasrec.__main__ import start
from sasrec.cli.main import main
from tests.synthetic import write_csv

# Arguments, the exit status, and what is said.
AT_ONCE = [
    ([], 0, "reproduce"),
    (["--help"], 0, "reproduce"),
    (["help"], 0, "reproduce"),
    (["--version"], 0, "sasrec 0.1.0"),
    (["train", "--help"], 0, "--mhc_sinkhorn_iter"),
    (["help", "train"], 0, "--mhc_sinkhorn_iter"),
    (["datasets"], 0, "ml-100k"),
    (["reproduce"], 0, "ml-100k"),
    (
        ["train", "--train_dir", "x", "--maxlem", "5"],
        2,
        "unknown option --maxlem of train; did you mean --maxlen?",
    ),
    (["trian"], 2, "unknown command trian; did you mean train?"),
    (["train"], 2, "--train_dir"),
    (["train", "--train_dir", "x", "--num_heads", "3"], 1, "--num_heads (3) must divide --hidden_units (64)"),
    (["train", "--train_dir", "x"], 1, "no data set is named"),
    (["recommend", "x"], 1, "give exactly one of --history, --user, --all and --histories."),
]
CHECKED = """
import sys, time
from sasrec.__main__ import start
from sasrec.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
heavy = {"torch", "polars", "numpy"} & sys.modules.keys()
print(*sorted(heavy), time.process_time(), file=sys.stderr)
sys.exit(status)
"""


def checked(*arguments: str) -> tuple[int, str, list[str], float]:
    """Exit status, all that was said, the heavy modules that were imported, and seconds of CPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", CHECKED, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    *said, last = done.stderr.splitlines()
    *heavy, seconds = last.split()
    return done.returncode, done.stdout + "\n".join(said), heavy, float(seconds)


@pytest.mark.parametrize(("arguments", "status", "said"), AT_ONCE)
def test_help_and_refusals_come_without_pytorch(arguments: list[str], status: int, said: str) -> None:
    found, shown, heavy, _ = checked(*arguments)
    assert (found, heavy) == (status, [])
    assert said in shown
    assert "Traceback" not in shown


def test_importing_sasrec_imports_no_pytorch() -> None:
    code = "import sys, sasrec; sasrec.SasrecError; sasrec.RunConfig; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_comparing_runs_needs_no_pytorch(tmp_path: Path) -> None:
    events, run = write_csv(tmp_path / "events.csv"), tmp_path / "run"
    sasrec.train(events, run, maxlen=12, hidden_units=8, num_epochs=1, device="cpu")
    status, shown, heavy, _ = checked("compare", f"{run}:markov", str(run))
    assert status == 0
    assert f"{run}:markov" in shown
    assert "torch" not in heavy


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [each for each, _, _ in AT_ONCE], ids=" ".join)
def test_half_a_second_of_cpu_is_enough(arguments: list[str]) -> None:
    assert statistics.median(checked(*arguments)[3] for _ in range(5)) <= 0.5


def test_help_before_and_after_a_command_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for arguments in (["help", "compare"], ["compare", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""


@pytest.mark.parametrize("columns", ["60", pytest.param("80", marks=pytest.mark.slow)])
def test_help_fits_the_terminal(columns: str) -> None:
    for command in ([], ["prepare"], ["train"], ["evaluate"], ["compare"], ["recommend"], ["export"]):
        arguments = [sys.executable, "-m", "sasrec", *command, "--help"]
        done = subprocess.run(
            arguments, capture_output=True, text=True, env={**os.environ, "COLUMNS": columns}, check=True
        )
        lines = [line for line in done.stdout.splitlines() if not line.startswith("usage: ")]
        assert max(map(len, lines)) <= int(columns), command


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m sasrec datasets | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141), "the reader may have taken all before it ended"


def test_stdout_may_be_closed_or_ascii() -> None:
    command = f"{sys.executable} -m sasrec datasets >&-"
    closed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, "")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    arguments = [sys.executable, "-m", "sasrec", "help", "train"]
    narrow = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert (narrow.returncode, narrow.stderr) == (0, "")
    assert "\\u2026" in narrow.stdout


def test_a_path_that_is_no_text_is_refused() -> None:
    arguments = [sys.executable, "-m", "sasrec", "evaluate", b"run\xff"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: run\\udcff is not UTF-8 text. Rename the file or folder")


def test_an_interruption_of_the_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sasrec.cli.main.main", interrupted)
    assert start() == 130


@pytest.mark.parametrize("command", [["datasets"], ["export", "x", "--output", "y"]])
def test_under_torchrun_only_the_first_process_does_what_is_done_once(command: list[str]) -> None:
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "1"}
    arguments = [sys.executable, "-m", "sasrec", *command]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "abc"}, {"WORLD_SIZE": "2"}])
def test_an_environment_that_is_no_launch_is_named(environment: dict[str, str]) -> None:
    arguments = [sys.executable, "-m", "sasrec", "datasets"]
    others = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(arguments, capture_output=True, text=True, env=others | environment, check=False)
    assert done.returncode == 1
    assert "Start the processes with torchrun, or unset WORLD_SIZE" in done.stderr
    assert "Traceback" not in done.stderr
