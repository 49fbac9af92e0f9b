"""Load a run, an export or an ONNX export, to recommend."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sasrec.data.items import Items
from sasrec.errors import ConfigError, DataError
from sasrec.files import file_digest
from sasrec.ranking.fallback import Counts, fallback_of
from sasrec.ranking.recommender import Recommender
from sasrec.serving.graph import GraphScorer
from sasrec.untrusted import json_of, refuse_large

if TYPE_CHECKING:
    from sasrec.models.own import Encoder

FACTS, GRAPH, WEIGHTS, VECTORS = "graph.json", "model.onnx", "model.onnx.data", "vectors.npy"
ITEMS, COUNTS = "items.parquet", "counts.parquet"
FILES = {GRAPH, WEIGHTS, VECTORS, ITEMS, COUNTS}
_AGAIN = "Export the run again."


class Facts(BaseModel):
    """What graph.json says of the files beside it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    format: Literal[1] = 1
    model: str
    """Class and residuals of the model, in words."""
    items: int = Field(ge=1)
    maxlen: int = Field(ge=1)
    timed: bool
    repeats: bool
    skip_own_items: bool
    """Whether own items were no negatives in training."""
    weights: str
    """SHA-256 of the weights."""
    known: str | None
    """The mask of known items, (V,), as bits in base64; None if all are known."""
    files: dict[str, str]
    """File -> SHA-256."""
    check: dict[str, Any] = {}
    """How the graph was checked against the run (`export_onnx`)."""

    def known_items(self) -> npt.NDArray[np.bool_] | None:
        """Return the mask of known items, (V,)."""
        if self.known is None:
            return None
        bits = np.frombuffer(base64.b64decode(self.known), np.uint8)
        return np.unpackbits(bits, count=self.items + 1).astype(bool)


def packed(known_V: npt.NDArray[np.bool_] | None) -> str | None:
    """Return a mask of known items for `Facts.known`."""
    return None if known_V is None else base64.b64encode(np.packbits(known_V).tobytes()).decode()


def load(
    run: str | Path,
    *,
    device: str = "auto",
    dataset: Any = None,
    checkpoint: str | Path | None = None,
    encoder: Encoder | None = None,
    fallback: str | None = None,
) -> Recommender:
    """Load a run or an export, to recommend with it; "runs/a:markov" loads a baseline, "runs/a:blend" the blend.

    `run` is the folder of a run or of an export. For a baseline of a run, write a colon and the name of the
    baseline behind the folder, such as "runs/a:popularity". For the blend of a run, write ":blend". An export of a
    baseline or of a blend recommends with this baseline or blend. An ONNX export runs on the CPU with onnxruntime,
    without PyTorch. It contains no users, and accepts only `fallback` of the arguments below.

    `checkpoint`: the folder of a checkpoint to use instead of the best one. `dataset`: the events of the users who
    get lists, instead of the events of the run: a Dataset, a prepared folder, a file or a frame, with the column
    names of the run's data. These events may have new users. Events with items that the run does not know are
    omitted, with a warning. If the data of the run has moved, name its new place here. `encoder`: the class that
    `train` was given, if the run has a model of your own. `fallback`: what to recommend if no item of a history is
    known: best sellers ("popular"), best sellers of the last 7 days of the data ("recent"), or best sellers of
    each group ("groups"). By default, `recommend` and `recommend_user` then raise DataError, and `recommend_all`
    and `recommend_many` return no rows for such a history.

    Raises: CheckpointError or DataError if a file is missing or damaged, or if `dataset` has no known item and no
    fallback is given. Remedy: name the right checkpoint or data set. ConfigError if `encoder` is not the class of
    the run, or if an ONNX export does not accept an argument. Remedy: as the message says.
    """
    if not (isinstance(run, str | Path) and (Path(run) / FACTS).is_file()):
        from sasrec.runs.evaluate import load as load_run

        return load_run(
            run, device=device, dataset=dataset, checkpoint=checkpoint, encoder=encoder, fallback=fallback
        )
    folder = Path(run)
    given = {"dataset": dataset, "checkpoint": checkpoint, "encoder": encoder}
    refused = [name for name, value in given.items() if value is not None]
    if device not in ("auto", "cpu"):
        refused.append("device")
    if refused:
        raise ConfigError(
            f"{folder} is an ONNX export, which runs on the CPU, for histories: {refused[0]} does not fit. Leave "
            "it out, or load the run."
        )
    return of_graph(folder, facts_of(folder), fallback)


def facts_of(folder: Path) -> Facts:
    """Read graph.json. Raises: DataError if it is damaged. Remedy: export the run again."""
    try:
        facts = Facts.model_validate(json_of(folder / FACTS))
        facts.known_items()
        if not {GRAPH, VECTORS, ITEMS} <= set(facts.files) <= FILES:
            raise ValueError
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its content"
        raise DataError(f"{folder / FACTS} is damaged ({where}). {_AGAIN}") from None
    except (ValueError, OSError):
        raise DataError(f"{folder / FACTS} cannot be read. {_AGAIN}") from None
    return facts


def of_graph(folder: Path, facts: Facts, fallback: str | None = None) -> Recommender:
    """Return the recommender of an ONNX export, after a comparison of the hashes of its files.

    Raises: DataError if a file is missing or changed. Remedy: export the run again. The errors of `fallback_of`.
    """
    for name, digest in facts.files.items():
        path = folder / name
        try:
            refuse_large(path)
            changed = file_digest(path) != digest
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. {_AGAIN}") from None
        if changed:
            raise DataError(f"{path} has changed since the export. {_AGAIN}")
    scorer = GraphScorer(
        folder / GRAPH,
        folder / VECTORS,
        num_items=facts.items,
        maxlen=facts.maxlen,
        timed=facts.timed,
        threads=int(os.environ.get("OMP_NUM_THREADS") or 0),  # 0: all cores
    )
    items = Items.read(folder / ITEMS, facts.items)
    recommender = Recommender(scorer, items, None, facts.known_items(), repeats=facts.repeats)
    if fallback is not None:
        counts = Counts.read(folder / COUNTS, facts.items)
        recommender = replace(recommender, fallback=fallback_of(fallback, items, counts))
    return recommender
