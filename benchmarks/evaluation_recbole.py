"""RecBole's own full-sort evaluation, a way of evaluation.py: its data set, loader, SASRec, trainer and metrics.

RecBole is optional and imported only where it is asked for. README.md says how it is installed, and what it does
and ours does not, and the other way round.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import torch

from sasrec.batches.batches import pad
from sasrec.config.settings import ModelConfig
from sasrec.data.dataset import Dataset
from sasrec.data.splits import EvaluationSplit

Way = Callable[[], float]
_USERS = (4096, 64)  # its default, and the fastest of the powers of 2 on one thread
_NAME = "events"


def recbole_names() -> list[str]:
    """Names of its ways, by users a batch; none if it is not installed."""
    return [f"RecBole, {users} users" for users in _USERS if importlib.util.find_spec("recbole") is not None]


def recbole_versions() -> str:
    """Its version, and NumPy's, which it dictates."""
    return f"RecBole {importlib.metadata.version('recbole')}, NumPy {np.__version__}"


def recbole_ways(data: Dataset, split: EvaluationSplit, model: ModelConfig) -> dict[str, Way]:
    """Name -> what evaluates the test split with RecBole's trainer and gives HR@10. Data and loaders are made now.

    Raises: ValueError if its users, histories or targets are not those of `split`.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer

    # It writes checkpoints and TensorBoard's files where it stands.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # pandas', on filling in what is missing: nothing is here
        _write_events(data, Path(folder) / _NAME / f"{_NAME}.inter")
        # Its Config reads the command line, which is not meant for it.
        with mock.patch.object(sys, "argv", sys.argv[:1]):
            config = Config(model="SASRec", dataset=_NAME, config_dict=_settings(folder, model))
        test = data_preparation(config, create_dataset(config))[2].dataset
        torch.manual_seed(0)
        trainer = Trainer(config, SASRec(config, test))
        trainer.tensorboard.close()  # else it writes to the folder at exit, when there is none
    _check(test, split, model.maxlen)

    def way(users: int) -> Way:
        config["eval_batch_size"] = users  # read when a loader is made
        loader = FullSortEvalDataLoader(config, test, sampler=None)  # needs none if full and sequential
        # There is no checkpoint: the model is as it was initialised.
        return lambda: float(trainer.evaluate(loader, load_best_model=False)["hit@10"])

    return dict(zip(recbole_names(), map(way, _USERS), strict=True))


def _write_events(data: Dataset, path: Path) -> None:
    """RecBole's atomic file of our numbers; an event's time is its place in the user's history."""
    lengths = np.diff(data.offsets)
    places = np.arange(data.num_events) - np.repeat(data.offsets[:-1], lengths)
    columns = {
        "user_id:token": np.repeat(np.arange(data.num_users), lengths),
        "item_id:token": np.asarray(data.items),
        "timestamp:float": places,  # fp32 there: places in the whole file would not be exact beyond 2^24
    }
    path.parent.mkdir()
    pl.DataFrame(columns).write_csv(path, separator="\t")


def _settings(folder: str, model: ModelConfig) -> dict[str, Any]:
    """Leave-one-out over the whole catalogue, and a network of our size. All else is RecBole's default."""
    return {
        "data_path": folder,
        "gpu_id": "",  # the processor
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,  # its cross-entropy, the default loss, insists
        "metrics": ["NDCG", "Hit", "MRR"],
        "topk": [10],
        "metric_decimal_place": 6,
        "MAX_ITEM_LIST_LENGTH": model.maxlen,
        "hidden_size": model.hidden_units,
        "n_layers": model.num_blocks,
        "n_heads": model.num_heads,
        # As our feed-forward. Its defaults, 256 and GELU, cost it more.
        "inner_size": model.hidden_units,
        "hidden_act": "relu",
    }


def _check(theirs: Any, split: EvaluationSplit, maxlen: int) -> None:
    """Raise ValueError unless the rows of RecBole's test set are ours: users, what the model reads, targets."""
    ours = pad(split.histories, np.arange(len(split.users)), maxlen)
    # It numbers users and items anew, from 1; 0 is padding.
    users, items = (
        np.array([-1 if field == "user_id" else 0, *map(int, theirs.field2id_token[field][1:])])
        for field in ("user_id", "item_id")
    )
    rows = theirs.inter_feat
    users_B = users[rows["user_id"].numpy()]
    order = np.argsort(users_B)
    histories_BL = items[rows["item_id_list"].numpy()[order]]
    found = {
        "users": (users_B[order], split.users),
        "targets": (items[rows["item_id"].numpy()[order]], split.targets),
        "lengths": (rows["item_length"].numpy()[order], ours.lengths_B),
        "histories": (histories_BL[:, : ours.items_BL.shape[1]], ours.items_BL),
    }
    for what, (of_theirs, of_ours) in found.items():
        if not np.array_equal(of_theirs, of_ours):
            raise ValueError(f"RecBole's test split has other {what} than ours")
