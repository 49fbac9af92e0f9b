"""Find the runs of a study, or of several folders, and group those that differ only in the random seed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasrec.config.settings import KEEP_WEIGHTS, RunConfig
from sasrec.errors import ConfigError
from sasrec.runs.folder import RunFolder
from sasrec.studies.plan import Plan, kept_plan, read_plan

_STUDY = "study.json"
_NOT_SETTINGS = {"seed", *KEEP_WEIGHTS}


@dataclass(frozen=True)
class Cell:
    """Runs that differ only in the random seed."""

    name: str
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Found:
    """Runs, and the study that they belong to."""

    cells: tuple[Cell, ...]
    """In the order of the study, or of the arguments. The first is the base of comparisons."""
    plan: Plan | None = None
    """The study, if exactly one was named."""
    study_file: Path | None = None
    """Its TOML file, if that was named."""

    @property
    def runs(self) -> tuple[Path, ...]:
        """All runs."""
        return tuple(run for cell in self.cells for run in cell.runs)


def find_runs(paths: Sequence[str | Path]) -> Found:
    """Return the runs that have begun, of runs, of studies (a TOML file, or a folder), or of folders of runs.

    Raises: ConfigError if a path is neither, or has no run. Remedy: name the folder of a run or a study.
    """
    if isinstance(paths, str | Path):
        raise ConfigError(f"runs must be a list, such as ['runs/a'], not {paths!r}. Put it into a list.")
    if not paths:
        raise ConfigError("no run was named. Name at least one run or study, such as runs/a.")
    cells: list[Cell] = []
    plans: list[Plan] = []
    for path in map(Path, paths):
        if (path / "config.toml").exists():
            cells.append(Cell(str(path), (path,)))
            continue
        plan = _plan(path)
        plans += [plan] if plan else []
        folder = plan.folder if plan else path
        if not folder.is_dir():
            raise ConfigError(f"{path} does not exist, or has not begun. Name the folder of a run, or a study.")
        inside = list(_inside(folder, plan))
        if not inside:
            raise ConfigError(f"{path} has no runs. Name the folder of a run, or a study that has begun.")
        cells += inside
    file = Path(paths[0]) if len(paths) == 1 and Path(paths[0]).is_file() else None
    return Found(_named(_grouped(cells)), plans[0] if len(plans) == len(paths) == 1 else None, file)


def _plan(path: Path) -> Plan | None:
    if path.is_file():
        plan = read_plan(path)
        return kept_plan(plan.folder) if plan.has_begun() else plan
    return kept_plan(path) if (path / _STUDY).exists() else None


def _inside(folder: Path, plan: Plan | None) -> Iterable[Cell]:
    """Yield the runs of a folder: those of the plan by its names, then others, such as those of a search."""
    known = {folder / job.name: job.cell for job in plan.jobs} if plan else {}
    others = [path.parent for path in folder.rglob("config.toml") if not (path.parent / "items.parquet").exists()]
    for path in [*known, *sorted(set(others) - known.keys())]:
        if (path / "config.toml").exists():
            searched = (
                str(path.parent.relative_to(folder)) if plan and path.name.startswith("seed-") else str(path)
            )
            yield Cell(known.get(path, searched), (path,))


def _grouped(cells: list[Cell]) -> list[Cell]:
    """Join the runs that differ only in the seed."""
    groups: list[tuple[Cell, RunConfig, Any]] = []
    for cell in cells:
        folder = RunFolder(cell.runs[0])
        config, began = folder.config(), _began(folder)
        for at, (group, first, own) in enumerate(groups):
            same = cell.name == group.name or began == own
            if same and not first.differences(config).keys() - _NOT_SETTINGS:
                groups[at] = (Cell(group.name, (*group.runs, *cell.runs)), first, own)
                break
        else:
            groups.append((cell, config, began))
    return [group for group, *_ in groups]


def _began(folder: RunFolder) -> list[Any]:
    """What decides weights beside the settings: initial weights, and code of one's own."""
    starts = [event for event in folder.events() if event["event"] == "start"]
    return [starts[-1].get(name) for name in ("start_from", "encoder", "loss_function")] if starts else []


def _named(cells: list[Cell]) -> tuple[Cell, ...]:
    """Shorten names that are paths: without the folder that all have in common."""
    paths = [cell.name for cell in cells if cell.name == str(cell.runs[0])]
    common = os.path.commonpath([str(Path(path).parent) for path in paths]) if paths else ""
    short = [os.path.relpath(cell.name, common or ".") if cell.name in paths else cell.name for cell in cells]
    names = short if len(set(short)) == len(short) else [str(cell.runs[0]) for cell in cells]
    return tuple(Cell(name, cell.runs) for name, cell in zip(names, cells, strict=True))
