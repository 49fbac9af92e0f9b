"""An encoder and a loss of one's own train on two processes as on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sasrec.checkpoint import store
from tests.distributed.launch import finish, start
from tests.synthetic import chain_frame

SCRIPT = """
import sys
import torch
from torch import nn
from torch.nn import functional as F
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
import sasrec
from sasrec.models import SequenceModel
from sasrec.models.interface import initialise

class GRU(SequenceModel):
    def __init__(self, num_items, config):
        super().__init__(num_items, config)
        self.gru = nn.GRU(config.hidden_units, config.hidden_units, 1, batch_first=True)
        initialise(self)

    def encode(self, item_vectors_BLD, positions_BL, ticks_BL=None):
        return self.gru(item_vectors_BLD)[0]

def bpr(model, batch):
    states_PD = model(batch.items_BL, batch.positions_BL, batch.ticks_BL).flatten(0, 1)[batch.real_P]
    targets_P1 = (states_PD * model.embed(batch.targets_P)).sum(1, keepdim=True)
    negatives_PN = (states_PD.unsqueeze(1) * model.embed(batch.negatives)).sum(2)
    losses_PN = -F.logsigmoid(targets_P1 - negatives_PN) * (batch.negatives > 0)
    return losses_PN.mean(1).sum() / batch.positions

sasrec.train(
    sys.argv[1], sys.argv[2], encoder=GRU, loss_function=bpr, loss="bce", num_negatives=4, maxlen=12,
    hidden_units=16, num_blocks=1, batch_size=16, lr=1e-2, num_epochs=6, eval_every=3, device="cpu",
)
"""


@pytest.mark.slow
def test_an_own_encoder_and_loss_make_the_same_weights_on_two_ranks_as_on_one(tmp_path: Path) -> None:
    script, events = tmp_path / "script.py", tmp_path / "events.csv"
    script.write_text(SCRIPT)
    chain_frame().write_csv(events)
    for ranks in (1, 2):
        status, said = finish(start(ranks, str(script), str(events), str(tmp_path / f"ranks-{ranks}")))
        assert status == 0, said
    one, two = (store.newest(tmp_path / f"ranks-{ranks}/checkpoints", print) for ranks in (1, 2))
    assert one.weights.keys() == two.weights.keys()
    for name, weights in one.weights.items():
        torch.testing.assert_close(two.weights[name], weights, rtol=0, atol=1e-10)
