"""The command line: `sasrec datasets | prepare | train | evaluate | compare | runs | report | recommend | …`.

Each command is a dataclass whose docstring and fields are its help, and whose `run` does the work. Results go to
stdout, everything about the work to stderr. Exit status: 0 done (or help), 1 a mistake that the message explains,
2 a wrong command line, 128 + N interrupted by signal N: 130 for SIGINT, 143 for SIGTERM, 141 where the reader of
stdout, such as `head`, has gone.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import tyro

from sasrec import __version__
from sasrec.cli.arguments import as_options, joined_values, misspelt, published_spellings, recipe_named_in
from sasrec.cli.blend import Blend
from sasrec.cli.commands import Evaluate, Train
from sasrec.cli.console import err, out, say
from sasrec.cli.data_commands import Datasets, Prepare
from sasrec.cli.endings import (
    OTHER_LOCALE,
    check_address_space,
    failed,
    of_system,
    out_of_memory,
    unreadable,
    without_reader,
)
from sasrec.cli.help import print_description, print_overview
from sasrec.cli.recommend import Export, Recommend, Similar
from sasrec.cli.refresh import Refresh
from sasrec.cli.report_commands import Plot, Report
from sasrec.cli.serve import Mcp, Serve
from sasrec.cli.study import Study
from sasrec.cli.study_commands import Compare, Reproduce, Runs
from sasrec.config.settings import RunConfig
from sasrec.errors import SasrecError
from sasrec.runtime.ranks import launched

_PARALLEL = ("train", "evaluate", "recommend", "reproduce")  # under torchrun, the other commands run only once

_COMMANDS = {
    "datasets": Datasets,
    "prepare": Prepare,
    "train": Train,
    "evaluate": Evaluate,
    "refresh": Refresh,
    "compare": Compare,
    "runs": Runs,
    "study": Study,
    "plot": Plot,
    "report": Report,
    "recommend": Recommend,
    "similar": Similar,
    "blend": Blend,
    "export": Export,
    "serve": Serve,
    "mcp": Mcp,
    "reproduce": Reproduce,
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if wrong := [word for word in arguments if not _is_text(word)]:
            return failed(unreadable(wrong[0]))
        if arguments[:1] == ["--version"]:
            out.print(f"sasrec {__version__}")
            return 0
        out.quiet = launched() and os.environ["RANK"] != "0"
        if launched():  # else PyTorch, once it is imported, writes frames of its C++ code before our sentence
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        if out.quiet and arguments[:1] and arguments[0] not in _PARALLEL and "--shards" not in arguments:
            return 0
        command = _parsed(arguments)
        if isinstance(command, int):
            return command
        if not isinstance(command, Datasets):
            check_address_space()
        with _shown_warnings():
            command.run()
        return 0
    except SasrecError as error:
        return failed(as_options(str(error), _COMMANDS.values()))
    except BrokenPipeError:
        return without_reader()
    except OSError as error:
        return failed(of_system(error))
    except UnicodeEncodeError as error:
        return failed(f"{error.object} cannot name a file in this locale. {OTHER_LOCALE}")
    except (MemoryError, RuntimeError, ImportError) as error:
        if not out_of_memory(error):
            raise
        if arguments[0] in ("train", "refresh", "reproduce"):
            remedy = "in training, lower --batch_size, --maxlen or --num_negatives, or raise --accumulate"
        else:
            remedy = "close other programs, raise the limit of memory, or use a larger machine"
        return failed(f"out of memory: {remedy} ({error})")
    except KeyboardInterrupt as stop:
        say(err, str(stop) or "interrupted")
        return 130


def _parsed(arguments: list[str]) -> Any:
    """Return the command to run, or an exit status if the arguments ask for help or are wrong."""
    arguments = joined_values(published_spellings(_with_help(arguments)), _COMMANDS)
    if wrong := misspelt(arguments, _COMMANDS):
        say(err, wrong, label="error:", style="red")
        return 2
    if arguments[0] in ("--help", "-h"):
        print_overview(_COMMANDS)
        return 0
    if {"--help", "-h"} & set(arguments):
        print_description(_COMMANDS[arguments[0]])
    return tyro.cli(
        _commands(recipe_named_in(arguments)),
        prog="sasrec",
        args=arguments,
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """Print each warning of the block as a note."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        yield


def _with_help(arguments: list[str]) -> list[str]:
    """Return the arguments with `help X` replaced by `X --help`, and `help` alone or no argument by `--help`."""
    if not arguments or arguments == ["help", "help"]:
        return ["--help"]
    return [*arguments[1:], "--help"] if arguments[0] == "help" else arguments


def _is_text(word: str) -> bool:
    """Whether a word of the command line is UTF-8 text; Python keeps other bytes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _commands(config: RunConfig) -> Any:
    """Return the union type of all commands, which tyro parses into one of them. `config`: defaults of `train`."""
    union: Any = None
    for name, command in _COMMANDS.items():
        default: dict[str, Any] = {"default": Train(tyro.MISSING, config=config)} if command is Train else {}
        # `print_description` prints the docstring.
        subcommand = tyro.conf.subcommand(name=name, description="", **default)
        each = Annotated[command, subcommand]  # type: ignore[valid-type]
        union = each if union is None else union | each
    return union


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(err, as_options(str(message), _COMMANDS.values()), label="note:", style="yellow")
