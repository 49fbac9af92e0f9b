"""Crafted files whose hashes agree: no traceback, no native crash, no hang, and no gigabytes of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability import crafted

ROOT = Path(__file__).parents[2]


def failures(folder: Path, first: int, last: int) -> list[str]:
    """What the cases met that is not an error of ours; a process that died is begun again after its case."""
    crafted.made(folder / "made")
    failed, next_case = [], first
    while next_case < last:
        command = [sys.executable, "-m", "tests.reliability.crafted", folder / "made", str(next_case), str(last)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        lines = ran.stdout.splitlines()
        failed += [line for line in lines if line.startswith("end") and not line.endswith(" []")]
        begun = [line for line in lines if line.startswith("begin")]
        if ran.returncode:
            assert begun, ran.stderr
            failed.append(f"{begun[-1]} ended with status {ran.returncode}: {ran.stderr[-300:]}")
            next_case = int(begun[-1].split()[1]) + 1
        else:
            next_case = last
    return failed


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_crafted_files_end_in_a_sentence(tmp_path: Path) -> None:
    assert failures(tmp_path, 0, len(crafted.KINDS)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_crafted_files_end_in_a_sentence(tmp_path: Path) -> None:
    assert failures(tmp_path, 0, 1000) == []
