"""Training, evaluation and recommendation through the Python interface."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import sasrec
from sasrec.checkpoint import store
from sasrec.cli.main import main
from sasrec.config.settings import RunConfig
from sasrec.errors import CheckpointError, ConfigError, DataError, EvaluationError, TrainingError
from sasrec.training import trainer
from tests.synthetic import chain_frame, dataset, random_lists, small

SMALL = small()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "learned"
    sasrec.train(sasrec.prepare(chain_frame(users=150)), run, num_epochs=30, eval_every=5, patience=0, **SMALL)
    return run


def test_it_learns_what_there_is_to_learn_and_beats_popularity(learned: Path) -> None:
    metrics = sasrec.evaluate(learned, device="cpu")
    assert metrics["test"]["full"]["hr@1"] > 0.6
    assert metrics["baselines"]["popularity"]["test"]["full"]["hr@1"] < 0.2
    assert metrics["test"]["sampled"]["ndcg@10"] > metrics["test"]["full"]["ndcg@10"] - 0.3
    assert metrics == json.loads((learned / "metrics.json").read_text())
    protocol = metrics["protocol"]
    repeats = protocol["test"]["repeats_left_out"]
    assert 0 < repeats == protocol["users_skipped"] == 150 - protocol["users_evaluated"]
    assert protocol["data_hash"] == sasrec.load(learned).data.data_hash


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_nothing_is_gained_by_knowing_what_a_user_has_had(loss: str, tmp_path: Path) -> None:
    """Items drawn alike, so that nothing is to be learned, and often again: a model that skips a user's own items
    as negatives ranks them high, which must not show."""
    data = dataset(random_lists(1500, 60, seed=3, longest=60), 60)
    sasrec.train(data, tmp_path / "run", loss=loss, num_epochs=6, eval_every=3, **SMALL)
    metrics = sasrec.evaluate(tmp_path / "run", device="cpu")
    assert metrics["protocol"]["test"]["repeats_left_out"] > 500
    model, popularity = (each["test"]["full"]["ndcg@10"] for each in (metrics, metrics["baselines"]["popularity"]))
    assert model < popularity + 0.018, "with such targets .03 above"


def test_the_next_item_of_a_chain_is_recommended_to_a_new_user(learned: Path) -> None:
    recommender = sasrec.load(learned, device="cpu")
    best = recommender.recommend(["item-03", "item-04", "item-05"], k=3)
    assert best[0][0] == "item-06"
    scores = [score for _, score in best]
    assert scores == sorted(scores, reverse=True)
    assert "item-05" not in dict(recommender.recommend(["item-05"], k=25))
    assert len(recommender.recommend(["item-05"], k=25)) == 24
    assert "item-05" in dict(recommender.recommend(["item-05"], k=25, exclude_seen=False))


def test_allow_and_deny_lists_are_kept_and_unknown_ids_named_but_not_fatal(learned: Path) -> None:
    recommender = sasrec.load(learned, device="cpu")
    allowed = recommender.recommend(["item-03"], k=5, allow=["item-10", "item-11", "item-12"], deny=["item-11"])
    assert sorted(item for item, _ in allowed) == ["item-10", "item-12"]
    with pytest.warns(UserWarning, match="history: unknown items are ignored: ghost"):
        assert recommender.recommend(["ghost", "item-03"]) == recommender.recommend(["item-03"])
    with pytest.warns(UserWarning, match="and 5 more"):
        recommender.recommend(["item-03"], deny=[f"ghost-{i}" for i in range(15)])
    with pytest.warns(UserWarning, match="ghost"), pytest.raises(DataError, match="no item of the history"):
        recommender.recommend(["ghost"])
    with pytest.raises(DataError, match="deny list: give a list"):
        recommender.recommend(["item-03"], deny="item-04")
    with pytest.raises(ConfigError, match="`k` must be at least 1"):
        recommender.recommend(["item-03"], k=0)
    with pytest.raises(DataError, match="stranger"):
        recommender.recommend_user("stranger")


def test_all_users_get_what_each_alone_gets(learned: Path) -> None:
    recommender = sasrec.load(learned, device="cpu")
    frame = recommender.recommend_all(k=4, deny=["item-00"])
    assert frame.columns == ["user", "item", "score", "rank"]
    assert frame["user"].n_unique() == 150
    for user in ("u000", "u077", "u149"):
        own = frame.filter(pl.col("user") == user)
        alone = recommender.recommend_user(user, k=4, deny=["item-00"])
        assert own["item"].to_list() == [item for item, _ in alone]
        assert np.allclose(own["score"].to_list(), [score for _, score in alone], atol=1e-5)
        assert own["rank"].to_list() == list(range(1, len(alone) + 1))


def test_recommendation_and_evaluation_rank_alike(learned: Path) -> None:
    recommender = sasrec.load(learned, device="cpu")
    data = recommender.data
    hits = 0
    for user in range(data.num_users):
        *history, target = (data.catalogue.ids[int(i) - 1] for i in data.item_numbers_of(user))
        top = [item for item, _ in recommender.recommend(history, k=10, exclude_seen=target not in history)]
        hits += target in top
    measured = sasrec.evaluate(learned, device="cpu")["test"]["full"]["hr@10"]
    # A target seen before stays a candidate while the other seen items leave: only then may the two differ.
    assert abs(hits / data.num_users - measured) < 0.06


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=30))
    weights = [
        sasrec.train(data, tmp_path / name, num_epochs=2, seed=seed, **SMALL).model.item_embedding.weight
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("time", [False, True])
def test_the_penalty_reaches_positions_and_intervals_only_if_asked(time: bool, tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=20))
    sizes = {}
    for tables in ("items", "all"):
        model = sasrec.train(
            data, tmp_path / tables, num_epochs=4, time=time, l2_emb=1.0, l2_emb_tables=tables, **SMALL
        ).model
        sizes[tables] = [float(table.detach().norm()) for table in model.embedding_tables()]
    assert len(sizes["all"]) == (5 if time else 2)
    pairs = list(zip(sizes["all"], sizes["items"], strict=True))
    assert all(penalised < 0.9 * free for penalised, free in pairs[1:])
    assert pairs[0][0] == pytest.approx(pairs[0][1], rel=0.2), "the items are penalised in both"


def test_training_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    sasrec.train(sasrec.prepare(chain_frame(users=10)), tmp_path / "run", num_epochs=1, **SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_the_checkpoint_kept_is_the_best_on_validation_and_it_stops_when_none_is_better(tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = sasrec.prepare(chain_frame(users=40))
    sasrec.train(data, run, num_epochs=200, patience=3, loss="bce", num_negatives=2, l2_emb=1e-6, **SMALL)
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scores = {e["step"]: e["score"] for e in events if e["event"] == "validation"}
    assert len(scores) < 200
    assert store.best(run / "checkpoints").name == f"step-{max(scores, key=scores.get):08d}"
    assert len(list((run / "checkpoints").iterdir())) == 3, "the best and the newest two"
    assert "early stopping, since validation did not improve for 3 epochs" in next(
        e["reason"] for e in events if e["event"] == "stopped"
    )
    measured = json.loads((run / "metrics.json").read_text())["valid"]["full"]["ndcg@10"]
    assert measured == max(scores.values())


def test_a_time_limit_stops_training_with_a_validated_checkpoint(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=30))
    sasrec.train(data, tmp_path / "run", num_epochs=10_000, eval_every=500, max_minutes=0.005, **SMALL)
    assert store.load(store.best(tmp_path / "run/checkpoints")).state["score"] > 0


def test_ctrl_c_keeps_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    original = trainer.training_loss

    def interrupted(*arguments):
        if next(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(trainer, "training_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", eval_every=50, **SMALL)
    recommender = sasrec.load(tmp_path / "run", device="cpu")
    assert store.load(store.best(tmp_path / "run/checkpoints")).state["step"] == 7
    assert len(recommender.recommend(["item-03"])) == 10


def test_training_runs_in_a_thread_that_gets_no_signals(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=20))
    thread = threading.Thread(
        target=sasrec.train, args=(data, tmp_path / "run"), kwargs={"num_epochs": 1, **SMALL}
    )
    thread.start()
    thread.join(timeout=60)
    assert store.load(store.best(tmp_path / "run/checkpoints")).state["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_training_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer.training_loss
    monkeypatch.setattr(trainer, "training_loss", lambda *arguments: original(*arguments) * float("nan"))
    with pytest.raises(TrainingError, match=r"epoch 1, step 0 .*the loss is nan.*not finite in .*Lower `lr`"):
        sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **SMALL)


def test_with_anomalies_detected_that_error_also_names_the_operation(tmp_path: Path) -> None:
    """A temperature so low that the first scores overflow."""
    settings = SMALL | {"temperature": 1e-38, "detect_anomaly": True}
    with pytest.raises(TrainingError, match=r"epoch 1, step 0 .*Function '\w+' returned nan.*Lower `lr`"):
        sasrec.train(sasrec.prepare(chain_frame()), tmp_path / "run", **settings)


def test_settings_that_no_training_should_have_leave_a_run_usable_that_has_them(tmp_path: Path) -> None:
    one_stream = SMALL | {"mhc": True, "mhc_expansion_rate": 1, "num_epochs": 1}
    half = SMALL | {"precision": "fp16", "num_epochs": 1}
    for settings, idle in ((one_stream, {"mhc_init_gate": 0.7}), (half, {"detect_anomaly": True})):
        with pytest.raises(ConfigError, match=r"with mhc_expansion_rate 1|detect_anomaly would stop"):
            sasrec.train(chain_frame(), tmp_path / "refused", **settings, **idle)
    sasrec.train(chain_frame(), tmp_path / "run", **half)
    RunConfig.load(tmp_path / "run/config.toml").replace(detect_anomaly=True).save(tmp_path / "run/config.toml")
    assert sasrec.load(tmp_path / "run", device="cpu").recommend(["item-03"], k=1)
    with pytest.raises(ConfigError, match="use detect_anomaly=False"):
        sasrec.resume(tmp_path / "run", num_epochs=2, detect_anomaly=True)
    sasrec.resume(tmp_path / "run", num_epochs=2, detect_anomaly=False)


def test_users_with_few_events_train_without_validation(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=20).group_by("user", maintain_order=True).head(2))
    recommender = sasrec.train(data, tmp_path / "run", num_epochs=2, **SMALL)
    assert len(recommender.recommend(["item-03"])) == 10
    assert not (tmp_path / "run/metrics.json").exists()
    with pytest.raises(EvaluationError, match="fewer than 3 events: 20"):
        sasrec.evaluate(tmp_path / "run")
    with pytest.raises(DataError, match="no sequences"):
        sasrec.train(data.__class__(data.items[:1], None, np.array([0, 1]), data.user_ids[:1], data.catalogue),
                     tmp_path / "other", **SMALL)  # fmt: skip


def test_reading_options_that_come_too_late_are_refused(tmp_path: Path) -> None:
    data = sasrec.prepare(chain_frame(users=20), output=tmp_path / "data")
    for source in (data, tmp_path / "data"):
        with pytest.raises(ConfigError, match="`time_unit`, `k_core` would do nothing"):
            sasrec.train(source, tmp_path / "run", k_core=2, time_unit="s", **SMALL)


def test_a_recipe_gives_the_settings_that_are_not_overridden(tmp_path: Path) -> None:
    RunConfig().replace(num_epochs=1, **SMALL).save(tmp_path / "recipe.toml")
    data = sasrec.prepare(chain_frame(users=20))
    trained = sasrec.train(data, tmp_path / "run", recipe=tmp_path / "recipe.toml", hidden_units=8)
    assert (trained.model.config.maxlen, trained.model.config.hidden_units) == (12, 8)
    assert RunConfig.load(tmp_path / "run/config.toml").model == trained.model.config


@pytest.mark.parametrize("given", [sasrec.prepare, lambda frame: frame], ids=["dataset", "frame"])
def test_the_settings_of_another_run_do_not_bring_its_data(given: Callable[..., object], tmp_path: Path) -> None:
    settings = SMALL | {"num_epochs": 1}
    sasrec.prepare(chain_frame(users=20, items=10), output=tmp_path / "old")
    sasrec.train(tmp_path / "old", tmp_path / "first", **settings)
    data = chain_frame(users=30, items=15)
    found = sasrec.train(given(data), tmp_path / "second", recipe=tmp_path / "first/config.toml")
    assert (found.data.num_users, found.data.num_items) == (30, 15)
    assert sasrec.resume(tmp_path / "second", num_epochs=2).data.num_users == 30
    with pytest.raises(ConfigError, match="remove the setting dataset"):
        sasrec.train(given(data), tmp_path / "third", dataset=str(tmp_path / "old"), **settings)


def test_what_is_there_is_never_overwritten_and_what_is_missing_is_named(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run"):
        sasrec.train(chain_frame(), learned, **SMALL)
    with pytest.raises(CheckpointError, match="is not a run"):
        sasrec.load(tmp_path)
    (tmp_path / "config.toml").write_text("")
    sasrec.prepare(chain_frame(), output=tmp_path / "dataset")
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        sasrec.load(tmp_path)
    with pytest.raises(DataError, match="no data set was named"):
        sasrec.train("", tmp_path / "x", **SMALL)
    with pytest.raises(DataError, match="does not exist"):
        sasrec.train("ml-101k", tmp_path / "x", **SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no data"):
        sasrec.train(tmp_path / "empty", tmp_path / "x", **SMALL)
    with pytest.raises(ConfigError, match="not available here"):
        sasrec.train(chain_frame(), tmp_path / "x", maxlen=5, device="cuda:77")


def test_a_run_refuses_other_data_and_finds_data_that_moved(tmp_path: Path) -> None:
    sasrec.prepare(chain_frame(users=20), output=tmp_path / "data")
    sasrec.train(tmp_path / "data", tmp_path / "run", num_epochs=1, **SMALL)
    assert not (tmp_path / "run/dataset").exists(), "a prepared folder is used where it is"
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="Restore it, or name its new place as `dataset`"):
        sasrec.load(tmp_path / "run")
    assert sasrec.load(tmp_path / "run", dataset=tmp_path / "moved").data.num_users == 20
    sasrec.prepare(chain_frame(users=21), output=tmp_path / "other")
    with pytest.raises(CheckpointError, match="other data"):
        sasrec.load(tmp_path / "run", dataset=tmp_path / "other")


@pytest.mark.parametrize("file", ["weights.safetensors", "state.json", "MANIFEST.json"])
def test_a_damaged_or_missing_checkpoint_file_is_named(file: str, tmp_path: Path) -> None:
    path = store.save(tmp_path, {"w": torch.arange(100.0)}, {"step": 3, "score": None})
    assert torch.equal(store.load(path).weights["w"], torch.arange(100.0))
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 4
    (path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file):
        store.load(path)
    (path / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        store.load(path)


def test_a_deletion_cut_short_leaves_no_checkpoint_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.2)):
        store.save(tmp_path, {"w": torch.full((2,), score)}, {"step": step, "score": score})
    original = shutil.rmtree

    def interrupted(path: Path) -> None:
        (Path(path) / "state.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.prune(tmp_path, print)
    monkeypatch.setattr(shutil, "rmtree", original)
    assert store.best(tmp_path).name == "step-00000002"
    store.prune(tmp_path, print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_ctrl_c_in_the_middle_of_a_save_waits_for_it_and_a_second_one_cuts_it_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # Tests that a shell started in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    original = os.fsync

    def hit(times: int) -> Callable[[int], None]:
        left = [signal.SIGINT] * times

        def fsync(descriptor: int) -> None:
            while left and "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}"):
                signal.raise_signal(left.pop())
            original(descriptor)

        return fsync

    for name, times in (("first", 1), ("second", 2)):
        monkeypatch.setattr(os, "fsync", hit(times))
        with pytest.raises(KeyboardInterrupt):
            sasrec.train(
                sasrec.prepare(chain_frame()), tmp_path / name, num_epochs=50, **(SMALL | {"batch_size": 16})
            )
    monkeypatch.setattr(os, "fsync", original)
    kept = store.load(store.best(tmp_path / "first/checkpoints"))
    assert kept.state["epoch"] == 1
    assert kept.state["score"] is not None
    assert store.published(tmp_path / "second/checkpoints") == [], "the save was cut short"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_best_is_the_first_of_equals_and_without_scores_the_newest(tmp_path: Path) -> None:
    for step, score in ((1, 0.5), (2, 0.5), (3, 0.1)):
        store.save(tmp_path / "scored", {"w": torch.zeros(1)}, {"step": step, "score": score})
        store.save(tmp_path / "unscored", {"w": torch.zeros(1)}, {"step": step, "score": None})
    assert store.best(tmp_path / "scored").name == "step-00000001"
    assert store.best(tmp_path / "unscored").name == "step-00000003"


def test_a_checkpoint_is_replaced_whole_and_a_refusing_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(tmp_path, {"w": torch.zeros(2)}, {"step": 3, "score": 0.1})
    store.save(tmp_path, {"w": torch.ones(2)}, {"step": 3, "score": 0.2})
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(CheckpointError, match="No space left"):
        store.save(tmp_path, {"w": torch.zeros(2)}, {"step": 4, "score": 0.3})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert store.load(store.best(tmp_path)).weights["w"].tolist() == [1, 1]


def test_notes_fit_the_settings_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the advice that the run follows already, and nothing about another split."""
    frame = chain_frame(users=40).with_columns(time=pl.col("time") // 8_000 * 8_000)
    short = pl.DataFrame([("short", "item-03", 1_600_000_000)], schema=frame.schema, orient="row")
    frame.with_columns(time=pl.col("time") + 10**6).write_csv(tmp_path / "later.csv")
    advice = ("leave-one-out cannot evaluate these users", "train with baskets=True")
    sasrec.train(pl.concat([frame, short]), tmp_path / "plain", num_epochs=1, **SMALL)
    said = capsys.readouterr().err
    assert all(words in said for words in advice)
    own: dict[str, Any] = {"baskets": True, "split": "temporal:0.7", "repeats": True, "num_epochs": 1}
    sasrec.train(pl.concat([frame, short]), tmp_path / "run", **own, **SMALL)
    assert main(["evaluate", str(tmp_path / "run"), "--test", str(tmp_path / "later.csv")]) == 0
    said = capsys.readouterr().err
    assert "rows read from later.csv" in said
    assert "share their time" not in said
    assert "leave-one-out" not in said


def test_the_line_of_an_epoch_that_time_ended_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sasrec.train(chain_frame(users=80), tmp_path / "run", max_minutes=1e-9, **SMALL | {"batch_size": 8})
    assert "a part of epoch 1  loss" in capsys.readouterr().err
