"""What a report says about repeating its runs: commands, settings, and versions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sasrec.checkpoint import store
from sasrec.config.settings import RunConfig
from sasrec.errors import SasrecError
from sasrec.runs.folder import RunFolder
from sasrec.studies.report.cells import Cell
from sasrec.untrusted import json_of, visible

_OWN = ("dataset", "device", "seed")


def commands(cells: Sequence[Cell], dataset: str) -> list[str]:
    """Return a command for each cell that trains its first run, with its other seeds in a comment.

    A command cannot get a class or a function, so for own code the line is a call in Python.
    """
    found = []
    for cell in cells:
        if own := own_code(cell.runs[0]):
            found.append(_call(cell, dataset, own))
            continue
        folder = RunFolder(cell.runs[0])
        config = folder.config()
        seeds = [RunFolder(run).config().training.seed for run in cell.runs]
        words = ["sasrec", "train", "--dataset", dataset, "--train_dir", str(folder.path), "--seed", str(seeds[0])]
        for name, (_, value) in RunConfig().differences(config).items():
            if name not in _OWN:
                words += _option(name, value)
        others = f"    # also with --seed {', '.join(map(str, seeds[1:]))}" if len(seeds) > 1 else ""
        found.append(shlex.join(words) + others)
    return found


def settings(cells: Sequence[Cell]) -> list[tuple[str, str, list[str]]]:
    """Return (name, default, value in each cell) of each setting that differs from its default in a cell."""
    changed = []
    for cell in cells:
        own = {name: ("", code) for name, code in own_code(cell.runs[0]).items()}
        changed.append(own | RunConfig().differences(RunFolder(cell.runs[0]).config()))
    defaults = {name: before for each in changed for name, (before, _) in each.items() if name not in _OWN}
    return [
        (name, _shown(default), [_shown(each.get(name, (None, default))[1]) for each in changed])
        for name, default in defaults.items()
    ]


def versions(cell: Cell, metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (what, which) of data, code and surroundings of the first run of a cell."""
    card = metrics["protocol"]
    found = [("data", f"{card['data']}, SHA-256 {card['data_hash']}"), ("code", f"sasrec {card['sasrec']}")]
    try:
        state = json_of(store.best(RunFolder(cell.runs[0]).checkpoints) / "state.json")
        where = state.get("surroundings", {})
    except (SasrecError, OSError, ValueError, AttributeError):
        where = {}
    found += [(str(name), str(value)) for name, value in where.items()] if isinstance(where, dict) else []
    return [*found, ("seeds", ", ".join(str(RunFolder(run).config().training.seed) for run in cell.runs))]


def own_code(run: Path) -> dict[str, str]:
    """Return argument of `sasrec.train` -> name of the own class or function that a run was trained with."""
    starts = [event for event in RunFolder(run).events() if event["event"] == "start"]
    names = {name: starts[-1].get(name) if starts else None for name in ("encoder", "loss_function")}
    return {name: visible(str(code)) for name, code in names.items() if code}


def _call(cell: Cell, dataset: str, own: dict[str, str]) -> str:
    """The call that trains the first run of a cell with own code; a comment says what to import."""
    config = RunFolder(cell.runs[0]).config()
    given = {name: value for name, (_, value) in RunConfig().differences(config).items() if name not in _OWN}
    words = [repr(dataset), repr(str(cell.runs[0]))]
    for name, code in own.items():
        short = code.rpartition(".")[2]
        words.append(f"{name}={short if short.isidentifier() else '...'}")  # log.jsonl may be somebody else's
    words += [f"{name}={value!r}" for name, value in (given | {"seed": config.training.seed}).items()]
    seeds = [str(RunFolder(run).config().training.seed) for run in cell.runs[1:]]
    others = f"; also with seed={', '.join(seeds)}" if seeds else ""
    return f"sasrec.train({', '.join(words)})    # in Python, with {' and '.join(own.values())}{others}"


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    return [f"--{name}", *([str(each) for each in value] if isinstance(value, list | tuple) else [str(value)])]


def _shown(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else "–" if value in (None, "") else str(value)
