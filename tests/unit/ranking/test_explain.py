"""Reasons are measured by taking events away; similar items are those with near embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sasrec
from sasrec.errors import ConfigError, DataError
from tests.synthetic import chain_frame, small

KINDS: list[dict[str, Any]] = [{}, {"time": True}, {"mhc": True}]


@pytest.fixture(scope="module", params=range(len(KINDS)), ids=["plain", "time", "mhc"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> sasrec.Recommender:
    settings = small(num_epochs=15) | KINDS[request.param]
    return sasrec.train(chain_frame(), tmp_path_factory.mktemp("run") / "run", **settings)


def score(model: sasrec.Recommender, history: list[Any], item: Any, times: list[float]) -> float:
    return dict(model.recommend(history, len(model.items), times=times, exclude_seen=False))[item]


def test_an_effect_is_the_fall_of_the_score_without_the_event(model: sasrec.Recommender) -> None:
    history, times = ["item-03", "item-11", "item-04", "item-20"], [0.0, 10.0, 40.0, 90.0]
    reasons = model.explain(history, "item-21", times=times)
    assert reasons["item"].to_list() == history
    whole = score(model, history, "item-21", times)
    # The first three events leave the unit of time, the smallest gap, as it is for the last one.
    for at in (2, 3):
        rest, kept = ([each for place, each in enumerate(one) if place != at] for one in (history, times))
        assert reasons["effect"][at] == pytest.approx(whole - score(model, rest, "item-21", kept), abs=1e-5)
    assert reasons["effect"].arg_max() == 3, "item-21 mostly follows item-20"


def test_models_with_time_have_an_effect_of_each_interval(model: sasrec.Recommender) -> None:
    reasons = model.explain(["item-03", "item-04", "item-20"], "item-21", times=[0.0, 10.0, 50.0])
    assert ("interval_effect" in reasons.columns) == model.model.config.time
    if model.model.config.time:
        whole = score(model, ["item-03", "item-04", "item-20"], "item-21", [0.0, 10.0, 50.0])
        together = score(model, ["item-03", "item-04", "item-20"], "item-21", [0.0, 10.0, 10.0])
        assert np.isnan(reasons["interval_effect"][0])
        assert reasons["interval_effect"][2] == pytest.approx(whole - together, abs=1e-5)


@pytest.mark.filterwarnings("ignore::sasrec.errors.SasrecWarning")
def test_what_the_model_does_not_read_has_no_reason(model: sasrec.Recommender) -> None:
    long = ["item-01", "ghost"] * 10
    reasons = model.explain(long, "item-02", assume_regular=True)
    assert len(reasons) == 10
    many = model.explain(["item-01"] * 30, "item-02", assume_regular=True)
    assert len(many) == model.model.config.maxlen
    assert len(model.explain(["item-01"], "item-02", assume_regular=True)) == 1
    with pytest.raises(DataError, match="the item ghost is unknown"):
        model.explain(["item-01"], "ghost", assume_regular=True)
    with pytest.raises(DataError, match="no item of the history"):
        model.explain(["ghost"], "item-01", assume_regular=True)


def test_a_user_is_explained_as_it_is_recommended_for(model: sasrec.Recommender) -> None:
    assert model.data is not None
    user = model.data.user_ids[4]
    best = model.recommend_user(user, 1)[0][0]
    history = model.data.history(user)
    reasons = model.explain_user(user, best)
    assert reasons["item"].to_list() == history[-model.model.config.maxlen :]


def test_similar_items_have_the_nearest_embeddings(model: sasrec.Recommender) -> None:
    found = model.similar("item-05", 4)
    vectors = model.model.item_embedding.weight.detach().numpy()[1:]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[model.items.number_of("item-05") - 1]  # type: ignore[operator]
    order = [model.items.ids[int(at)] for at in np.argsort(-cosines)[1:5]]
    assert [item for item, _ in found] == order
    assert found[0][1] == pytest.approx(np.sort(cosines)[-2], abs=1e-6)
    assert len(model.similar("item-05", 1000)) == len(model.items) - 1
    with pytest.raises(ConfigError, match="`k` must be at least 1"):
        model.similar("item-05", 0)
    with pytest.raises(DataError, match="unknown"):
        model.similar("ghost")


def test_an_item_without_training_is_neither_similar_nor_explained(tmp_path: Path) -> None:
    from tests.synthetic import late_frame

    model = sasrec.train(late_frame(), tmp_path / "run", split="temporal:0.8", **small(num_epochs=1))
    known = next(item for item in model.items.ids if item != "late")
    assert "late" not in dict(model.similar(known, 1000))
    with pytest.raises(DataError, match=r"late \(not in training\) is unknown"):
        model.explain([known], "late")
