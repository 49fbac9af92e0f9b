"""The commands on several runs: `sasrec compare`, `sasrec runs` and `sasrec reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sasrec.cli.arguments import OptionalPath
from sasrec.cli.commands import with_options
from sasrec.cli.console import err, out, say
from sasrec.config.choices import Candidates, SplitName

_AGAIN = "interrupted; run the same command again to continue"


@dataclass(frozen=True)
class Compare:
    """Test whether runs differ from the first run by more than chance, on the same targets.

    RUN is the folder of a run, or RUN:BASELINE for a baseline that was measured with it (popularity, item-to-item,
    markov; with times also recent-7-days; with --repeats also own-frequent, own-recent). Runs that differ only in
    the seed count as one model: give several, so that the interval covers the seed too. Runs measured under
    different protocols, such as different splits, are refused. RUN:blend is refused too: use sasrec evaluate
    RUN:blend, which measures the blend.

    The command prints a table, and a sentence for each model or baseline except the first. The sentence states the
    difference from the first, the 95 % interval of this difference, and the p-value. If p is at most .05, the
    difference is more than chance.

    Example: sasrec compare runs/a runs/b

    Example: sasrec compare runs/a:item-to-item runs/a

    Example: sasrec compare runs/plain-* runs/time-* --metric hr@20

    Example: sasrec compare runs/a runs/b --show ndcg@10 mrr --output table.tex
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """Two or more runs or baselines (RUN or RUN:BASELINE); the first is compared with each of the others."""
    metric: str = "ndcg@10"
    """Metric to compare: ndcg@K, hr@K, recall@K (equal to hr@K) or mrr@K, for any K; or mrr, without a cut-off."""
    candidates: Candidates = "full"
    """Items that each target is ranked among: the whole catalogue (full), or 100 random items (sampled)."""
    split: SplitName = "test"
    """Targets to compare on: those of test, or those of validation (valid)."""
    resamples: int = 10_000
    """How often the bootstrap draws users again, for the interval and p; more gives steadier figures."""
    show: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METRIC ...", help_behavior_hint="")] = (
        "ndcg@10",
        "hr@10",
    )
    """Metrics to show in the table beside --metric, without a test. Default: ndcg@10 hr@10."""
    output: OptionalPath = None
    """Also write the table to this file: .tex (booktabs), .md or .csv."""

    def run(self) -> None:
        """Compare, and print the table and the sentences."""
        from sasrec.cli.tables import print_comparison
        from sasrec.studies.compare import compare
        from sasrec.studies.table_file import table_as, write_table

        if self.output is not None:
            table_as(self.output.suffix)  # a wrong ending is refused before the work
        options: dict[str, Any] = {"candidates": self.candidates, "split": self.split, "show": self.show}
        found = compare(self.runs, metric=self.metric, resamples=self.resamples, **options)
        print_comparison(found)
        if self.output is not None:
            write_table(found, self.output)
            say(err, f"table written to {self.output}")


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder, best first: state, settings, epochs, time, metric and best baseline.

    Runs in training, interrupted runs and damaged runs are listed too; the state says so.

    Example: sasrec runs

    Example: sasrec runs runs/study --metric hr@20 --split valid
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")] = Path("runs")
    """Folder to search for runs, with all folders in it."""
    metric: str = "ndcg@10"
    """Metric to sort by: ndcg@K, hr@K or mrr@K with K 1, 5, 10, 20 or 50; or mrr."""
    candidates: Candidates = "full"
    """Items that each target was ranked among: the whole catalogue (full), or 100 random items (sampled)."""
    split: SplitName = "test"
    """Targets of the metric: those of test, or those of validation (valid)."""

    def run(self) -> None:
        """Print the table."""
        from sasrec.cli.tables import print_runs
        from sasrec.studies.listing import list_runs

        options: dict[str, Any] = {"metric": self.metric, "candidates": self.candidates, "split": self.split}
        print_runs(list_runs(self.folder, **options), self.folder, self.metric)


@dataclass(frozen=True)
class Reproduce:
    """Train a recipe with each of its seeds, and compare the figures with those that the recipe states.

    A recipe is a TOML file with settings and expected figures. The exit status is 1 if the mean of a figure over
    the seeds is outside its band, the range that the recipe accepts. A mean without a band is not checked. After
    an interruption, run the same command again to continue.

    Example: sasrec reproduce ml-100k

    Example: sasrec reproduce ml-1m --dataset ml-1m.txt --seeds 0
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE", help_behavior_hint="")] = ""
    """Name of a recipe of sasrec, or a .toml file; without it, the names of the recipes are listed."""
    dataset: OptionalPath = None
    """Data to train on, if the recipe names no data or the download fails."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...", help_behavior_hint="")] = ()
    """Random seeds to train with. Default: the seeds of the recipe."""
    train_dir: Path = Path("runs/reproduce")
    """Folder to write the runs to, which are named RECIPE-SEED."""

    def run(self) -> None:
        """Reproduce the recipe and print the table of its metrics; without a recipe, list the recipe names.

        Raises: ReproductionError if a mean is outside its band. Remedy: compare the PyTorch version and the device
        with those in the comment at the top of the recipe.
        """
        from sasrec.config.recipe import recipe_names

        if not self.recipe:
            out.print("\n".join(recipe_names()))
            return
        from sasrec.cli.tables import print_outcome
        from sasrec.runtime.log import RunLog
        from sasrec.studies.reproduce import ReproductionError, reproduce

        seeds, log = list(self.seeds) or None, RunLog(None, err, with_options)
        try:
            outcome = reproduce(self.recipe, self.train_dir, dataset=self.dataset, seeds=seeds, log=log)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_AGAIN) from None
        except SystemExit:  # another signal, such as SIGTERM
            say(err, _AGAIN)
            raise
        print_outcome(outcome)
        if outside := outcome.outside():
            raise ReproductionError(
                f"{'; '.join(outside)}. Compare your PyTorch version and device with those in the comment at the "
                "top of the recipe."
            )
