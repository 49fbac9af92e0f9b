"""The guide copies code and names; both must exist as written, and its two languages must say the same."""

from __future__ import annotations

import ast
import re
from itertools import zip_longest
from pathlib import Path
from textwrap import dedent

import pytest

from sasrec.cli.arguments import misspelt
from sasrec.cli.main import _COMMANDS
from sasrec.config.spellings import PUBLISHED_SPELLINGS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "guide.md", DOCS / "guide.zh.md"]
EXCERPT = re.compile(r"^<!-- play: skip excerpt of (\S+) -->\n+```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((\.\./[^)#]+)")
CODE = re.compile(r"`([^`]+)`")


def bare(line: str) -> str:
    """A line of code without comments for tools."""
    return re.sub(r"\s+# (type: ignore|noqa).*", "", line).rstrip()


def passages(excerpt: str) -> list[list[str]]:
    """The passages of an excerpt; lines with nothing but an ellipsis separate them."""
    parts = re.split(r"^ *(?:# )?…\n", excerpt, flags=re.MULTILINE)
    return [dedent(part).strip().splitlines() for part in parts if part.strip()]


def place(lines: list[str], source: list[str]) -> int:
    """The index after the first consecutive occurrence of `lines` in `source`, with any indent; -1 if none."""
    wanted = [line for line in lines if line.strip()]
    for start in range(len(source) - len(wanted) + 1):
        found = source[start : start + len(wanted)]
        if dedent("\n".join(found)).splitlines() == wanted:
            return start + len(wanted)
    return -1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_excerpts_are_in_their_files(page: Path) -> None:
    found = EXCERPT.findall(page.read_text(encoding="utf-8"))
    assert len(found) >= 15
    for path, excerpt in found:
        text = (DOCS.parent / path).read_text(encoding="utf-8")
        source = [line for line in map(bare, text.splitlines()) if line]
        for lines in passages(excerpt):
            after = place(lines, source)
            assert after >= 0, f"{path} has no such lines:\n" + "\n".join(lines)
            source = source[after:]  # later passages come later in the file


def test_an_excerpt_that_changed_is_noticed() -> None:
    source = ["def f(x):", "    y = x + 1", "    return y"]
    assert place(["y = x + 1", "", "return y"], source) == 3
    assert place(["y = x + 1", "    return y"], source) == -1
    assert place(["y = x + 2"], source) == -1
    assert passages("a\n# …\n    b\n…\nc\n") == [["a"], ["b"], ["c"]]


def outline(text: str) -> tuple[list[int], list[tuple[str, str]], list[list[list[str]]]]:
    """Levels of headings, blocks with numbers masked in outputs, and the code in the first column of each table."""
    prose = BLOCK.sub("", text)
    headings = [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)]
    blocks = [
        (kind, re.sub(r"[-\d.,]+", "#", body) if kind != "python" else body) for kind, body in BLOCK.findall(text)
    ]
    tables = re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE)
    firsts = [[CODE.findall(row.split("|")[1]) for row in table.splitlines()] for table in tables]
    return headings, blocks, firsts


def test_both_languages_are_in_step() -> None:
    english, chinese = (outline(page.read_text(encoding="utf-8")) for page in PAGES)
    for name, one, other in zip(("headings", "blocks", "tables"), english, chinese, strict=True):
        for number, (ours, theirs) in enumerate(zip_longest(one, other), start=1):
            assert ours == theirs, f"{name} {number}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_code_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


def defined(path: Path) -> set[str]:
    """Names that a file defines: classes, functions, Class.method, and Class.x of `self.x = …` and `x: …`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        for inner in ast.walk(node) if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                names.add(f"{node.name}.{inner.name}")
            elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                names.add(f"{node.name}.{inner.attr}")
    return names


def missing(name: str, files: list[Path]) -> bool:
    """Whether a name of the second column does not exist: a folder, a command, an option, or a name of the files."""
    if name.endswith("/"):
        return not (DOCS.parent / name).is_dir()
    words = name.removeprefix("torchrun --nproc_per_node=2 -m ").split()
    if name == "torchrun":
        return False
    if words[0] == "sasrec":
        return misspelt(words[1:], _COMMANDS) is not None
    if words[0].startswith("--"):
        return misspelt(["train", *words], _COMMANDS) is not None
    return not any(name in defined(file) for file in files)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_table_exist(page: Path) -> None:
    table = page.read_text(encoding="utf-8").partition("<!-- table: names -->\n")[2].strip().partition("\n\n")[0]
    rows = [row.split("|")[1:4] for row in table.splitlines()[2:]]
    assert len(rows) >= 40
    for known, here, file in rows:
        files = [DOCS / link for link in LINK.findall(file)]
        for name in CODE.findall(here):
            assert not missing(name, files), f"{known}: {name}"
        for option in (name for name in CODE.findall(known) if name in ("--use_amp", "--no_time", "--no_mhc")):
            assert option in PUBLISHED_SPELLINGS or misspelt(["train", option], _COMMANDS) is None


def test_a_name_that_does_not_exist_is_noticed() -> None:
    residual = [DOCS.parent / "src/sasrec/models/residual.py"]
    assert not missing("MHCResidual.phi", residual)
    for name in ("MHCResidual.phi_pre", "x_expanded", "--lr_decay_step", "sasrec tune", "src/sasrec/utils/"):
        assert missing(name, residual), name
