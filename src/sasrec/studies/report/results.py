"""What a report says about results: one comparison with the base, one with the best cell, one with a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sasrec.config.choices import SplitName
from sasrec.errors import ConfigError
from sasrec.runs.folder import RunFolder, best_baseline, metric_of
from sasrec.studies.compare import compare
from sasrec.studies.report.cells import Cell
from sasrec.studies.scored import Against, Comparison, Side
from sasrec.studies.sentences import number, p_value

_SHOWN = ("ndcg@10", "hr@10")
_RESAMPLES = 10_000
_TURNED = {"better": "worse", "worse": "better", "no difference": "no difference"}
_A_COMPARISON = 50  # resamples that each comparison needs at least, so that its p can be significant after Holm


@dataclass(frozen=True)
class Results:
    """Comparisons of the measured cells."""

    cells: tuple[Cell, ...]
    """The cells with measured runs, and these runs only."""
    waiting: tuple[str, ...]
    """Runs that are not measured yet."""
    metric: str
    split: SplitName
    table: Comparison | None
    """Each cell with the first one; of a single cell, each baseline with it. None with fewer than two users."""
    best: Cell
    """The cell with the best mean on validation; without validation targets, on test."""
    best_by: SplitName
    from_best: Comparison | None
    """Each cell with the best one; None for a single cell."""
    baseline: str
    """The best baseline, by the metric."""
    from_baseline: Comparison | None
    """The best cell with the best baseline."""
    metrics: dict[str, dict[str, Any]]
    """The path of a run -> its metrics.json."""

    def value(self, run: Path, name: str) -> float:
        """Return a metric of a run, such as "ndcg@10", on the split of the report."""
        return metric_of(self.metrics[str(run)], f"{self.split}.full.{name}")

    def side(self, cell: Cell) -> tuple[float, float | None]:
        """Return the mean of the metric of a cell, and its standard deviation over seeds."""
        values = [self.value(run, self.metric) for run in cell.runs]
        return mean(values), stdev(values) if len(values) > 1 else None


def results_of(cells: Sequence[Cell], metric: str) -> Results:
    """Compare the measured runs of the cells.

    Raises: ConfigError if no run is measured. Remedy: finish one. EvaluationError if runs were measured under
    different protocols. Remedy: as the message says.
    """
    measured, waiting = [], []
    for cell in cells:
        runs = tuple(run for run in cell.runs if RunFolder(run).metrics_file.exists())
        waiting += [f"{cell.name} ({run.name})" for run in cell.runs if run not in runs]
        measured += [Cell(cell.name, runs)] if runs else []
    if not measured:
        raise ConfigError(
            "no run is measured yet, so a report has nothing to say. Finish one, or use `sasrec plot`."
        )
    metrics = {str(run): dict(RunFolder(run).metrics()) for cell in measured for run in cell.runs}
    first = metrics[str(measured[0].runs[0])]
    split: SplitName = "test" if "test" in first else "valid"
    best_by: SplitName = "valid" if "valid" in first else "test"

    def on(cell: Cell) -> float:
        return mean(metric_of(metrics[str(run)], f"{best_by}.full.{metric}") for run in cell.runs)

    best = max(measured, key=on)
    baseline = best_baseline(first, f"{split}.full.{metric}")[0]
    several = first["protocol"][split]["users"] > 1
    options: dict[str, Any] = {"metric": metric, "split": split, "show": (metric, *_SHOWN)}
    options["resamples"] = max(_RESAMPLES, _A_COMPARISON * len(measured))
    table = from_best = from_baseline = None
    if several:
        of = f"{best.runs[0]}:{baseline}"
        labels = {str(run): best.name for run in best.runs} | {of: baseline}
        from_baseline = compare([of, *map(str, best.runs)], labels=labels, **options)
        if len(measured) == 1:
            names = {f"{best.runs[0]}:{name}": name for name in first["baselines"]}
            labels |= names
            table = compare([*map(str, best.runs), *names], labels=labels, **options)
        else:
            table = _compared(measured, options)
            ordered = [best, *(cell for cell in measured if cell is not best)]
            from_best = table if best is measured[0] else _compared(ordered, options)
    return Results(
        tuple(measured), tuple(waiting), metric, split, table, best, best_by, from_best, baseline, from_baseline,
        metrics,
    )  # fmt: skip


def _compared(cells: Sequence[Cell], options: dict[str, Any]) -> Comparison:
    labels = {str(run): cell.name for cell in cells for run in cell.runs}
    return compare(list(labels), labels=labels, **options)


def headline(found: Results) -> tuple[str, list[str]]:
    """Return the result in one sentence, and sentences that give its figures and say how sure it is."""
    name, where = found.best.name, "test" if found.split == "test" else "validation"
    figure = f"{found.metric.upper()} {_mean(found.side(found.best))} on {where}"
    if found.table is None:
        return f"{name}: {figure}.", ["One user says nothing about others, so nothing was tested."]
    if found.from_best is None:
        return _against_baseline(found, name)[0], [_against_baseline(found, name)[1]]
    base = found.cells[0]
    by = "validation" if found.best_by == "valid" else "test"
    chosen = f"{name} is best on {by}"
    if found.best is base:
        return f"{name}, the base, is best on {by}: {figure}.", [
            *_separated(found),
            " ".join(_against_baseline(found, name)),
        ]
    against = _of(found.table, name)
    lead = {
        "better": f"{chosen}: {figure}, {number(abs(against.difference.mean))} above {base.name}.",
        "worse": f"{chosen}, but on {where} it is worse than {base.name}.",
        "no difference": f"{chosen}, but on {where} no difference from {base.name} was shown.",
    }[against.verdict]
    figures = (
        f"{found.metric.upper()} {_mean(found.side(found.best))} against {_mean(found.side(base))}: "
        f"{_difference(against, found.table)}."
    )
    return lead, [figures, *_separated(found), " ".join(_against_baseline(found, name))]


def _mean(side: tuple[float, float | None]) -> str:
    return number(side[0]) + ("" if side[1] is None else f" ± {number(side[1])}")


def _separated(found: Results) -> list[str]:
    """Sentences on whether the best cell is better than the others."""
    assert found.from_best is not None
    assert found.table is not None
    by: dict[str, list[str]] = {"better": [], "worse": [], "no difference": []}
    for against in found.from_best.others:
        name, verdict = against.side.runs[0], str(against.verdict)
        if name == found.cells[0].name:  # from the table, because a bootstrap the other way round may just differ
            verdict = _TURNED[_of(found.table, found.best.name).verdict]
        by[verdict].append(name)
    seeds = sorted({len(cell.runs) for cell in found.cells})
    how = (
        "one seed each"
        if seeds == [1]
        else f"{'–'.join(map(str, (seeds[0], seeds[-1])[: len(seeds)]))} seeds each"
    )
    clauses = []
    if by["worse"]:
        clauses.append(f"is shown to be better than {listed(by['worse'])}")
    if by["no difference"]:
        clauses.append(f"cannot be separated from {listed(by['no difference'])}")
    said = [f"With {how}, {found.best.name} {', but '.join(clauses)}."] if clauses else []
    if by["better"]:
        said.append(f"On {found.split}, it is worse than {listed(by['better'])}: the choice on validation misled.")
    return said


def _against_baseline(found: Results, name: str) -> tuple[str, str]:
    """Sentences on the best cell and the best baseline: the verdict, and its figures."""
    assert found.from_baseline is not None
    (against,) = found.from_baseline.others
    verdict = {
        "better": f"{name} is better than the best baseline, {found.baseline}.",
        "worse": f"{name} is worse than the best baseline, {found.baseline}.",
        "no difference": f"No difference was shown between {name} and the best baseline, {found.baseline}.",
    }[against.verdict]
    value = number(found.from_baseline.first.metrics[found.metric])
    own = _mean(found.side(found.best))
    change = _difference(against, found.from_baseline)
    return verdict, f"{found.metric.upper()} {own} against {value}: {change}."


def _difference(against: Against, table: Comparison) -> str:
    change, p = against.difference, p_value(against.adjusted_p)
    p_is = "Holm's p" if len(table.others) > 1 else "p"
    p = p if p.startswith("<") else f"= {p}"
    interval = f"95 % interval {number(change.low)} to {number(change.high)}"
    return f"difference {number(change.mean)} ({interval}, {p_is} {p})"


def _of(table: Comparison, name: str) -> Against:
    return next(against for against in table.others if against.side.runs[0] == name)


def listed(names: Sequence[str]) -> str:
    """Join names: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def sides_of(table: Comparison) -> list[tuple[Side, Against | None]]:
    """Return the sides of a comparison in order, each with its comparison with the first; None for the first."""
    return [(table.first, None), *((against.side, against) for against in table.others)]
