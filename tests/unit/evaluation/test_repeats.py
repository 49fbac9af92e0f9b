"""Data in which items come again: one setting decides it for targets, candidates, negatives, lists and baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.batches.negatives import NegativePlan
from sasrec.cli.main import main
from sasrec.config.settings import LossConfig
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.errors import EvaluationError
from sasrec.evaluation.baselines import baselines
from sasrec.evaluation.target_ranks import other_candidates, sampled_negatives, target_ranks
from sasrec.ranking.scorers import ModelScorer
from tests.synthetic import dataset, small

# The last two items of each user are ones that it had before, except the last item of the third user.
LISTS = [[1, 2, 1, 2, 1], [3, 1, 3, 3, 1], [4, 2, 4, 4, 5]]


def shop_frame(users: int = 40, weeks: int = 12) -> pl.DataFrame:
    """Everybody buys the same three items in turn, so that what comes next was bought before."""
    rows = [
        {
            "user": f"u{user}",
            "item": f"i{(3 * user + week % 3) % 30}",
            "time": 1_700_000_000 + 604_800 * week + 60 * user,
        }
        for user in range(users)
        for week in range(weeks)
    ]
    return pl.DataFrame(rows)


@pytest.mark.parametrize("how", ["leave-one-out", "last-2", "all"])
def test_seen_items_are_targets_only_with_repeats(how: str) -> None:
    data = dataset(LISTS)
    without, split = split_events(data, how), split_events(data, how, repeats=True)
    assert without.training.lengths.tolist() == split.training.lengths.tolist()
    if how == "leave-one-out":
        assert without.test.targets.tolist() == [5]
        assert without.test.skipped["the user has had the target before"] == 2
        assert split.test.targets.tolist() == [1, 1, 5]
        assert split.valid.targets.tolist() == [2, 3, 4]
    assert split.test.repeats_left_out == split.valid.repeats_left_out == 0
    assert "the user has had the target before" not in split.test.skipped


def test_seen_items_are_candidates_and_the_rank_counts_them() -> None:
    data = dataset(LISTS, num_items=6)
    part = split_events(data, repeats=True).test
    scorer = baselines(split_events(data).training, 6, None, repeats=True)["own-frequent"]
    # Histories 1 2 1 2, 3 1 3 3 and 4 2 4 4: the user's own items come first, then the popular ones; 5 and 6 tie.
    assert target_ranks(scorer, part).full.tolist() == [1, 2, 5.5]
    assert other_candidates(part, np.arange(3)).tolist() == [5, 5, 5]
    negatives = sampled_negatives(part, 6, 200, seed=0)
    for row, target in enumerate(part.targets):
        assert set(negatives[row]) == set(range(1, 7)) - {target}


def test_two_baselines_recommend_what_the_user_has_had() -> None:
    training = split_events(dataset(LISTS, num_items=6)).training
    assert baselines(training, 6, None).keys() == {"popularity", "item-to-item", "markov"}
    found = baselines(training, 6, None, repeats=True)
    histories = Histories(np.array([5, 6, 5, 2], np.int32), None, np.array([0, 4]), np.array([4, 4]))
    rows = np.arange(2)
    frequent, recent = (found[name].scores(histories, rows) for name in ("own-frequent", "own-recent"))
    order = frequent[0, 1:].argsort(descending=True, stable=True) + 1
    assert order[0] == 5  # twice; then 2 and 6, of which 2 is more popular
    assert order[1:3].tolist() == [2, 6]
    assert (recent[0, 1:].argsort(descending=True, stable=True) + 1)[:3].tolist() == [2, 5, 6]
    assert frequent[1].equal(recent[1]), "popularity orders the items after an empty history"
    assert frequent[1].amax() < 1


def test_own_items_are_negatives() -> None:
    for loss in (LossConfig(), LossConfig(loss="bce"), LossConfig(loss="softmax")):
        assert NegativePlan.of(loss).own != "kept"
        assert NegativePlan.of(loss, repeats=True).own == "kept"


def test_a_run_with_repeats_measures_and_recommends_what_it_says(tmp_path: Path) -> None:
    settings = small(batch_size=16, num_epochs=20, lr=1e-2)
    model = sasrec.train(shop_frame(), tmp_path / "run", repeats=True, **settings)
    metrics = sasrec.evaluate(tmp_path / "run")
    assert metrics["protocol"]["test"]["targets"] == 40
    assert "candidates and targets like all others" in metrics["protocol"]["seen"]
    assert metrics["test"]["full"]["hr@5"] > 0.9
    assert metrics["baselines"].keys() >= {"own-frequent", "own-recent"}
    assert metrics["baselines"]["own-recent"]["test"]["full"]["hr@5"] == 1
    history = model.data.history("u0")
    for served in (model, sasrec.load(tmp_path / "run")):
        assert set(dict(served.recommend(history, 5))) & set(history)
        assert not set(dict(served.recommend(history, 5, exclude_seen=True))) & set(history)
        assert set(dict(served.recommend_user("u0", 5))) & set(history)
        everybody = served.recommend_all(5).filter(pl.col("user") == "u0")["item"]
        assert everybody.to_list() == [item for item, _ in served.recommend_user("u0", 5)]
    # What is measured is what is served: the rank of a target is its place in the list.
    split = split_events(model.data, repeats=True)
    measured = target_ranks(ModelScorer(model.model), split.test).full.tolist()
    for user, rank in zip(model.data.user_ids, measured, strict=True):
        *before, target = model.data.history(user)
        assert [item for item, _ in model.recommend(before, 30)].index(target) + 1 == rank


def test_runs_with_and_without_repeats_are_not_compared(tmp_path: Path) -> None:
    last = shop_frame().group_by("user").tail(1).with_columns(pl.col("time") + 60, item=pl.lit("new"))
    frame = pl.concat([shop_frame(), last])
    settings = small(batch_size=16, num_epochs=1)
    for name, repeats in (("with", True), ("without", False)):
        sasrec.train(frame, tmp_path / name, repeats=repeats, **settings)
    with pytest.raises(EvaluationError, match="seen"):
        sasrec.compare([str(tmp_path / "with"), str(tmp_path / "without")])


def test_the_data_report_recommends_it_where_many_items_repeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = sasrec.prepare(shop_frame()).report["warnings"]
    assert any("75% of events repeat" in note and "repeats=True" in note for note in notes)
    few = sasrec.prepare(shop_frame(weeks=3)).report["warnings"]
    assert not any("repeat" in note for note in few)
    shop_frame().write_csv(tmp_path / "shop.csv")
    options = [f"--{name}={value}" for name, value in small(num_epochs=1).items()]
    words = ["train", f"--dataset={tmp_path / 'shop.csv'}", f"--train_dir={tmp_path / 'run'}", *options]
    assert main(["prepare", str(tmp_path / "shop.csv"), f"--output={tmp_path / 'data'}"]) == 0
    assert "train with --repeats" in capsys.readouterr().out.replace("\n", " ")
    assert main([*words, "--repeats"]) == 0
    assert "train with --repeats" not in capsys.readouterr().err
    assert main(["recommend", str(tmp_path / "run"), "--user=u0", "--k=30"]) == 0
    lists = capsys.readouterr().out.split()
    assert "i0" in lists
    assert main(["recommend", str(tmp_path / "run"), "--user=u0", "--k=30", "--exclude_seen"]) == 0
    assert "i0" not in capsys.readouterr().out.split()
    assert main(["recommend", str(tmp_path / "run"), "--user=u0", "--exclude_seen", "--include_seen"]) == 1
    assert main([*words[:2], f"--train_dir={tmp_path / 'plain'}", *options]) == 0
    assert "train with --repeats" in capsys.readouterr().err
