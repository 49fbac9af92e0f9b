"""Our models against tensors of the published PyTorch code, see golden/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm

from sasrec.batches.loader import DeviceTrainingBatch, RunConstants
from sasrec.batches.negatives import NegativePlan
from sasrec.config.settings import LossConfig, ModelConfig
from sasrec.losses.loss import squares, training_loss
from sasrec.models import build_model
from sasrec.models.tisasrec import intervals

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    f"sasrec_{norm}_h{heads}": ModelConfig(maxlen=12, hidden_units=20, num_blocks=2, num_heads=heads, norm=norm)
    for norm, heads in (("pre", 1), ("pre", 2), ("post", 1), ("original", 1), ("original", 2))
} | {
    f"tisasrec_h{heads}": ModelConfig(
        maxlen=12, hidden_units=20, num_blocks=2, num_heads=heads, norm="original", time=True, time_span=30
    )
    for heads in (1, 2)
}
TABLES = {
    "item_emb.weight": "item_embedding.weight",
    "pos_emb.weight": "position_embedding.weight",
    "abs_pos_K_emb.weight": "position_key_embedding.weight",
    "abs_pos_V_emb.weight": "position_value_embedding.weight",
    "time_matrix_K_emb.weight": "interval_keys",
    "time_matrix_V_emb.weight": "interval_values",
}
PROJECTIONS = {"Q_w": "query", "K_w": "key", "V_w": "value"}
SPLIT = {0: "query", 1: "key", 2: "value"}


def ours(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """A published parameter (or its gradient) under our name; the packed projection becomes three."""
    parts = name.split(".")
    if name in TABLES:
        # TiSASRec numbers positions from 0; our id 0 is padding.
        shifted = np.concatenate([np.zeros_like(array[:1]), array]) if parts[0].startswith("abs_pos") else array
        return {TABLES[name]: shifted}
    if parts[0] == "last_layernorm":
        return {f"last_norm.{parts[1]}": array}
    block = f"blocks.{parts[1]}"
    if parts[0] in {"attention_layernorms", "forward_layernorms"}:
        norm = "attention_norm" if parts[0].startswith("attention") else "feed_forward_norm"
        return {f"{block}.{norm}.{parts[2]}": array}
    if parts[0] == "forward_layers":
        layer = {"conv1": "inner", "conv2": "outer"}[parts[2]]
        return {f"{block}.feed_forward.{layer}.{parts[3]}": array.squeeze(-1) if array.ndim == 3 else array}
    if parts[2] in PROJECTIONS:
        return {f"{block}.attention.{PROJECTIONS[parts[2]]}.{parts[3]}": array}
    if parts[2] == "out_proj":
        return {f"{block}.attention.output.{parts[3]}": array}
    kind = parts[2].removeprefix("in_proj_")
    return {f"{block}.attention.{SPLIT[i]}.{kind}": third for i, third in enumerate(np.split(array, 3))}


def tensors(golden: np.lib.npyio.NpzFile, prefix: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for key in golden.files:
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            found |= {ours_name: torch.from_numpy(a.copy()) for ours_name, a in ours(name, golden[key]).items()}
    return found


def batch_of(golden: np.lib.npyio.NpzFile) -> DeviceTrainingBatch:
    rows, length = golden["sequence"].shape
    return DeviceTrainingBatch(
        items_BL=torch.from_numpy(golden["sequence"]),
        positions_BL=torch.arange(1, length + 1).repeat(rows, 1),
        lengths_B=torch.full((rows,), length),
        ticks_BL=torch.from_numpy(golden["scaled_times"]) if "scaled_times" in golden.files else None,
        real_P=torch.arange(rows * length),
        targets_P=torch.from_numpy(golden["positive"].ravel()),
        negatives=torch.from_numpy(golden["negative"].reshape(-1, 1)),
        own_BK=None,
        positions=rows * length,
        run=RunConstants(NegativePlan.of(LossConfig(loss="bce")), None, None),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_states_scores_loss_and_gradients_equal_the_published_ones(case: str, dtype: torch.dtype) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    model = build_model(60, CASES[case]).double()
    model.load_state_dict(tensors(golden, "weights."))
    model.to(dtype).eval()
    batch = batch_of(golden)
    value, gradient = (1e-9, 1e-8) if dtype == torch.float64 else (1e-4, 1e-4)

    states_BLD = model(batch.items_BL, batch.positions_BL, batch.ticks_BL)
    assert np.abs(states_BLD.detach().numpy() - golden["states"]).max() < value
    scores_BV = model.scores(model.last_states(batch)).detach().numpy()
    assert np.abs(scores_BV[:, 1:] - golden["scores_all_items"]).max() < value

    loss = training_loss(model, batch, LossConfig(loss="bce"))
    assert abs(loss.item() - golden["loss"]) < value
    loss.backward()
    expected = tensors(golden, "grad.")
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad.double() - expected[name]).abs().max() < gradient, name


def last_state_of_published_code(weights: dict[str, torch.Tensor], history: list[int], hide: bool) -> torch.Tensor:
    """One head, `pre`, padded on the left to 12 places as there; `hide`: real places do not see padding."""
    items = torch.tensor([0] * (12 - len(history)) + history)
    positions = torch.arange(1, 13) * (items > 0)
    x_LD = weights["item_embedding.weight"][items] * 20**0.5 + weights["position_embedding.weight"][positions]
    hidden_LL = torch.ones(12, 12).triu(1).bool() | (hide & (items == 0) & ~torch.eye(12).bool())
    for index in range(2):

        def linear(name: str, x: torch.Tensor, block: str = f"blocks.{index}.") -> torch.Tensor:
            return x @ weights[f"{block}{name}.weight"].T + weights[f"{block}{name}.bias"]

        def norm(name: str, x: torch.Tensor) -> torch.Tensor:
            return layer_norm(x, (20,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-8)

        y_LD = norm(f"blocks.{index}.attention_norm", x_LD)
        q_LD, k_LD, v_LD = (linear(f"attention.{name}", y_LD) for name in SPLIT.values())
        scores_LL = (q_LD @ k_LD.T / 20**0.5).masked_fill(hidden_LL, -torch.inf)
        x_LD = x_LD + linear("attention.output", scores_LL.softmax(1) @ v_LD)
        y_LD = norm(f"blocks.{index}.feed_forward_norm", x_LD)
        x_LD = x_LD + linear("feed_forward.outer", linear("feed_forward.inner", y_LD).relu())
    return norm("last_norm", x_LD)[-1]


@pytest.mark.parametrize("length", [12, 11, 5, 1])
def test_short_histories_differ_from_published_code_only_by_the_padding_it_lets_them_see(length: int) -> None:
    golden = np.load(GOLDEN / "sasrec_pre_h1.npz")
    weights = tensors(golden, "weights.")
    model = build_model(60, CASES["sasrec_pre_h1"]).double()
    model.load_state_dict(weights)
    items_BL = torch.from_numpy(golden["sequence"][:, -length:])
    states_BLD = model.eval()(items_BL, torch.arange(13 - length, 13).repeat(len(items_BL), 1))
    for items, ours_D in zip(items_BL.tolist(), states_BLD[:, -1], strict=True):
        hidden_D, seen_D = (last_state_of_published_code(weights, items, hide) for hide in (True, False))
        assert (ours_D - hidden_D).abs().max() < 1e-12
        assert (seen_D - hidden_D).abs().max() < 1e-12 if length == 12 else (seen_D - hidden_D).abs().max() > 0.01


def test_the_penalty_on_all_tables_is_that_of_the_authors() -> None:
    """TensorFlow code of Li, Wang & McAuley: l2_emb times the sum of squares of each of five tables."""
    golden = np.load(GOLDEN / "tisasrec_h2.npz")
    model = build_model(60, CASES["tisasrec_h2"]).double()
    model.load_state_dict(tensors(golden, "weights."))
    published = [golden[f"weights.{name}"] for name in TABLES if f"weights.{name}" in golden.files]
    assert len(published) == 5
    penalty = squares(model, "all")
    assert penalty.item() == pytest.approx(sum((table**2).sum() for table in published), rel=1e-12)
    penalty.backward()
    for name, parameter in model.named_parameters():
        expected = 2 * parameter if name in TABLES.values() else None  # all but the tables stay free
        assert parameter.grad is expected or torch.equal(parameter.grad, expected), name
    items = golden["weights.item_emb.weight"]
    assert squares(model, "items").item() == pytest.approx((items**2).sum(), rel=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_personal_intervals_equal_the_published_matrix(heads: int) -> None:
    golden = np.load(GOLDEN / f"tisasrec_h{heads}.npz")
    found = intervals(torch.from_numpy(golden["scaled_times"]), 30)
    assert np.array_equal(found.numpy(), golden["interval_matrix"])
