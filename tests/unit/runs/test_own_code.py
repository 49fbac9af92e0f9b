"""An encoder and a loss of one's own: trained, resumed, loaded, and refused where they are missing or others."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sasrec
from sasrec.batches.loader import DeviceTrainingBatch
from sasrec.checkpoint import store
from sasrec.cli.main import main
from sasrec.config.settings import ModelConfig
from sasrec.errors import ConfigError
from sasrec.losses.loss import training_loss
from sasrec.models import SASRec, SequenceModel
from sasrec.models.interface import initialise
from sasrec.models.own import refuse_other
from tests.synthetic import chain_frame, small


class GRU(SequenceModel):
    """A recurrent encoder; with times, it also reads the ticks."""

    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__(num_items, config)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.gru = nn.GRU(config.hidden_units + config.time, config.hidden_units, batch_first=True)
        initialise(self)

    def encode(self, item_vectors_BLD: Tensor, positions_BL: Tensor, ticks_BL: Tensor | None = None) -> Tensor:
        inputs = self.dropout(item_vectors_BLD)
        if self.config.time:
            assert ticks_BL is not None
            inputs = torch.cat([inputs, ticks_BL.unsqueeze(2).to(inputs.dtype).log1p()], dim=2)
        return self.gru(inputs)[0]


class OtherGRU(GRU):
    """Of the same shapes."""


def bpr(model: SequenceModel, batch: DeviceTrainingBatch) -> Tensor:
    states_PD = model(batch.items_BL, batch.positions_BL, batch.ticks_BL).flatten(0, 1)[batch.real_P]
    scores_P = (states_PD * model.embed(batch.targets_P)).sum(1)
    negatives_P = (states_PD * model.embed(batch.negatives[:, 0])).sum(1)
    return -nn.functional.logsigmoid(scores_P - negatives_P).sum() / batch.positions


def other_loss(model: SequenceModel, batch: DeviceTrainingBatch) -> Tensor:
    return 2 * bpr(model, batch)


OWN: dict[str, Any] = {"encoder": GRU, "loss_function": bpr}
SETTINGS: dict[str, Any] = small(loss="bce", num_epochs=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "run"
    sasrec.train(chain_frame(), path, **OWN, **SETTINGS)
    return path


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ordinary") / "run"
    sasrec.train(chain_frame(), path, **SETTINGS)
    return path


def weights(path: Path, step: int = -1) -> dict[str, Tensor]:
    return store.load(store.published(path / "checkpoints")[step]).weights


def test_a_run_with_own_code_learns_and_resumes_bit_identically(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "resumed")
    sasrec.resume(tmp_path / "resumed", **OWN, num_epochs=6)
    whole = sasrec.train(chain_frame(), tmp_path / "whole", **OWN, **SETTINGS | {"num_epochs": 6})
    resumed, straight = weights(tmp_path / "resumed"), weights(tmp_path / "whole")
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert (
        whole.metrics["test"]["full"]["ndcg@10"]
        > whole.metrics["baselines"]["popularity"]["test"]["full"]["ndcg@10"]
    )
    assert type(whole.model) is GRU


def test_an_own_loss_that_calls_ours_trains_the_same_weights(ordinary: Path, tmp_path: Path) -> None:
    def ours(model: SequenceModel, batch: DeviceTrainingBatch) -> Tensor:
        return training_loss(model, batch, sasrec.RunConfig().replace(**SETTINGS).loss)

    sasrec.train(chain_frame(), tmp_path / "run", loss_function=ours, **SETTINGS)
    expected = weights(ordinary)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "run").items())


def test_an_own_loss_gets_the_parts_of_a_batch_and_the_precision_of_the_settings(tmp_path: Path) -> None:
    settings = SETTINGS | {"dropout_rate": 0.0, "num_epochs": 1}
    for name, more in {"whole": {}, "parts": {"accumulate": 3}, "bf16": {"precision": "bf16"}}.items():
        sasrec.train(chain_frame(), tmp_path / name, **OWN, **settings, **more)
    whole, parts, half = (weights(tmp_path / name) for name in ("whole", "parts", "bf16"))
    assert max((whole[name] - parts[name]).abs().max() for name in whole) < 1e-4
    assert max((whole[name] - half[name]).abs().max() for name in whole) > 1e-6


def test_an_own_encoder_gets_ticks_with_time(tmp_path: Path) -> None:
    recommender = sasrec.train(chain_frame(), tmp_path / "run", encoder=GRU, **SETTINGS, time=True)
    assert recommender.recommend(["item-03"], k=1, assume_regular=True)


def test_evaluate_load_and_export_give_the_results_of_the_run(run: Path, tmp_path: Path) -> None:
    metrics = sasrec.evaluate(run, encoder=GRU)
    assert metrics["test"] == json.loads((run / "metrics.json").read_text())["test"]
    expected = sasrec.load(run, encoder=GRU).recommend(["item-03"], k=5)
    sasrec.export(run, tmp_path / "export", encoder=GRU)
    assert sasrec.load(tmp_path / "export", encoder=GRU).recommend(["item-03"], k=5) == expected
    with pytest.raises(ConfigError, match="pass it as `encoder`"):
        sasrec.load(tmp_path / "export")


@pytest.mark.parametrize(
    "use",
    [
        sasrec.load,
        sasrec.evaluate,
        lambda run, **own: sasrec.resume(run, loss_function=bpr, **own),
        lambda run, **own: sasrec.export(run, run.parent / "export", **own),
    ],
    ids=["load", "evaluate", "resume", "export"],
)
def test_without_its_class_or_with_another_a_run_is_refused_and_stays_as_it_is(
    run: Path, use: Callable[..., object]
) -> None:
    before = sorted(run.rglob("*"))
    own = f"{__name__}.GRU"
    with pytest.raises(ConfigError, match=f"trained with your own code {own}. Import it .* pass it as `encoder`"):
        use(run)
    with pytest.raises(ConfigError, match=f"own code {own}, not {__name__}.OtherGRU. Import"):
        use(run, encoder=OtherGRU)
    with pytest.raises(ConfigError, match=r"must be a subclass of .*SequenceModel|own code .*, not sasrec"):
        use(run, encoder=SASRec)
    assert sorted(run.rglob("*")) == before


def test_a_run_is_not_resumed_with_another_loss(run: Path, ordinary: Path) -> None:
    with pytest.raises(ConfigError, match=f"own code {__name__}.bpr. Import it .* pass it as `loss_function`"):
        sasrec.resume(run, encoder=GRU, num_epochs=9)
    with pytest.raises(ConfigError, match=f"own code {__name__}.bpr, not {__name__}.other_loss"):
        sasrec.resume(run, encoder=GRU, loss_function=other_loss, num_epochs=9)
    with pytest.raises(ConfigError, match=r"without `loss_function`.* Remove `loss_function`"):
        sasrec.resume(ordinary, loss_function=bpr, num_epochs=9)


def test_an_ordinary_run_refuses_an_encoder(ordinary: Path) -> None:
    for use in (sasrec.load, sasrec.evaluate, sasrec.resume):
        with pytest.raises(ConfigError, match=r"without `encoder`.* Remove `encoder`"):
            use(ordinary, encoder=GRU)


def test_a_warm_start_needs_the_same_class(run: Path, ordinary: Path, tmp_path: Path) -> None:
    started = sasrec.train(chain_frame(), tmp_path / "warm", start_from=run, **OWN, **SETTINGS | {"lr": 1e-9})
    trained = sasrec.load(run, encoder=GRU).model.state_dict()
    assert all((tensor - trained[name]).abs().max() < 1e-5 for name, tensor in started.model.state_dict().items())
    with pytest.raises(ConfigError, match="without `encoder`"):
        sasrec.train(chain_frame(), tmp_path / "other", start_from=ordinary, **OWN, **SETTINGS)


def test_a_name_in_a_checkpoint_imports_nothing(
    ordinary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_of_a_stranger.py").write_text("class Model: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = store.load(store.published(ordinary / "checkpoints")[-1])
    state = found.state | {"encoder": "module_of_a_stranger.Model"}
    path = store.save(tmp_path / "run", found.weights, state, found.optimizer)
    with pytest.raises(ConfigError, match=r"own code module_of_a_stranger\.Model"):
        sasrec.load(ordinary, checkpoint=path)
    assert "module_of_a_stranger" not in sys.modules


def test_a_name_of_the_main_module_equals_the_same_name_elsewhere() -> None:
    in_main = type("GRU", (GRU,), {"__module__": "__main__", "__qualname__": "GRU"})
    refuse_other("encoder", "app.models.GRU", in_main, Path("x"))
    refuse_other("encoder", "__main__.GRU", GRU, Path("x"))
    for recorded in ("__main__.MyGRU", "app.models.MyGRU", "app.GRU", None):
        with pytest.raises(ConfigError):
            refuse_other("encoder", recorded, GRU, Path("x"))


def test_the_command_line_refuses_a_run_with_own_code_in_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", str(run), "--history", "item-03"]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"was trained with your own code {__name__}.GRU. Import it in Python" in said
    assert "Traceback" not in said


class ReadsValues(GRU):
    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__(num_items, config)
        self.scale = float(self.item_embedding.weight.norm())


class Idle(GRU):
    def __init__(self, num_items: int, config: ModelConfig) -> None:
        super().__init__(num_items, config)
        self.forgotten = nn.Parameter(torch.zeros(3))


class NoEncode(SequenceModel):
    pass


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"encoder": "app.GRU"}, "`encoder` must be a subclass of .*SequenceModel, not 'app.GRU'"),
        ({"encoder": nn.GRU}, "`encoder` must be a subclass of .*SequenceModel"),
        ({"encoder": ReadsValues}, "ReadsValues.* fails on the device meta.* Correct its constructor"),
        ({"encoder": NoEncode}, "NoEncode.* fails on the device meta.*encode"),
        ({"encoder": Idle}, "the loss does not depend on the parameter forgotten of Idle"),
        ({"loss_function": "bpr"}, "`loss_function` must be a function of a model and a batch, not 'bpr'"),
        ({"loss_function": lambda model, batch: 1.0}, "must return a scalar tensor with gradient, not float 1.0"),
        (
            {"loss_function": lambda model, batch: model.item_embedding.weight.sum(1)},
            r"must return a scalar tensor with gradient, not Tensor torch.Size\(\[26\]\)",
        ),
        ({"loss_function": lambda model, batch: torch.tensor(1.0)}, "with gradient, not a constant"),
        ({"loss_function": bpr, "temperature": 0.5}, "`temperature` does nothing with an own `loss_function`"),
        (
            {"loss_function": bpr, "loss": "gbce", "gbce_t": 0.5},
            "`gbce_t` does nothing with an own `loss_function`",
        ),
    ],
)
def test_code_that_cannot_be_used_is_refused_before_the_first_update(
    own: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        sasrec.train(chain_frame(), tmp_path / "run", **SETTINGS | own)
    assert not (tmp_path / "run/checkpoints").exists()


def test_compare_never_takes_runs_of_other_code_for_seeds_of_one_model(
    run: Path, ordinary: Path, tmp_path: Path
) -> None:
    for name, own in {"seed": OWN, "loss": {"encoder": GRU}}.items():
        sasrec.train(chain_frame(), tmp_path / name, **own, **SETTINGS | {"seed": 1})
    found = sasrec.compare([ordinary, run, tmp_path / "seed", tmp_path / "loss"])
    assert [len(side.runs) for side in (found.first, *(each.side for each in found.others))] == [1, 2, 1]


def test_shapes_are_shown_of_layers_that_return_several_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sasrec.train(chain_frame(), tmp_path / "run", **OWN, **SETTINGS | {"num_epochs": 1}, show_shapes=True)
    assert "GRU                  output (" in capsys.readouterr().err


def test_a_final_fit_and_a_refresh_need_the_loss_of_their_run(run: Path, tmp_path: Path) -> None:
    for new in (
        lambda **code: sasrec.final_fit(run, tmp_path / "final", encoder=GRU, **code),
        lambda **code: sasrec.refresh(run, chain_frame(users=80), tmp_path / "next", encoder=GRU, **code),
    ):
        with pytest.raises(
            ConfigError, match=r"was trained with your own code .*bpr.* pass it as `loss_function`"
        ):
            new()
        with pytest.raises(ConfigError, match=r"own code .*bpr, not .*other_loss"):
            new(loss_function=other_loss)
    assert not (tmp_path / "final").exists()
    assert not (tmp_path / "next").exists()
