"""With many users, training validates on some of them, and the end measures all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sasrec
from sasrec.data.splits import split_events
from sasrec.evaluation.baselines import baselines
from sasrec.evaluation.metrics import metrics_from_ranks
from sasrec.evaluation.target_ranks import target_ranks
from sasrec.ranking.scorers import ModelScorer
from sasrec.runs.folder import RunFolder
from sasrec.runs.start import validated_part, validator
from tests.synthetic import chain_frame, small


def test_the_drawn_users_keep_all_their_targets_and_histories() -> None:
    data = sasrec.prepare(chain_frame())
    part = split_events(data, "last-2").valid
    drawn = part.of_users(7, seed=1)
    assert len(np.unique(drawn.users)) == 7
    assert drawn.users.tolist() == part.of_users(7, seed=1).users.tolist()
    assert drawn.users.tolist() != part.of_users(7, seed=2).users.tolist()
    rows = np.flatnonzero(np.isin(part.users, drawn.users))
    assert drawn.events.tolist() == part.events[rows].tolist()
    popular = baselines(split_events(data, "last-2").training, data.num_items, None)["popularity"]
    np.testing.assert_array_equal(target_ranks(popular, drawn).full, target_ranks(popular, part).full[rows])
    assert part.of_users(10_000, seed=1) is part


def test_training_is_judged_by_them_and_the_end_measures_all(tmp_path: Path) -> None:
    settings = small(batch_size=16, num_epochs=3, valid_users=9, seed=5)
    model = sasrec.train(chain_frame(), tmp_path / "run", **settings)
    folder = RunFolder(tmp_path / "run")
    assert model.data is not None
    split = split_events(model.data)
    part = validated_part(split, folder.config())
    assert len(part.targets) == 9
    scores = [event["score"] for event in folder.events() if event["event"] == "validation"]
    expected = metrics_from_ranks(target_ranks(ModelScorer(model.model), part).full)["ndcg@10"]
    assert max(scores) == expected
    metrics = folder.metrics()
    assert metrics["protocol"]["valid"]["targets"] == len(split.valid.targets) > 9
    assert metrics["valid"]["full"]["ndcg@10"] != expected
    words: list[str] = []
    assert validator(model.model, part)(words.append) == expected
    assert words[-1] == "validating 9 of 9"
