"""The tutorial: each command runs, and prints what the page shows, but for the digits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.tutorial import DOC, PAGE, play

COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)


def test_the_page_has_the_commands_and_the_text_of_its_source() -> None:
    source, page = PAGE.read_text(encoding="utf-8"), DOC.read_text(encoding="utf-8")
    assert COMMAND.findall(page) == COMMAND.findall(source)
    prose = [re.sub(r"```console\n.*?```", "", text, flags=re.DOTALL) for text in (source, page)]
    assert prose[0] == prose[1]


@pytest.mark.slow
def test_each_command_runs_and_prints_what_the_page_shows(tmp_path: Path) -> None:
    """Digits differ with the releases of the libraries, and so do words of a verdict and the number of epochs."""
    shown, found = (masked(text) for text in (DOC.read_text(encoding="utf-8"), play(PAGE.read_text(), tmp_path)))
    assert len(found) == len(shown)
    alike = sum(one == other for one, other in zip(found, shown, strict=True))
    assert alike > 0.95 * len(shown)


def masked(text: str) -> list[str]:
    """The lines of a page, with # for each number."""
    return [re.sub(r"[-+.]?\d[\d,.]*", "#", line) for line in text.splitlines()]
