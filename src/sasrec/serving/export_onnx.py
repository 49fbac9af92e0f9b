"""Export a run as an ONNX graph, with its ids, and check that its lists are those of the run."""

from __future__ import annotations

import inspect
import json
import shutil
import statistics
import textwrap
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from sasrec.checkpoint import store
from sasrec.checkpoint.restore import checkpoint_at, config_of
from sasrec.errors import ConfigError, DataError, EvaluationError, SasrecWarning
from sasrec.files import file_digest, whole_file, write_whole
from sasrec.locks import OWN_FILES, only_writer
from sasrec.models.own import Encoder
from sasrec.ranking.fallback import Counts
from sasrec.ranking.recommender import Recommender
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.evaluate import load as load_run
from sasrec.runs.export import refuse_full
from sasrec.runs.folder import RunFolder, named_run
from sasrec.runs.model_card import model_card, residual
from sasrec.runs.stored_baseline import SERVES
from sasrec.serving import write_graph as write_graph_module
from sasrec.serving.load import COUNTS, FACTS, FILES, GRAPH, ITEMS, VECTORS, Facts, of_graph, packed
from sasrec.serving.write_graph import write_graph

_CARD = "README.md"
_OWN = OWN_FILES | FILES | {_CARD}  # what an interrupted export has
_ROWS, _K, _DRAWN, _CLOCKED = 1_000, 50, 200, 100
_NEAR = 1e-4  # scores that differ by less are equal up to rounding


def export_onnx(run_dir: str | Path, output: str | Path, *, encoder: Encoder | None = None) -> Path:
    """Write the model of a run as an ONNX graph to a new folder, with its catalogue and a model card.

    ONNX is a format of models that many programs can run. `sasrec.load(output)` recommends for histories with
    onnxruntime, without PyTorch. Other programs can run model.onnx too: the model card and serving/write_graph.py
    describe its inputs and outputs. To check the graph, the function makes lists for up to 1,000 users (for an
    export: for 200 random histories) with the graph and with the run. If a score differs by more than rounding,
    nothing is exported.

    Raises: ConfigError if `output` is not empty, for a baseline or a blend, or if a package is missing. Remedy: as
    the message says. EvaluationError if the graph gives other lists than the run. The errors of `load`.
    """
    run, simple = named_run(run_dir)
    run.refuse_no_run()
    folder = Path(output)
    refuse_full(folder, _OWN)
    found = checkpoint_at(run.path, encoder)
    if simple or found.state.get(SERVES):
        raise ConfigError("a graph is of the model, not of a baseline or a blend. Export the run without a name.")
    recommender = load_run(run.path, device="cpu", checkpoint=found.path, encoder=encoder)
    model = type(recommender.model).__name__ + residual(config_of(found).model)
    with only_writer(folder, "exporting"):
        folder.mkdir(parents=True, exist_ok=True)
        known_V = recommender.known_items
        unknown_U = np.zeros(0, np.int64) if known_V is None else np.flatnonzero(~known_V)
        write_graph(recommender.model, torch.from_numpy(unknown_U), folder / GRAPH)
        learned = ModelScorer(recommender.model)
        with whole_file(folder / VECTORS) as stream:
            np.save(stream, learned.vectors(), allow_pickle=False)
        recommender.items.save(folder / ITEMS)
        if recommender.data is not None:
            Counts.of(recommender.data).save(folder / COUNTS)
        elif run.counts_file.exists():  # an export of an export
            shutil.copyfile(run.counts_file, folder / COUNTS)
        facts = Facts(
            model=model,
            items=len(recommender.items),
            maxlen=learned.maxlen,
            timed=learned.timed,
            repeats=recommender.repeats,
            skip_own_items=config_of(found).loss.skip_own_items,
            weights=file_digest(found.path / store.WEIGHTS),
            known=packed(known_V),
            files={
                path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name in _OWN - OWN_FILES
            },
        )
        facts.check = compared(recommender, of_graph(folder, facts))
        write_whole(folder / _CARD, _card(run, recommender, found, facts))
        write_whole(folder / FACTS, json.dumps(facts.model_dump(), indent=1) + "\n")  # last: the export is whole
        for name in OWN_FILES:
            (folder / name).unlink(missing_ok=True)
    return folder


def _card(run: RunFolder, recommender: Recommender, found: store.Checkpoint, facts: Facts) -> str:
    """Return the model card, with a section about the graph."""
    if recommender.data is not None:
        card = model_card(run, recommender, config_of(found), found.state)
    else:  # an export of an export
        card = (run.path / _CARD).read_text(encoding="utf-8")
    check = facts.check
    inputs = (inspect.getdoc(write_graph_module) or "").partition("\n\n")[2]
    agreed = (
        f"On {check['histories']:,} histories ({check['of']}) its lists of {check['k']} items were those of the "
        f"run, {check['in_another_order']:,} of them with another order of items whose scores are equal within "
        f"{_NEAR:g}; scores differed by at most {check['largest_difference']:.1e}. One history took "
        f"{check['milliseconds']['graph']:.2f} ms, and {check['milliseconds']['run']:.2f} ms with PyTorch, on the "
        "machine that exported it (medians)."
    )
    return "\n\n".join([card.rstrip(), "## The graph", textwrap.fill(agreed, 120), inputs]) + "\n"


def compared(run: Recommender, graph: Recommender) -> dict[str, Any]:
    """Compare lists of a graph with those of its run; return figures for graph.json.

    Items may change places only if their scores are equal within 1e-4.

    Raises: EvaluationError if the graph gives other items or scores. Remedy: report it; the fault is here.
    """
    histories, times, whose = _histories(run)
    options: dict[str, Any] = {"k": min(_K, len(run.items)), "times": times}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SasrecWarning)  # of the run, which the user has seen
        lists = [each.recommend_many(histories, **options) for each in (run, graph)]
        clocks = _seconds(run, graph, histories[:_CLOCKED], times)
    both = lists[0].join(lists[1], on=["row", "rank"], how="full", suffix="_graph", maintain_order="left")
    apart = (both["score"] - both["score_graph"]).abs()
    largest = float(apart.max() or 0.0)  # type: ignore[arg-type]
    if apart.null_count() or largest > _NEAR:
        raise EvaluationError(
            f"the graph gives other lists than the run: scores differ by up to {largest:.2g}. Nothing was "
            "exported. Please report this with the settings of the run."
        )
    other = both.filter(pl.col("item") != pl.col("item_graph"))
    return {
        "histories": len(histories),
        "of": whose,
        "k": options["k"],
        "in_another_order": other["row"].n_unique(),
        "largest_difference": largest,
        "milliseconds": {name: 1e3 * clock for name, clock in zip(("run", "graph"), clocks, strict=True)},
    }


def _histories(run: Recommender) -> tuple[list[list[Any]], list[list[float]] | None, str]:
    """Return histories of users of the run, or drawn at random for an export, and their times in seconds."""
    if run.data is None:
        random, ids = np.random.default_rng(0), run.items.ids
        drawn = [ids.gather(random.integers(0, len(ids), length)).to_list() for length in range(1, 1 + _DRAWN)]
        return drawn, [[float(at) for at in range(len(each))] for each in drawn] if run.timed else None, "drawn"
    data = run.data
    users = np.linspace(0, data.num_users - 1, min(_ROWS, data.num_users)).astype(np.int64)
    ranges = [(data.offsets[user], data.offsets[user + 1]) for user in users]
    histories = [run.items.ids.gather(data.items[start:end] - 1).to_list() for start, end in ranges]
    times = None
    if run.timed:
        assert data.times is not None, "a model with time was trained on times"
        times = [(data.times[start:end] / 1e6).tolist() for start, end in ranges]
    return histories, times, "of users of its data"


def _seconds(
    run: Recommender, graph: Recommender, histories: list[list[Any]], times: list[list[float]] | None
) -> list[float]:
    """Return the median seconds of one list by each, called in turns."""
    taken: list[list[float]] = [[], []]
    for row, history in enumerate(histories):
        for clock, each in zip(taken, (run, graph), strict=True):
            began = time.perf_counter()
            with suppress(DataError):  # no item of the history is known
                each.recommend(history, times=None if times is None else times[row])
            clock.append(time.perf_counter() - began)
    return [statistics.median(each) for each in taken]
