"""Run what the pages of the documentation show, and compare or renew the output that they show.

    python docs/tools/play.py docs/how-to/rules.md         # run the page and write its outputs anew
    python docs/tools/play.py --check [--slow] [PAGE…]     # run the pages (default: all) and report what differs
    python docs/tools/play.py --check --digits PAGE        # also show the lines whose digits differ

Each page runs in a new folder. Its fenced blocks are run in order:

- console: each line that begins with "$ " is a command, and the lines below it are its output. A command that ends
  with " &" (a server) stays alive until the page ends.
- bash: a script; its output is not compared.
- python: all blocks of a page share one namespace. A text block directly below has the output.
- any other language: not run; after `<!-- file: NAME -->` the block is written to the file NAME.

A comment before a block says how it is run: `<!-- play: skip REASON -->`, `<!-- play: slow REASON -->` (only with
--slow, or if the page is named), `<!-- play: needs MODULE -->` (skipped without the module). At the top of a page:
`<!-- play: slow -->` (only with --slow) and `<!-- play: after PAGE -->` (that page's blocks run first, in the same
folder).

Each line of the outputs must be as shown, except for its digits, which depend on the processor, its load and the
versions of libraries. Lines whose digits differ are counted. Exit status 1 if a page fails.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?:<!-- (?P<how>(?:play|file): [^\n]*?) -->\n+)?^```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^```$"
    r"(?P<gap>\n+)?(?:(?<=\n)```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
_HASH = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{7,}\b")
_NUMBER = re.compile(r"[-+−]?\.?\d[\d,.:]*")
_DURATION = re.compile(r"# (?:ms|s|min|h)\b")
_MOST = 64  # lines of one command's output that are shown
_WIDTH = 100


class PageError(Exception):
    """A command or a snippet of a page failed."""


@dataclass
class Stage:
    """The folder of a page, with its Python namespace and its servers."""

    folder: Path
    slow: bool = False
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    servers: list[subprocess.Popen[str]] = field(default_factory=list)
    port: int = 0

    def command(self, line: str) -> str:
        """Run a command in bash and return what it prints, stdout and stderr together."""
        if line.endswith(" &"):
            return self._start(line.removesuffix(" &"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._adapted(line)],
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        absent = ": command not found" in done.stdout  # "|| true" is for errors of a program, not for its absence
        if absent or (done.returncode and not line.endswith("|| true")):
            raise PageError(f"status {done.returncode} of: {line}\n{done.stdout}")
        return done.stdout.replace(f":{self.port}", ":8000") if self.port else done.stdout

    def _adapted(self, line: str) -> str:
        line = re.sub(r"(?<![\w/])(benchmarks|recipes)/", rf"{ROOT}/\1/", line)
        return line.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}") if self.port else line

    def _start(self, line: str) -> str:
        """Start a server on a free port, and wait until it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        log = self.folder / "server.log"
        with log.open("w") as output:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {self._adapted(line)} --port {self.port}"],
                cwd=self.folder,
                env=_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.servers.append(server)
        for _ in range(300):
            if server.poll() is not None:
                break
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
                return ""
            time.sleep(0.1)
        raise PageError(f"no server: {line}\n{log.read_text()}")

    def python(self, code: str, page: str) -> str:
        """Run a snippet in the namespace of the page, and return what it prints."""
        printed, here = io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                exec(compile(code, page, "exec"), self.names)
        except Exception as error:
            raise PageError(f"{type(error).__name__}: {error} in:\n{code}") from error
        finally:
            os.chdir(here)
        return printed.getvalue()

    def close(self) -> None:
        """End the servers."""
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(40)
            except subprocess.TimeoutExpired:
                server.kill()


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": str(_WIDTH), "PATH": path, "NO_COLOR": "1"}


def directives(text: str) -> list[str]:
    """Return what the comments at the top of a page say: "slow", "after PAGE"."""
    return re.findall(r"^<!-- play: (slow|after \S+) -->$", text, re.MULTILINE)


def played(page: Path, stage: Stage) -> str:
    """Run the blocks of a page, and return its text with the outputs of this run.

    Raises: PageError.
    """
    text = page.read_text(encoding="utf-8")
    for directive in directives(text):
        if directive.startswith("after "):
            before = (page.parent / directive.removeprefix("after ")).resolve()
            shutil.copytree(_folder_after(before), stage.folder, symlinks=True, dirs_exist_ok=True)

    def block(found: re.Match[str]) -> str:
        how, language, body = found["how"] or "", found["language"], found["body"]
        if how.startswith("file: "):
            target = stage.folder / how.removeprefix("file: ")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(body, encoding="utf-8")
            return found[0]
        if how.startswith("play: skip ") or (how.startswith("play: slow ") and not stage.slow) or not _has(how):
            return found[0]
        if language == "bash":
            stage.command(body.rstrip("\n"))
        elif language == "console":
            return found[0].replace(body, "".join(_with_output(line, stage) for line in _commands(body)))
        elif language == "python":
            printed = stage.python(body, page.name)
            if found["output"] is not None:
                return found[0][: found.start("output") - found.start()] + _shown(printed) + "```"
        return found[0]

    return _BLOCK.sub(block, text)


@cache
def _folder_after(page: Path) -> Path:
    """Play a page in a folder that stays to the end of this process, and return the folder.

    Runs in copies of the folder still read their data there.
    """
    folder = Path(tempfile.mkdtemp(prefix="played-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.closing(Stage(folder)) as stage:
        played(page, stage)
    return folder


def _has(how: str) -> bool:
    """Whether the module of `play: needs MODULE` is installed."""
    return not how.startswith("play: needs ") or importlib.util.find_spec(how.split()[2]) is not None


def _commands(body: str) -> Iterator[str]:
    """Each command of a console block; one that ends with a backslash has several lines."""
    lines = iter(body.splitlines())
    for line in lines:
        if line.startswith("$ "):
            while line.endswith("\\"):
                line += "\n" + next(lines)
            yield line[2:]


def _with_output(command: str, stage: Stage) -> str:
    return f"$ {command}\n{_shown(stage.command(command))}"


def _shown(output: str) -> str:
    """Return the output without most epochs, and without the middle of very long ones."""
    lines = [line.rstrip() for line in output.splitlines()]
    epochs = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    for number in epochs[1:-1]:
        lines[number] = "…"
    between = set(epochs[2:-1])
    kept = [line for number, line in enumerate(lines) if number not in between]
    if len(kept) > _MOST:
        kept = [*kept[: _MOST // 2], "…", *kept[-_MOST // 2 :]]
    return "".join(f"{line}\n" for line in kept)


def masked(text: str) -> list[str]:
    """The lines of a text, with # for each number, hash or duration, and without differences of blanks."""
    numbers = (_NUMBER.sub("#", _HASH.sub("7", line)) for line in text.splitlines())
    return [_DURATION.sub("#", " ".join(line.split())) for line in numbers]


def differences(shown: str, found: str) -> list[str]:
    """The lines that differ, numbers aside, as a unified diff."""
    return list(difflib.unified_diff(masked(shown), masked(found), "shown", "found", lineterm="", n=0))


def other_digits(shown: str, found: str) -> list[str]:
    """The pairs of lines that differ in digits only, for texts without other differences."""
    pairs = zip(shown.splitlines(), found.splitlines(), strict=True)
    return [line for one, other in pairs if one != other for line in (f"-{one}", f"+{other}")]


def pages(names: list[Path]) -> list[Path]:
    """The pages of the documentation, or those that were named."""
    every = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page.resolve() for page in names] or [page for page in every if page.exists()]


def main() -> int:
    """Play the pages; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE", help="a Markdown file; default: all pages")
    parser.add_argument("--check", action="store_true", help="report what differs, and change no page")
    parser.add_argument("--slow", action="store_true", help="also the pages that say that they are slow")
    parser.add_argument("--digits", action="store_true", help="with --check, show lines whose digits differ")
    asked = parser.parse_args()
    if not asked.check and not asked.pages:
        parser.error("name the pages to renew, or use --check")
    failed = 0
    chosen = pages(asked.pages)
    if wrong := [page for page in chosen if not page.is_file() or ROOT not in page.parents]:
        parser.error(f"{wrong[0]} is not a page of the documentation. Name a Markdown file of this folder.")
    for page in chosen:
        if "slow" in directives(page.read_text(encoding="utf-8")) and not (asked.slow or asked.pages):
            continue
        began = time.monotonic()
        said, digits = _problems(page, check=asked.check, slow=asked.slow or bool(asked.pages))
        failed += bool(said)
        seconds = time.monotonic() - began
        note = f", {len(digits) // 2} lines with other digits" if digits else ""
        print(f"{'FAIL' if said else 'ok  '}  {page.relative_to(ROOT)}  {seconds:.0f} s{note}", flush=True)
        print("".join(f"      {line}\n" for line in said + (digits if asked.digits else [])), end="")
    return min(failed, 1)


def _problems(page: Path, *, check: bool, slow: bool) -> tuple[list[str], list[str]]:
    """Play a page; return what is wrong, and the lines whose digits differ. Without `check`, renew the page."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Stage(Path(folder), slow)) as stage:
        try:
            found = played(page, stage)
        except PageError as error:
            return [str(error)], []
    if not check:
        page.write_text(found, encoding="utf-8")
        return [], []
    said = differences(text, found)
    return said, [] if said else other_digits(text, found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; a page is renewed only when all of its blocks have run")
