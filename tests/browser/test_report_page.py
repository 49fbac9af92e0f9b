"""The report in a browser: every figure shows, nothing leaves the page, a phone and paper can hold it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import sasrec
from sasrec.studies.report.page import report
from sasrec.studies.report.tried import Searched, Tried
from tests.synthetic import chain_frame, small

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section, on cells with long and hostile names."""
    folder = tmp_path_factory.mktemp("report")
    data = sasrec.prepare(chain_frame(users=80))
    runs = []
    for seed in (0, 1):
        for name, settings in {
            "plain": {},
            "<script>alert(1)</script>": {"mhc": True},
            "l" * 60: {"time": True},
        }.items():
            run = folder / "runs" / f"{name.replace('/', '_')}-{seed}"
            sasrec.train(data, run, **small(num_epochs=3, seed=seed, **settings))
            sasrec.evaluate(run, details=True)
            runs.append(run)
    tried = [
        Tried(
            f"trial-{at}",
            {"lr": 10.0 ** -(1 + at % 4), "loss": ("ce", "bce")[at % 2], "num_blocks": at % 3},
            at / 99,
            "done",
        )
        for at in range(1, 30)
    ]
    searched = Searched(tuple(tried), {"lr": 0.7, "loss": 0.2, "num_blocks": 0.1})
    report(runs, folder / "report.html", search=searched)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        # CI is root, for whom Chromium's sandbox does not start.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, with the requests and errors that it made."""

    def __init__(self, browser: Any, file: Path, size: dict[str, int]) -> None:
        self.page = browser.new_page(viewport=size)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.context.set_offline(True)
        self.page.goto(file.as_uri())

    def count(self, selector: str) -> int:
        return int(self.page.locator(selector).count())

    def values(self, selector: str, expression: str) -> list[Any]:
        return list(self.page.eval_on_selector_all(selector, f"found => found.map(each => {expression})"))


@pytest.fixture(scope="module", params=["desk", "phone"])
def opened(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Opened:
    return Opened(browser, page_file, DESK if request.param == "desk" else PHONE)


BOX = "[each.getBoundingClientRect()].map(box => [box.left, box.top, box.right, box.bottom])[0]"


def test_every_figure_has_a_size_and_letters_that_can_be_read(opened: Opened) -> None:
    boxes = opened.values("figure svg", BOX)
    assert len(boxes) == 9
    assert all(right - left > 200 and bottom - top > 60 for left, top, right, bottom in boxes)
    letters = opened.values("figure svg text", BOX)
    assert len(letters) > 100
    assert min(bottom - top for _, top, _, bottom in letters) > 8


def test_no_text_of_a_figure_covers_another(opened: Opened) -> None:
    for at in range(opened.count("figure svg")):
        figure = opened.page.locator("figure svg").nth(at)
        texts = figure.locator("text").evaluate_all(f"found => found.map(each => [each.textContent, {BOX}])")
        for (one, first), (other, second) in combinations(texts, 2):
            wide = min(first[2], second[2]) - max(first[0], second[0])
            high = min(first[3], second[3]) - max(first[1], second[1])
            assert wide < 2 or high < 4, f"{one!r} covers {other!r} in figure {at}"


def test_nothing_leaves_the_page_and_nothing_is_wrong(opened: Opened, page_file: Path) -> None:
    assert [url for url in opened.requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert opened.errors == []
    assert opened.count("script") == 1
    assert page_file.stat().st_size < 1_000_000


def test_the_body_never_scrolls_sideways(opened: Opened) -> None:
    assert opened.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, DESK)
    heading = opened.page.get_by_role("button", name="NDCG@10", exact=True)
    cells = "table.sortable tbody tr td:nth-child(3)"
    for sign, order in ((-1, "descending"), (1, "ascending")):
        heading.click()
        values = [sign * float(value) for value in opened.values(cells, "each.dataset.value")]
        assert values == sorted(values)
        assert opened.values("th[aria-sort]", "each.getAttribute('aria-sort')") == [order]
    opened.page.get_by_role("button", name="Holm's p").click()
    assert (
        opened.values("table.sortable tbody tr td:nth-child(7)", "each.dataset.value")[-1] == ""
    )  # the missing last
    assert opened.errors == []


def test_a_chip_hides_the_lines_of_its_cell_in_every_figure(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, DESK)
    shown = "found => found.filter(each => getComputedStyle(each).display !== 'none').length"
    before = opened.page.eval_on_selector_all("figure .cell-1", shown)
    others = opened.page.eval_on_selector_all("figure .cell-0", shown)
    assert before >= 8
    chip = opened.page.locator(".chips button").nth(1)
    chip.click()
    assert opened.page.eval_on_selector_all("figure .cell-1", shown) == 0
    assert opened.page.eval_on_selector_all("figure .cell-0", shown) == others
    chip.click()
    assert opened.page.eval_on_selector_all("figure .cell-1", shown) == before


def test_it_prints(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, DESK)
    paper = opened.page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert 2 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") <= 12
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 688, "height": 1000})  # A4 without its margins
    assert opened.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
