"""The command `sasrec study`: a queue of runs, trained by several processes."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.live import Live

from sasrec.cli.arguments import OptionalPath
from sasrec.cli.commands import with_options
from sasrec.cli.console import err, out, say
from sasrec.errors import ConfigError, amount

Action = Literal["run", "work", "status", "stop", "retry", "add"]
_AGAIN = "interrupted; run the same command again to continue"


@dataclass(frozen=True)
class Study:
    """Train many runs from one file: cells or a grid of settings, each with several seeds.

    A study is a TOML file:

        dataset = "ml-100k"
        seeds = [0, 1]
        [settings]
        num_epochs = 20
        [grid]
        mhc = [false, true]
        num_blocks = [2, 4]

    A cell is one combination of settings. This grid has four cells, and each is trained with two random seeds. The
    actions are:

        run      train what is not done yet, and compare each cell with the first
        work     train in this process alone, to join the study from another machine
        status   show how far each run is
        stop     make all workers (the processes that train) save and end
        retry    queue the failed runs again, then run
        add      accept new runs in the file, then run

    A run that was interrupted continues from its checkpoint, and is never trained twice.

    Example: sasrec study run ablation.toml --workers 2 --output table.tex

    Example: sasrec study status ablation.toml
    """

    action: Annotated[tyro.conf.Positional[Action], tyro.conf.arg(metavar="ACTION", help_behavior_hint="")]
    """What to do: run, work, status, stop, retry or add."""
    study: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STUDY", help_behavior_hint="")]
    """The TOML file, or the folder of a study that has begun."""
    workers: Annotated[int, tyro.conf.arg(help_behavior_hint="")] = 0
    """Processes that train at the same time and share the cores. Default: one for each GPU; without a GPU, one."""
    per_device: int = 1
    """How many runs may train on one GPU at the same time."""
    watch: bool = False
    """With status: show the table until all runs are finished, or until Ctrl-C."""
    output: OptionalPath = None
    """With run, retry or add: write the table of the comparison to this file: .tex (booktabs), .md or .csv."""

    def run(self) -> None:
        """Do the action."""
        from sasrec.runtime.log import RunLog
        from sasrec.studies import study
        from sasrec.studies.table_file import table_as

        if self.watch and self.action != "status":
            raise ConfigError(f"`watch` is only for `sasrec study status`, not for {self.action}. Remove it.")
        if self.output is not None:
            if self.action in ("work", "status", "stop"):
                raise ConfigError(f"`output` is only for `sasrec study run`, not for {self.action}. Remove it.")
            table_as(self.output.suffix)
        log = RunLog(None, err, with_options)
        if self.action == "status":
            self._status(study, log)
        elif self.action == "stop":
            if study.stop(self.study):
                say(err, "asked all workers to save and end; `sasrec study run` continues the study")
            else:
                say(err, "all runs of the study have ended already")
        elif self.action == "work":
            study.work(self.study, per_device=self.per_device, log=log)
        else:
            if self.action == "retry":
                again = study.open_study(self.study)[1].retry()
                say(err, f"queued again: {', '.join(again) or 'nothing, because no run failed'}")
            self._run(study, log)

    def _status(self, study: Any, log: Any) -> None:
        from sasrec.cli.tables import study_table

        plan, queue = study.begun_study(self.study, log=log)
        if not self.watch:
            out.print(study_table(study.rows(plan, queue)))
            return
        # Ctrl-C is how one ends the table before the study has ended.
        with (
            suppress(KeyboardInterrupt),
            Live(study_table(study.rows(plan, queue)), console=out, auto_refresh=False) as live,
        ):
            while queue.is_open():
                time.sleep(2)
                live.update(study_table(study.rows(plan, queue)), refresh=True)

    def _run(self, study: Any, log: Any) -> None:
        try:
            rows = study.run_study(
                self.study,
                workers=self.workers or None,
                per_device=self.per_device,
                log=log,
                add=self.action == "add",
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_AGAIN) from None
        from sasrec.cli.tables import print_comparison, study_table
        from sasrec.studies.study import compared
        from sasrec.studies.table_file import write_table

        out.print(study_table(rows))
        found = compared(self.study)
        if found is not None:
            print_comparison(found)
            if self.output is not None:
                write_table(found, self.output)
                say(err, f"table written to {self.output}")
        if failed := [row.entry.run for row in rows if row.entry.state == "failed"]:
            raise ConfigError(
                f"{amount(len(failed), 'run')} failed, first {failed[0]}. The reasons are above. Correct them, or "
                "remove the folders of these runs; then use `sasrec study retry`."
            )
