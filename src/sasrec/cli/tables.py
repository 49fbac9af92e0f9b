"""Print results as tables; recommended items as tab-separated text if stdout is not a terminal."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Column, Table

from sasrec.cli import sentences
from sasrec.cli.console import out, say, visible
from sasrec.evaluation.metrics import Metrics, measured_name
from sasrec.runs.folder import best_baseline
from sasrec.studies.sentences import number, p_value
from sasrec.studies.verdict import Verdict, difference_of, verdict_on

if TYPE_CHECKING:  # these import PyTorch
    from sasrec.ranking.recommender import Recommender
    from sasrec.studies.listing import Listed
    from sasrec.studies.reproduce import Outcome
    from sasrec.studies.scored import Comparison
    from sasrec.studies.study import Row

_COLUMNS = ("ndcg@10", "hr@10", "mrr@10", "ndcg@20", "hr@20")


def print_items(
    recommender: Recommender,
    items: list[tuple[str | int, float]],
    because: list[str | int] | None = None,
    *,
    figure: str = "score",
) -> None:
    """Print items: rank, item id, score and, if any item has a title, titles.

    `because`: for each item, the id of the item that is the reason. `figure`: what the number of an item is.
    """
    if out.quiet:
        return
    titles = [recommender.title(item) for item, _ in items]
    names = ["rank", "item", figure, *(["title"] if any(titles) else []), *(["because"] if because else [])]
    rows = [
        [str(rank), visible(str(item)), f"{score:.4f}", *([visible(title or "")] if any(titles) else [])]
        for rank, ((item, score), title) in enumerate(zip(items, titles, strict=True), start=1)
    ]
    for row, reason in zip(rows, because or (), strict=False):
        row.append(visible(recommender.title(reason) or str(reason)))
    if not out.is_terminal:  # for other programs: tabs, and no id is ever shortened
        sys.stdout.writelines("\t".join(row) + "\n" for row in [names, *rows])
        return
    table = Table(*(Column(name, overflow="fold") for name in names), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def print_run(run: Path, metrics: Metrics, *, sampled: bool = False, k: tuple[int, ...] = ()) -> str | None:
    """Print the metrics of a run and the verdict on it. Return the best baseline if the model is worse, else None.

    `k`: see `print_metrics`.
    """
    if out.quiet:  # only rank 0 prints, so the other ranks skip the verdict
        return None
    found = verdict_on(run)
    print_metrics(metrics, sampled=sampled, found=found, k=k)
    worse = found.comparison is not None and found.comparison.others[0].verdict == "worse"
    return found.baseline if worse else None


def print_metrics(
    metrics: Metrics, *, sampled: bool = False, found: Verdict | None = None, k: tuple[int, ...] = ()
) -> None:
    """Print what `evaluate` returned: model and baselines, protocol, details if measured; then the verdict.

    If the whole period was measured, its tables and its verdict come last.

    `k`: cut-offs whose NDCG and HR are the first columns of the tables.
    """
    columns = tuple(dict.fromkeys((*(f"{name}@{each}" for each in k for name in ("ndcg", "hr")), *_COLUMNS)))
    card, splits = metrics["protocol"], [name for name in ("valid", "test") if name in metrics]
    for split in splits:
        _heading(sentences.counted(split, card))
        out.print(_figures(metrics, split, "full", columns))
        if "rules" in card:
            _print_rules(metrics, split, columns)
    if found and found.intervals:
        say(out, sentences.intervals(found.intervals))
    say(out, sentences.sampled(metrics, splits[-1], shown=sampled))
    for split in splits if sampled else ():
        _heading(f"{split}, sampled")
        out.print(_figures(metrics, split, "sampled", columns))
    out.print()
    _print_card(card)
    if "details" in metrics:
        _print_details(metrics["details"], measured_name(metrics))
    out.print()
    periods = [split for split in splits if split in metrics.get("whole_period", {})]
    if periods and "test" in metrics:
        _heading(sentences.NEXT_ITEM)
    elif "rules" in card and "test" in metrics:
        _heading(sentences.WITHOUT_RULES)
    if found is not None:
        for sentence in sentences.verdict(found):
            say(out, sentence)
    elif "test" in metrics:
        for sentence in sentences.against_best_baseline(metrics, difference_of(metrics)):
            say(out, sentence)
    for split in periods:
        out.print()
        _print_period(metrics, split, k)


def _print_rules(metrics: dict[str, Any], split: str, columns: tuple[str, ...]) -> None:
    """Print what rules cost: metrics of the model without and with rules; then the best baseline with rules."""
    _heading(sentences.with_rules(split, metrics))
    table = _table("without rules", "with rules", "difference")
    for column in columns:
        without, with_rules = (metrics[split][each][column] for each in ("full", "with_rules"))
        table.add_row(
            f"{measured_name(metrics)} {column.upper()}",
            number(without),
            number(with_rules),
            number(with_rules - without),
        )
    out.print(table)
    say(out, sentences.best_with_rules(metrics, split))


def _print_period(metrics: dict[str, Any], split: str, k: tuple[int, ...]) -> None:
    """Print the metrics on the whole period of a split: model and baselines, then the comparison."""
    found = metrics["whole_period"][split]
    _heading(sentences.period(split, found))
    columns = tuple(
        f"{name}@{each}" for each in k or (10,) for name in ("recall", "precision", "map", "ndcg", "hr")
    )
    out.print(_figures(metrics, split, "whole_period", columns))
    for sentence in sentences.period_difference(metrics, split) if "difference" in found else ():
        say(out, sentence)


def _heading(words: str) -> None:
    out.print(escape(words), style="bold")


def _figures(metrics: dict[str, Any], split: str, candidates: str, columns: tuple[str, ...]) -> Table:
    """The metrics `columns` of the model and of each baseline on a split, as a table.

    On a narrow terminal, the table has only the metrics that fit, and at least the first.
    """
    rows = {measured_name(metrics): metrics, **metrics["baselines"]}
    fitting = max(1, (out.width - max(map(len, rows))) // (2 + max(map(len, columns))))
    columns = columns[:fitting]
    table = _table(*(column.upper() for column in columns))
    for name, measured in rows.items():
        values = measured[split][candidates]
        table.add_row(name, *(number(values[column]) for column in columns))
    return table


def _table(*columns: str, first: str = "") -> Table:
    numbers = (Column(name, justify="right", no_wrap=True) for name in columns)
    return Table(Column(first, overflow="fold"), *numbers, box=None, pad_edge=False)


def print_comparison(found: Comparison) -> None:
    """Print the result of `compare`: a table, its protocol, a sentence for each side except the first, notes."""
    table = _comparison(found, differences=True)
    natural = out.measure(table, options=out.options.update(width=10_000)).maximum
    if natural > out.width:  # the sentences have the differences too
        table = _comparison(found, differences=False)
    out.print(table)
    say(out, sentences.measured_how(found))
    for each in found.others:
        say(out, each.sentence)
    for note in found.notes:
        say(out, f"note: {note}")


def _comparison(found: Comparison, *, differences: bool) -> Table:
    figures = list(found.first.metrics)
    p_is = "Holm's p" if len(found.others) > 1 else "p"
    table = _table(*(name.upper() for name in figures), *(["difference", "95 % interval", p_is] * differences))
    table.add_row(escape(found.first.name), *(number(found.first.metrics[name]) for name in figures))
    for each in found.others:
        change = each.difference
        interval = f"{number(change.low)} to {number(change.high)}"
        table.add_row(
            escape(each.side.name),
            *(number(each.side.metrics[name]) for name in figures),
            *([number(change.mean), interval, p_value(each.adjusted_p)] * differences),
        )
    return table


def _print_card(card: dict[str, Any]) -> None:
    lines = list(sentences.protocol(card))
    if not out.is_terminal:
        for label, words in lines:
            say(out, f"{label}: {words}")
        return
    grid = Table.grid(Column(no_wrap=True), Column(), padding=(0, 2))
    for label, words in lines:
        grid.add_row(label, escape(words))
    out.print(grid)


def _print_details(details: dict[str, Any], own: str) -> None:
    out.print()
    _heading(sentences.LISTS_ARE)
    table = _table(*details["lists"])
    for measure in details["lists"][own]:
        values = [measured[measure] for measured in details["lists"].values()]
        table.add_row(measure, *("" if value is None else f"{value:,.3f}" for value in values))
    out.print(table)
    best = details["best_baseline"]
    _heading(sentences.SLICES_ARE)
    table = _table("rows", "from", "to", own, best)
    for name, part in details["slices"].items():
        edges = [f"{part[edge]:,.{0 if 'gaps' not in name else 2}f}" for edge in ("from", "to")]
        table.add_row(name, f"{part['rows']:,}", *edges, *(number(part[each]["ndcg@10"]) for each in (own, best)))
    out.print(table)
    say(out, sentences.FROM_AND_TO)


def print_runs(rows: list[Listed], folder: Path, metric: str) -> None:
    """Print the result of `list_runs` as a table. `folder`: where the runs are."""
    if not rows:
        say(out, f"{folder} has no runs. Train one with sasrec train.")
        return
    names = ("run", metric.upper(), "best baseline", "epoch", "time", "seed", "settings")
    justify = {metric.upper(): "right", "epoch": "right", "time": "right", "seed": "right"}
    table = Table(*(Column(name, justify=justify.get(name, "left"), overflow="fold") for name in names), box=None)  # type: ignore[arg-type]
    for row in rows:
        shown = str(row.path.relative_to(folder)) if row.path != folder else str(folder)
        value = row.state if row.value is None else number(row.value)
        baseline = "" if row.baseline is None else f"{row.baseline[0]} {number(row.baseline[1])}"
        time = "" if row.seconds is None else _duration(row.seconds)
        epoch, seed = ("" if each is None else str(each) for each in (row.best_epoch, row.seed))
        what = row.settings if row.value is None or row.state == "measured" else f"({row.state}) {row.settings}"
        table.add_row(*(escape(visible(each)) for each in (shown, value, baseline, epoch, time, seed, what)))
    out.print(table)
    for row in rows:
        if row.note:
            say(out, f"{row.path}: {row.note}")


def _duration(seconds: float) -> str:
    """Minutes with one decimal; below a minute, seconds."""
    return f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{math.ceil(seconds)} s"


def study_table(rows: list[Row]) -> Table:
    """Return a table of how far each run of a study is."""
    right = [Column(name, justify="right") for name in ("epoch", "validation", "s/epoch", "left")]
    searches = any(row.entry.point is not None for row in rows)
    table = Table("run", "state", *right, "settings" if searches else "", box=None)
    for row in rows:
        entry = row.entry
        shown: list[str] = [entry.run, entry.state, "", "", "", "", entry.reason]
        if entry.state == "running":
            shown[1] = "running" if row.writer else "interrupted"
            shown[2] = f"{row.epoch} of {row.epochs}"
            shown[3] = "" if row.validation is None else number(row.validation)
            shown[4] = "" if row.rate is None else f"{row.rate:,.1f}"
            shown[5] = "" if row.left is None or not row.writer else _duration(row.left)
        elif entry.value is not None:
            shown[3] = number(entry.value)
        if entry.point is not None:
            shown[6] = entry.reason or " ".join(
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                for name, value in entry.point.items()
            )
        table.add_row(*(escape(visible(each)) for each in shown))
    return table


def print_outcome(outcome: Outcome) -> None:
    """Print a table of the metrics that the recipe names, and sentences about the result.

    The table shows the mean and standard deviation over the seeds, the band (the accepted range of the mean), and
    the best baseline of the first seed. If the recipe names no metric, the table shows NDCG@10 and HR@10 on test.
    """
    expected, published = outcome.recipe.expected, outcome.recipe.published
    stated = [*expected.bands, *(each.metric for each in published)] or ["test.full.ndcg@10", "test.full.hr@10"]
    table = Table("metric", "mean", "st. dev.", "expected", "best baseline", box=None, pad_edge=False)
    for metric in dict.fromkeys(stated):
        values = outcome.values(metric)
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "one seed"
        low_high = expected.bands.get(metric)
        band = f"{low_high[0]:g} to {low_high[1]:g}" if low_high else ""
        name, value = best_baseline(outcome.metrics[0], metric)
        table.add_row(metric, f"{statistics.mean(values):.4f}", spread, band, f"{name} {value:.4f}")
    out.print(table)
    for sentence in sentences.reproduced(outcome, statistics.mean(each.seconds for each in outcome.endings)):
        say(out, sentence)
