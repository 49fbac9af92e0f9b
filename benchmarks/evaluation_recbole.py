"""RecBole's own full-sort evaluation, for evaluation.py: its data set, loader, SASRec, trainer and metrics.

RecBole is optional and is imported only if it is requested. README.md explains how to install it, and lists the
differences between its evaluation and ours.
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
_USERS = (4096, 64)  # RecBole's default, and the fastest power of 2 on one thread
_NAME = "events"


def recbole_names() -> list[str]:
    """The names of RecBole's variants, which differ in the users per batch; empty if it is not installed."""
    return [f"RecBole, {users} users" for users in _USERS if importlib.util.find_spec("recbole") is not None]


def recbole_versions() -> str:
    """The versions of RecBole and of NumPy, which RecBole restricts."""
    return f"RecBole {importlib.metadata.version('recbole')}, NumPy {np.__version__}"


def recbole_ways(data: Dataset, split: EvaluationSplit, model: ModelConfig) -> dict[str, Way]:
    """Name -> a function that evaluates the test split with RecBole's trainer and returns HR@10.

    The data and the loaders are prepared before, so that only evaluation is timed.

    Raises: ValueError if RecBole's users, histories or targets differ from those of `split`.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer

    # RecBole writes checkpoints and TensorBoard files to the working folder.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from pandas, about filling missing values
        _write_events(data, Path(folder) / _NAME / f"{_NAME}.inter")
        # RecBole's Config would read the command line of this script.
        with mock.patch.object(sys, "argv", sys.argv[:1]):
            config = Config(model="SASRec", dataset=_NAME, config_dict=_settings(folder, model))
        test = data_preparation(config, create_dataset(config))[2].dataset
        torch.manual_seed(0)
        trainer = Trainer(config, SASRec(config, test))
        trainer.tensorboard.close()  # else it writes at exit, when the temporary folder no longer exists
    _check(test, split, model.maxlen)

    def way(users: int) -> Way:
        config["eval_batch_size"] = users  # the loader below reads this setting
        loader = FullSortEvalDataLoader(config, test, sampler=None)  # full-catalogue evaluation draws no samples
        # The model is untrained, so no checkpoint is loaded.
        return lambda: float(trainer.evaluate(loader, load_best_model=False)["hit@10"])

    return dict(zip(recbole_names(), map(way, _USERS), strict=True))


def _write_events(data: Dataset, path: Path) -> None:
    """Write the events as RecBole's atomic file. An event's time is its position in the user's history."""
    lengths = np.diff(data.offsets)
    places = np.arange(data.num_events) - np.repeat(data.offsets[:-1], lengths)
    columns = {
        "user_id:token": np.repeat(np.arange(data.num_users), lengths),
        "item_id:token": np.asarray(data.items),
        "timestamp:float": places,  # as float32, so positions in the whole file would be inexact beyond 2^24
    }
    path.parent.mkdir()
    pl.DataFrame(columns).write_csv(path, separator="\t")


def _settings(folder: str, model: ModelConfig) -> dict[str, Any]:
    """Leave-one-out, the full catalogue, and a network of our size. All other settings are RecBole's defaults."""
    return {
        "data_path": folder,
        "gpu_id": "",  # use the CPU
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,  # required by RecBole's default loss, cross-entropy
        "metrics": ["NDCG", "Hit", "MRR"],
        "topk": [10],
        "metric_decimal_place": 6,
        "MAX_ITEM_LIST_LENGTH": model.maxlen,
        "hidden_size": model.hidden_units,
        "n_layers": model.num_blocks,
        "n_heads": model.num_heads,
        # The same feed-forward layer as ours. RecBole's defaults, 256 units and GELU, are slower.
        "inner_size": model.hidden_units,
        "hidden_act": "relu",
    }


def _check(theirs: Any, split: EvaluationSplit, maxlen: int) -> None:
    """Raise ValueError unless RecBole's test set has our users, model inputs and targets."""
    ours = pad(split.histories, np.arange(len(split.users)), maxlen)
    # RecBole renumbers users and items from 1; 0 is padding.
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
