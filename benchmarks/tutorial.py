"""Play the tutorial, and write docs/tutorial.md with what each command prints.

    python benchmarks/tutorial.py

The text is in benchmarks/tutorial-page.md. The lines of its console blocks that begin with "$ " are run in a new
folder, one after another.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, DOC = ROOT / "benchmarks/tutorial-page.md", ROOT / "docs/tutorial.md"
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_MOST = 64  # lines of a command's output that are shown
_WIDTH = 110


def play(text: str, folder: Path) -> str:
    """Return the text with the output of each command below it. Raises: CalledProcessError if a command fails."""

    def block(found: re.Match[str]) -> str:
        commands = [line for line in found[1].splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"{line}\n{_shown(_run(line[2:], folder))}" for line in commands) + "```"

    return _BLOCK.sub(block, text)


def _run(command: str, folder: Path) -> str:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": str(_WIDTH),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = command.replace("benchmarks/", f"{ROOT}/benchmarks/")
    done = subprocess.run(
        ["bash", "-c", f"{command} 2>&1"],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _shown(output: str) -> str:
    """Return the output with all but the first and last epochs, and what is beyond the limit, left out."""
    lines = [line.rstrip() for line in output.splitlines()]
    epochs = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    for number in epochs[1:-1]:
        lines[number] = "…" if number == epochs[1] else ""
    between = set(epochs[2:-1])
    kept = [line for number, line in enumerate(lines) if number not in between]
    if len(kept) > _MOST:
        kept = [*kept[: _MOST // 2], "…", *kept[-_MOST // 2 :]]
    return "".join(f"{line}\n" for line in kept)


def main() -> None:
    """Play, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        DOC.write_text(play(PAGE.read_text(), Path(folder)))


if __name__ == "__main__":
    main()
