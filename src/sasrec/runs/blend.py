"""Blend a run with one of its baselines, with the weight that is best on validation."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint import store
from sasrec.checkpoint.restore import checkpoint_at, config_of
from sasrec.data.baskets import split_of
from sasrec.data.splits import EvaluationSplit
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecError, SasrecWarning, for_shell
from sasrec.evaluation.baselines import KINDS
from sasrec.evaluation.baselines import baselines as all_baselines
from sasrec.evaluation.metrics import of_targets
from sasrec.evaluation.significance import paired_bootstrap
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.files import write_whole
from sasrec.models.own import Encoder
from sasrec.ranking.blend import Blend
from sasrec.ranking.scorers import Scorer
from sasrec.runs.folder import RunFolder
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import rank
from sasrec.untrusted import in_words, json_of

WEIGHTS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_METRIC = "ndcg@10"


class Chosen(BaseModel):
    """The parts of RUN/blend.json that serving needs."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")
    baseline: str
    weight: Annotated[float, Field(gt=0, lt=1)]
    checkpoint: str = ""
    """The checkpoint that it was chosen with; "" for one of another run (`hand_on`)."""


def chosen_blend(folder: RunFolder) -> Chosen:
    """Read RUN/blend.json.

    Raises: ConfigError if it is missing, or the run was trained further since. DataError if it is damaged. Remedy:
    blend again.
    """
    if not folder.blend_file.exists():
        raise ConfigError(
            f"{folder.path} has no blend yet. Choose one with `sasrec blend {for_shell(folder.path)}`."
        )
    try:
        found = Chosen.model_validate(json_of(folder.blend_file))
        if found.baseline not in KINDS:
            raise DataError(f"{folder.blend_file} names no baseline: {found.baseline}. Blend the run again.")
    except ValidationError as error:
        raise DataError(f"{folder.blend_file} is damaged: {in_words(error)}. Blend the run again.") from None
    except ValueError as error:
        raise DataError(f"{folder.blend_file} cannot be read: {error}. Blend the run again.") from None
    best = store.best(folder.checkpoints).name
    if found.checkpoint not in ("", best):
        raise ConfigError(
            f"the blend of {folder.path} was chosen with {found.checkpoint}, but its best is now {best}. "
            f"Choose again with `sasrec blend {for_shell(folder.path)}`."
        )
    return found


def hand_on(run: RunFolder, following: RunFolder) -> None:
    """Copy the blend of a run, if it has one, to the run that is made from it; its weight holds there too."""
    if rank() > 0:
        return
    following.blend_file.unlink(missing_ok=True)  # of an earlier start, which saved no checkpoint
    if run.blend_file.exists():
        try:
            handed = chosen_blend(run)
        except SasrecError as error:
            warnings.warn(f"{following.path} gets no blend: {error}", SasrecWarning, stacklevel=3)
            return
        write_whole(
            following.blend_file,
            json.dumps(json_of(run.blend_file) | handed.model_dump() | {"checkpoint": ""}, indent=2),
        )


def blend(
    run: str | Path, *, baselines: tuple[str, ...] = (), encoder: Encoder | None = None, log: RunLog | None = None
) -> dict[str, Any]:
    """Choose the best blend of model and baseline on validation; save it if it beats the model and each baseline.

    A blend combines the ranking of the model and the ranking of one baseline, each with a weight. For each
    baseline in `baselines` (by default, all baselines of the run), this function tries nine weights. The best
    blend is saved as RUN/blend.json if it is better on validation than the model alone and than each tried
    baseline alone. Then `sasrec.load("RUN:blend")` recommends with the blend.

    The metrics in the result are NDCG@10 on the full catalogue. The result is a dictionary with these entries:

        "baseline", "weight"    the best blend; the weight is that of the model
        "wins"                  whether this blend is better on validation than "best_alone"
        "best_alone"            what is best on validation without a blend: "model", or the name of a baseline
        "valid", "test"         {"blend", "model", "baseline", "difference": {"against", "mean", "low", "high"}};
                                the blend minus "best_alone", with its 95 % interval over users
        "tried"                 the names of the baselines
        "checkpoint"            the name of the checkpoint of the model
        "before"                {"baseline", "weight", "tried", "fate"} of the blend that the run had until now

    If only one user has validation targets, "valid" has no "difference". If fewer than two users have test
    targets, "test" is missing. The value of "fate" is "replaced" if the new blend replaced the earlier blend. If
    no blend wins now, the value is "stays" if the baseline of the earlier blend was not tried, and otherwise
    "removed".

    Raises: ConfigError for a baseline that the run does not have. EvaluationError without validation targets.
    Remedy: as the message says. The errors of `load`.
    """
    from sasrec.runs.evaluate import load  # which serves blends

    folder, log = RunFolder(run), log or RunLog(None)
    recommender = load(run, device="cpu", encoder=encoder)
    if recommender.data is None:
        raise ConfigError("an export has no events to choose on. Name the run that it came from.")
    found = checkpoint_at(folder.path, encoder)
    data, config = recommender.data, config_of(found)
    split = with_ticks(split_of(data, config.evaluation), data, config.model)
    if not len(split.valid.targets):
        raise EvaluationError("the run has no validation targets to choose on. Use a run with validation.")
    simple = all_baselines(split.training, data.num_items, split.event_times, repeats=split.repeats)
    if unknown := [name for name in baselines if name not in simple]:
        raise ConfigError(f"{unknown[0]!r} is not a baseline of this run. Choose of: {', '.join(simple)}.")
    scorers = {"model": recommender.scorer} | {name: simple[name] for name in baselines or simple}
    report = _choose(scorers, split.valid, log)
    if len(np.unique(split.test.users)) > 1:
        report["test"] = _on_test(scorers, split.test, report, log)
    report |= {"tried": [name for name in scorers if name != "model"], "checkpoint": found.path.name}
    before = _before(folder)
    if report["wins"]:
        write_whole(folder.blend_file, json.dumps(report, indent=2))
        fate = "replaced"
    elif before is not None and before["baseline"] not in report["tried"]:
        fate = "stays"
    else:
        folder.blend_file.unlink(missing_ok=True)
        fate = "removed"
    return report | ({"before": before | {"fate": fate}} if before is not None else {})


def _before(folder: RunFolder) -> dict[str, Any] | None:
    """Return the blend that a run has; None if nobody can use it."""
    try:
        chosen = chosen_blend(folder)
    except SasrecError:
        return None
    tried = json_of(folder.blend_file).get("tried", [])
    return {"baseline": chosen.baseline, "weight": chosen.weight, "tried": tried}


def _choose(scorers: dict[str, Scorer], part: EvaluationSplit, log: RunLog) -> dict[str, Any]:
    """Measure every scorer and every blend on validation; return all entries of the report but "test"."""
    alone = {name: _ndcg(scorer, part, log, name) for name, scorer in scorers.items()}
    name, weight, blended = "", 0.0, np.full(len(part.targets), -np.inf)  # the best so far
    for each, share in itertools.product([each for each in scorers if each != "model"], WEIGHTS):
        scorer = Blend(scorers["model"], scorers[each], share)
        values = _ndcg(scorer, part, log, f"{share} model with {each}")
        if values.mean() > blended.mean():
            name, weight, blended = each, share, values
    best = max(alone, key=lambda each: alone[each].mean())
    means = {"blend": blended, "model": alone["model"], "baseline": alone[name]}
    several = len(np.unique(part.users)) > 1
    return {
        "baseline": name,
        "weight": weight,
        "best_alone": best,
        "wins": bool(blended.mean() > alone[best].mean()),
        "valid": {each: float(values.mean()) for each, values in means.items()}
        | ({"difference": _difference(blended - alone[best], part, best)} if several else {}),
    }


def _on_test(
    scorers: dict[str, Scorer], part: EvaluationSplit, report: dict[str, Any], log: RunLog
) -> dict[str, Any]:
    """Return the entry "test" of the report."""
    name, best = report["baseline"], report["best_alone"]
    measured = {each: scorers[each] for each in ("model", name, best)}
    found = {each: _ndcg(scorer, part, log, f"{each}, test") for each, scorer in measured.items()}
    blended = _ndcg(Blend(scorers["model"], scorers[name], report["weight"]), part, log, "blend, test")
    return {
        "blend": float(blended.mean()),
        "model": float(found["model"].mean()),
        "baseline": float(found[name].mean()),
        "difference": _difference(blended - found[best], part, best),
    }


def _difference(differences: npt.NDArray[np.float64], part: EvaluationSplit, against: str) -> dict[str, Any]:
    change = paired_bootstrap(differences, part.users)
    return {"against": against, "mean": change.mean, "low": change.low, "high": change.high}


def _ndcg(scorer: Scorer, part: EvaluationSplit, log: RunLog, words: str) -> npt.NDArray[np.float64]:
    """Return NDCG@10 of each target, (rows,)."""
    with log.bar(words, len(part.targets)) as bar:
        return of_targets(target_ranks(scorer, part, advance=bar).full, _METRIC)
