"""Random generators: the numbers of torch.manual_seed, and the caller's stay."""

from __future__ import annotations

import pytest
import torch

from sasrec.errors import ConfigError
from sasrec.runtime.device import own_generators, pick_device, seed_generators


def test_seeding_gives_the_numbers_of_manual_seed() -> None:
    torch.manual_seed(2**62 + 5)
    expected = torch.rand(5)
    seed_generators(torch.device("cpu"), 2**62 + 5)
    assert torch.equal(torch.rand(5), expected)


def test_the_callers_random_numbers_go_on_after_the_block() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with own_generators(torch.device("cpu")):
        seed_generators(torch.device("cpu"), 7)
        torch.rand(3)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("name", ["meta", "abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        pick_device(name)
