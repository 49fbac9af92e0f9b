"""The site of the documentation in a browser: its pages, its search, on a desk and on a phone, without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from docs.tools.play import pages

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
PAGES = [
    str(page.relative_to(ROOT / "docs").with_suffix("")) for page in pages([]) if ROOT / "docs" in page.parents
]
# What people ask most, and a page that answers it.
ASKED = {
    "file without a header": "how-to/own-file",
    "resume": "how-to/resume",
    "temporal split": "how-to/own-split",
    "sampled negatives": "explanation/sampled-and-full",
    "baskets": "how-to/repeats-and-baskets",
    "new items": "how-to/final-fit-and-refresh",
    "deny": "how-to/rules",
    "nginx": "how-to/deploy",
    "Slurm": "how-to/several-gpus",
    "RecBole": "how-to/port",
    "残差": "guide.zh",
    "超连接": "guide.zh",
}


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # browsers ask for one; the site has none
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site on loopback; from a file, a browser does not let the search show excerpts."""
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(folder)]
    subprocess.run(command, check=True, timeout=600)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        # CI is root, for whom Chromium's sandbox does not start.
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[(1280, 900), (360, 740)], ids=["desk", "phone"])
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page whose requests and complaints fail the test at its end."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": request.param[0], "height": request.param[1]})
    opened = context.new_page()
    opened.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("requestfailed", lambda sent: wrong.append(f"failed: {sent.url}"))
    opened.on(
        "request",
        lambda sent: sent.url.startswith(("http://127.0.0.1:", "data:")) or wrong.append(f"foreign: {sent.url}"),
    )
    yield opened
    context.close()
    assert wrong == []


def test_every_page_fits_and_loads_nothing_from_elsewhere(site: str, page: Any) -> None:
    assert len(PAGES) > 30
    for name in PAGES:
        page.goto(f"{site}/{name}.html")
        assert page.locator("h1").count() == 1, name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), f"{name} is too wide"
        language = "zh" if name.endswith(".zh") else "en"
        assert page.locator("html").get_attribute("lang") == language, name
        broken = page.eval_on_selector_all("article img", "all => all.filter(each => !each.naturalWidth).length")
        assert broken == 0, name


def test_the_search_finds_what_people_ask(site: str, page: Any) -> None:
    for words, expected in ASKED.items():
        page.goto(f"{site}/search.html?q={words.replace(' ', '+')}")
        page.wait_for_selector("ul.search li a", timeout=20_000)
        page.wait_for_function("document.querySelector('#search-results p')?.textContent.includes('finished')")
        page.wait_for_load_state("networkidle")  # a summary of each result is still loaded
        found = page.eval_on_selector_all(
            "ul.search > li > a", "all => all.map(each => each.getAttribute('href'))"
        )
        names = [each.partition(".html")[0] for each in found]
        assert expected in names[:10], (words, names[:10])


def test_the_theme_follows_the_reader(site: str, browser: Any) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        opened = context.new_page()
        opened.goto(f"{site}/index.html")
        colours[scheme] = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        context.close()
    assert colours["light"] != colours["dark"]
