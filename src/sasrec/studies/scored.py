"""Read the ranks of measured runs from their folders, check that they are comparable, and group them by model."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config.settings import KEEP_WEIGHTS, RunConfig
from sasrec.config.split_rule import ALL
from sasrec.data.splits import SplitName
from sasrec.errors import ConfigError, EvaluationError, for_shell
from sasrec.evaluation.card import Candidates, differences
from sasrec.evaluation.metrics import BLEND, of_targets
from sasrec.evaluation.significance import Difference
from sasrec.files import missing
from sasrec.runs.folder import RunFolder
from sasrec.runs.seal import changed, refuse_changed
from sasrec.untrusted import parquet_of

# A comparison is significant if its adjusted p-value is at most this.
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Scored:
    """A run's model, or one of its baselines, with the ranks of all targets of one split."""

    name: str
    """The name that the user gave, RUN or RUN:BASELINE."""
    seed: int | None
    """The random seed; None for a baseline."""
    settings: str
    """The settings that affect the weights, except the seed, as text. Runs of one model have equal texts."""
    protocol: dict[str, Any]
    """The protocol card (evaluation/card.py)."""
    rows: pl.DataFrame
    """One row per target, in order of `event`, with the columns user, event, full and sampled."""
    cautions: tuple[str, ...] = ()
    """Warnings about this run. Each continues a sentence that begins with the run's name."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a model with all its runs, a single run, or a baseline."""

    name: str
    """The name in tables and sentences: RUN or RUN:BASELINE as given, a label, or one name for several seeds."""
    runs: tuple[str, ...]
    """The names of the runs, as the user gave them. If there are several, they differ only in the random seed."""
    metrics: dict[str, float]
    """The mean of each metric over targets and runs, by the name of the metric."""
    spread: dict[str, float]
    """The standard deviation of each metric between the runs, by its name; empty with one run."""


@dataclass(frozen=True)
class Against:
    """The comparison of one side of `compare` (a model, a run or a baseline) with the first side."""

    side: Side
    """The compared side."""
    difference: Difference
    """The metric of this side minus that of the first side; above 0, this side is better."""
    adjusted_p: float
    """The p-value, adjusted for the number of comparisons by Holm's method."""
    verdict: Literal["better", "worse", "no difference"]
    """"better" or "worse" by the sign of the difference if `adjusted_p` is at most 5 %; else "no difference",
    which means that no difference was shown."""
    sentence: str
    """The verdict and its numbers in English."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` returns: its sides (models, runs or baselines), and how each differs from the first side.

    A notebook shows a comparison as a table.
    """

    metric: str
    """The metric that is tested, such as ndcg@10."""
    candidates: Candidates
    """What each target was ranked among: "full" (the catalogue) or "sampled" (100 random negatives)."""
    split: SplitName
    """The split with the ranked targets: "valid" (validation) or "test"."""
    first: Side
    """The first side, with which all other sides are compared."""
    others: tuple[Against, ...]
    """The other sides, each with its difference from the first, in the order of the runs."""
    notes: tuple[str, ...]
    """Limits of this comparison, in English, for example that the intervals do not cover the random seed."""
    protocol: dict[str, Any]
    """How the first run was measured (its protocol card). The cards of the other runs have the same values in the
    fields of `MUST_AGREE` (evaluation/card.py)."""
    resamples: int
    """How often the bootstrap drew users again."""

    def __repr__(self) -> str:
        return f"<Comparison on {self.split}: {'; '.join(each.sentence for each in self.others)}>"

    def _repr_html_(self) -> str:
        metrics = list(self.first.metrics)
        headings = ["", *(metric.upper() for metric in metrics), "difference", "95 % interval", "p"]
        rows = [[self.first.name, *(f"{value:.4f}" for value in self.first.metrics.values()), "", "", ""]]
        for each in self.others:
            found, means = each.difference, (f"{each.side.metrics[metric]:.4f}" for metric in metrics)
            interval = f"{found.low:.4f} to {found.high:.4f}"
            rows.append([each.side.name, *means, f"{found.mean:.4f}", interval, _p(each.adjusted_p)])
        cells = [
            f"<th>{html.escape(row[0])}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) for row in rows
        ]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        said = [each.sentence for each in self.others] + [f"note: {note}" for note in self.notes]
        return (
            f"<table><thead><tr>{''.join(f'<th>{each}</th>' for each in headings)}</tr></thead>"
            f"<tbody>{body}</tbody></table>{''.join(f'<p>{html.escape(each)}</p>' for each in said)}"
        )


def _p(p: float) -> str:
    return "&lt; 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class Figure:
    """The metric under comparison, with its kind of candidates and its split."""

    candidates: Candidates
    split: SplitName
    metric: str
    shown: tuple[str, ...] = ("ndcg@10", "hr@10")
    """Metrics to show beside it."""

    def __str__(self) -> str:
        """The metric in words, for example "validation sampled NDCG@10". "full" and "test" are not mentioned."""
        sampled = "sampled " if self.candidates == "sampled" else ""
        return f"{'validation ' if self.split == 'valid' else ''}{sampled}{self.metric.upper()}"

    def runs(self, group: list[Scored], metric: str | None = None) -> npt.NDArray[np.float64]:
        """(runs, rows) the metric of each target in each run."""
        return np.stack([of_targets(ranks_of(run.rows, self.candidates), metric or self.metric) for run in group])

    def side(self, group: list[Scored]) -> Side:
        """Return a group of runs as one `Side`, with the means of `self.metric` and of the metrics to show."""
        each = {name: self.runs(group, name) for name in dict.fromkeys((self.metric, *self.shown))}
        name = f"{_common(group)} ({len(group)} seeds)" if len(group) > 1 else group[0].name
        means = {metric: float(values.mean()) for metric, values in each.items()}
        spread = {metric: float(values.mean(1).std(ddof=1)) for metric, values in each.items() if len(group) > 1}
        return Side(name, tuple(run.name for run in group), means, spread)


def _common(group: list[Scored]) -> str:
    """The name of runs that differ in the seed: their folder if it is a cell of a study, else the first run."""
    cells = {Path(run.name).parent if "/seed-" in run.name else Path(run.name) for run in group}
    cell = cells.pop()
    return group[0].name if cells or not (cell.parent / "study.json").exists() else str(cell)


def scored_run(name: str, candidates: Candidates, split: SplitName) -> Scored:
    """Read the ranks of a run's model, or of one of its baselines.

    `name`: RUN or RUN:BASELINE.

    Raises:
        ConfigError: the run or the baseline does not exist, or the run was never measured.
        EvaluationError: the ranks are missing, damaged or out of date; measure the run again. Or the split has no
            targets; compare on the other split.
    """
    folder, wanted = RunFolder(name), "model"
    # A folder's name may contain a colon, so the whole name is tried first.
    if not folder.metrics_file.exists() and ":" in name:
        run, _, wanted = name.rpartition(":")
        folder = RunFolder(run)
    _refuse_unmeasured(name, folder)
    again = f"Measure it again: sasrec evaluate {for_shell(folder.path)}"
    if not folder.ranks_file.exists():
        raise EvaluationError(f"{folder.path} has no ranks.parquet, the ranks of its targets. {again}")
    metrics = folder.metrics()
    scorer = _scorer_named(wanted, ["model", *metrics["baselines"]], folder.path)
    refuse_changed(folder.path, folder.ranks_file.name)
    try:
        rows = _rows_of(folder.ranks_file, scorer, split)
    except (ValueError, pl.exceptions.PolarsError):
        raise EvaluationError(f"{folder.ranks_file} is damaged. {again}") from None
    if split not in metrics:
        raise EvaluationError(
            f"{folder.path} has no {split} targets. For the reason, see protocol.{split}.skipped in its "
            "metrics.json. Compare on the other targets: split=valid or split=test."
        )
    # Both files must come from one evaluation, so the ranks must give the MRR in metrics.json.
    saved = (metrics if scorer == "model" else metrics["baselines"][scorer])[split][candidates]["mrr"]
    computed = of_targets(ranks_of(rows, candidates), "mrr").sum() / max(len(rows), 1)
    if not abs(computed - saved) <= 1e-9:  # written so that NaN is also an error
        raise EvaluationError(f"{folder.ranks_file} and metrics.json come from different evaluations. {again}")
    if scorer != "model":
        return Scored(name, None, f"{folder.path.resolve()}:{scorer}", metrics["protocol"], rows)
    _refuse_edited(folder)
    ended = folder.ending()
    if ended is not None and not ended.measured:
        raise EvaluationError(f"{folder.path} was trained further after it was measured. {again}")
    config = folder.config()
    unended = ended is None and any(event["event"] != "metrics" for event in folder.events())
    # The folder's name makes the settings of an unfinished run unique, so it is not grouped with other seeds.
    settings = _settings(config, folder) + (str(folder.path.resolve()) if unended else "")
    cautions = tuple(_cautions(config, unended))
    return Scored(name, config.training.seed, settings, metrics["protocol"], rows, cautions)


def _refuse_unmeasured(name: str, folder: RunFolder) -> None:
    """Raise ConfigError, with the remedy, if the folder is not that of a measured run."""
    if not folder.path.exists():
        raise ConfigError(f"the run {name} {missing(folder.path)}. Check the path.")
    if folder.items_file.exists():
        raise ConfigError(f"{folder.path} is an export, which has no metrics. Name the run that it came from.")
    if not folder.config_file.exists() and (inside := sorted(folder.path.rglob("metrics.json"))):
        raise ConfigError(f"{folder.path} is a folder of runs. Name the runs in it, such as {inside[0].parent}.")
    if not folder.metrics_file.exists():
        if folder.config_file.exists() and folder.config().evaluation.split == ALL:
            raise ConfigError(
                f"{folder.path} was trained on all events, so no held-out events can measure it. Compare the run "
                "that chose its settings."
            )
        raise ConfigError(
            f"{folder.path} has no metrics.json. Measure this run with sasrec evaluate, or name another "
            "run. For a baseline of a run, write RUN:BASELINE (for example RUN:popularity)."
        )


def _refuse_edited(folder: RunFolder) -> None:
    """Raise EvaluationError if the log or the settings of a run have changed since it was measured."""
    refuse_changed(folder.path, folder.log_file.name)
    if changed(folder.path, folder.config_file.name):
        raise EvaluationError(
            f"{folder.config_file} was edited after the run was measured, so it may not have the settings of the "
            "weights. Restore the old values; the log's line of the start has them."
        )


def _rows_of(file: Path, scorer: str, split: SplitName) -> pl.DataFrame:
    """Return `Scored.rows`. Raises: ValueError or PolarsError if the file is damaged."""
    of_scorer = (pl.col("scorer") == scorer) & (pl.col("split") == split)
    rows = parquet_of(file).filter(of_scorer).sort("event")
    rows = rows.select("user", "event", pl.col("full", "sampled").cast(pl.Float64))
    kinds = rows["event"].dtype.is_integer() and not rows["user"].dtype.is_nested()
    low = pl.concat([rows["full"], rows["sampled"]]).min()  # of ranks, or null if none was measured
    missing = rows.select("user", "event").null_count().sum_horizontal()[0]
    if not kinds or missing or (isinstance(low, float) and low < 1):
        raise ValueError("ranks are missing, out of range or of another kind")
    return rows


def _scorer_named(wanted: str, known: list[str], folder: Path) -> str:
    """The scorer with this name, or the only one whose name starts with it."""
    if wanted == BLEND:
        raise ConfigError(
            f"the ranks of a blend are not saved, so {folder}:{BLEND} cannot be compared here. To compare it with "
            f"the best baseline, use `sasrec evaluate {for_shell(f'{folder}:{BLEND}')}`."
        )
    matches = [wanted] if wanted in known else [scorer for scorer in known if scorer.startswith(wanted)]
    if not matches:
        raise ConfigError(f"{folder} has no scorer {wanted!r}. Choose one of: {', '.join(known)}")
    if len(matches) > 1:
        raise ConfigError(f"{folder}:{wanted} is ambiguous. Write {' or '.join(matches)}")
    return matches[0]


def _cautions(config: RunConfig, unended: bool) -> Iterator[str]:
    """`Scored.cautions` of a run. `unended`: its training has not finished."""
    if unended:
        yield (
            "has not finished training, so it is not grouped with other seeds; "
            "its metrics date from its last evaluation"
        )
    if config.model.interval_unit == "history":
        yield "uses interval_unit = history, so its unit of time depends on held-out times"


def _settings(config: RunConfig, folder: RunFolder) -> str:
    """The settings that affect the weights, as JSON, except the seed, the data and the split."""
    parts = dataclasses.asdict(config)
    training = {name: value for name, value in parts["training"].items() if name not in ("seed", *KEEP_WEIGHTS)}
    return json.dumps([parts["model"], parts["loss"], training, _began(folder)])


def _began(folder: RunFolder) -> list[str | None]:
    """What decides weights beside the settings, according to the log of a run.

    It is the checkpoint with the initial weights, and the names of an encoder and a loss function of one's own.
    """
    start: dict[str, Any] = {}
    for event in folder.events():
        start = event if event["event"] == "start" else start
    return [start.get(name) for name in ("start_from", "encoder", "loss_function")]


def check_alike(first: Scored, other: Scored, candidates: Candidates) -> None:
    """Raise EvaluationError if two runs were measured under different protocols or on different targets."""
    if differing := differences(first.protocol, other.protocol, candidates):
        raise EvaluationError(
            f"{first.name} and {other.name} were measured under different protocols, "
            f"which differ in {'; '.join(differing)}. "
            "Compare runs with the same data and split; if both are the same here, measure both runs again."
        )
    if not all(
        first.rows[key].cast(pl.String).equals(other.rows[key].cast(pl.String)) for key in ("user", "event")
    ):
        raise EvaluationError(
            f"{first.name} and {other.name} were measured on different targets. "
            "Measure both runs again with sasrec evaluate."
        )


def models_of(scored: list[Scored]) -> list[list[Scored]]:
    """Group runs by model, in the order in which the models first occur.

    A model's runs have equal settings and different seeds. If two runs have equal settings and seeds but rank the
    targets differently, their code, device, threads, processes or libraries differ, or time ended their training.
    All runs with these settings are then grouped by the version of the code that measured them. If such a group
    still has a seed twice, each run with these settings counts as a separate model.

    Raises: ConfigError if two runs have equal settings, seeds and target ranks. Remedy: name only one of them.
    """
    models: list[list[Scored]] = []
    for model in grouped(scored, lambda run: run.settings):
        if _seeds_differ(model):
            models.append(model)
            continue
        by_code = grouped(model, lambda run: run.protocol["sasrec"])
        models += by_code if all(map(_seeds_differ, by_code)) else [[run] for run in model]
    return models


def grouped(scored: list[Scored], key: Callable[[Scored], str]) -> list[list[Scored]]:
    """Group runs with equal keys, in the order in which the keys first occur."""
    groups: dict[str, list[Scored]] = {}
    for run in scored:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _seeds_differ(model: list[Scored]) -> bool:
    """Whether all these runs have different seeds.

    Raises: ConfigError if two runs have the same seed and the same target ranks, so they are the same result.
    Remedy: name only one of them.
    """
    first: dict[int | None, Scored] = {}
    for run in model:
        twin = first.setdefault(run.seed, run)
        if twin is not run and twin.rows.equals(run.rows):
            raise ConfigError(
                f"{twin.name} and {run.name} have the same settings, seed and ranks of all targets. "
                "They are the same result, so name only one of them."
            )
    return len(first) == len(model)


def ranks_of(rows: pl.DataFrame, candidates: Candidates) -> npt.NDArray[np.float64]:
    """(rows,) the targets' ranks among the full or the sampled candidates."""
    return rows[candidates].cast(pl.Float64).to_numpy()
