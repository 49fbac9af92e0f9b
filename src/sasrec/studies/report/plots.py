"""Plot the training of runs: `sasrec plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sasrec.errors import ConfigError
from sasrec.studies.report.cells import Cell, find_runs
from sasrec.studies.report.curves import curve_of
from sasrec.studies.report.svg import drawing, new_figure, save
from sasrec.studies.report.training_figures import MOST_NAMED, Line, draw_loss, draw_validation

ENDINGS = (".png", ".svg")


def plot(runs: Sequence[str | Path], output: str | Path) -> None:
    """Plot training loss and validation by epoch, for one run or several, also while they are trained.

    Runs that differ only in the seed are one colour: each thin, their mean bold. A dot marks the best epoch of a
    run. The baselines on validation are horizontal lines. Of more than 12 models, only the 12 with the best
    validation have a colour and a name.

    `runs`: folders of runs or of studies, TOML files of studies, or folders of runs. `output`: a file that ends in
    .png or .svg; a file there is replaced.

    Raises: ConfigError if a path has no run, the ending is another one, or matplotlib is not installed. Remedy: as
    the message says.
    """
    output = check_output(output)
    lines = lines_of(find_runs(runs).cells)
    if not any(curve.losses or curve.validation for line in lines for curve in line.curves):
        raise ConfigError("no run has finished an epoch, so nothing can be plotted yet. Wait for the first epoch.")
    with drawing():
        figure, (left, right) = new_figure(11.5, 4.4, columns=2)
        draw_loss(left, lines)
        draw_validation(right, lines, baselines_of(lines))
        save(figure, output)


def check_output(output: str | Path) -> Path:
    """Return the path of a plot. Raises: ConfigError for another ending. Remedy: use .png or .svg."""
    if (path := Path(output)).suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"plots are written as {' or '.join(ENDINGS)}, not as {path.suffix or 'a file without an ending'}. "
            "Use curves.png."
        )
    return path


def lines_of(cells: Sequence[Cell]) -> list[Line]:
    """Return the curves of each cell. With many cells, the best on validation come first, and get the names."""
    curves = [(cell, tuple(curve_of(run) for run in cell.runs)) for cell in cells]
    if len(curves) > MOST_NAMED:
        curves.sort(
            key=lambda pair: -max((max(each.validation.values(), default=0) for each in pair[1]), default=0)
        )
    return [Line(cell.name, each, at) for at, (cell, each) in enumerate(curves)]


def baselines_of(lines: Sequence[Line]) -> dict[str, float]:
    """Return the baselines on validation, if all runs that have any have the same; else none."""
    found = [curve.baselines for line in lines for curve in line.curves if curve.baselines]
    return found[0] if found and all(each == found[0] for each in found) else {}
