"""Self-attentive sequential recommendation: from a file of events to top-K lists in your own ids.

The packages, in the order the data flows. Each imports only from packages above it, and from config, runtime,
files and errors:

    events       raw files and frames -> checked rows, every bad one named
    data         checked rows -> flat arrays and id maps; splits
    sources      a name, a file, a folder or a frame -> a Dataset
    batches      (seed, epoch, step) -> a batch; negatives; ticks (times in the user's own unit)
    models       histories -> states; scores of all items
    losses       states -> a scalar
    ranking      scores of candidates -> the best items, for metrics and for users
    checkpoint   weights, optimizer and settings on disk
    training     batch -> loss -> step -> validate -> save
    evaluation   ranks of targets -> NDCG, HR, MRR, and their protocol
    runs         a run folder: train, resume, evaluate, load, export
    studies      several runs: compare, reproduce
    serving      ONNX graphs
    cli          the command line

    config       settings and recipes          runtime   processes, signals, the log, devices
    files        whole-file writes and hashes  errors    every error a user can cause
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sasrec.config.settings import RunConfig
    from sasrec.data.dataset import Dataset, open_dataset
    from sasrec.errors import SasrecError, SasrecWarning
    from sasrec.ranking.recommender import Recommender
    from sasrec.ranking.rules import Rules
    from sasrec.runs.blend import blend
    from sasrec.runs.evaluate import evaluate
    from sasrec.runs.export import export
    from sasrec.runs.final import final_fit
    from sasrec.runs.refresh import refresh
    from sasrec.runs.train import resume, train
    from sasrec.serving.export_onnx import export_onnx
    from sasrec.serving.load import load
    from sasrec.sources.resolve import prepare
    from sasrec.studies.compare import compare

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Recommender",
    "Rules",
    "RunConfig",
    "SasrecError",
    "SasrecWarning",
    "blend",
    "compare",
    "evaluate",
    "export",
    "export_onnx",
    "final_fit",
    "load",
    "open_dataset",
    "prepare",
    "refresh",
    "resume",
    "train",
]

# Imported when first used: PyTorch takes seconds, and not every use needs it.
_HOME = {
    "Dataset": "data.dataset",
    "Recommender": "ranking.recommender",
    "Rules": "ranking.rules",
    "RunConfig": "config.settings",
    "SasrecError": "errors",
    "SasrecWarning": "errors",
    "blend": "runs.blend",
    "compare": "studies.compare",
    "evaluate": "runs.evaluate",
    "export": "runs.export",
    "export_onnx": "serving.export_onnx",
    "final_fit": "runs.final",
    "load": "serving.load",
    "open_dataset": "data.dataset",
    "prepare": "sources.resolve",
    "refresh": "runs.refresh",
    "resume": "runs.train",
    "train": "runs.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sasrec' has no attribute {name!r}")
    found = getattr(import_module(f"sasrec.{_HOME[name]}"), name)
    globals()[name] = found  # the next use finds it without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
