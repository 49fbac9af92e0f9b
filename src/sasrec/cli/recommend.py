"""The commands that use a trained run: `sasrec recommend` and `sasrec export`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from sasrec.cli.arguments import OptionalPath, OptionalText
from sasrec.cli.commands import with_options
from sasrec.cli.console import err, say
from sasrec.cli.lists import ids, refuse_unknown, seconds
from sasrec.cli.outputs import read_with, refuse_input, refuse_output, saying_if_stopped, write_frame
from sasrec.errors import ConfigError, DataError, SasrecWarning, amount

if TYPE_CHECKING:
    from sasrec.ranking.recommender import Recommender
    from sasrec.ranking.rules import Rules


@dataclass(frozen=True)
class Recommend:
    """Recommend the best items for a history, for a user of the data, for all users, or for a file of histories.

    Give one of --history, --user, --all and --histories. An id with a comma goes in double quotes, as in CSV:
    --history '"a,b",c'. A file of ids is UTF-8 or UTF-16.

    Example: sasrec recommend runs/first --history 50,181 --k 10

    Example: sasrec recommend runs/first --history 50,181 --why

    Example: sasrec recommend runs/first --all --output top.parquet

    Example: sasrec recommend runs/first --all --dataset newest.csv --output top.parquet

    Example: sasrec recommend runs/first --histories users.parquet --output top.parquet
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run, or of an export; or RUN:BASELINE, such as runs/first:item-to-item."""
    history: OptionalText = None
    """Item ids, oldest first, separated by commas; or @FILE with one id a line. The user may be a new one."""
    times: OptionalText = None
    """Times of the history in seconds since any moment, separated by commas; only models with --time use them."""
    assume_regular: bool = False
    """Treat the events of the history as equally spaced; for models with --time, instead of --times."""
    user: OptionalText = None
    """Recommend for the user with this id in the run's data, or in --dataset."""
    all: bool = False
    """Recommend for every user in the run's data, or in --dataset; needs --output."""
    histories: OptionalPath = None
    """Recommend for each row of this Parquet file: user, items (a list) and, for models with --time, times."""
    output: OptionalPath = None
    """File to write the lists of --all or --histories to: .parquet or .csv."""
    why: bool = False
    """Show beside each item the event of the history that raises its score most."""
    k: int = 10
    """How many items to recommend per user or history."""
    include_seen: bool = False
    """Also recommend items of the history, although the model was trained without --repeats."""
    exclude_seen: bool = False
    """Never recommend items of the history, although the model was trained with --repeats."""
    allow: OptionalText = None
    """Recommend only these items: ids separated by commas, or @FILE with one id a line."""
    deny: OptionalText = None
    """Never recommend these items: ids separated by commas, or @FILE with one id a line."""
    rules: OptionalPath = None
    """Limit lists by this TOML file of rules: availability, bans, groups, conditions (docs/how-to/rules.md)."""
    fallback: Annotated[Literal["popular", "recent", "groups"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """List for users without a known item: best sellers (popular), those of 7 days (recent), or of each group."""
    dataset: OptionalPath = None
    """Newer events for --user and --all: a file or a prepared data set. Items new to the run are omitted."""
    device: str = "auto"
    """Device to compute on: cpu, cuda or mps; auto takes an accelerator if there is one, else the CPU."""

    def run(self) -> None:
        """Recommend, and print or write the result."""
        asked = [self.history is not None, self.user is not None, self.all, self.histories is not None]
        if sum(asked) != 1:
            raise ConfigError("give exactly one of --history, --user, --all and --histories.")
        to_file = self.all or self.histories is not None
        if self.include_seen and self.exclude_seen:
            raise ConfigError("--include_seen and --exclude_seen contradict each other. Remove one.")
        if self.output is not None and not to_file:
            raise ConfigError("--output is only for --all and --histories; other results are printed. Remove it.")
        if self.why and to_file:
            raise ConfigError("--why is only for --history and --user. Remove it.")
        if self.history is None and (self.times is not None or (self.assume_regular and self.histories is None)):
            raise ConfigError(
                "--times and --assume_regular are only for --history; the times of users come from the data. "
                "Remove these options."
            )
        if to_file:
            refuse_output("--output", self.output or Path(), "--all" if self.all else "--histories")
            sentence = f"stopped; {self.output} has not been written. Run the same command again."
            with saying_if_stopped(sentence):
                self._answer()
        else:
            self._answer()

    def _answer(self) -> None:
        from sasrec.cli.sentences import REPEATS_NOT_LEARNED
        from sasrec.ranking.known import NothingLeft
        from sasrec.ranking.rules import Rules
        from sasrec.ranking.selection import Learned
        from sasrec.serving.load import load

        rules = None if self.rules is None else Rules.load(self.rules).at_present()
        if self.output is not None:
            file = self.histories if self.histories is not None and self.histories.is_file() else None
            read = {"--histories": file, "--dataset": self.dataset, "--rules": self.rules}
            for option, text in (("--allow", self.allow), ("--deny", self.deny)):
                read[option] = Path(text[1:]) if text and text.startswith("@") else None
            refuse_input("--output", self.output, read | read_with(self.run_dir, rules))
        recommender = load(self.run_dir, device=self.device, dataset=self.dataset, fallback=self.fallback)
        seen = (recommender.repeats or self.include_seen) and not self.exclude_seen
        if seen and isinstance(recommender.scorer, Learned) and not recommender.repeats and self._skips_own():
            say(err, REPEATS_NOT_LEARNED, label="note:", style="yellow")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", NothingLeft)
                self._recommend(recommender, rules)
        except NothingLeft as reason:
            remedies = [] if seen else ["add --include_seen"]
            if self.rules is not None or self.allow is not None or self.deny is not None:
                remedies.insert(0, f"change {'--allow or --deny' if self.rules is None else 'the rules'}")
            remedy = ", or ".join(remedies) or "give another --dataset"
            raise ConfigError(f"{reason}. {remedy[0].upper()}{remedy[1:]}.") from None

    def _recommend(self, recommender: Recommender, rules: Rules | None) -> None:
        from sasrec.cli.tables import print_items
        from sasrec.runtime.log import RunLog
        from sasrec.runtime.ranks import joined, rank

        def is_item(item_id: str) -> bool:
            return recommender.items.number_of(item_id) is not None

        def listed(option: str, text: str) -> list[str]:
            return ids(option, text, is_item)

        options: dict[str, Any] = {
            "k": self.k,
            "exclude_seen": self.exclude_seen or not (self.include_seen or recommender.repeats),
            "allow": None if self.allow is None else listed("--allow", self.allow),
            "deny": listed("--deny", self.deny or ""),
            "rules": rules,
        }
        if self.output is not None and self.all:
            with joined(self._device(recommender)):
                frame = recommender.recommend_all(
                    log=RunLog.of_run(None, RunLog(None, err, with_options)), **options
                )
                if rank() > 0:
                    return
            if frame.is_empty():
                raise DataError("no user has an item in the history that the model knows. Give another --dataset.")
            write_frame(self.output, frame)
            users = amount(frame["user"].n_unique(), "user")
            say(err, f"{amount(frame.height, 'row')} for {users} written to {self.output}")
            lists, full = int((frame["rank"] == 1).sum()), int((frame["rank"] == self.k).sum())
            self._say_short(lists - full, lists, options)
        elif self.histories is not None and self.output is not None:
            self._recommend_file(recommender, self.histories, self.output, options)
        elif self.history is not None:
            given: dict[str, Any] = {
                "times": None if self.times is None else seconds(self.times),
                "assume_regular": self.assume_regular,
            }
            history = listed("--history", self.history)
            some = [str(recommender.items.id_of(number + 1)) for number in range(min(2, len(recommender.items)))]
            if self.fallback is None:
                refuse_unknown("--history", self.history, history, is_item, some)
            items = recommender.recommend(history, **given, **options)
            reasons = self._reasons(recommender, partial(recommender.explain, history, **given), items)
        else:
            items = recommender.recommend_user(self.user, **options)
            reasons = self._reasons(recommender, partial(recommender.explain_user, self.user), items)
        if self.output is None:
            print_items(recommender, items, reasons)
            self._say_short(int(len(items) < self.k), 1, options)

    def _skips_own(self) -> bool:
        """Whether the model was trained without own items as negatives."""
        from sasrec.runs.folder import RunFolder
        from sasrec.serving.load import FACTS, facts_of

        if (self.run_dir / FACTS).is_file():
            return facts_of(self.run_dir).skip_own_items
        return RunFolder(self.run_dir).config().loss.skip_own_items

    @staticmethod
    def _device(recommender: Recommender) -> str:
        model = getattr(recommender.scorer, "model", None)
        return "cpu" if model is None else str(model.device.type)

    def _recommend_file(
        self, recommender: Recommender, histories: Path, output: Path, options: dict[str, Any]
    ) -> None:
        from sasrec.runs.lists import write_lists
        from sasrec.runtime.log import RunLog
        from sasrec.runtime.ranks import joined, rank

        with joined(self._device(recommender)):
            log = RunLog.of_run(None, RunLog(None, err, with_options))
            regular = {"assume_regular": True} if self.assume_regular else {}
            read, lists, short = write_lists(recommender, histories, output, log=log, **options, **regular)
            if rank() > 0:
                return
        say(err, f"lists for {lists:,} of {amount(read, 'history')} written to {output}")
        if without := read - lists:
            say(err, f"note: {amount(without, 'history', 'have')} no item that may be followed by another")
        self._say_short(short, lists, options)

    @staticmethod
    def _say_short(short: int, lists: int, options: dict[str, Any]) -> None:
        """Note how many lists have fewer than k items because of the rules."""
        if short and options["rules"] is not None:
            cause = "the rules and the items seen leave" if options["exclude_seen"] else "the rules allow"
            few = f"{'has' if short == 1 else 'have'} fewer than {amount(options['k'], 'item')}"
            which = "the list" if lists == 1 else f"{short:,} of {amount(lists, 'list')}"
            say(err, f"{which} {few}, because {cause} no more", label="note:", style="yellow")

    def _reasons(
        self, recommender: Recommender, explain: Callable[[Any], Any], items: list[tuple[str | int, float]]
    ) -> list[Any] | None:
        """Return for each item the item of the event that raises its score most, "" if none does; say how many.

        None without --why, and for a list of the fallback, which has no reasons.
        """
        if not self.why:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SasrecWarning)  # the list gave the same ones
                best = [explain(item).sort("effect", descending=True).row(0, named=True) for item, _ in items]
        except DataError:
            if self.fallback is None:
                raise
            return None
        if recommender.source == "blend":
            say(err, "note: the reasons are those of the model in the blend")
        if nothing := sum(each["effect"] <= 0 for each in best):
            say(err, f"note: no single event of the history explains {nothing} of these {len(best)} items")
        return [each["item"] if each["effect"] > 0 else "" for each in best]


@dataclass(frozen=True)
class Similar:
    """List the items that are most like an item: those with the nearest embeddings, by cosine (1 is most alike).

    Example: sasrec similar runs/first 50 --k 5
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run, or of an export."""
    item: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ITEM")]
    """Id of the item."""
    k: int = 10
    """How many items to list."""

    def run(self) -> None:
        """Print the items, with their cosines and titles."""
        from sasrec.cli.tables import print_items
        from sasrec.serving.load import load

        recommender = load(self.run_dir, device="cpu")
        items = recommender.similar(self.item, self.k)
        if title := recommender.title(self.item):
            say(err, f"like {title}:")
        print_items(recommender, items, figure="cosine")


@dataclass(frozen=True)
class Export:
    """Write the best weights and the items to a folder that can recommend and contains nobody's events.

    Example: sasrec export runs/first --output models/first
    """

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run; or RUN:BASELINE or RUN:blend."""
    output: Path
    """Folder to write the export to."""
    format: Literal["weights", "onnx"] = "weights"
    """Format of the model: weights for sasrec, or onnx, a graph that onnxruntime computes without PyTorch."""

    def run(self) -> None:
        """Export the model, and print how to use the export."""
        from sasrec.cli.sentences import next_step

        if self.format == "onnx":
            self._export_onnx()
            return
        from sasrec.checkpoint.restore import checkpoint_at
        from sasrec.runs.export import export
        from sasrec.runs.folder import RunFolder
        from sasrec.runs.stored_baseline import SERVES

        folder = export(self.run_dir, self.output)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        say(err, f"{size / 1e6:.1f} MB written to {self.output}; README.md says what is in it")
        served = checkpoint_at(folder).state.get(SERVES)
        of_model = served is None or served.get("weight")
        say(err, next_step(self.output, timed=of_model and RunFolder(folder).config().model.time))

    def _export_onnx(self) -> None:
        from sasrec.cli.sentences import next_step
        from sasrec.serving.export_onnx import export_onnx
        from sasrec.serving.load import facts_of

        say(err, "writing the graph and comparing its lists, about half a minute …")
        folder = export_onnx(self.run_dir, self.output)
        facts = facts_of(folder)
        check = facts.check
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        say(
            err,
            f"{size / 1e6:.1f} MB written to {self.output}; on {check['histories']:,} histories its lists are "
            f"those of the run (scores within {check['largest_difference']:.0e}), and one takes "
            f"{check['milliseconds']['graph']:.1f} ms instead of {check['milliseconds']['run']:.1f}; README.md "
            "describes the graph",
        )
        say(err, next_step(self.output, timed=facts.timed))
