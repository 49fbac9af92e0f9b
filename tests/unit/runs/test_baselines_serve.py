"""A baseline of a run recommends by the scores that were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sasrec
from sasrec.cli.main import main
from sasrec.errors import ConfigError
from tests.synthetic import chain_frame, small

NAMES = ["popularity", "recent-7-days", "item-to-item", "markov", "own-frequent", "own-recent"]


@pytest.fixture(scope="module", params=[False, True], ids=["once", "repeats"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    sasrec.train(chain_frame(), folder, repeats=request.param, time=True, **small(num_epochs=1))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_its_lists_have_the_ranks_that_were_measured(run: Path, name: str) -> None:
    ranks = pl.read_parquet(run / "ranks.parquet").filter(pl.col("split") == "test")
    if name.startswith("own") and name not in ranks["scorer"]:
        with pytest.raises(ConfigError, match=f"'{name}' is not a baseline of this run"):
            sasrec.load(f"{run}:{name}")
        return
    model = sasrec.load(f"{run}:{name}")
    assert model.data is not None
    for user, rank in ranks.filter(pl.col("scorer") == name).select("user", "full").head(20).iter_rows():
        *before, target = model.data.history(user)
        scores = dict(model.recommend(before, len(model.items)))
        own = scores.pop(target)
        others = np.array(list(scores.values()))
        assert 1 + (others > own).sum() + (others == own).sum() / 2 == rank


def test_it_has_the_interface_of_a_model_but_no_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = sasrec.load(f"{run}:markov")
    assert model.data is not None
    user = model.data.user_ids[0]
    one = model.recommend_user(user, 4)
    assert model.recommend_all(4).filter(pl.col("user") == user)["item"].to_list() == [item for item, _ in one]
    many = model.recommend_many([model.data.history(user)], 4)
    assert many["item"].to_list() == [item for item, _ in one]
    with pytest.raises(ConfigError, match="reasons are of the model, not of a baseline"):
        model.explain(["item-03", "item-09", "item-20"], "item-21")
    with pytest.raises(ConfigError, match="Markov is a baseline, which has no weights"):
        model.similar("item-03")
    assert main(["recommend", f"{run}:markov", f"--user={user}", "--k=4", "--why"]) == 1
    assert "Use RUN without the baseline's name." in capsys.readouterr().err
    assert main(["recommend", f"{run}:markov", f"--user={user}", "--k=4"]) == 0
    assert one[0][0] in capsys.readouterr().out
    assert main(["recommend", f"{run}:nothing", f"--user={user}"]) == 1
    assert "'nothing' is not a baseline of this run. Choose one of: popularity" in capsys.readouterr().err
