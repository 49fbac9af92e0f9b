"""The help texts of docs/reference/command-line.md."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

from sasrec.cli import main as cli

_WIDTH = "100"
_SETTINGS = " data options\n"  # the heading of the first of them


def regions() -> dict[str, str]:
    """Return the generated parts of the page by name."""
    found = {"command sasrec": f"```text\n{_printed(['--help'])}```\n"}
    for name in cli._COMMANDS:
        found[f"command {name}"] = f"```text\n{_help_of(name).rstrip()}\n```\n"
    return found


def _help_of(name: str) -> str:
    text = _printed([name, "--help"])
    if name == "train":  # its settings have a page of their own
        text = text.partition(_SETTINGS)[0]
    return text


def _printed(arguments: list[str]) -> str:
    """Return what a command prints, at a fixed width, without colours, and without frames (they need UTF-8)."""
    output = io.StringIO()
    fixed = os.environ | {"COLUMNS": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, fixed, clear=True), contextlib.redirect_stdout(output):
        try:
            cli.main(arguments)
        except SystemExit as end:
            if end.code:
                raise
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())
