"""Take the pictures of the pages that sasrec makes: a run's curves, the report, the page of the server.

    sasrec study run docs/tools/pictures.toml          # trains six runs on MovieLens 100K
    python docs/tools/screens.py runs/pictures [FOLDER]     # default: docs/pictures

The script writes curves.svg, report.png, page.png and page-zh.png. It needs matplotlib, playwright, Chromium, and
fonts with Chinese letters.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

HISTORY = "history=1,50,181,172,96&gaps=86400,3600,604800,86400"  # five films, and seconds between them


def sasrec(*words: str | Path) -> list[str]:
    """Return the command line of a command of sasrec."""
    return [sys.executable, "-m", "sasrec", *map(str, words)]


def opened(browser: Browser, address: str, width: int, height: int, dark: bool = False) -> Page:
    """Open an address in a window of that size."""
    scheme: Any = "dark" if dark else "light"
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return page


def take_report(browser: Browser, study: Path, target: Path) -> None:
    """Photograph the report of a study, from its verdict to its curves."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        subprocess.run(sasrec("report", study, "--output", file), check=True)
        page = opened(browser, file.as_uri(), 1180, 900)
        last = page.get_by_role("heading", name="Training").locator("xpath=following::figure[1]").bounding_box()
        assert last is not None
        clip: Any = {"x": 0, "y": 0, "width": 1180, "height": last["y"] + last["height"] + 10}
        page.screenshot(path=target, clip=clip, full_page=True)


def take_page(browser: Browser, study: Path, folder: Path) -> None:
    """Photograph the page of a server: two models in English, and one in Chinese with a dark theme."""
    names = [f"{name}={study / cell / 'seed-0'}" for name, cell in (("plain", "sasrec"), ("timed", "tisasrec"))]
    with tempfile.TemporaryDirectory() as data:
        command = sasrec("serve", *names, "--port", "0", "--events", Path(data) / "events.sqlite")
        with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = next(word for line in server.stdout or () for word in line.split() if "://" in word)
                urlopen(f"{address}readyz", timeout=60).close()
                page = opened(browser, f"{address}#{HISTORY}&models=plain,timed", 1280, 860)
                page.get_by_role("button", name="Why").nth(1).click()
                page.wait_for_timeout(1000)
                page.screenshot(path=folder / "page.png")
                page = opened(browser, f"{address}#{HISTORY}&models=timed&reasons=1", 1280, 860, dark=True)
                page.get_by_text("中文").click()
                page.get_by_role("button", name="原因").nth(1).click()
                page.wait_for_timeout(1000)
                page.screenshot(path=folder / "page-zh.png")
            finally:
                server.terminate()


def main() -> None:
    """Write the pictures."""
    study, folder = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/pictures")
    subprocess.run(sasrec("plot", study, "--output", folder / "curves.svg"), check=True)
    with sync_playwright() as playwright:
        # CI is root, for whom Chromium's sandbox does not start.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take_report(browser, study, folder / "report.png")
        take_page(browser, study, folder)
        browser.close()


if __name__ == "__main__":
    main()
