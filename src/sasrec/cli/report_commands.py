"""The commands that draw: `sasrec plot` and `sasrec report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sasrec.cli.console import err, say


@dataclass(frozen=True)
class Plot:
    """Plot training loss and validation of runs by epoch, with the baselines as lines, as PNG or SVG.

    RUN is the folder of a run, of a study or of several runs, or the TOML file of a study. Runs that differ only
    in the seed have one colour: the line of each run is thin, and the line of their mean is bold. Dots mark the
    best epochs. Runs in training are plotted up to their last epoch. Needs matplotlib: pip install
    "sasrec[reports]".

    Example: sasrec plot runs/first

    Example: sasrec plot runs/ablation --output curves.svg
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """One or more runs or studies."""
    output: Path = Path("curves.png")
    """The file to write: .png or .svg. A file there is replaced."""

    def run(self) -> None:
        """Draw and write the file."""
        from sasrec.studies.report.plots import check_output, plot

        check_output(self.output)
        plot(self.runs, self.output)
        say(err, f"plot written to {self.output}")


@dataclass(frozen=True)
class Report:
    """Write a report on runs or a study: one HTML file that needs no network, and its table for a paper.

    The report says which model is best and how sure this is. It contains the table with intervals, curves, costs,
    the metric by kind of target, lists for five users, the protocol, and how to repeat the runs.

    RUN is the folder of a run, of a study or of several runs, or the TOML file of a study. Each run is compared
    with the first one; a single run is compared with its baselines. For the metric by kind of target, first use
    sasrec evaluate RUN --details. Needs matplotlib and Jinja2: pip install "sasrec[reports]".

    Example: sasrec report ablation.toml

    Example: sasrec report runs/first --output first.html
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """One or more runs or studies."""
    output: Path = Path("report.html")
    """The file to write. The table goes beside it: NAME-table.md, .csv and .tex. Files there are replaced."""

    def run(self) -> None:
        """Write the files."""
        from sasrec.studies.report.page import check_output, report

        check_output(self.output)
        written = report(self.runs, self.output)
        say(err, f"report written to {', '.join(map(str, written))}")
