"""The command line: `sasrec datasets | prepare | train | evaluate | compare | recommend | export | reproduce`.

Each command is a dataclass whose docstring and fields are its help, and whose `run` does the work.
Results go to stdout, everything said about the work to stderr. Exit status: 0 done, 1 a mistake that the
message explains, 2 a wrong command line, 130 and
143 interrupted by SIGINT and SIGTERM.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import tyro
from rich.markup import escape

from sasrec.cli.arguments import recipe_named_in, seed_document_flags
from sasrec.cli.commands import Compare, Evaluate, Export, Recommend, Reproduce, Train
from sasrec.cli.data_commands import Datasets, Prepare
from sasrec.cli.tables import err, out
from sasrec.config.settings import RunConfig
from sasrec.errors import SasrecError
from sasrec.runtime.ranks import launched


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    out.quiet = launched() and os.environ.get("RANK", "0") != "0"
    try:
        arguments = seed_document_flags(sys.argv[1:] if arguments is None else arguments)
        command = tyro.cli(
            _commands(recipe_named_in(arguments)),
            prog="sasrec",
            description="Train, evaluate and use sequential recommenders.",
            args=arguments,
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            command.run()
    except SasrecError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}")
        return 1
    except OSError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}: check the path")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        remedy = "in training, lower batch_size, maxlen or num_negatives, or raise accumulate"
        err.print(f"[red]error:[/red] out of memory: {remedy} ({escape(str(error))})", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _out_of_memory(error: Exception) -> bool:
    """NumPy's, or PyTorch's, which has a class of its own on some devices only."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory")
    )


def _commands(config: RunConfig) -> Any:
    train = tyro.conf.subcommand(name="train", default=Train(tyro.MISSING, config=config))
    return (
        Annotated[Datasets, tyro.conf.subcommand(name="datasets")]
        | Annotated[Prepare, tyro.conf.subcommand(name="prepare")]
        | Annotated[Train, train]
        | Annotated[Evaluate, tyro.conf.subcommand(name="evaluate")]
        | Annotated[Compare, tyro.conf.subcommand(name="compare")]
        | Annotated[Recommend, tyro.conf.subcommand(name="recommend")]
        | Annotated[Export, tyro.conf.subcommand(name="export")]
        | Annotated[Reproduce, tyro.conf.subcommand(name="reproduce")]
    )


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    err.print(f"[yellow]note:[/yellow] {escape(str(message))}")
