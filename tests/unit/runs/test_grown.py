"""The weights of a model with more items: known vectors stay, new ones begin near what is known of the items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import sasrec
from sasrec.checkpoint.restore import checkpoint_at
from sasrec.checkpoint.store import Checkpoint
from sasrec.config.settings import ModelConfig
from sasrec.data.histories import Histories
from sasrec.data.items import Items
from sasrec.models import build_model
from sasrec.runs.grown import mean_cosine, put_grown_weights
from tests.synthetic import chain_frame, small


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    run = tmp_path_factory.mktemp("grown") / "run"
    sasrec.train(chain_frame(items=20), run, **small(num_epochs=1))
    return checkpoint_at(run)


def histories(lists: list[list[int]]) -> Histories:
    ends = np.cumsum([len(row) for row in lists])
    return Histories(np.concatenate(lists).astype(np.int32), None, np.append(0, ends[:-1]), ends)


def test_a_new_item_is_the_mean_of_its_neighbours_else_of_its_group_else_of_rare_items(found: Checkpoint) -> None:
    old = found.weights["item_embedding.weight"]
    ids = pl.Series([f"{n}" for n in range(1, 25)])
    groups = pl.Series(["tea", "tea", *["other"] * 18, None, "tea", None, "nowhere"])
    known_V = np.arange(25) <= 20
    known_V[0] = False
    counts_V = np.arange(25)[::-1].copy()  # 20 and 19 are the rarest tenth of the known items
    model = build_model(24, ModelConfig(maxlen=12, hidden_units=16))
    # 21 stands beside 3 (twice), 5 and, across two users, 7; 23 stands beside 21 only.
    lists = histories([[3, 21, 3], [21, 5], [7], [23, 21]])
    ways = put_grown_weights(found, model, Items(ids, groups=groups), known_V, lists, counts_V)
    new = model.item_embedding.weight.detach()
    assert ways == {"neighbours": 1, "group": 1, "rare": 2}
    assert torch.equal(new[:21], old)
    rare = old[[20, 19]].mean(0)
    for number, expected in ((21, (2 * old[3] + old[5]) / 3), (22, old[[1, 2]].mean(0)), (23, rare), (24, rare)):
        assert torch.allclose(new[number], expected, atol=1e-6), number
    for name, tensor in found.weights.items():
        if name != "item_embedding.weight":
            assert torch.equal(model.state_dict()[name], tensor)
    assert mean_cosine(found, model, known_V) == pytest.approx(1)


def test_an_item_of_the_run_that_it_does_not_know_is_new_too(found: Checkpoint, tmp_path: Path) -> None:
    known_V = np.arange(21) > 0
    known_V[4] = False
    model = build_model(20, ModelConfig(maxlen=12, hidden_units=16))
    catalogue = Items(pl.Series([f"{n}" for n in range(1, 21)]))
    ways = put_grown_weights(found, model, catalogue, known_V, histories([[4, 9]]), np.ones(21, np.int64))
    assert ways == {"neighbours": 1, "group": 0, "rare": 0}
    assert torch.equal(model.item_embedding.weight[4], model.item_embedding.weight[9])
