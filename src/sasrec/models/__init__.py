"""The models. `build_model` is the one place that chooses among them."""

from sasrec.config.settings import ModelConfig
from sasrec.models.interface import SequenceModel
from sasrec.models.sasrec import SASRec
from sasrec.models.tisasrec import TiSASRec

__all__ = ["SASRec", "SequenceModel", "TiSASRec", "build_model"]


def build_model(num_items: int, config: ModelConfig) -> SequenceModel:
    """The model a configuration names, freshly initialised from PyTorch's global random state."""
    return TiSASRec(num_items, config) if config.time else SASRec(num_items, config)
