"""The pages of README and docs: links lead somewhere, lines wrap, and both languages are in step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tools.play import directives, pages
from tests.unit.test_house_rules import HARD

ROOT = Path(__file__).parents[2]
OTHERS = ["CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", ".github/pull_request_template.md"]
PAGES = [*pages([]), *(ROOT / name for name in OTHERS)]
# Languages of blocks. `docs/tools/play.py` runs the first three, and shows what Python prints as text; py is for
# signatures.
LANGUAGES = {
    "console",
    "bash",
    "python",
    "text",
    "csv",
    "json",
    "toml",
    "ini",
    "nginx",
    "dockerfile",
    "yaml",
    "py",
}
PROGRAMS = r"\$ |(?:sasrec|torchrun|python|pip|curl|make) (?:-|[\w./]+ )|(?:import|from) \w"
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# The lab log quotes what was written at the time.
QUOTES = {"lab.md"}
# Pages whose text blocks show help texts, or which command calls which file.
SHOWS_COMMANDS = {"command-line.md", "guide.md", "guide.zh.md"}


def prose_of(path: Path) -> str:
    """The text of a page without its code and outputs; each line keeps its place."""
    return FENCED.sub(lambda block: "\n" * block[0].count("\n"), path.read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """The anchors that a code host makes of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", prose_of(page))
    assert re.findall(r"^\[[^\]]+\]: |\[[^\]\"]+\]\[[^\]\"]*\]", prose, re.MULTILINE) == [], (
        "write links as [text](place)"
    )
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_wraps_at_120_and_has_no_word_that_stopped_readers(page: Path) -> None:
    for number, line in enumerate(prose_of(page).splitlines(), start=1):
        if not line.startswith(("|", "    ")):
            assert len(line) <= 120, f"line {number} has {len(line)} characters"
        if page.name not in QUOTES:
            assert not HARD.search(line), f"line {number}: {line}"


@pytest.mark.parametrize("page", pages([]), ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_is_in_a_block_that_is_run_or_says_why_not(page: Path) -> None:
    """`docs/tools/play.py` runs fenced blocks of console, bash and Python at the left margin, and no others."""
    text = page.read_text(encoding="utf-8")
    indented = re.findall(rf"^    (?:{PROGRAMS}).*$", prose_of(page), re.MULTILINE)
    assert [line for line in indented if not re.match("    make (?:demo|test) ", line)] == []
    assert re.findall(r"^(?: +```| *~~~).*$", text, re.MULTILINE) == []
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert {language for language, _ in blocks} <= LANGUAGES
    for language, body in blocks:
        if language == "text" and page.name not in SHOWS_COMMANDS:
            assert re.findall(rf"^(?:{PROGRAMS}).*$", body, re.MULTILINE) == [], "use console, bash or python"


@pytest.mark.parametrize("page", pages([]), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_colon_announces_what_follows(page: Path) -> None:
    """A block, a list, a table, a picture or a comment on one of them; else a part of the page was lost."""
    text = FENCED.sub("```", page.read_text(encoding="utf-8"))
    paragraphs = [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    for one, following in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        if re.search(r"[:：]\s*$", one):
            assert re.match(r"\s*(?:```|[-*] |\d+\. |\||!\[|<|> |    make )", following), one


@pytest.mark.parametrize("page", pages([]), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    known = r"skip \S+ \S.*|slow(?: \S+ \S.*)?|needs (?:duckdb|optuna|pyspark|ray)|after \S+\.md"
    found = re.findall(r"<!-- *play: *(.*?) *-->", page.read_text(encoding="utf-8"), re.DOTALL)
    assert [directive for directive in found if not re.fullmatch(known, directive)] == []


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\((\S+?\.md)\)", index.read_text())}
    assert {page for page in pages([]) if (ROOT / "docs") in page.parents} - linked == {index}


def test_pages_that_others_begin_with_exist() -> None:
    for page in pages([]):
        for directive in directives(page.read_text(encoding="utf-8")):
            if directive.startswith("after "):
                assert (page.parent / directive.removeprefix("after ")).resolve().exists()


def test_readme_says_the_same_in_both_languages() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert [len(marks) for marks in re.findall(r"^(#+) ", english, re.MULTILINE)] == [
        len(marks) for marks in re.findall(r"^(#+) ", chinese, re.MULTILINE)
    ]
    assert FENCED.findall(english) == FENCED.findall(chinese)
    cells = [[facts(cell) for cell in re.findall(r"^\|.*$", text, re.MULTILINE)] for text in (english, chinese)]
    assert cells[0] == cells[1]
    links = [sorted(re.findall(r"\]\(((?!README|#)[^)]+)\)", text)) for text in (english, chinese)]
    assert [link.replace("guide.zh.md", "guide.md").replace("page-zh", "page") for link in links[1]] == links[0]


def facts(row: str) -> list[tuple[bool, set[str]]]:
    """For each cell of a row of a table: whether it is a dash, and its code and numbers. Words are translated."""
    found = []
    for cell in row.strip().strip("|").split("|"):
        plain = re.sub(r"\]\([^)]*\)", "]", cell)
        found.append((plain.strip() in ("–", "—", "-", ""), set(re.findall(r"`[^`]+`|\d[\d.,]*", plain))))
    return found
