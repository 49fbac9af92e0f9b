"""Read a study: a TOML file with the runs to train, as cells or a grid of settings, each with several seeds.

dataset = "ml-100k"                 # as for `sasrec train`
seeds = [0, 1]
recipe = "recipes/ml-100k.toml"     # optional: settings of all runs
metric = "valid.full.ndcg@10"       # optional; this is the default
train_dir = "runs/ablation"         # optional; the default is runs/NAME.toml without .toml

[settings]                          # optional: settings of all runs, over the recipe
num_epochs = 20

[cells.plain]                       # optional: settings of some runs, by name
[cells.streams]
mhc = true

[grid]                              # optional: every combination, in every cell
num_blocks = [2, 4]
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sasrec.config.recipe import METRIC_NAME
from sasrec.config.settings import RunConfig
from sasrec.config.toml_file import tables_of
from sasrec.errors import ConfigError
from sasrec.files import write_whole
from sasrec.untrusted import in_words, json_of

_KEPT = "study.json"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_MOST_RUNS = 10_000


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    dataset: str
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)] = [0]
    recipe: str | None = None
    metric: Annotated[str, Field(pattern=METRIC_NAME)] = "valid.full.ndcg@10"
    train_dir: str | None = None
    settings: dict[str, Any] = {}
    cells: dict[Annotated[str, Field(pattern=_NAME)], dict[str, Any]] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}


@dataclass(frozen=True)
class Job:
    """One run of a study: a cell with one seed."""

    cell: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """CELL/seed-N: also the folder of the run in the folder of the study."""
        return f"{self.cell}/seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What a study trains."""

    folder: Path
    """The folder of the study."""
    dataset: str
    metric: str
    """The metric that decides, such as "valid.full.ndcg@10"."""
    jobs: tuple[Job, ...]
    """All runs: seeds within cells, so that a part of the study has whole cells."""

    def keep(self, *, add: bool = False) -> None:
        """Write the plan to the folder of the study, or compare it with the one there.

        `add`: there may be more runs than before.

        Raises: ConfigError if a run has changed since the study began, naming what differs. Remedy: undo the
        change, name another `train_dir`, or use `add` for new runs.
        """
        now = {job.name: _flat(job.config) for job in self.jobs}
        if (self.folder / _KEPT).exists():
            before = {job.name: _flat(job.config) for job in kept_plan(self.folder).jobs}
            for name, settings in before.items():
                if settings != now.get(name):
                    was = _apart(settings, now[name]) if name in now else "it is gone"
                    raise ConfigError(
                        f"the study in {self.folder} has begun with another {name}: {was}. Undo the change, or "
                        "name another train_dir."
                    )
            if (new := [name for name in now if name not in before]) and not add:
                raise ConfigError(
                    f"the study in {self.folder} has begun without {', '.join(new[:3])}. Add new runs with "
                    "`sasrec study add`, or name another train_dir."
                )
        jobs = [{"cell": job.cell, "seed": job.seed, "settings": _flat(job.config)} for job in self.jobs]
        content = {"dataset": self.dataset, "metric": self.metric, "jobs": jobs}
        write_whole(self.folder / _KEPT, json.dumps(content, indent=1))


def kept_plan(folder: Path) -> Plan:
    """Return the plan of a study that has begun, from its folder.

    Raises: ConfigError if the folder has no study, or a damaged one. Remedy: name the TOML file of the study.
    """
    try:
        content = json_of(folder / _KEPT)
        jobs = [
            Job(str(each["cell"]), int(each["seed"]), RunConfig().replace(**each["settings"]))
            for each in content["jobs"]
        ]
        return Plan(folder, str(content["dataset"]), str(content["metric"]), tuple(jobs))
    except FileNotFoundError:
        raise ConfigError(f"{folder} is not a study. Name the TOML file of a study, or its folder.") from None
    except (OSError, ValueError, TypeError, LookupError, ConfigError) as error:
        raise ConfigError(f"{folder / _KEPT} is damaged ({error}). Name the TOML file of the study.") from None


def _flat(config: RunConfig) -> dict[str, Any]:
    return {name: value for part in dataclasses.asdict(config).values() for name, value in part.items()}


def _apart(before: dict[str, Any], now: dict[str, Any]) -> str:
    differing = [name for name in now if before.get(name) != now[name]]
    return ", ".join(f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in differing)


def read_plan(path: str | Path) -> Plan:
    """Read a study and check all its runs.

    Raises: ConfigError naming the line, if the file has an unknown entry, or settings with which no run can be
    trained. Remedy: correct that line.
    """
    path = Path(path)
    tables = tables_of(path)
    text = path.read_text(encoding="utf-8")
    try:
        file = _File.model_validate(tables)
    except ValidationError as error:
        entry = error.errors(include_url=False)[0]["loc"]
        raise ConfigError(f"{_line(path, text, *entry)}: {in_words(error)}. Correct this line.") from None
    base = RunConfig.load(file.recipe) if file.recipe else RunConfig()
    base = _changed(base, file.settings, path, text).replace(dataset=file.dataset)
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"{_line(path, text, 'seeds')}: a seed occurs twice. Name each seed once.")
    points = [dict(zip(file.grid, values, strict=True)) for values in itertools.product(*file.grid.values())]
    if len(points) * len(file.seeds) * max(1, len(file.cells)) > _MOST_RUNS:
        raise ConfigError(f"{path} has more than {_MOST_RUNS:,} runs. Use fewer values in [grid].")
    jobs = [
        Job(_name(cell, point), seed, _changed(base, settings | point, path, text).replace(seed=seed))
        for cell, settings in (file.cells or {"": {}}).items()
        for point in points
        for seed in file.seeds
    ]
    _refuse_twins(jobs, path)
    folder = Path(file.train_dir or f"runs/{path.stem}")
    return Plan(folder, file.dataset, file.metric, tuple(jobs))


def _changed(base: RunConfig, settings: dict[str, Any], path: Path, text: str) -> RunConfig:
    """Return the settings with changes. Raises: ConfigError naming the line of the first setting that is wrong."""
    if own := {"seed", "dataset"} & settings.keys():
        raise ConfigError(
            f"{_line(path, text, min(own))}: `{min(own)}` is not a setting of a single run here. Use "
            f"{'seeds' if own == {'seed'} else 'dataset'} at the top of the file."
        )
    try:
        return base.replace(**settings)
    except ConfigError as error:
        wrong = next((name for name in settings if f"{name}" in str(error)), None)
        which = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        where = _line(path, text, wrong) if wrong else str(path)
        raise ConfigError(f"{where}: {error} (the settings {which}). Correct the file.") from None


def _refuse_twins(jobs: list[Job], path: Path) -> None:
    """Raise ConfigError if two runs would train the same model, or have the same name."""
    first: dict[RunConfig, Job] = {}
    for job in jobs:
        if (twin := first.setdefault(job.config, job)) is not job:
            raise ConfigError(
                f"{path}: {twin.name} and {job.name} have the same settings. Remove one, or correct its settings."
            )
    if len({job.name for job in jobs}) < len(jobs):
        raise ConfigError(
            f"{path}: two cells have the same name with the values of [grid]. Name them differently."
        )


def _name(cell: str, point: dict[str, Any]) -> str:
    """The name of a cell and a point of the grid, which is a folder's name: plain_num_blocks-2."""
    parts = [cell] if cell else []
    parts += [re.sub(r"[^A-Za-z0-9._-]", "-", f"{name}-{value}") for name, value in point.items()]
    return "_".join(parts) or "all"


def _line(path: Path, text: str, *entry: Any) -> str:
    """Return "FILE, line N" for the line of the innermost part of an entry that is found; else FILE."""
    for part in reversed(entry):
        for number, line in enumerate(text.splitlines(), start=1):
            if re.match(rf"\s*(\[.*\b)?[\"']?{re.escape(str(part))}\b", line):
                return f"{path}, line {number}"
    return str(path)
