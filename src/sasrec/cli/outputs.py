"""Files of tables that a command writes: .parquet or .csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sasrec.cli.console import err, say
from sasrec.errors import ConfigError
from sasrec.files import whole_file

if TYPE_CHECKING:  # help and refusals come without it
    import polars as pl

    from sasrec.ranking.rules import Rules


def refuse_output(option: str, path: Path, needed_by: str = "") -> None:
    """Raise ConfigError if a table cannot be written to this file, before the work that fills it.

    `path`: Path() if `option` was not given. `needed_by`: the option that needs it, for the message.
    """
    if path == Path():
        raise ConfigError(f"{needed_by} needs {option}. Add {option} FILE.parquet or {option} FILE.csv.")
    if path.suffix not in {".parquet", ".csv"}:
        raise ConfigError(f"the file of {option} must end in .parquet or .csv, and {path} does not. Rename it.")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder {path.parent} does not exist. Make it, or correct {option}.")


def refuse_input(option: str, output: Path, inputs: Mapping[str, Any]) -> None:
    """Raise ConfigError if a file that the command reads would be replaced by its output.

    `inputs`: what is read, by the name of its option; values that are not paths are ignored. All files in a folder
    of events are read; a prepared data set may have other files beside its own.
    """
    from sasrec.data.manifest import MANIFEST, is_manifest

    for name, source in inputs.items():
        if not isinstance(source, str | Path) or source in ("", Path()):  # a run that was trained on a frame
            continue
        path = Path(source)
        try:
            inside = path.is_dir() and not is_manifest(path / MANIFEST)
            inside = inside and output.resolve().is_relative_to(path.resolve())
            replaces = output.exists() and (output.samefile(path) or inside)
        except (OSError, ValueError):  # the name of a public data set, or a URL
            continue
        if replaces:
            raise ConfigError(
                f"{option} {output} would replace a file that the command reads ({name}). Name another file."
            )


def read_with(run_dir: Path, rules: Rules | None) -> dict[str, Any]:
    """Return what a command reads besides its options: the data of the run, and the tables of the rules."""
    from sasrec.runs.folder import named_run

    folder = named_run(run_dir)[0]
    found = {"the data of the run": folder.config().data.dataset if folder.config_file.exists() else None}
    return found if rules is None else found | {"a table of the rules": rules.items, "bans": rules.bans}


@contextmanager
def saying_if_stopped(sentence: str) -> Iterator[None]:
    """Let a signal end the block at once, so that it cleans up, and say the sentence."""
    from sasrec.runtime.signals import ending_at_once

    try:
        with ending_at_once():
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(sentence) from None
    except SystemExit:
        say(err, sentence)
        raise


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a table whole, as the ending of the file says."""
    with whole_file(path) as stream:
        frame.write_csv(stream) if path.suffix == ".csv" else frame.write_parquet(stream)
