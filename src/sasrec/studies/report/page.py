"""Write a report on a study, or on several runs, as one HTML file that needs no network: `sasrec report`."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sasrec.errors import ConfigError, SasrecError, amount
from sasrec.files import write_whole
from sasrec.runs.folder import RunFolder
from sasrec.studies.report import repeat, tables
from sasrec.studies.report.cells import Cell, Found, find_runs
from sasrec.studies.report.plots import baselines_of, lines_of
from sasrec.studies.report.result_figures import (
    draw_best_so_far,
    draw_differences,
    draw_importance,
    draw_parallel,
    draw_slices,
)
from sasrec.studies.report.results import Results, headline, listed, results_of
from sasrec.studies.report.svg import drawing, inline_svg, new_figure
from sasrec.studies.report.training_figures import MOST_NAMED, Line, draw_against, draw_loss, draw_validation
from sasrec.studies.report.tried import Searched, searched
from sasrec.studies.sentences import number, protocol
from sasrec.studies.table_file import write_table
from sasrec.studies.verdict import cut_by
from sasrec.untrusted import visible

_PAGE = Path(__file__).with_name("template")
_MOST_COMMANDS = 12


def report(
    runs: Sequence[str | Path], output: str | Path, *, search: Searched | None = None, users: int = 5
) -> list[Path]:
    """Write a report on runs or a study, and beside it their table (NAME-table.md, .csv, .tex); return the files.

    The HTML file has everything in it: a headline, the comparison with the first cell, curves, costs, slices,
    examples for `users` users, the protocol, and how to repeat it. Runs that are not measured yet are named and
    left out of the table. Files that exist are replaced.

    `runs`: as for `plot`. `output`: a file that ends in .html. `search`: what a search has tried; by default
    that of the study.

    Raises: ConfigError if a path has no run, no run is measured, the ending is another one, or a package is
    missing. EvaluationError if the runs cannot be compared. Remedy: as the message says.
    """
    output = check_output(output)
    found = find_runs(runs)
    metric = found.plan.metric.rpartition(".")[2] if found.plan else "ndcg@10"
    if search is None and found.plan is not None and found.plan.search is not None:
        search = searched(found.plan.folder)
    results = results_of(_to_compare(found, search), metric)
    with drawing():
        content = _content(found, results, search, users)
        write_whole(output, _rendered(content))
    written = [output]
    if results.table is not None:
        for ending in (".md", ".csv", ".tex"):
            written.append(output.with_name(f"{output.stem}-table{ending}"))
            write_table(results.table, written[-1])
    return written


def _to_compare(found: Found, search: Searched | None) -> list[Cell]:
    """The cells of a report: those of the study and the best of its search, but not what was only tried."""
    if found.plan is None or search is None:
        return list(found.cells)
    named = {job.cell for job in found.plan.jobs} | set(search.best)
    return [cell for cell in found.cells if cell.name in named]


def check_output(output: str | Path) -> Path:
    """Return the path of a report. Raises: ConfigError for another ending. Remedy: use .html."""
    if (path := Path(output)).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"reports are written as .html, not as {path.suffix or 'a file without an ending'}. Use report.html."
        )
    return path


def _rendered(content: dict[str, Any]) -> str:
    """Return the page. Every text is escaped, except the figures, the styles and the script, which are ours."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def harmless(value: Any) -> Any:
        return visible(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value

    # The files of the page are read from the package, as UTF-8.
    page = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, finalize=harmless
    )
    style, script = ((_PAGE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    hashes = {"style_hash": _source(style), "script_hash": _source(script)}
    return page.get_template("report.html").render(
        content,
        style=Markup(style),
        script=Markup(script),
        **{name: Markup(each) for name, each in hashes.items()},
    )


def _source(text: str) -> str:
    """The hash of a style or script, as a Content Security Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _content(found: Found, results: Results, search: Searched | None, users: int) -> dict[str, Any]:
    lines = lines_of(results.cells)
    metrics = results.metrics[str(results.cells[0].runs[0])]
    card, part = metrics["protocol"], metrics["protocol"][results.split]
    lead, sentences = headline(results)
    count = sum(len(cell.runs) for cell in results.cells)
    where = "test" if results.split == "test" else "validation"
    targets = f"{amount(part['targets'], 'target')} of {amount(part['users'], 'user')}"
    title = found.plan.folder.name if found.plan else ", ".join(cell.name for cell in results.cells[:3])
    return {
        "title": title,
        "data": card["data"],
        "runs": f"{count} run{'s' * (count > 1)}",
        "headline": lead,
        "sentences": sentences,
        "where": f"{where}: {targets}, full catalogue",
        "table_note": tables.note_on(results),
        "notes": _notes(results),
        "card": list(protocol(card)),
        "cells": lines[:MOST_NAMED],
        **tables.table_of(results, lines),
        **_figures(results, lines),
        "search": _search(search, found),
        **_slices(results, lines),
        **_examples(results, users),
        **_repeat(found, results),
    }


def _notes(results: Results) -> list[str]:
    """What a reader of the table should know: the notes of the comparison, unfinished and unconverged runs."""
    notes = list(results.table.notes) if results.table else []
    if results.waiting:
        named = ", ".join(results.waiting[:6]) + (" and others" if len(results.waiting) > 6 else "")
        notes.append(f"not measured yet, so left out: {named}")
    for setting in ("num_epochs", "max_minutes"):
        cut = [cell.name for cell in results.cells if any(cut_by(run) == setting for run in cell.runs)]
        if cut:
            notes.append(
                f"validation was still improving when {setting} ended the training of {listed(cut)}; "
                "more training may improve the results"
            )
    return notes


def _svg(label: str, draw: Any, *arguments: Any, width: float = 4.9, height: float = 3.3) -> Any:
    from markupsafe import Markup

    figure, (axes,) = new_figure(width, height)
    draw(axes, *arguments)
    return Markup(inline_svg(figure, label))


def _figures(results: Results, lines: list[Line]) -> dict[str, Any]:
    """The figures of the table, of training, and of the costs."""
    curves, costs, differences = [], [], None
    if any(curve.losses for line in lines for curve in line.curves):
        curves = [
            _svg("training loss by epoch", draw_loss, lines),
            _svg("validation by epoch", draw_validation, lines, baselines_of(lines)),
        ]
    if len(results.cells) > 1:
        values = {str(run): results.value(run, results.metric) for cell in results.cells for run in cell.runs}
        name = results.metric.upper()
        costs = [
            _svg(f"{name} by {what}", draw_against, lines, values, what, name)
            for what in ("parameters", "minutes")
        ]
    if results.table is not None and len(results.table.others) <= 40:
        colours = {line.name: line.colour for line in lines}
        height = 1.1 + 0.32 * len(results.table.others)
        differences = _svg("differences", draw_differences, results.table, colours, width=5.6, height=height)
    return {"curves": curves, "costs": costs, "differences": differences}


def _search(search: Searched | None, found: Found) -> dict[str, Any] | None:
    """The section on a search; None without one, or before its first run has ended."""
    if search is None or not any(each.value is not None for each in search.tried):
        return None
    metric = (found.plan.metric if found.plan else "valid.full.ndcg@10").rpartition(".")[2].upper()
    states = [each.state for each in search.tried]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    best = max((each for each in search.tried if each.value is not None), key=lambda each: each.value or 0.0)
    chosen = ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in best.settings.items()
    )
    drawn = f"{amount(len(states), 'point')} {'was' if len(states) == 1 else 'were'} drawn"
    figures = [_svg("best so far", draw_best_so_far, search.tried, metric)]
    if search.importance:
        figures.append(_svg("importance of settings", draw_importance, search.importance))
    return {
        "sentence": f"{drawn} ({counts}). The best on validation is {best.run}: "
        f"{metric} {number(best.value or 0.0)} with {chosen}.",
        "importance": bool(search.importance),
        "figures": figures,
        "parallel": _svg("settings of each run", draw_parallel, search, metric, width=7.4, height=3.6),
    }


def _slices(results: Results, lines: list[Line]) -> dict[str, Any]:
    """The section on slices of the targets, from the runs that were measured with `--details`."""
    values, rows, baseline = tables.slices_of(results)
    everything = [run for cell in results.cells for run in cell.runs]
    wanted = [shlex.join(["sasrec", "evaluate", str(run), "--details"]) for run in everything[:_MOST_COMMANDS]]
    if not values:
        return {"slices": None, "details_command": "\n".join(wanted)}
    named = {line.name: line for line in lines if line.at < MOST_NAMED}
    known = {*named, baseline}
    measured = {side for each in values.values() for side in each}
    missing = [name for name in named if name not in measured]
    shown = {name: {side: value for side, value in each.items() if side in known} for name, each in values.items()}
    height = 1.0 + 0.3 * len(shown)
    figure = _svg("metric by slice", draw_slices, shown, rows, named, width=5.4, height=height)
    said = (
        "In brackets: the number of targets. History: events before the target. Head, middle, tail: popularity of "
        "the target, each with a third of the training events. Gap: time since the user's last event. Slices have "
        "no intervals, so they show where to look, not which model is better."
    )
    if missing:
        said += f" Not measured with sasrec evaluate RUN --details: {', '.join(missing)}."
    cells = [line for name, line in named.items() if name in measured]
    return {
        "slices": {"figure": figure, "note": said, "baseline": baseline, "cells": cells},
        "details_command": "",
    }


def _examples(results: Results, users: int) -> dict[str, Any]:
    """The section with lists for a few users, from the run of the best cell that is best on validation."""
    from sasrec.studies.report.examples import examples  # imports PyTorch

    def on_validation(run: Path) -> float:
        return float(results.metrics[str(run)][results.best_by]["full"]["ndcg@10"])

    run = max(results.best.runs, key=on_validation)
    if encoder := repeat.own_code(run).get("encoder"):
        return {
            "examples": [],
            "no_examples": f"Lists are not shown, because a report cannot load your class {encoder}.",
        }
    try:
        found = examples(run, users)
    except SasrecError as error:
        return {"examples": [], "no_examples": f"Examples cannot be shown: {error}"}
    shown = [
        {
            "user": one.user,
            "events": f"{one.events:,} item{'s' * (one.events != 1)} before",
            "rank": f"{one.rank:,g}",
            "history": [{"id": each.item_id, "title": each.title} for each in one.history],
            "target": {"id": one.target.item_id, "title": one.target.title},
            "list": [{"id": each.item_id, "title": each.title, "hit": each.hit} for each in one.list],
        }
        for one in found
    ]
    best = f"Ten best items by {results.best.name} ({run.name})"
    words = "test" if results.split == "test" else "validation"
    return {
        "examples": shown,
        "examples_note": f"{best} before the {words} item of each user. "
        "The users are evenly spaced by the rank of this item, from the best to the worst.",
        "no_examples": "This run has no data set, so it has no users.",
    }


def _repeat(found: Found, results: Results) -> dict[str, Any]:
    """The section on repeating the runs."""
    cells = results.cells[:MOST_NAMED]
    own = RunFolder(cells[0].runs[0]).config().data.dataset
    dataset = found.plan.dataset if found.plan else own or "DATA"
    text = found.study_file.read_text(encoding="utf-8", errors="replace") if found.study_file else ""
    return {
        "study_text": text,
        "study_name": found.study_file.name if found.study_file else "",
        "commands": [] if text else repeat.commands(cells, dataset),
        "settings": repeat.settings(cells),
        "settings_head": [cell.name for cell in cells],
        "versions": repeat.versions(results.best, results.metrics[str(results.best.runs[0])]),
    }
