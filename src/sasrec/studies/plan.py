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

[search]                            # optional: search a space, in every cell (search.py)
trials = 30
[search.space]
lr = {low = 1e-4, high = 1e-2, log = true}
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sasrec.config.lines import line_of, wrong_entry
from sasrec.config.recipe import METRIC_NAME
from sasrec.config.settings import KEEP_WEIGHTS, RunConfig
from sasrec.config.toml_file import tables_of
from sasrec.data.manifest import MANIFEST
from sasrec.errors import ConfigError
from sasrec.files import write_whole
from sasrec.studies.search import Range, Search
from sasrec.untrusted import in_words, json_of

_KEPT = "study.json"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_MOST_RUNS = 10_000
DATA = "data"
"""The folder of the data in the folder of a study."""
# The files and folders of a study beside its cells.
_OWN_FILES = re.compile(r"(?i)data|stop|threads|study\.json|journal\.log.*|worker-\d+\.log")


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    dataset: Annotated[str, Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)] = [0]
    recipe: str | None = None
    metric: Annotated[str, Field(pattern=METRIC_NAME)] = "valid.full.ndcg@10"
    train_dir: Annotated[str, Field(pattern=r"^[^\x00]*$")] | None = None
    hours: Annotated[float, Field(gt=0)] | None = None
    storage: Annotated[str, Field(pattern=r"^postgresql://")] | None = None
    settings: dict[str, Any] = {}
    cells: dict[Annotated[str, Field(pattern=_NAME)], dict[str, Any]] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    search: Search | None = None


class _KeptJob(BaseModel):
    model_config = ConfigDict(strict=True)
    cell: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    settings: dict[str, Any]


class _Kept(BaseModel):
    """The file study.json."""

    model_config = ConfigDict(strict=True)
    id: str
    dataset: str
    metric: Annotated[str, Field(pattern=METRIC_NAME)]
    hours: Annotated[float, Field(gt=0)] | None
    storage: Annotated[str, Field(pattern=r"^postgresql://")] | None
    search: Search | None
    jobs: Annotated[list[_KeptJob], Field(min_length=1)]


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
    """All runs but those of the search: seeds within cells, so that a part of the study has whole cells."""
    search: Search | None = None
    hours: float | None = None
    """No run begins once the runs have trained for so long together."""
    storage: str | None = None
    """The PostgreSQL data base of the queue; None: a journal in the folder."""
    id: str = ""
    """Names the study in the data base."""

    @property
    def seeds(self) -> list[int]:
        """The random seeds of every cell; a search uses the first, and confirms with all."""
        return sorted({job.seed for job in self.jobs}, key=[job.seed for job in self.jobs].index)

    @property
    def runs(self) -> int:
        """How many runs the study has in the end, without failed ones."""
        cells, search = len({job.cell for job in self.jobs}), self.search
        confirmed = min(search.confirm, search.trials) * (len(self.seeds) - 1) if search else 0
        return len(self.jobs) + (cells * (search.trials + confirmed) if search else 0)

    def base(self, cell: str) -> RunConfig:
        """The settings of a cell, with the first seed."""
        return next(job.config for job in self.jobs if job.cell == cell)

    def keep(self, *, add: bool = False) -> Plan:
        """Write the plan to the folder of the study, or compare it with the one there; return it with its id.

        `add`: there may be more runs than before, and more trials.

        Raises: ConfigError if a run has changed since the data was prepared, naming what differs. Remedy: undo the
        change, name another `train_dir`, or use `add` for new runs.
        """
        plan = dataclasses.replace(self, id=uuid.uuid4().hex[:12])
        if self.has_begun():
            before = kept_plan(self.folder)
            try:
                self.refuse_changed(before, add=add)
                plan = dataclasses.replace(self, id=before.id)
            except ConfigError:
                if (self.folder / DATA / MANIFEST).exists():
                    raise  # else nothing was trained: this plan replaces the other one
        content = {
            "id": plan.id,
            "dataset": self.dataset,
            "metric": self.metric,
            "hours": self.hours,
            "storage": self.storage,
            "search": self.search and self.search.model_dump(),
            "sampler": self.search and self.search.sampler_in_words(),
            "jobs": [{"cell": job.cell, "seed": job.seed, "settings": _flat(job.config)} for job in self.jobs],
        }
        write_whole(self.folder / _KEPT, json.dumps(content, indent=1))
        return plan

    def has_begun(self) -> bool:
        """Return whether the folder of the study has a plan."""
        return (self.folder / _KEPT).exists()

    def refuse_changed(self, before: Plan, *, add: bool = False) -> None:
        """Raise ConfigError if this plan is not that of the study that has begun, or, with `add`, more of it."""
        now = {job.name: _flat(job.config) for job in self.jobs}
        was = {job.name: _flat(job.config) for job in before.jobs}
        for name, settings in was.items():
            if settings != now.get(name):
                how = _apart(settings, now[name]) if name in now else "it is gone"
                raise self._begun_with(f"another {name}: {how}")
        searches = [plan.search.model_dump() if plan.search else {} for plan in (before, self)]
        if add and searches[0] and self.search is not None and before.search is not None:
            if self.search.trials < before.search.trials:
                raise self._begun_with(f"{before.search.trials} trials")
            searches[0]["trials"] = searches[1]["trials"]
        if searches[0] != searches[1]:
            raise self._begun_with(f"another [search]: {_apart(*searches)}")
        if (before.storage, before.metric) != (self.storage, self.metric):
            raise self._begun_with(f"storage {before.storage or 'in its folder'} and metric {before.metric}")
        if (new := [name for name in now if name not in was]) and not add:
            raise ConfigError(
                f"the study in {self.folder} has begun without {', '.join(new[:3])}. Add new runs with "
                "`sasrec study add`, or name another train_dir."
            )

    def _begun_with(self, what: str) -> ConfigError:
        return ConfigError(
            f"the study in {self.folder} has begun with {what}. Undo the change, or name another train_dir."
        )


def kept_plan(folder: Path) -> Plan:
    """Return the plan of a study that has begun, from its folder.

    Raises: ConfigError if the folder has no study, or a damaged one. Remedy: as the message says.
    """
    try:
        content = _Kept.model_validate(json_of(folder / _KEPT))
        jobs = tuple(Job(each.cell, each.seed, RunConfig().replace(**each.settings)) for each in content.jobs)
    except FileNotFoundError:
        raise ConfigError(f"{folder} is not a study. Name the TOML file of a study, or its folder.") from None
    except (OSError, ValueError, ConfigError) as error:
        reason = (
            in_words(error) if isinstance(error, ValueError) else str(error).partition(". The settings are")[0]
        )
        raise ConfigError(
            f"{folder / _KEPT} is damaged, or of another version of sasrec ({reason}). Remove this file, and run "
            "the TOML file of the study again: finished runs are not trained again."
        ) from None
    return Plan(
        folder, content.dataset, content.metric, jobs, content.search, content.hours, content.storage, content.id
    )


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
        raise ConfigError(f"{wrong_entry(path, text, error)}. Correct this line.") from None
    base = RunConfig.load(file.recipe) if file.recipe else RunConfig()
    base = _changed(base, {("settings",): file.settings}, path, text).replace(dataset=file.dataset)
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"{line_of(path, text, 'seeds')}: a seed occurs twice. Name each seed once.")
    count = math.prod(map(len, file.grid.values())) * len(file.seeds) * max(1, len(file.cells))
    if count > _MOST_RUNS:
        raise ConfigError(f"{path} has {count:,} runs, more than {_MOST_RUNS:,}. Use fewer values in [grid].")
    points = [dict(zip(file.grid, values, strict=True)) for values in itertools.product(*file.grid.values())]
    jobs = []
    for point in points:  # outermost: a study that is stopped has every cell with the first values of the grid
        for cell, settings in (file.cells or {"": {}}).items():
            config = _changed(base, {("cells", cell): settings, ("grid",): point}, path, text)
            jobs += [Job(_name(cell, point), seed, config.replace(seed=seed)) for seed in file.seeds]
    _check_names(jobs, file, path, text)
    folder = Path(file.train_dir or f"runs/{path.stem}")
    plan = Plan(folder, file.dataset, file.metric, tuple(jobs), file.search, file.hours, file.storage)
    _check_search(plan, file, path, text)
    if file.storage:
        _check_storage(file.storage, folder, path, text)
    return plan


def _check_storage(url: str, folder: Path, path: Path, text: str) -> None:
    """Raise ConfigError if the URL of a data base is not one, or has a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{line_of(path, text, 'storage')}: {url} is not a URL: {error}. Correct it.") from None
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ConfigError(
            f"{line_of(path, text, 'storage')}: the URL has a password, which would be stored in {folder}. "
            "Remove it, and put it into ~/.pgpass or the environment variable PGPASSWORD."
        )


def _check_search(plan: Plan, file: _File, path: Path, text: str) -> None:
    """Raise ConfigError, with the line, if the search of a study cannot be done."""
    if (search := plan.search) is None:
        return
    if plan.metric.startswith("test."):
        raise ConfigError(
            f"{line_of(path, text, 'metric')}: a search that chooses by {plan.metric} would see the test targets. "
            'Choose by validation, such as metric = "valid.full.ndcg@10".'
        )
    if search.prune and (len(plan.seeds) < 2 or plan.metric != "valid.full.ndcg@10"):
        raise ConfigError(
            f"{line_of(path, text, 'search', 'prune')}: `prune` stops a run that is worse by more than the noise "
            "between seeds, by its validation NDCG@10. Name at least two seeds, and leave out `metric`."
        )
    own = set(file.grid).union(*file.cells.values())
    for name, values in search.space.items():
        where = line_of(path, text, "search", "space", name)
        if name in own:
            raise ConfigError(
                f"{where}: {name} has values in [grid] or [cells] too, which the search would replace. Name it in "
                "one place."
            )
        if name in KEEP_WEIGHTS:
            raise ConfigError(f"{where}: {name} does not change the weights. Remove it from the space.")
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            try:
                _changed(plan.jobs[0].config, {("search", "space"): {name: value}}, path, text)
            except ConfigError as error:
                # What depends on a second setting is left to the draws of whole points below.
                alone = (
                    rf"`{name}` (must be|is not a set)|'{name}' is not |: (\w+\.)?{name}(:| must )|unknown {name} "
                )
                if re.search(alone, str(error)):
                    raise
    for cell in dict.fromkeys(job.cell for job in plan.jobs):
        try:
            search.propose(plan.base(cell), [], seed=0)
        except ConfigError as error:
            raise ConfigError(f"{line_of(path, text, 'search', 'space')}: {error}") from None
        points = itertools.islice(search.points(plan.base(cell)), search.trials)
        if search.is_small() and (count := len(list(points))) < search.trials:
            raise ConfigError(
                f"{line_of(path, text, 'search', 'trials')}: trials is {search.trials}, but the space has only "
                f"{count} point{'s' * (count != 1)} beside the settings of {cell}. Use trials = {count}, or a "
                "larger space."
            )


def _changed(base: RunConfig, tables: dict[tuple[str, ...], dict[str, Any]], path: Path, text: str) -> RunConfig:
    """Return the settings with changes, by the table of the file that has them; a later table overrides.

    Raises: ConfigError naming the line of the first setting that is wrong.
    """
    settings = {name: value for table in tables.values() for name, value in table.items()}
    home = {name: entry for entry, table in tables.items() for name in table}
    if own := {"seed", "dataset"} & settings.keys():
        name = min(own)
        raise ConfigError(
            f"{line_of(path, text, *home[name], name)}: `{name}` is not a setting of a single run here. Use "
            f"{'seeds' if name == 'seed' else 'dataset'} at the top of the file."
        )
    for name in settings:
        if home[name] != ("settings",) and hasattr(base.data, name):
            raise ConfigError(
                f"{line_of(path, text, *home[name], name)}: `{name}` decides the data, which all runs share. Move "
                "it to [settings]."
            )
    try:
        return base.replace(**settings)
    except ConfigError as error:
        wrong = next((name for name in settings if re.search(rf"\b{re.escape(name)}\b", str(error))), None)
        which = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        where = line_of(path, text, *home[wrong], wrong) if wrong else str(path)
        end = "" if str(error).endswith((".", "?")) else "."
        raise ConfigError(f"{where}: {error}{end} Correct the file, which sets {which}.") from None


def _check_names(jobs: list[Job], file: _File, path: Path, text: str) -> None:
    """Raise ConfigError if two runs would train the same model or have the same name, or a name is taken."""
    first: dict[RunConfig, Job] = {}
    same = {name: getattr(RunConfig().training, name) for name in KEEP_WEIGHTS - {"device", "deterministic"}}
    for job in jobs:
        if (twin := first.setdefault(job.config.replace(**same), job)) is not job:
            raise ConfigError(
                f"{path}: {twin.name} and {job.name} have the same settings"
                f"{'' if twin.config == job.config else ', except some that do not change the weights'}. "
                "Remove one, or correct its settings."
            )
    if len({job.name for job in jobs}) < len(jobs):
        raise ConfigError(
            f"{path}: two cells have the same name with the values of [grid]. Name them differently."
        )
    cells = {job.cell for job in jobs}
    for cell in cells:
        trial = file.search is not None and re.sub(r"_trial-\d+$", "", cell) in cells - {cell}
        if _OWN_FILES.fullmatch(cell) or trial:
            where, what = line_of(path, text, "cells", cell), "a run" if trial else "a file"
            raise ConfigError(f"{where}: the name {cell} is taken by {what} of the study. Name it differently.")


def _name(cell: str, point: dict[str, Any]) -> str:
    """The name of a cell and a point of the grid, which is a folder's name: plain_num_blocks-2."""
    parts = [cell] if cell else []
    parts += [re.sub(r"[^A-Za-z0-9._-]", "-", f"{name}-{value}") for name, value in point.items()]
    return "_".join(parts) or "default"
