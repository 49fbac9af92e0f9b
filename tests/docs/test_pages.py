"""The pages of README and docs: links lead somewhere, lines wrap, and both languages are in step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tools.play import directives, pages
from tests.unit.test_house_rules import HARD

ROOT = Path(__file__).parents[2]
PAGES = [*pages([]), ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# The lab log quotes what was written at the time.
QUOTES = {"lab.md"}


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
    """`docs/tools/play.py` runs fenced blocks of console, bash and Python, and no others."""
    indented = re.findall(r"^    (?:sasrec|torchrun|python|pip|make docs) .*$", prose_of(page), re.MULTILINE)
    assert indented == []
    for block in re.findall(r"^```text\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        assert not re.match(r"\$ |sasrec \w+ \w", block), "use console or bash"


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
    tables = [
        [[figure.replace("倍", "").strip() for figure in re.findall(r"(?<![\w.-])[\d.]*\d", row)] for row in rows]
        for rows in (re.findall(r"^\|.*$", text, re.MULTILINE) for text in (english, chinese))
    ]
    assert tables[0] == tables[1]
    links = [sorted(re.findall(r"\]\(((?!README|#)[^)]+)\)", text)) for text in (english, chinese)]
    assert [link.replace("guide.zh.md", "guide.md").replace("page-zh", "page") for link in links[1]] == links[0]
