"""Load the checkpoint and the data of a trained run, and measure the model."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sasrec.batches.ticks import with_ticks
from sasrec.checkpoint import store
from sasrec.checkpoint.restore import check_data, checkpoint_at, config_of, known_items, model_of, training_part
from sasrec.config.settings import MAY_CHANGE_ON_RESUME, DataConfig, RunConfig
from sasrec.data.baskets import split_of, with_baskets
from sasrec.data.dataset import Dataset, open_dataset
from sasrec.data.items import Items
from sasrec.data.other_file import with_test_file
from sasrec.data.splits import Split
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecWarning
from sasrec.evaluation.baselines import baseline
from sasrec.evaluation.measure import PLAIN, Asked, Ranks, evaluate_scorer
from sasrec.evaluation.metrics import BLEND, CUTOFFS, MODEL, Metrics
from sasrec.events.report import BASKETS, SHORT, summary
from sasrec.files import file_digest, write_whole
from sasrec.models import SequenceModel
from sasrec.models.own import Encoder
from sasrec.ranking.blend import Blend
from sasrec.ranking.fallback import Counts, fallback_of
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.rules import Rules
from sasrec.ranking.scorers import ModelScorer, Scorer, device_of
from sasrec.runs.blend import chosen_blend
from sasrec.runs.folder import RunFolder, named_run
from sasrec.runs.record import check_ranks
from sasrec.runs.seal import refuse_changed, seal
from sasrec.runs.serving import to_serve
from sasrec.runs.stored_baseline import SERVES, read_baseline
from sasrec.runtime.device import deterministic, pick_device, surroundings
from sasrec.runtime.log import RunLog
from sasrec.runtime.ranks import joined, rank
from sasrec.sources.resolve import prepared_folder, resolve
from sasrec.untrusted import refuse_large

# Keys in state.json of an export: the hashes of items.parquet and of counts.parquet.
ITEMS_DIGEST, COUNTS_DIGEST = "items_sha256", "counts_sha256"


def load(
    run: str | Path,
    *,
    device: str = "auto",
    dataset: Any = None,
    checkpoint: str | Path | None = None,
    encoder: Encoder | None = None,
    fallback: str | None = None,
) -> Recommender:
    """Load a trained run, an export, or a baseline or blend of a run, as RUN:NAME. See `sasrec.load`.

    Raises: the errors of `sasrec.load`.
    """
    folder, simple = named_run(run)
    recommender, found, data = _loaded(
        folder, "cpu" if simple else device, dataset, checkpoint, encoder, everybody=fallback is not None
    )
    if simple:
        recommender = _of_baseline(folder, simple, recommender, found, data)
    elif served := found.state.get(SERVES):
        file = _unchanged(folder.baseline_file, served["sha256"])
        scorer = read_baseline(file, served["name"], len(recommender.items))
        if served.get("weight"):
            scorer = Blend(recommender.scorer, scorer, served["weight"])
        source = BLEND if served.get("weight") else served["name"]
        recommender = replace(recommender, scorer=scorer, source=source)
    if fallback is None:
        return recommender
    served = recommender.data
    counted = served if served is not None and served.num_events else data
    counts = counts_of(folder, found) if counted is None else Counts.of(counted)
    return replace(recommender, fallback=fallback_of(fallback, recommender.items, counts))


def _of_baseline(
    folder: RunFolder, name: str, recommender: Recommender, found: store.Checkpoint, data: Dataset | None
) -> Recommender:
    """Return a recommender that ranks by a baseline of the run, or by its blend (runs/blend.py).

    The baseline is made from the training events of the split. `data`: the data that the run was trained on; None
    for an export.
    """
    evaluation = config_of(found).evaluation
    if data is None:
        raise ConfigError("an export has no baselines. Name the run that it came from.")
    split = split_of(data, evaluation)
    chosen = chosen_blend(folder) if name == BLEND else None
    named = name if chosen is None else chosen.baseline
    scorer = baseline(named, split.training, data.num_items, split.event_times, repeats=split.repeats)
    if chosen is not None:
        scorer = Blend(recommender.scorer, scorer, chosen.weight)
    return replace(recommender, scorer=scorer, source=name)


def _loaded(
    folder: RunFolder,
    device: str,
    dataset: Any,
    checkpoint: str | Path | None,
    encoder: Encoder | None,
    *,
    measuring: bool = False,
    everybody: bool = False,
) -> tuple[Recommender, store.Checkpoint, Dataset | None]:
    """Return the recommender of a run, its checkpoint, and the data that it was trained on, if there is any.

    `measuring`: the run is measured now, as it is, so `dataset` must be its own data. `everybody`: see `onto`.
    """
    folder.refuse_no_run()
    if checkpoint is None and not measuring:
        refuse_changed(folder.path, "checkpoint")
    found = checkpoint_at(Path(checkpoint) if checkpoint else folder.path, encoder)
    _warn_of_edits(folder, config_of(found))
    if ITEMS_DIGEST in found.state and not folder.items_file.exists():
        raise DataError(f"the export {folder.path} is incomplete: items.parquet is missing. Export the run again.")
    # An export has its own catalogue and no data set, unless the caller names one.
    exported = _exported_items(folder.items_file, found) if folder.items_file.exists() else None
    data: Dataset | None = None
    if dataset is not None and not measuring:
        data, own = to_serve(dataset, folder, found, exported, everybody=everybody)
    elif dataset is not None or exported is None:
        named = dataset if isinstance(dataset, Dataset) else open_dataset(dataset) if dataset else None
        data = own = named or folder.dataset()
        check_data(found, data, None if named else folder.data_folder())
    else:
        own = None
    items = data.catalogue if data is not None else exported
    assert items is not None, "a run has data, and an export has a catalogue"
    model = model_of(found, len(items), encoder).to(pick_device(device))
    recommender = recommender_of(found, model, items, data)
    _warm_up(recommender)
    return recommender, found, own


def _warn_of_edits(folder: RunFolder, trained: RunConfig) -> None:
    """Warn if config.toml has other settings than those with which the checkpoint was `trained`."""
    edited = {
        name: values
        for name, values in trained.differences(folder.config()).items()
        if name not in MAY_CHANGE_ON_RESUME
    }
    if edited:
        what = ", ".join(f"{name} {now} (trained with {was})" for name, (was, now) in edited.items())
        warnings.warn(
            f"{folder.config_file} was edited: {what}. These edits are ignored; restore the old values",
            SasrecWarning,
            stacklevel=4,
        )


def recommender_of(
    found: store.Checkpoint, model: SequenceModel, items: Items, data: Dataset | None
) -> Recommender:
    """Return the recommender for a checkpoint. `model` must already have the checkpoint's weights."""
    return Recommender(
        ModelScorer(model.eval()),
        items,
        data,
        known_items(found, len(items)),
        training_part(found),
        repeats=config_of(found).evaluation.repeats,
    )


def _warm_up(recommender: Recommender) -> None:
    """Answer one request, so that one-time start-up work does not slow the user's first request."""
    known_V = recommender.known_items
    number = 1 if known_V is None else int(np.flatnonzero(known_V)[0])
    recommender.recommend([recommender.items.id_of(number)], k=1, assume_regular=True)


def counts_of(folder: RunFolder, found: store.Checkpoint) -> Counts:
    """Read the counts of an export. Raises: DataError if they are missing or changed. Remedy: export again."""
    if not folder.counts_file.is_file():
        raise DataError(f"{folder.path} has no counts of items, because an older version made it. Export again.")
    items = _exported_items(folder.items_file, found)
    return Counts.read(_unchanged(folder.counts_file, found.need(COUNTS_DIGEST)), len(items))


def _exported_items(path: Path, found: store.Checkpoint) -> Items:
    """Read the catalogue of an export. Raises: DataError if the file changed. Remedy: export the run again."""
    return Items.read(_unchanged(path, found.need(ITEMS_DIGEST)))


def _unchanged(path: Path, digest: str) -> Path:
    """Return the path of a file of an export, after a comparison of its hash."""
    try:
        refuse_large(path)
        changed_since = file_digest(path) != digest
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Export the run again.") from None
    if changed_since:
        raise DataError(f"{path} has changed since the export. Export the run again.")
    return path


def evaluate(
    run: str | Path,
    *,
    device: str = "auto",
    dataset: Dataset | str | Path | None = None,
    checkpoint: str | Path | None = None,
    encoder: Encoder | None = None,
    test: Any = None,
    details: bool = False,
    k: Sequence[int] = (),
    rules: Rules | None = None,
    whole_period: bool = False,
    log: RunLog | None = None,
) -> Metrics:
    """Measure the best checkpoint of a run on validation and test; return the metrics.

    The metrics are written to RUN/metrics.json and RUN/log.jsonl, and the ranks of the targets to
    RUN/ranks.parquet. With `checkpoint`, `test` or `rules`, or for RUN:NAME, nothing is written.

    `run`: RUN, the folder of a run; or RUN:NAME, to measure a baseline of the run, such as RUN:popularity, or its
    blend, RUN:blend. The entry "scorer" of the result is then NAME. `checkpoint`: a checkpoint of the run, to
    measure instead of the best. `test`: a file, frame or prepared folder of other test events; validation is then
    not measured. The history of a target has all earlier events of the user. `rules`: also measure lists under
    these rules, at the time of each target. The result has the metrics of these lists as "with_rules", beside
    "full". `details`: on test, also measure coverage, novelty and diversity (needs groups) of lists of 10 items,
    and the metrics by history length, target popularity and time gap. `whole_period`: also compare one list for
    each user with all items that the user takes in the held-out period (docs/reference/metrics.md). The attribute
    `users` of the result has the values of each user. `k`: more cut-offs for all metrics, such as [3, 100]; the
    first is also the length of the lists of `whole_period` (default 10). `dataset`: where the run's data is, if it
    has moved. `encoder`: see `load`.

    The result is a `Metrics`. It has "valid" only if validation has targets, and "test" only if test has targets.

    Raises: EvaluationError for an export. Remedy: measure the original run. EvaluationError if no user has a
    target, or for `whole_period` under leave-one-out. Remedy: train with another `split`. ConfigError if `dataset`
    is a file. Remedy: pass the file as `test`. ConfigError for `rules` together with `details` or `whole_period`.
    Remedy: use separate calls. The errors of `load` and `Rules.on`.
    """
    folder, simple = named_run(run)
    _refuse_to_evaluate(folder, dataset, k, rules, {"details": details, "whole_period": whole_period})
    only_returned = bool(simple) or checkpoint is not None or test is not None or rules is not None
    _refuse_to_write(folder, only_returned)
    with joined(pick_device(device).type), folder.measuring(writes=not only_returned):
        # The run's files have only the metrics of its best checkpoint, on its own targets, without rules.
        written = None if only_returned else folder
        log = RunLog.of_run(None if only_returned else folder.log_file, log or RunLog(None))
        recommender, found, _ = _loaded(folder, device, dataset, checkpoint, encoder, measuring=True)
        config, run_data = config_of(found), recommender.data
        if simple:
            recommender = _of_baseline(folder, simple, recommender, found, run_data)
        assert run_data is not None, "only an export has no data"
        data, split = _targets(run_data, config, None if test is None else _test_data(test, folder, log))
        asked = Asked(tuple(sorted({*CUTOFFS, *k})), details, rules, whole_period, next(iter(k), 10))
        options = f"{replace(asked, rules=None)}, rules {rules and rules.on(data.catalogue).digest}"
        check_ranks(config, run_data, found, {"the options": options, "the test events": data.data_hash[:12]})
        with deterministic(config.training.deterministic):
            metrics = measure(recommender.scorer, data, split, written, log, asked=asked, name=recommender.source)
        # With a file, the card still names the data that the run was trained on.
        metrics["protocol"]["data_hash"] = run_data.data_hash
        return metrics


def _targets(data: Dataset, config: RunConfig, file: Dataset | None) -> tuple[Dataset, Split]:
    """Return the data and the split with the targets to measure: those of the run, or the events of `file`."""
    split = split_of(data, config.evaluation)
    if file is not None:
        data, split = with_test_file(data, split, file)
        split = with_baskets(split, data) if config.evaluation.baskets else split
    return data, with_ticks(split, data, config.model)


def _test_data(test: Any, folder: RunFolder, log: RunLog) -> Dataset:
    """Read a file of test events, from the columns that the settings of the run name, and log what was read."""
    if isinstance(test, Dataset) or (isinstance(test, str | Path) and prepared_folder(test)):
        return resolve(test, DataConfig())[0]
    # Filters would drop targets: they count the events of the file alone.
    columns = ("user_column", "item_column", "time_column", "columns")
    used = (*columns, "time_unit", "time_format", "encoding", "missing", "max_rejects")
    settings = folder.config().data
    data = resolve(test, DataConfig(**{name: getattr(settings, name) for name in used}))[0]
    rows, *_ = summary(data.report)
    beside_the_point = {SHORT, *((BASKETS,) if folder.config().evaluation.baskets else ())}
    for note in (rows, *(f"note: {note}" for note in data.report["warnings"])):
        if not any(words in note for words in beside_the_point):
            log.say(note)
    return data


def _refuse_to_evaluate(
    folder: RunFolder,
    dataset: Dataset | str | Path | None,
    k: Sequence[int],
    rules: Rules | None,
    additions: dict[str, bool],
) -> None:
    """Raise the errors of `evaluate` that need no model and no data."""
    if folder.items_file.exists():
        raise EvaluationError(
            f"{folder.path} is an export, which has no events. Evaluate the run that the export came from."
        )
    if isinstance(dataset, str | Path) and Path(dataset).is_file():
        raise ConfigError(
            f"`dataset` must be the prepared folder of the run's own data, but {dataset} is a file. To measure "
            "the run on the events of this file, name it as `test`."
        )
    if wrong := [each for each in k if isinstance(each, bool) or not isinstance(each, int) or each < 1]:
        raise ConfigError(f"`k` must have whole numbers of at least 1, not {wrong[0]!r}. Use numbers such as 3.")
    if rules is not None and not isinstance(rules, Rules):
        raise ConfigError(f"rules must be sasrec.Rules, not {rules!r}. Use sasrec.Rules.load for a file of rules.")
    for name, asked in additions.items():
        if rules is not None and asked:
            raise ConfigError(f"`{name}` is measured without rules. Remove `{name}`, or remove `rules`.")


def _refuse_to_write(folder: RunFolder, only_returned: bool) -> None:
    """Raise ConfigError if the metrics could not be saved, before they are measured for minutes."""
    if not only_returned and folder.path.is_dir() and not os.access(folder.path, os.W_OK):
        raise ConfigError(
            f"{folder.path} cannot be written, so its metrics could not be saved. Copy the run to a folder of "
            "your own."
        )


def measure(
    scorer: Scorer,
    data: Dataset,
    split: Split,
    folder: RunFolder | None,
    log: RunLog,
    *,
    asked: Asked = PLAIN,
    known: Ranks | None = None,
    name: str = MODEL,
) -> Metrics:
    """Measure a scorer on a split, and log its metrics. With `folder`, write its metrics.json and ranks.parquet.

    `known`: ranks that are measured already. `name`: that of the scorer.
    """
    measured = evaluate_scorer(scorer, data, split, log=log, asked=asked, known=known, name=name)
    metrics = Metrics(measured.metrics)
    metrics.users, metrics.ranks = measured.users, measured.ranks if folder is None else None
    metrics["protocol"]["computed_on"] = {
        "device": surroundings(device_of(scorer))["device"],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if rank() == 0 and folder is not None:
        ranks = io.BytesIO()
        measured.ranks.write_parquet(ranks)
        write_whole(folder.ranks_file, ranks.getvalue())
        write_whole(folder.metrics_file, json.dumps(metrics, indent=2))
    try:
        log.event("metrics", **{name: metrics[name] for name in ("valid", "test") if name in metrics})
    except OSError as error:  # log.jsonl may belong to another user of a shared folder
        log.say(f"note: log.jsonl cannot be written, so the log lacks this measurement ({error})")
    if rank() == 0 and folder is not None:
        seal(folder.path, store.best(folder.checkpoints))
    return metrics
