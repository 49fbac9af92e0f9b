"""Random generators: the numbers of torch.manual_seed, and the caller's stay."""

from __future__ import annotations

import pytest
import torch

from sasrec.errors import ConfigError
from sasrec.runtime.device import deterministic, own_generators, pick_device, seed_generators


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


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="device=cuda:1 would put every process on one GPU"):
        pick_device("cuda:1")


def test_in_a_deterministic_block_other_operators_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's own value stays
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
    with (
        pytest.raises(ConfigError, match=r"cannot be deterministic on this device: put_.*deterministic=False"),
        deterministic(True),
    ):
        raise RuntimeError("put_ does not have a deterministic implementation, but you set it.\nMore.")
    with pytest.raises(RuntimeError, match="something else"), deterministic(True):
        raise RuntimeError("something else")
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
