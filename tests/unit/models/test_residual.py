"""Sinkhorn-Knopp and manifold-constrained hyper-connections."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import sasrec
from sasrec.batches.batches import TrainingBatches
from sasrec.batches.loader import Loader
from sasrec.batches.negatives import NegativePlan
from sasrec.config.settings import LossConfig, ModelConfig
from sasrec.data.splits import split_events
from sasrec.losses.loss import training_loss
from sasrec.models import SequenceModel, build_model
from sasrec.models.residual import GatedResidual, MHCResidual
from sasrec.models.sinkhorn import birkhoff, cayley, permutation_matrices, sinkhorn_knopp
from tests.synthetic import chain_frame, dataset, random_lists

ITEMS = 30
ML_100K = Path(__file__).resolve().parents[4] / "shared" / "data" / "ml-100k.tsv.gz"


def unrolled(logits: torch.Tensor, rounds: int) -> torch.Tensor:
    matrices = (logits - logits.amax((-2, -1), keepdim=True)).exp()
    for _ in range(rounds):
        matrices = matrices / matrices.sum(-2, keepdim=True)
        matrices = matrices / matrices.sum(-1, keepdim=True)
    return matrices


@pytest.mark.parametrize(("spread", "bound"), [(1.0, 1e-3), (3.0, 0.15), (10.0, 1.0)])
def test_rows_sum_to_one_and_columns_as_nearly_as_the_range_of_the_logits_allows(
    spread: float, bound: float
) -> None:
    torch.manual_seed(0)
    matrices = sinkhorn_knopp(spread * torch.randn(4096, 4, 4, dtype=torch.float64))
    assert (matrices.sum(2) - 1).abs().max() < 1e-12
    assert (matrices.sum(1) - 1).abs().max() < bound
    assert matrices.min() >= 0


@pytest.mark.parametrize("streams", [2, 3, 4])
def test_the_backward_that_keeps_sums_equals_autograd_through_the_rounds(streams: int) -> None:
    torch.manual_seed(0)
    logits = (2 * torch.randn(2, 25, streams, streams, dtype=torch.float64)).requires_grad_()
    upstream = torch.randn(2, 25, streams, streams, dtype=torch.float64)
    ours, plain = sinkhorn_knopp(logits, 20), unrolled(logits, 20)
    assert (ours - plain).abs().max() < 1e-14
    found, expected = (torch.autograd.grad((m * upstream).sum(), logits)[0] for m in (ours, plain))
    assert (found - expected).abs().max() < 1e-13
    assert torch.autograd.gradcheck(lambda z: sinkhorn_knopp(z, 5), logits[:, :2].detach().requires_grad_())


@pytest.mark.parametrize("streams", [2, 3, 4])
def test_means_of_permutations_are_doubly_stochastic_whatever_the_logits(streams: int) -> None:
    torch.manual_seed(0)
    permutations = permutation_matrices(streams).double()
    assert permutations.unique(dim=0).shape == permutations.shape
    logits = 10 * torch.randn(5, 100, len(permutations), dtype=torch.float64)
    matrices = birkhoff(logits, permutations)
    assert matrices.shape == (5, 100, streams, streams)
    for axis in (2, 3):
        assert (matrices.sum(axis) - 1).abs().max() < 1e-12
    assert matrices.min() >= 0
    assert matrices.var((0, 1)).min() > 1e-3


@pytest.mark.parametrize("streams", [2, 3, 4, 8])
def test_the_cayley_transform_gives_rotations_and_its_gradient_is_right(streams: int) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(5, 20, streams, streams, dtype=torch.float64)).requires_grad_()
    matrices = cayley(logits)
    identity = torch.eye(streams, dtype=torch.float64)
    assert (matrices @ matrices.mT - identity).abs().max() < 1e-12
    assert (torch.linalg.det(matrices) - 1).abs().max() < 1e-12
    skew = (logits - logits.mT) / 2
    assert ((identity - skew) @ matrices - (identity + skew)).abs().max() < 1e-12
    assert torch.equal(cayley(torch.zeros(1, streams, streams)), torch.eye(streams).unsqueeze(0))
    assert torch.autograd.gradcheck(cayley, logits[0, :2].detach().requires_grad_())


def test_huge_logits_give_finite_orthogonal_matrices() -> None:
    torch.manual_seed(0)
    logits = (1e3 * (2 * torch.rand(500, 4, 4) - 1)).requires_grad_()
    matrices = cayley(logits)
    matrices.sum().backward()
    assert (matrices @ matrices.mT - torch.eye(4)).abs().max() < 1e-3
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_give_finite_matrices_and_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (1e3 * (2 * torch.rand(500, 4, 4, dtype=dtype) - 1)).requires_grad_()
    matrices = sinkhorn_knopp(logits)
    matrices.square().sum().backward()
    assert matrices.isfinite().all()
    assert logits.grad.isfinite().all()


def models(
    streams: int, *, time: bool = False, projection: str = "sinkhorn"
) -> tuple[SequenceModel, SequenceModel]:
    """A model with mHC and the plain one, from the same random state."""
    built = []
    for mhc in (True, False):
        torch.manual_seed(3)
        rate = {"mhc_expansion_rate": streams, "mhc_projection": projection} if mhc else {}
        config = ModelConfig(maxlen=10, hidden_units=16, dropout_rate=0.0, time=time, mhc=mhc, **rate)
        built.append(build_model(ITEMS, config))
    return built[0], built[1]


def batches() -> Loader:
    data = dataset(random_lists(60, ITEMS, seed=1, longest=14), ITEMS)
    times = (torch.arange(data.num_events) * 3).numpy()
    training = dataclasses.replace(split_events(data).training, ticks=times)
    plan = NegativePlan.of(LossConfig())
    batches = TrainingBatches(training, ITEMS, maxlen=10, batch_size=20, plan=plan, seed=0)
    return Loader(batches, torch.device("cpu"))


def states(model: SequenceModel) -> torch.Tensor:
    batch = batches().batch(0, 0)
    return model(batch.items_BL, batch.positions_BL, batch.ticks_BL).flatten(0, 1)[batch.real_P]


def trained(model: SequenceModel, steps: int) -> SequenceModel:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    made = batches()
    plan = made.batches.plan
    for step in range(steps):
        epoch, at = divmod(step, len(plan(0)))
        loss = training_loss(model, made.batch(epoch, at % len(plan(epoch))), LossConfig(loss="ce"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize(
    ("streams", "projection"),
    [(2, "sinkhorn"), (4, "sinkhorn"), (8, "sinkhorn"), (2, "birkhoff"), (4, "birkhoff")]
    + [(streams, "orthogonal") for streams in (2, 4, 8)],
)
def test_at_the_start_it_is_the_plain_network(streams: int, projection: str, time: bool) -> None:
    with_mhc, plain = models(streams, time=time, projection=projection)
    assert (states(with_mhc) - states(plain)).abs().max() < 2e-5


def test_one_stream_is_the_plain_residual_exactly() -> None:
    with_mhc, plain = models(1)
    assert dict(with_mhc.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert torch.equal(states(with_mhc), states(plain))


@pytest.mark.parametrize("projection", ["sinkhorn", "birkhoff", "orthogonal"])
def test_every_parameter_of_the_maps_learns(projection: str) -> None:
    model = trained(models(4, projection=projection)[0], steps=3)
    for name, parameter in model.named_parameters():
        # See MHCResidual on the first sub-layer and the last.
        idle = name.startswith("blocks.0.attention_residual.") and name.endswith(("b_pre", "b_res"))
        idle |= projection == "birkhoff" and name == "blocks.1.feed_forward_residual.b_res"
        if "_residual." in name and not idle:
            assert parameter.grad.abs().max() > 1e-8, name


@pytest.mark.parametrize("projection", ["sinkhorn", "birkhoff", "orthogonal"])
def test_streams_part_company_and_their_mixing_matters_after_training(
    monkeypatch: pytest.MonkeyPatch, projection: str
) -> None:
    model, start = (
        trained(models(4, projection=projection)[0], steps=60).eval(),
        models(4, projection=projection)[0],
    )
    seen = []
    original = MHCResidual.forward

    def watched(self, x_BLSD, sub_layer):
        out = original(self, x_BLSD, sub_layer)
        seen.append((out - out.mean(2, keepdim=True)).norm() / out.norm())
        return out

    monkeypatch.setattr(MHCResidual, "forward", watched)
    before = states(model)
    assert min(seen) > 1e-3, "stream diversity"
    initial = dict(start.named_parameters())
    moved = [p - initial[name] for name, p in model.named_parameters() if name.endswith("b_res")]
    assert max(m.abs().max() for m in moved) > 1e-3
    stop_mixing(monkeypatch)
    assert (states(model) - before).abs().max() > 1e-3


def stop_mixing(monkeypatch: pytest.MonkeyPatch) -> None:
    """H_res = I, for every connection of four streams."""
    maps = MHCResidual.maps

    def without_mixing(self, x_BLSD):
        pre, post, res = maps(self, x_BLSD)
        return pre, post, torch.eye(4).expand_as(res)

    monkeypatch.setattr(MHCResidual, "maps", without_mixing)


@pytest.mark.slow
@pytest.mark.skipif(not ML_100K.exists(), reason="needs MovieLens 100K beside the repository")
@pytest.mark.parametrize("time", [False, True])
def test_on_movielens_too_streams_differ_and_mixing_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: bool
) -> None:
    settings = {"maxlen": 50, "batch_size": 32, "num_epochs": 15, "eval_every": 5, "diagnose_every": 50}
    recommender = sasrec.train(ML_100K, tmp_path / "run", time=time, mhc=True, device="cpu", **settings)
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "diagnostics"][-1]
    assert min(last["diversity"]) > 1e-3
    # The last sub-layer's too, but by next to nothing: see MHCResidual.
    res = [p for name, p in recommender.model.named_parameters() if name.endswith("b_res")][1:]
    assert max((p - 5 * (torch.eye(4) - 1)).abs().max() for p in res) > 1e-3
    mixed = recommender.recommend_user("196", k=10)
    stop_mixing(monkeypatch)
    unmixed = recommender.recommend_user("196", k=10)
    assert max(abs(a[1] - b[1]) for a, b in zip(mixed, unmixed, strict=True)) > 1e-4, "rounding is 1e-6"


def test_the_gain_over_many_layers_stays_bounded() -> None:
    torch.manual_seed(0)
    config = ModelConfig(hidden_units=8, mhc=True, mhc_init_gate=1.0)
    product = torch.eye(4, dtype=torch.float64)
    for index in range(60):
        connection = MHCResidual(config, index).double()
        torch.nn.init.normal_(connection.phi, std=0.3)
        product = connection.maps(torch.randn(1, 1, 4, 8, dtype=torch.float64))[2][0, 0] @ product
    assert (product.sum(1) - 1).abs().max() < 1e-9
    assert product.sum(0).max() < 1.3


@pytest.mark.parametrize("projection", ["sinkhorn", "orthogonal"])
def test_the_maps_stay_in_fp32_under_autocast(projection: str) -> None:
    connection = MHCResidual(ModelConfig(hidden_units=8, mhc=True, mhc_projection=projection), 0)
    torch.nn.init.normal_(connection.phi)
    x_BLSD = torch.randn(2, 3, 4, 8)
    expected = connection.maps(x_BLSD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = connection.maps(x_BLSD)
        out = connection(x_BLSD.bfloat16(), torch.nn.Linear(8, 8))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_the_gated_residual_is_its_formula_and_reads_x_before_the_norm() -> None:
    torch.manual_seed(0)
    connection = GatedResidual(ModelConfig(hidden_units=8)).double()
    x_BLD = torch.randn(2, 3, 8, dtype=torch.float64)
    assert torch.equal(connection(x_BLD, torch.sin), x_BLD + torch.sin(x_BLD) / 2), "all gates start at 1/2"
    torch.nn.init.normal_(connection.gate_weight)
    torch.nn.init.normal_(connection.gate_bias)
    gates = 1 / (1 + (-(x_BLD @ connection.gate_weight.T + connection.gate_bias)).exp())
    assert (connection(x_BLD, torch.sin) - (x_BLD + gates * torch.sin(x_BLD))).abs().max() < 1e-12


def test_the_gates_learn_and_the_other_weights_start_as_those_of_the_plain_network() -> None:
    built = []
    for gated in (True, False):
        torch.manual_seed(3)
        built.append(build_model(ITEMS, ModelConfig(maxlen=10, hidden_units=16, dropout_rate=0.0, gated=gated)))
    gated_model, plain = built
    for name, parameter in plain.named_parameters():
        assert torch.equal(dict(gated_model.named_parameters())[name], parameter), name
    for name, parameter in trained(gated_model, steps=3).named_parameters():
        if "_residual." in name:
            assert parameter.abs().max() > 1e-3, name


def test_diagnostics_of_orthogonal_mixing_measure_orthogonality(tmp_path: Path) -> None:
    settings = {"maxlen": 8, "hidden_units": 8, "num_epochs": 3, "batch_size": 16, "lr": 1e-2}
    mixing = {"mhc": True, "mhc_projection": "orthogonal"}
    sasrec.train(chain_frame(), tmp_path / "run", diagnose_every=2, **settings, **mixing)
    events = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "diagnostics"][-1]
    assert "rows" not in last
    assert [len(last[key]) for key in ("orthogonality", "diversity", "gain")] == [4] * 3
    assert max(last["orthogonality"]) < 1e-5
    assert 1 < max(last["gain"]) <= 2.0001, "at most the root of four streams"


def test_diagnostics_do_not_mind_batches_in_many_parts(tmp_path: Path) -> None:
    settings = {"maxlen": 8, "hidden_units": 8, "num_epochs": 1, "batch_size": 16, "mhc": True}
    sasrec.train(chain_frame(), tmp_path / "run", diagnose_every=1, accumulate=16, **settings)
    assert "gain" in (tmp_path / "run/log.jsonl").read_text()


@pytest.mark.parametrize("mhc", [True, False])
def test_diagnostics_are_logged_on_request(tmp_path: Path, mhc: bool) -> None:
    settings = {"maxlen": 8, "hidden_units": 8, "num_epochs": 3, "batch_size": 16, "mhc": mhc}
    sasrec.train(chain_frame(), tmp_path / "asked", diagnose_every=2, **settings)
    sasrec.train(chain_frame(), tmp_path / "not", **settings)
    events = {
        name: [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("asked", "not")
    }
    found = {name: [e for e in lines if e["event"] == "diagnostics"] for name, lines in events.items()}
    assert found["not"] == []
    assert [e["step"] for e in found["asked"]] == list(range(0, 2 * len(found["asked"]), 2))
    assert all(e["gradient_norm"] > 0 for e in found["asked"])
    last = found["asked"][-1]
    if not mhc:
        assert "gain" not in last
        return
    assert [len(last[key]) for key in ("rows", "columns", "diversity", "gain")] == [4] * 4
    assert max(last["rows"]) < 1e-5
    assert 0 < max(last["columns"]) < 0.1
    first = found["asked"][0]
    assert all(now > 10 * then for now, then in zip(last["diversity"], first["diversity"], strict=True))
    assert last["gain"][0] == pytest.approx(1 + last["columns"][0], abs=1e-5)
    assert max(last["gain"]) < 1.5
    weights = [e["loss"] for e in events["asked"] + events["not"] if e["event"] == "epoch"]
    assert weights[:3] == weights[3:], "looking changes nothing"
