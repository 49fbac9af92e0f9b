"""Questions about the launch need no PyTorch; tests/distributed has what several processes do."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from sasrec.runtime import ranks

ASKED = """
import sys
from sasrec.runtime.ranks import device_number, joined, launch_id, launched, rank, restarted, under_torchrun, world
with joined("cpu"):
    print(launched(), under_torchrun(), restarted(), launch_id() != "", device_number(), rank(), world())
sys.exit("torch" in sys.modules)
"""


def test_launch_questions_are_answered_without_pytorch() -> None:
    told = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "2", "LOCAL_RANK": "3", "WORLD_SIZE": "1"}
    for environment, answers in (({}, "False False False False 0 0 1"), (told, "False True True True 3 0 1")):
        done = subprocess.run(
            [sys.executable, "-c", ASKED],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            check=True,
        )
        assert done.stdout.strip() == answers


def test_in_one_process_nothing_is_shared() -> None:
    ranks.barrier()
    assert ranks.sum_over_ranks(torch.ones(2)).tolist() == [1, 1]
    assert (ranks.world(), ranks.rank()) == (1, 0)
