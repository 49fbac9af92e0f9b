"""The feed-forward layers of a block against their formulas."""

from __future__ import annotations

import pytest
import torch

from sasrec.config.settings import ModelConfig
from sasrec.models import build_model
from sasrec.models.blocks import PointWiseFeedForward, SwiGLUFeedForward


@pytest.mark.parametrize("width", [0, 5, 24])
def test_swiglu_is_its_formula_at_any_width(width: int) -> None:
    torch.manual_seed(0)
    layer = SwiGLUFeedForward(
        ModelConfig(hidden_units=8, feed_forward="swiglu", feed_forward_width=width)
    ).double()
    x_BLD = torch.randn(2, 3, 8, dtype=torch.float64)
    first, second = x_BLD @ layer.gate.weight.T, x_BLD @ layer.inner.weight.T
    assert first.shape == (2, 3, width or 8)
    expected = (first / (1 + (-first).exp()) * second) @ layer.outer.weight.T
    assert (layer.eval()(x_BLD) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("width", [0, 5, 24])
def test_the_pointwise_layer_is_its_formula_at_any_width(width: int) -> None:
    torch.manual_seed(0)
    layer = PointWiseFeedForward(ModelConfig(hidden_units=8, feed_forward_width=width)).double()
    x_BLD = torch.randn(2, 3, 8, dtype=torch.float64)
    hidden = (x_BLD @ layer.inner.weight.T + layer.inner.bias).clamp(min=0)
    assert hidden.shape == (2, 3, width or 8)
    assert (layer.eval()(x_BLD) - (hidden @ layer.outer.weight.T + layer.outer.bias)).abs().max() < 1e-12


@pytest.mark.parametrize("kind", [PointWiseFeedForward, SwiGLUFeedForward])
def test_dropout_acts_on_the_hidden_layer_and_on_the_output(kind: type[torch.nn.Module]) -> None:
    layer = kind(ModelConfig(hidden_units=8, dropout_rate=0.5)).train()
    torch.manual_seed(0)
    out_BLD = layer(torch.randn(4, 50, 8))
    assert 0.4 < (out_BLD == 0).double().mean() < 0.6, "of the output"
    layer.outer_dropout.rate = 0.0
    x_BLD = torch.randn(1, 1, 8)
    assert not torch.equal(layer(x_BLD), layer(x_BLD)), "of the hidden layer"


def test_every_block_has_the_feed_forward_layer_of_the_settings() -> None:
    model = build_model(9, ModelConfig(maxlen=4, hidden_units=8, feed_forward="swiglu", feed_forward_width=12))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for block in (0, 1):
        for name, shape in {"gate": (12, 8), "inner": (12, 8), "outer": (8, 12)}.items():
            assert shapes[f"blocks.{block}.feed_forward.{name}.weight"] == shape
    assert not any("feed_forward." in name and name.endswith("bias") for name in shapes)
