"""What every model must do, whatever its formulas. A new model is one more line in CONFIGS."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sasrec.batches.batches import TrainingBatches, pad
from sasrec.batches.loader import DeviceBatch, Loader, on_device
from sasrec.batches.negatives import NegativePlan
from sasrec.checkpoint import store
from sasrec.config.settings import LossConfig, ModelConfig
from sasrec.data.histories import Histories
from sasrec.data.splits import split_events
from sasrec.losses.loss import training_loss
from sasrec.models import SequenceModel, build_model
from tests.synthetic import dataset, random_lists

ITEMS, MAXLEN = 40, 12
CONFIGS = (
    {
        f"{'tisasrec' if time else 'sasrec'}-{norm}-h{heads}": ModelConfig(
            maxlen=MAXLEN, hidden_units=16, num_heads=heads, norm=norm, time=time, time_span=9
        )
        for time in (False, True)
        for norm in ("pre", "post", "original")
        for heads in (1, 4)
    }
    | {
        f"{'tisasrec' if time else 'sasrec'}-mhc-{streams}": ModelConfig(
            maxlen=MAXLEN, hidden_units=16, time=time, time_span=9, mhc=True, mhc_expansion_rate=streams
        )
        for time in (False, True)
        for streams in (1, 2, 4)
    }
    | {
        f"{'tisasrec' if time else 'sasrec'}-{name}": ModelConfig(
            maxlen=MAXLEN, hidden_units=16, time=time, time_span=9, **settings
        )
        for time in (False, True)
        for name, settings in {
            "gated": {"gated": True},
            "birkhoff": {"mhc": True, "mhc_projection": "birkhoff"},
            "orthogonal": {"mhc": True, "mhc_projection": "orthogonal"},
            "swiglu": {"feed_forward": "swiglu", "feed_forward_width": 24},
            "wide": {"feed_forward_width": 24},
        }.items()
    }
)


# A bias on the keys moves all scores of a query alike, which the softmax cannot see. In the first sub-layer the
# streams are copies: mixing them changes nothing, and their scale is undone by the LayerNorm.
WITHOUT_INFLUENCE = ("key.bias", "blocks.0.attention_residual.b_pre", "blocks.0.attention_residual.b_res")


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request: pytest.FixtureRequest) -> SequenceModel:
    torch.manual_seed(1)
    built = build_model(ITEMS, request.param).double()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            parameter += 0.3 * torch.randn_like(parameter) * ("embedding" not in name)
    return built.eval()


def histories(lists: list[list[int]]) -> Histories:
    data = dataset(lists, ITEMS)
    return Histories(data.items, times_for(lists), data.offsets[:-1], data.offsets[1:])


def times_for(lists: list[list[int]]) -> np.ndarray:
    """Ascending personal times with ties and long gaps, the same for the same row; models without time ignore them."""
    steps = [np.cumsum([(7 * item + at) % 5 for at, item in enumerate(row)]) for row in lists]
    return np.concatenate([*steps, np.zeros(0)]).astype(np.int64)


def batch(lists: list[list[int]]) -> DeviceBatch:
    return on_device(pad(histories(lists), np.arange(len(lists)), MAXLEN), torch.device("cpu"))


def states(model: SequenceModel, made: DeviceBatch) -> torch.Tensor:
    with torch.no_grad():
        return model(made.items_BL, made.positions_BL, made.ticks_BL)


def test_a_state_does_not_depend_on_later_items(model: SequenceModel) -> None:
    made = batch([[3, 5, 7, 9, 11, 13, 15, 17]])
    changed = dataclasses.replace(made, items_BL=made.items_BL.clone())
    changed.items_BL[0, 5:] = torch.tensor([30, 31, 32])
    before, after = states(model, made), states(model, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_every_earlier_item_is_seen(model: SequenceModel) -> None:
    made = batch([[3, 5, 7, 9, 11, 13]])
    last = model.last_states(made)
    for position in range(6):
        changed = dataclasses.replace(made, items_BL=made.items_BL.clone())
        changed.items_BL[0, position] = 33
        assert not torch.allclose(last, model.last_states(changed), atol=1e-9)


def test_padding_changes_nothing(model: SequenceModel) -> None:
    lists = random_lists(9, ITEMS, seed=2, longest=MAXLEN)
    together = model.last_states(batch(lists))
    alone = torch.cat([model.last_states(batch([row])) for row in lists])
    assert (together - alone).abs().max() < 1e-12


def test_the_order_of_users_in_a_batch_changes_nothing(model: SequenceModel) -> None:
    lists = random_lists(9, ITEMS, seed=3, longest=MAXLEN)
    order = np.random.default_rng(0).permutation(9)
    shuffled = model.last_states(batch([lists[i] for i in order]))
    assert (model.last_states(batch(lists))[torch.from_numpy(order)] - shuffled).abs().max() < 1e-12


def test_only_the_last_maxlen_items_are_seen(model: SequenceModel) -> None:
    long = random_lists(1, ITEMS, seed=4, longest=1)[0] * (MAXLEN + 5)
    other_start = [7, 8, 9, 10, 11, *long[5:]]
    assert torch.equal(model.last_states(batch([long])), model.last_states(batch([other_start])))


def test_evaluation_is_deterministic_and_training_drops_out(model: SequenceModel) -> None:
    made = batch(random_lists(4, ITEMS, seed=5, longest=MAXLEN))
    assert torch.equal(states(model, made), states(model, made))
    model.train()
    assert not torch.equal(states(model, made), states(model, made))


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_every_parameter_gets_a_gradient_and_padding_none(model: SequenceModel, loss: str) -> None:
    lists = [[*range(1, ITEMS + 1)], *random_lists(20, ITEMS, seed=6)]
    data = dataset(lists, ITEMS)
    config = LossConfig(loss=loss)
    training = dataclasses.replace(split_events(data).training, ticks=times_for(lists))
    plan = NegativePlan.of(config)
    batches = TrainingBatches(training, ITEMS, maxlen=MAXLEN, batch_size=64, plan=plan, seed=0)
    training_loss(model.train(), Loader(batches, model.device).batch(0, 0), config).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # The mean over the streams comes next, which an exactly doubly stochastic matrix preserves.
        last = name == "blocks.1.feed_forward_residual.b_res" and model.config.mhc_projection == "birkhoff"
        if not (name.endswith(WITHOUT_INFLUENCE) or last):
            assert parameter.grad.abs().max() > 1e-8, name
    for name, parameter in model.named_parameters():
        if "embedding" in name:
            assert parameter.grad[0].abs().max() == 0, name


@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("parts", [2, 30])
def test_the_losses_and_gradients_of_parts_add_up_to_those_of_the_batch(
    model: SequenceModel, loss: str, parts: int
) -> None:
    lists = random_lists(30, ITEMS, seed=4, longest=12)
    training = histories(lists)
    config = LossConfig(loss=loss, num_negatives=2 if loss == "bce" else 1)
    plan = NegativePlan.of(config)
    made = Loader(TrainingBatches(training, ITEMS, maxlen=MAXLEN, batch_size=15, plan=plan, seed=0), model.device)
    model.double().eval()
    found = []
    for count in (1, parts):
        model.zero_grad()
        losses = [training_loss(model, made.batch(0, 0, part, count), config) for part in range(count)]
        sum(losses).backward()
        found.append([sum(losses).detach(), *(p.grad.clone() for p in model.parameters())])
    for whole, split in zip(*found, strict=True):
        assert (whole - split).abs().max() < 1e-12


def test_padding_is_never_recommended_and_its_embedding_stays_zero(model: SequenceModel) -> None:
    scores = model.scores(model.last_states(batch([[1, 2, 3]])))
    assert scores.shape == (1, ITEMS + 1)
    assert scores[0, 0] == -torch.inf
    assert scores[0, 1:].isfinite().all()
    assert model.item_embedding.weight[0].abs().max() == 0


def test_a_user_without_items_gets_finite_scores(model: SequenceModel) -> None:
    assert model.scores(model.last_states(batch([[], [4]])))[:, 1:].isfinite().all()


def test_saved_and_loaded_it_gives_the_same_scores(model: SequenceModel, tmp_path: Path) -> None:
    made = batch(random_lists(5, ITEMS, seed=7))
    path = store.save(tmp_path, dict(model.state_dict()), {"step": 1, "score": 0.5})
    twin = build_model(ITEMS, model.config).double().eval()
    twin.load_state_dict(store.load(path).weights)
    assert torch.equal(twin.scores(twin.last_states(made)), model.scores(model.last_states(made)))
