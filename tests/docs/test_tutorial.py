"""The tutorials: each command runs, and prints what the page shows, apart from numbers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from docs.tools.play import Stage, differences, played

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "tutorials").glob("*.md"))
PAGE = "# A page\n\n```console\n$ echo trained for 3 epochs in 12 s\ntrained for 3 epochs in {}\n```\n"


def test_the_index_names_every_tutorial() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert len(PAGES) == 3
    assert [page.name for page in PAGES if f"(tutorials/{page.name})" not in index] == []


@pytest.mark.parametrize(("shown", "differs"), [("7.5 s", False), ("2 min", False), ("12 minutes", True)])
def test_a_page_may_differ_in_numbers_but_not_in_words(shown: str, differs: bool, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(shown), encoding="utf-8")
    with closing(Stage(tmp_path)) as stage:
        found = played(page, stage)
    assert found == PAGE.format("12 s")
    assert bool(differences(page.read_text(encoding="utf-8"), found)) == differs


def test_hashes_of_the_code_and_of_data_may_differ() -> None:
    assert differences("code: sasrec 0.1.0+12de3a56\n", "code: sasrec 0.1.0+c7329f00\n") == []
    assert differences("data shop 6f6fcc6d1a08\n", "data shop 0123456789ab\n") == []
    assert differences("code: sasrec 0.1.0+12de3a56\n", "data: sasrec 0.1.0+12de3a56\n") != []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_runs_and_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    with closing(Stage(tmp_path)) as stage:
        found = played(page, stage)
    assert differences(page.read_text(encoding="utf-8"), found) == []
