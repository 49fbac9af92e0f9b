"""Help texts, wrapped to the terminal at word boundaries."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Mapping

_OTHERS = {"help": "Explain a command: sasrec help COMMAND.", "--version": "Print the version."}


def print_overview(commands: Mapping[str, type]) -> None:
    """Print each command with the first line of its docstring."""
    sys.stdout.write("Train, evaluate and use sequential recommenders.\n\nusage: sasrec COMMAND [OPTIONS]\n\n")
    lines = {name: inspect.cleandoc(str(command.__doc__)).partition("\n")[0] for name, command in commands.items()}
    for name, line in (lines | _OTHERS).items():
        sys.stdout.write(f"{_wrapped(f'  {name:11}{line}', indent=13)}\n")


def print_description(command: type) -> None:
    """Print the docstring of a command, before the help of its options; indented paragraphs keep their lines."""
    for paragraph in inspect.cleandoc(str(command.__doc__)).split("\n\n"):
        sys.stdout.write(f"{paragraph if paragraph.startswith('    ') else _wrapped(paragraph)}\n\n")


def _wrapped(text: str, indent: int = 0) -> str:
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
