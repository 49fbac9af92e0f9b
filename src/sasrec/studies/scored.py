"""One scorer of one measured run, read back from its folder."""

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

from sasrec.config.settings import NO_WEIGHT, RunConfig
from sasrec.data.splits import SplitName
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation.card import Candidates, differences
from sasrec.evaluation.metrics import of_targets
from sasrec.evaluation.significance import Difference
from sasrec.runs.folder import METRICS as METRICS_FILE
from sasrec.runs.folder import RANKS, ending, saved_metrics
from sasrec.runtime.log import events_of

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Scored:
    """One scorer of one run."""

    name: str
    seed: int | None
    """None for a baseline, which has none."""
    settings: str
    """Equal for runs of one model, unless other code or another device made them."""
    protocol: dict[str, Any]
    rows: pl.DataFrame
    """In order of event."""
    cautions: tuple[str, ...] = ()
    """What a reader should know of this run."""


@dataclass(frozen=True)
class Side:
    """A model, or a baseline, among those compared."""

    name: str
    runs: tuple[str, ...]
    """Its runs, as they were named: more than one where they differ in nothing but the seed."""
    metrics: dict[str, float]
    """Means over targets, and over runs."""


@dataclass(frozen=True)
class Against:
    """A side against the first one."""

    side: Side
    difference: Difference
    """Of the metric: this side minus the first."""
    adjusted_p: float
    """The p-value, adjusted for the number of comparisons (Holm)."""
    verdict: Literal["better", "worse", "no difference"]
    """By `adjusted_p` and a level of 5 %."""
    sentence: str


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` found. In a notebook it shows as its table and sentences."""

    metric: str
    candidates: Candidates
    split: SplitName
    first: Side
    others: tuple[Against, ...]
    notes: tuple[str, ...]
    """What to bear in mind when reading the figures."""
    protocol: dict[str, Any]
    """The first run's card (evaluation/card.py); the others agree with it in what must."""
    resamples: int

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
    """Which figure is looked at."""

    candidates: Candidates
    split: SplitName
    metric: str

    def __str__(self) -> str:
        """As sentences have it; full and test go without saying."""
        sampled = "sampled " if self.candidates == "sampled" else ""
        return f"{'validation ' if self.split == 'valid' else ''}{sampled}{self.metric.upper()}"

    def runs(self, group: list[Scored], metric: str | None = None) -> npt.NDArray[np.float64]:
        """(runs, rows)"""
        return np.stack(
            [of_targets(ranks_of(each.rows, self.candidates), metric or self.metric) for each in group]
        )

    def side(self, group: list[Scored]) -> Side:
        """The means of a group of runs."""
        shown = dict.fromkeys((self.metric, "ndcg@10", "hr@10"))
        name = group[0].name + (f" ({len(group)} seeds)" if len(group) > 1 else "")
        means = {metric: float(self.runs(group, metric).mean()) for metric in shown}
        return Side(name, tuple(each.name for each in group), means)


def scored_run(name: str, candidates: Candidates, split: SplitName) -> Scored:
    """Read the ranks of a run's model, or of one of its baselines.

    Raises: ConfigError for a run or baseline that does not exist; EvaluationError for missing or damaged ranks.
    """
    folder, asked = Path(name), "model"
    if not (folder / METRICS_FILE).exists() and ":" in name:
        run, _, asked = name.rpartition(":")
        folder = Path(run)
    if not (folder / METRICS_FILE).exists():
        raise ConfigError(f"{folder} has no {METRICS_FILE}: name a run (`sasrec train` made it), or RUN:BASELINE")
    again = f"measure it again: sasrec evaluate {folder}"
    if not (folder / RANKS).exists():
        raise EvaluationError(f"{folder} was measured by a version that kept no ranks: {again}")
    metrics = saved_metrics(folder)
    scorer = _scorer_named(asked, ["model", *metrics["baselines"]], folder)
    try:
        of_scorer = (pl.col("scorer") == scorer) & (pl.col("split") == split)
        ranks = pl.col("full", "sampled").cast(pl.Float64)
        rows = pl.read_parquet(folder / RANKS).filter(of_scorer).sort("event").select("user", "event", ranks)
    except pl.exceptions.PolarsError:
        raise EvaluationError(f"{folder}/{RANKS} is damaged: {again}") from None
    if split not in metrics:
        raise EvaluationError(
            f"{folder} has no {split} targets (its protocol card says why): take the other --split"
        )
    kept = (metrics if scorer == "model" else metrics["baselines"][scorer])[split][candidates]["mrr"]
    found = of_targets(ranks_of(rows, candidates), "mrr").sum() / max(len(rows), 1)
    if not abs(found - kept) <= 1e-9:  # nor if it is NaN
        raise EvaluationError(f"{folder}/{RANKS} and {METRICS_FILE} are not of one measurement: {again}")
    if scorer != "model":
        return Scored(name, None, f"{folder.resolve()}:{scorer}", metrics["protocol"], rows)
    ended = ending(folder)
    if ended is not None and not ended.measured:
        raise EvaluationError(f"{folder} was trained on since it was measured: {again}")
    config = RunConfig.load(folder / "config.toml")
    unended = ended is None and any(event["event"] != "metrics" for event in events_of(folder))
    settings = _settings(config, folder) + (str(folder.resolve()) if unended else "")
    cautions = tuple(_cautions(config, unended))
    return Scored(name, config.training.seed, settings, metrics["protocol"], rows, cautions)


def _scorer_named(asked: str, known: list[str], folder: Path) -> str:
    """The scorer of that name, or the only one that begins so."""
    found = [asked] if asked in known else [scorer for scorer in known if scorer.startswith(asked)]
    if not found:
        raise ConfigError(f"{folder} has no scorer {asked!r}; it has: {', '.join(known)}")
    if len(found) > 1:
        raise ConfigError(f"{folder}:{asked} is ambiguous: {' or '.join(found)}?")
    return found[0]


def _cautions(config: RunConfig, unended: bool) -> Iterator[str]:
    if unended:
        yield "has not ended, so it is no seed of others; its figures are of when it was measured"
    if config.model.interval_unit == "history":
        yield "takes the unit of intervals from whole histories, so it knows something of held-out times"


def _settings(config: RunConfig, folder: Path) -> str:
    """What decides the weights, but for the seed, and for data and split, which the card has."""
    parts = dataclasses.asdict(config)
    training = {name: value for name, value in parts["training"].items() if name not in ("seed", *NO_WEIGHT)}
    return json.dumps([parts["model"], parts["loss"], training, _started_from(folder)])


def _started_from(folder: Path) -> str | None:
    """The checkpoint whose weights a run began with, if its log names one."""
    found = None
    for event in events_of(folder):
        found = event.get("start_from") if event["event"] == "start" else found
    return found


def check_alike(first: Scored, other: Scored, candidates: Candidates) -> None:
    """Raises: EvaluationError if two runs were measured under different protocols or on different targets."""
    if differing := differences(first.protocol, other.protocol, candidates):
        raise EvaluationError(
            f"{first.name} and {other.name} were not measured alike, and cannot be compared: "
            f"they differ in {'; '.join(differing)}"
        )
    if not all(
        first.rows[key].cast(pl.String).equals(other.rows[key].cast(pl.String)) for key in ("user", "event")
    ):
        raise EvaluationError(f"{first.name} and {other.name} were measured on other targets: measure both again")


def models_of(scored: list[Scored]) -> list[list[Scored]]:
    """Runs of one model together, in order of the first of each.

    Of runs with equal settings and seed but unequal ranks, other code or another device made one: where the code
    that measured them does not say which runs belong together, each is a side of its own.
    """
    models: list[list[Scored]] = []
    for model in grouped(scored, lambda each: each.settings):
        if _seeds_differ(model):
            models.append(model)
            continue
        by_code = grouped(model, lambda each: each.protocol["sasrec"])
        models += by_code if all(map(_seeds_differ, by_code)) else [[each] for each in model]
    return models


def grouped(scored: list[Scored], key: Callable[[Scored], str]) -> list[list[Scored]]:
    """The runs with equal keys, in order of the first of each."""
    groups: dict[str, list[Scored]] = {}
    for each in scored:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def _seeds_differ(model: list[Scored]) -> bool:
    """Raises: ConfigError if two runs are one and the same."""
    first: dict[int | None, Scored] = {}
    for each in model:
        twin = first.setdefault(each.seed, each)
        if twin is not each and twin.rows.equals(each.rows):
            raise ConfigError(
                f"{twin.name} and {each.name} have the same settings, seed and ranks: name one of them"
            )
    return len(first) == len(model)


def ranks_of(rows: pl.DataFrame, candidates: Candidates) -> npt.NDArray[np.float64]:
    """(rows,) the ranks of one kind of candidates."""
    return rows[candidates].cast(pl.Float64).to_numpy()
