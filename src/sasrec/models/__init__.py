"""The neural networks; `build_model` chooses between SASRec and TiSASRec."""

from sasrec.config.settings import ModelConfig
from sasrec.models.interface import SequenceModel
from sasrec.models.sasrec import SASRec
from sasrec.models.tisasrec import TiSASRec

__all__ = ["SASRec", "SequenceModel", "TiSASRec", "build_model"]


def build_model(num_items: int, config: ModelConfig) -> SequenceModel:
    """Build TiSASRec if `config.time` is set, else SASRec.

    PyTorch's global random generator draws the initial weights.
    """
    return TiSASRec(num_items, config) if config.time else SASRec(num_items, config)
