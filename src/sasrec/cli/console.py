"""Where the command line writes: results to stdout, everything about the work to stderr."""

from __future__ import annotations

import re

from rich.console import Console
from rich.markup import escape

from sasrec.untrusted import visible as visible

_WHOLE = 100_000  # columns: for other programs no line is ever cut


class _Console(Console):
    """A console that passes a broken pipe on to `main`, instead of ending the process with status 1."""

    def on_broken_pipe(self) -> None:
        """Raise the error that rich has caught."""
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    """Return a console that wraps text at words on a terminal.

    Elsewhere it prints each sentence as one line, for programs that read the output.
    """
    console = _Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.soft_wrap, console.width = True, _WHOLE
    return console


out = _console(stderr=False)
err = _console(stderr=True)


def say(console: Console, sentence: str, *, label: str = "", style: str = "") -> None:
    """Print a sentence after a coloured label such as "error:". Brackets in it are printed as they are.

    Under torchrun, the processes other than the first print errors only.
    """
    if out.quiet and label != "error:":
        return
    # A line break inside quotes would come along when a command is copied from the terminal.
    unbroken = console.soft_wrap or re.search(r"""--\w+ ['"][^'"]* """, sentence) is not None
    console.print(
        (f"[{style}]{label}[/{style}] " if label else "") + escape(visible(sentence, lines=True)),
        soft_wrap=unbroken,
    )
