"""Each command, option and path that the pages name exists, in blocks that are not run, too."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest

from docs.tools.play import pages
from sasrec.cli.arguments import misspelt, published_spellings
from sasrec.cli.main import _COMMANDS
from sasrec.config.settings import RunConfig
from sasrec.config.spellings import PUBLISHED_SPELLINGS
from sasrec.ranking.rules import Rules
from sasrec.studies.plan import _File

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*).*?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
PLACE = re.compile(r"(?:src|tests|benchmarks|recipes|docs)/[\w./-]+")
# Options of torchrun, sbatch, pytest, Docker, of scripts in benchmarks/, and of the published code.
OTHERS = {
    *("--max-restarts", "--nnodes", "--nproc_per_node", "--rdzv-endpoint", "--rdzv-id", "--signal"),
    *("--first", "--json", "--until", "--early_stop_patience"),
    *PUBLISHED_SPELLINGS,
}

PARTS = {part.name for part in fields(RunConfig)}
SETTINGS = {each.name for part in fields(RunConfig) for each in fields(getattr(RunConfig(), part.name))}
ENTRIES = (
    PARTS
    | {"expected", "published"}
    | {each.name for each in fields(Rules) if each.init}
    | set(_File.model_fields)
)


def commands_of(text: str) -> Iterator[str]:
    """Each command `sasrec …` of a page: in its blocks of commands, and in the code within its prose."""
    for language, body in BLOCK.findall(text):
        if language in ("bash", "console"):
            for line in re.sub(r"\\\n", " ", body).splitlines():
                # "|| true" is for a command that shows an error.
                yield from () if "|| true" in line else re.findall(r"^(?:\$ )?(sasrec [a-z-][^|>;&#]*)", line)
    for code in CODE.findall(BLOCK.sub("", text)):
        if re.match(r"sasrec [a-z-]", code):
            yield " ".join(code.split())


def unknown(command: str) -> str | None:
    """What is wrong with a command `sasrec …`; None if it and its options exist."""
    words = [word for word in command.split()[1:] if word not in PUBLISHED_SPELLINGS and "$" not in word]
    if words[0] == "help":
        words = words[1:]
    if words[0] == "prepare":
        words = published_spellings(words)
    return None if words == ["--version"] else misspelt(words, _COMMANDS)


def takes(option: str) -> bool:
    """Whether a command has this option."""
    return any(misspelt([command, option, "1"], _COMMANDS) is None for command in _COMMANDS)


@pytest.mark.parametrize("page", pages([]), ids=lambda page: str(page.relative_to(ROOT)))
def test_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [f"{command}: {wrong}" for command in commands_of(text) if (wrong := unknown(command))] == []
    codes = CODE.findall(BLOCK.sub("", text))
    options = {re.split(r"[\s=]", code)[0] for code in codes if re.match(r"--[a-z]", code)}
    assert [option for option in sorted(options - OTHERS) if not takes(option)] == []
    assert [place for code in codes for place in PLACE.findall(code) if not (ROOT / place).exists()] == []


def test_a_name_that_does_not_exist_is_noticed() -> None:
    page = "Run `sasrec servee --nope`.\n\n```bash\nsasrec train --dataset x \\\n    --learning 1\n```\n"
    assert [unknown(command) is None for command in commands_of(page)] == [False, False]
    assert [takes(option) for option in ("--num_epochs", "--no_time", "--watch", "--nope")] == [True] * 3 + [False]


@pytest.mark.parametrize("page", pages([]), ids=lambda page: str(page.relative_to(ROOT)))
def test_entries_of_recipes_studies_and_rules_exist(page: Path) -> None:
    for language, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "toml":
            for name, value in tomllib.loads(body).items():
                assert name in ENTRIES, name
                tables = value.values() if name == "cells" else [value] if name in ("settings", "grid") else []
                assert {entry for table in tables for entry in table} <= SETTINGS
                assert name not in PARTS or set(value) <= SETTINGS


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {version('sasrec')}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
