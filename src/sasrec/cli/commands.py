"""The commands on one run. Each is a dataclass: its docstring and fields are its help, and `run` does the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sasrec.cli.arguments import OptionalPath, as_options
from sasrec.cli.console import err, say
from sasrec.cli.outputs import read_with, refuse_input, refuse_output, write_frame
from sasrec.config.settings import KEEP_WEIGHTS, RunConfig
from sasrec.config.split_rule import ALL
from sasrec.errors import ConfigError, DataError, amount, for_shell

if TYPE_CHECKING:
    from sasrec.ranking.recommender import Recommender

# Everything else is imported in `run`: help, and what is refused at once, need no PyTorch.


def with_options(sentence: str) -> str:
    """Replace the Python names in a sentence of a run by the options of `sasrec train`."""
    return as_options(sentence, [Train])


@dataclass(frozen=True)
class Train:
    """Train a model, keep the best checkpoint by validation NDCG@10, and measure it on test.

    A checkpoint is the saved weights of an epoch. The last lines of the output say whether the model beats the
    best baseline, a simple recommender such as popularity, and whether training ended too early.

    Example: sasrec train --dataset ml-100k --train_dir runs/first

    Example: sasrec train --dataset ratings.csv --train_dir runs/mine --maxlen 50 --loss bce

    Example: sasrec train --dataset train.csv --valid valid.csv --test test.csv --train_dir runs/own

    Example: sasrec train --train_dir runs/mine --resume

    Example: sasrec train --final runs/mine --train_dir runs/mine-final

    --train is another name for --dataset. The options --norm_first, --no_norm_first, --use_amp and --multi_gpu of
    the published SASRec code for PyTorch work, too.
    """

    train_dir: Path
    """Folder of the run: settings, log, metrics, ranks, checkpoints and, if needed, data. Created if missing."""
    recipe: OptionalPath = None
    """TOML file of settings; the settings given on the command line override it."""
    from_: Annotated[OptionalPath, tyro.conf.arg(name="from")] = None
    """Read the public data set from this local copy instead of downloading it."""
    valid: OptionalPath = None
    """File of validation events; --dataset then has only the training events, and --split becomes files."""
    test: OptionalPath = None
    """File of test events; --dataset then has only the training events, and --split becomes files."""
    resume: bool = False
    """Continue the run in --train_dir from its newest checkpoint, with the settings of the run."""
    state_dict_path: OptionalPath = None
    """Start training from the weights of this checkpoint, or of this run's best checkpoint (warm start)."""
    inference_only: bool = False
    """Only measure the run's best checkpoint; with --state_dict_path, measure that one and save no metrics."""
    sampled: bool = False
    """Also print the figures of the sampled protocol, which ranks each target among 100 random items."""
    final: OptionalPath = None
    """Train on all events, with the settings and the best number of epochs of this run; nothing is measured."""
    then_final: bool = False
    """After training, also train a model on all events, in the folder TRAIN_DIR-final."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)

    def run(self) -> None:
        """Train, and print the metrics."""
        if self.inference_only:
            self._measure()
            return
        if self.final is not None:
            self._final_fit(self.final, self.train_dir)
            return
        self._refuse()
        from sasrec.cli.tables import print_run
        from sasrec.runs.folder import RunFolder
        from sasrec.runs.train import resume, train
        from sasrec.runtime.log import RunLog

        log = RunLog(None, err, with_options)
        with self._saying_how_to_continue(self.train_dir):
            if self.resume:
                recommender = resume(self.train_dir, recipe=self.config, log=log)
            else:
                recommender = train(
                    self.config.data.dataset,
                    self.train_dir,
                    valid=self.valid,
                    test=self.test,
                    recipe=self.config,
                    log=log,
                    local_copy=self.from_,
                    start_from=self.state_dict_path,
                )
        folder, better = RunFolder(self.train_dir), None
        if folder.metrics_file.exists():
            better = print_run(self.train_dir, folder.metrics(), sampled=self.sampled)
        if self.then_final:
            self._final_fit(self.train_dir, Path(f"{self.train_dir}-final"))
        else:
            self._say_next(Path(f"{self.train_dir}:{better}") if better else self.train_dir, recommender)

    def _refuse(self) -> None:
        """Raise ConfigError or DataError for options that contradict each other, before anything is read."""
        if self.resume and self.state_dict_path is not None:
            raise ConfigError("--resume continues with the run's own weights. Remove --state_dict_path.")
        for name, path in (("from", self.from_), ("valid", self.valid), ("test", self.test)):
            if self.resume and path:
                raise ConfigError(f"--resume continues with the run's own data. Remove --{name}.")
        if self.then_final:
            self._refuse_without_validation()
        if not self.config.data.dataset and not self.resume:
            if (self.train_dir / "config.toml").exists():
                raise DataError(
                    "no data set is named. Set --dataset, or continue the run of --train_dir with --resume."
                )
            raise DataError(
                "no data set is named. Set --dataset to a public data set (by name), a prepared folder or a file."
            )

    def _refuse_without_validation(self) -> None:
        """Raise ConfigError for --then_final, before training, where validation cannot choose the epoch."""
        without = "--split all" if self.config.evaluation.split == ALL else ""
        without = without or ("--test without --valid" if self.test and not self.valid else "")
        if without:
            raise ConfigError(
                f"--then_final trains for as many epochs as validation chooses, and {without} has no validation. "
                "Remove --then_final."
            )

    def _final_fit(self, run: Path, train_dir: Path) -> None:
        """Train on all events with what `run` chose; continue if that was interrupted."""
        from sasrec.cli.sentences import chosen_by
        from sasrec.runs.final import final_fit
        from sasrec.runs.folder import RunFolder
        from sasrec.runs.train import resume
        from sasrec.runtime.log import RunLog

        log, data = RunLog(None, err, with_options), None
        if self.final is not None:
            self._refuse_with_final()
            own = RunFolder(run)
            own.refuse_no_run()
            named = self.config.data.dataset
            data = named if named != own.config().data.dataset else None
        with self._saying_how_to_continue(train_dir):
            if (self.resume or self.then_final) and RunFolder(train_dir).can_resume():
                recommender = resume(train_dir, log=log)
            else:
                device = self.config.training.device
                recommender = final_fit(run, train_dir, data=data, device=device, log=log)
        say(err, chosen_by(RunFolder(train_dir)))
        self._say_next(train_dir, recommender)

    def _refuse_with_final(self) -> None:
        """Raise ConfigError for options that have no effect beside --final."""
        own = self.final and self.final / "config.toml"
        other = RunConfig.load(own).differences(self.config).keys() if own and own.exists() else set()
        given = {"from": self.from_, "valid": self.valid, "test": self.test, "then_final": self.then_final}
        given |= {"state_dict_path": self.state_dict_path, "recipe": self.recipe}
        names = sorted(other - KEEP_WEIGHTS - {"dataset"}) + [name for name, value in given.items() if value]
        if names:
            options = ", ".join(f"--{name}" for name in names)
            raise ConfigError(
                f"--final takes the settings of {self.final}, so {options} would have no effect. Remove {options}."
            )

    @contextmanager
    def _saying_how_to_continue(self, train_dir: Path) -> Iterator[None]:
        from sasrec.cli.sentences import interrupted

        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interrupted(train_dir)) from None
        except SystemExit:
            say(err, interrupted(train_dir))
            raise

    def _say_next(self, run: Path, recommender: Recommender) -> None:
        from sasrec.cli.sentences import next_step

        example = None
        if (data := recommender.data) is not None:
            # A user who has every item would get no list.
            most = data.num_items - (not recommender.repeats)
            users = (user for user in islice(data.user_ids, 100) if len(set(data.history(user))) <= most)
            example = next(users, None)
        say(err, next_step(run, example))

    def _measure(self) -> None:
        from sasrec.cli.tables import print_metrics, print_run
        from sasrec.runs.evaluate import evaluate
        from sasrec.runs.folder import RunFolder
        from sasrec.runtime.log import RunLog
        from sasrec.sources.resolve import prepared_folder

        own = RunFolder(self.train_dir).config_file
        config = self.config.replace(
            dataset=str(prepared_folder(self.config.data.dataset) or self.config.data.dataset)
        )
        other = RunConfig.load(own).differences(config).keys() - {"device"} if own.exists() else ()
        if self.valid or self.test:
            raise ConfigError(
                "--inference_only measures the run on its own targets. To measure it on another file, use "
                f"sasrec evaluate {for_shell(self.train_dir)} --test FILE."
            )
        if other or self.resume or self.from_:
            named = ", ".join(f"--{name}" for name in sorted(other)) or ("--resume" if self.resume else "--from")
            raise ConfigError(
                f"--inference_only measures the run with its own settings and data, so {named} would have no "
                f"effect. Remove {named}."
            )
        device, path = self.config.training.device, self.state_dict_path
        metrics = evaluate(self.train_dir, device=device, checkpoint=path, log=RunLog(None, err, with_options))
        if path is None:
            print_run(self.train_dir, metrics, sampled=self.sampled)
        else:
            print_metrics(metrics, sampled=self.sampled)


@dataclass(frozen=True)
class Evaluate:
    """Measure the best checkpoint of a run: NDCG, HR and MRR beside the baselines, with the protocol.

    The command writes the metrics to RUN/metrics.json, with the protocol card, which says how the metrics were
    measured. It writes the rank of every target to RUN/ranks.parquet, and adds a line to RUN/log.jsonl.

    Example: sasrec evaluate runs/first --details

    Example: sasrec evaluate runs/first --test next-week.csv

    Example: sasrec evaluate runs/first --rules rules.toml

    Example: sasrec evaluate runs/weekly --whole_period --k 20 --per_user users.parquet
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run. RUN:NAME measures a baseline or the blend of the run instead, and saves nothing."""
    dataset: OptionalPath = None
    """Prepared data set of the run, if it has moved since training; for other events, use --test."""
    test: OptionalPath = None
    """Measure on the events of this file instead; the metrics are printed and not saved."""
    k: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...", help_behavior_hint="")] = ()
    """Also compute the metrics at these cut-offs, which are lengths of the list, such as 3 100."""
    rules: OptionalPath = None
    """Also measure the lists under the rules of this TOML file, to see what the rules cost; saves nothing."""
    device: str = "auto"
    """Device to compute on: cpu, cuda or mps; auto takes an accelerator if there is one, else the CPU."""
    details: bool = False
    """On test, add coverage, novelty, diversity, and metrics by history length, target popularity and time gap."""
    sampled: bool = False
    """Also print the figures of the sampled protocol, which ranks each target among 100 random items."""
    whole_period: bool = False
    """Also measure a list for each user against all items of the held-out period: recall, precision, MAP."""
    per_user: OptionalPath = None
    """Write the --whole_period values of each user to this file, .parquet or .csv."""

    def run(self) -> None:
        """Evaluate, and print the metrics."""
        from sasrec.cli.tables import print_metrics, print_run
        from sasrec.ranking.rules import Rules
        from sasrec.runs.evaluate import evaluate
        from sasrec.runs.folder import named_run
        from sasrec.runtime.log import RunLog
        from sasrec.runtime.ranks import rank

        if self.per_user is not None:
            if not self.whole_period:
                raise ConfigError(
                    "--per_user needs --whole_period. RUN/ranks.parquet has the rank of each target."
                )
            refuse_output("--per_user", self.per_user)
        rules = None if self.rules is None else Rules.load(self.rules)
        if self.per_user is not None:
            read = {"--test": self.test, "--dataset": self.dataset, "--rules": self.rules}
            refuse_input("--per_user", self.per_user, read | read_with(self.run_dir, rules))
        metrics = evaluate(
            self.run_dir,
            device=self.device,
            dataset=self.dataset,
            test=self.test,
            details=self.details,
            k=self.k,
            rules=rules,
            whole_period=self.whole_period,
            log=RunLog(None, err, with_options),
        )
        if self.per_user is not None and rank() == 0:
            assert metrics.users is not None, "measured with --whole_period"
            write_frame(self.per_user, metrics.users)
            say(err, f"{amount(metrics.users.height, 'row')} written to {self.per_user}")
        if self.test is None and self.rules is None and not named_run(self.run_dir)[1]:
            print_run(self.run_dir, metrics, sampled=self.sampled, k=self.k)
        else:
            print_metrics(metrics, sampled=self.sampled, k=self.k)
