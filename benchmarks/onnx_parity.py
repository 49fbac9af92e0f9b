"""Graphs of all models against their runs, and in half and eight-bit precision, on real histories.

    OMP_NUM_THREADS=1 python benchmarks/onnx_parity.py DATA [--epochs 10] [--json FILE]

parity     Each of the four models, with each place of its norms, is trained for an epoch and exported. `sasrec
           export` compares the lists of up to 1,000 users of DATA: histories whose lists have the same items in
           another order (their scores are equal within 1e-4), the largest difference of a score, and milliseconds
           for one history.
precision  SASRec is trained for some epochs, and its graph is converted to fp16, and to int8 by dynamic
           quantization. Measured are NDCG@10 on the last event of up to 1,000 users, the share of equal lists, the
           size, and the median milliseconds for one history; the graphs take turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import sasrec
from sasrec.errors import ConfigError
from sasrec.serving.graph import GraphScorer
from sasrec.serving.load import FACTS, GRAPH, VECTORS, WEIGHTS

MODELS: dict[str, dict[str, Any]] = {
    "SASRec": {},
    "SASRec with mHC": {"mhc": True},
    "TiSASRec": {"time": True},
    "TiSASRec with mHC": {"time": True, "mhc": True},
}
NORMS = ("pre", "post", "original")
SETTINGS: dict[str, Any] = {"maxlen": 50, "hidden_units": 64, "batch_size": 64, "device": "cpu", "loss": "ce"}
USERS, K, CLOCKED = 1_000, 10, 300


def parity(data: Any, folder: Path) -> list[dict[str, Any]]:
    """One row for each model and place of the norms."""
    rows = []
    for name, of_model in MODELS.items():
        for norm in NORMS:
            run, graph = folder / "run", folder / "graph"
            try:
                sasrec.train(data, run, num_epochs=1, norm=norm, **of_model, **SETTINGS)
            except ConfigError as error:
                rows.append({"model": name, "norm": norm, "refused": str(error)})
                continue
            sasrec.export_onnx(run, graph)
            check = json.loads((graph / FACTS).read_text())["check"]
            rows.append({"model": name, "norm": norm, "bytes": size(graph)} | check)
            print(rows[-1], flush=True)
            shutil.rmtree(run)
            shutil.rmtree(graph)
    return rows


def size(graph: Path) -> int:
    """The bytes of a graph and its weights."""
    return sum((graph / name).stat().st_size for name in (GRAPH, WEIGHTS) if (graph / name).exists())


def precision(data: Any, folder: Path, epochs: int) -> dict[str, Any]:
    """Quality, size and time of one model in three precisions."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = sasrec.train(data, folder / "run", num_epochs=epochs, windows="random", **SETTINGS)
    sasrec.export_onnx(folder / "run", folder / "fp32")
    whole = onnx.load(folder / "fp32" / GRAPH)
    for name in ("fp16", "int8"):
        (folder / name).mkdir()
    onnx.save(convert_float_to_float16(whole, keep_io_types=True), folder / "fp16" / GRAPH)
    quantize_dynamic(folder / "fp32" / GRAPH, folder / "int8" / GRAPH, weight_type=QuantType.QInt8)
    held = model.data
    assert held is not None
    users = np.linspace(0, held.num_users - 1, min(USERS, held.num_users)).astype(np.int64)
    numbers = [held.item_numbers_of(int(user)).tolist() for user in users]
    names = ("fp32", "fp16", "int8")
    scorers = {
        name: GraphScorer(
            folder / name / GRAPH,
            folder / "fp32" / VECTORS,
            num_items=held.num_items,
            maxlen=50,
            timed=False,
            threads=1,
        )
        for name in names
    }
    lists: dict[str, list[list[int]]] = {name: [] for name in names}
    clocks: dict[str, list[float]] = {name: [] for name in names}
    for row, events in enumerate(numbers):
        for name, scorer in scorers.items():
            began = time.perf_counter()
            lists[name].append(best(scorer, events[:-1]))
            if row < CLOCKED:
                clocks[name].append(1e3 * (time.perf_counter() - began))
    targets = [events[-1] for events in numbers]
    return {
        name: {
            "ndcg@10": float(
                np.mean([gain(found, target) for found, target in zip(lists[name], targets, strict=True)])
            ),
            "equal lists": float(np.mean([a == b for a, b in zip(lists[name], lists["fp32"], strict=True)])),
            "bytes": size(folder / name),
            "milliseconds": statistics.median(clocks[name]),
        }
        for name in names
    }


def best(scorer: GraphScorer, history: list[int]) -> list[int]:
    """The ten best items for a history of item numbers."""
    from sasrec.data.histories import Histories
    from sasrec.ranking.selection import Selection

    one = Histories(np.array(history, np.int32), None, np.zeros(1, np.int64), np.array([len(history)]))
    ((_, items, _),) = scorer.top(one, K, exclude_seen=True, selection=Selection(None))
    return [int(item) for item in items[0]]


def gain(found: list[int], target: int) -> float:
    """NDCG@10 with one relevant item."""
    return float(1 / np.log2(2 + found.index(target))) if target in found else 0.0


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    data = sasrec.prepare(asked.data)
    with tempfile.TemporaryDirectory() as folder:
        found = {"precision": precision(data, Path(folder), asked.epochs)}
        print(json.dumps(found, indent=1), flush=True)
        shutil.rmtree(Path(folder) / "run")
        found["parity"] = parity(data, Path(folder))  # type: ignore[assignment]
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
