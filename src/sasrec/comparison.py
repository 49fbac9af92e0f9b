"""Runs beside one another: is the difference between them more than chance?

Nothing is measured again: each run has kept the rank of every target (RUN/ranks.parquet) and the protocol card of
its figures (RUN/metrics.json).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from sasrec.config import NO_WEIGHT, RunConfig
from sasrec.data.splits import SplitName
from sasrec.errors import ConfigError, EvaluationError
from sasrec.evaluation.card import Candidates, differences
from sasrec.evaluation.metrics import METRICS, of_targets
from sasrec.evaluation.significance import Difference, holm, paired_bootstrap, seed_noise
from sasrec.trained import METRICS as METRICS_FILE
from sasrec.trained import RANKS, ending, saved_metrics
from sasrec.training.run_log import events_of

LEVEL = 0.05
_ROUNDING = 1e-12  # means over seeds of equal figures differ by less, which would count as users that differ


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


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

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


@dataclass(frozen=True, eq=False)
class _Scored:
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


def compare(
    runs: Sequence[str | Path],
    *,
    metric: str = "ndcg@10",
    candidates: Candidates = "full",
    split: SplitName = "test",
    resamples: int = 10_000,
) -> Comparison:
    """Compare each run with the first, on the same targets.

    `runs`: folders, or "RUN:BASELINE" for a baseline that was measured with the run, as in "runs/a:popularity";
    the beginning of its name will do. Runs whose settings differ in nothing but the seed are one side, of which
    the means over runs are compared. The interval (95 %) and p-value are of `paired_bootstrap` over users and,
    where a model has several runs, over seeds; docs/evaluation.md says how to read them.

    Raises: ConfigError for what cannot be asked, or too few resamples; EvaluationError naming the fields of the
    protocol card that differ, or a run without ranks.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}; the metrics are: {', '.join(METRICS)}")
    names = [str(run) for run in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            "name two runs or more to compare, each once (RUN, or RUN:BASELINE such as RUN:popularity)"
        )
    scored = [_scored(name, candidates, split) for name in names]
    for other in scored[1:]:
        _check_alike(scored[0], other, candidates)
    models, of = _models(scored), _Of(candidates, split, metric)
    # Of one model alone, the runs are what there is to compare.
    groups = models if len(models) > 1 else [[each] for each in scored]
    _check_resamples(resamples, len(groups) - 1)
    sides = [of.side(group) for group in groups]
    found = [_difference(groups[0], group, models, of, resamples) for group in groups[1:]]
    adjusted = holm([each.p_value for each in found]).tolist()
    against = tuple(
        _against(sides[0], side, difference, p, of, "p" if len(found) == 1 else "Holm's p")
        for side, difference, p in zip(sides[1:], found, adjusted, strict=True)
    )
    notes = (*_notes(models), *_on_intervals(against))
    return Comparison(metric, candidates, split, sides[0], against, notes, scored[0].protocol, resamples)


def _check_resamples(resamples: int, comparisons: int) -> None:
    """The smallest p-value there can be is 2 / (resamples + 1), which Holm multiplies by their number."""
    least = max(100, round(2 * comparisons / LEVEL))
    if resamples < least:
        raise ConfigError(
            f"resamples must be at least {least}, not {resamples}: with fewer, no difference could be told"
        )


def _scored(name: str, candidates: Candidates, split: SplitName) -> _Scored:
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
    found = of_targets(_ranks(rows, candidates), "mrr").sum() / max(len(rows), 1)
    if not abs(found - kept) <= 1e-9:  # nor if it is NaN
        raise EvaluationError(f"{folder}/{RANKS} and {METRICS_FILE} are not of one measurement: {again}")
    if scorer != "model":
        return _Scored(name, None, f"{folder.resolve()}:{scorer}", metrics["protocol"], rows)
    ended = ending(folder)
    if ended is not None and not ended.measured:
        raise EvaluationError(f"{folder} was trained on since it was measured: {again}")
    config = RunConfig.load(folder / "config.toml")
    unended = ended is None and any(event["event"] != "metrics" for event in events_of(folder))
    settings = _settings(config, folder) + (str(folder.resolve()) if unended else "")
    cautions = tuple(_cautions(config, unended))
    return _Scored(name, config.training.seed, settings, metrics["protocol"], rows, cautions)


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


def _check_alike(first: _Scored, other: _Scored, candidates: Candidates) -> None:
    if differing := differences(first.protocol, other.protocol, candidates):
        raise EvaluationError(
            f"{first.name} and {other.name} were not measured alike, and cannot be compared: "
            f"they differ in {'; '.join(differing)}"
        )
    if not all(
        first.rows[key].cast(pl.String).equals(other.rows[key].cast(pl.String)) for key in ("user", "event")
    ):
        raise EvaluationError(f"{first.name} and {other.name} were measured on other targets: measure both again")


def _models(scored: list[_Scored]) -> list[list[_Scored]]:
    """Runs of one model together, in order of the first of each.

    Of runs with equal settings and seed but unequal ranks, other code or another device made one: where the code
    that measured them does not say which runs belong together, each is a side of its own.
    """
    models: list[list[_Scored]] = []
    for model in _grouped(scored, lambda each: each.settings):
        if _seeds_differ(model):
            models.append(model)
            continue
        by_code = _grouped(model, lambda each: each.protocol["sasrec"])
        models += by_code if all(map(_seeds_differ, by_code)) else [[each] for each in model]
    return models


def _grouped(scored: list[_Scored], key: Callable[[_Scored], str]) -> list[list[_Scored]]:
    groups: dict[str, list[_Scored]] = {}
    for each in scored:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def _seeds_differ(model: list[_Scored]) -> bool:
    """Raises: ConfigError if two runs are one and the same."""
    first: dict[int | None, _Scored] = {}
    for each in model:
        twin = first.setdefault(each.seed, each)
        if twin is not each and twin.rows.equals(each.rows):
            raise ConfigError(
                f"{twin.name} and {each.name} have the same settings, seed and ranks: name one of them"
            )
    return len(first) == len(model)


def _ranks(rows: pl.DataFrame, candidates: Candidates) -> npt.NDArray[np.float64]:
    return rows[candidates].cast(pl.Float64).to_numpy()


@dataclass(frozen=True)
class _Of:
    """Which figure is looked at."""

    candidates: Candidates
    split: SplitName
    metric: str

    def __str__(self) -> str:
        """As sentences have it; full and test go without saying."""
        sampled = "sampled " if self.candidates == "sampled" else ""
        return f"{'validation ' if self.split == 'valid' else ''}{sampled}{self.metric.upper()}"

    def runs(self, group: list[_Scored], metric: str | None = None) -> npt.NDArray[np.float64]:
        """(runs, rows)"""
        return np.stack([of_targets(_ranks(each.rows, self.candidates), metric or self.metric) for each in group])

    def side(self, group: list[_Scored]) -> Side:
        shown = dict.fromkeys((self.metric, "ndcg@10", "hr@10"))
        name = group[0].name + (f" ({len(group)} seeds)" if len(group) > 1 else "")
        means = {metric: float(self.runs(group, metric).mean()) for metric in shown}
        return Side(name, tuple(each.name for each in group), means)


def _difference(
    first: list[_Scored], other: list[_Scored], models: list[list[_Scored]], of: _Of, resamples: int
) -> Difference:
    fitted = [side for side in (first, other) if side[0].seed is not None]
    others = [model for model in models if model not in fitted]
    means = [[of.runs(each).mean(1).tolist() for each in group] for group in (fitted, others)]
    users = first[0].rows["user"].rank("dense").to_numpy().astype(np.int64)
    differences = of.runs(other).mean(0) - of.runs(first).mean(0)
    differences[np.abs(differences) < _ROUNDING] = 0
    found = paired_bootstrap(differences, users, resamples, noise=seed_noise(*means) if fitted else None)
    # A metric lies between 0 and 1, which the noise of few seeds does not know.
    return dataclasses.replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def _against(first: Side, side: Side, difference: Difference, adjusted_p: float, of: _Of, p_is: str) -> Against:
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    said = f"no difference can be told between {side.name} and {first.name}"
    if adjusted_p <= LEVEL:
        verdict = "better" if difference.mean > 0 else "worse"
        said = f"{side.name} is {verdict} than {first.name}"
    own, theirs = (each.metrics[of.metric] for each in (side, first))
    figures = (
        f"{of} {number(own)} against {number(theirs)}, difference {number(difference.mean)} "
        f"(95 % interval {number(difference.low)} to {number(difference.high)}, {p_is} {p_value(adjusted_p)})"
    )
    return Against(side, difference, adjusted_p, verdict, f"{said}: {figures}")


def number(value: float) -> str:
    """Four decimals, without the zero before the point."""
    return f"{value:.4f}".replace("0.", ".", 1)


def p_value(p: float) -> str:
    """Three decimals, without the zero before the point."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _notes(models: list[list[_Scored]]) -> list[str]:
    fitted = [model for model in models if model[0].seed is not None]
    single, notes = [model[0].name for model in fitted if len(model) == 1], []
    if len(models) == 1:
        notes.append(
            "these runs differ in nothing but the seed, so their spread is the seed's: it is in the intervals"
        )
    elif single and len(single) == len(fitted):
        notes.append(
            "the intervals are of the users' chance alone: what another seed would give is not in them; "
            "train with other seeds too, and name those runs as well"
        )
    elif single:
        notes.append(
            f"one run does not say how far seeds lie apart, so for {', '.join(single)} that is taken from the "
            "models with several runs; where it is more, the intervals are too narrow: train with other seeds too"
        )
    for alike in _grouped([model[0] for model in fitted], lambda each: each.settings):
        if len(alike) > 1:
            notes.append(
                f"{', '.join(each.name for each in alike)} have equal settings: other code or another device made "
                "unequal weights of an equal seed, so they are compared as different models"
            )
    notes += [f"{each.name} {caution}" for model in fitted for each in model for caution in each.cautions]
    versions = sorted({each.protocol["sasrec"] for model in models for each in model})
    if len(versions) > 1:
        notes.append(f"measured by different versions of sasrec: {', '.join(versions)}")
    return notes


def _on_intervals(others: tuple[Against, ...]) -> list[str]:
    """Where a reader of the intervals would call a difference that Holm's p does not."""
    open_ = [each for each in others if each.verdict == "no difference" and len(others) > 1]
    if not any(each.difference.low > 0 or each.difference.high < 0 for each in open_):
        return []
    return [
        "an interval that leaves out 0 is not enough here: the intervals are each for itself, and of several "
        "comparisons one may leave it out by chance; Holm's p counts them"
    ]
