"""Self-attentive sequential recommendation: from a file of events to top-K in your own ids.

The stages, in the order the data flows, and the module of each:

    events       data/events.py       raw files -> checked rows, every bad one named
    dataset      data/dataset.py      checked rows -> flat arrays and id maps, mapped from disk
    splits       data/splits.py       what is trained on, the targets, and what is shown before each
    batches      data/batches.py      (seed, epoch, step) -> a batch
    model        models/              histories -> states; scores of all items
    loss         losses.py            states -> a scalar
    training     training/trainer.py  batch -> loss -> step -> validate -> save
    evaluation   evaluation/          ranks of targets -> NDCG, HR, MRR, and their protocol
    recommend    recommend.py         history -> the best items
    run          run.py, trained.py   a run folder and the verbs on it
    compare      comparison.py        are two runs different by more than chance?
    export       exporting.py         a run -> a folder without anybody's events
"""

from sasrec.comparison import compare
from sasrec.config import RunConfig
from sasrec.data.dataset import Dataset, open_dataset
from sasrec.errors import SasrecError
from sasrec.exporting import export
from sasrec.recommend import Recommender
from sasrec.run import prepare, resume, train
from sasrec.trained import evaluate, load

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Recommender",
    "RunConfig",
    "SasrecError",
    "compare",
    "evaluate",
    "export",
    "load",
    "open_dataset",
    "prepare",
    "resume",
    "train",
]
