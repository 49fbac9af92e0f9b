"""The neural networks; `build_model` chooses between SASRec, TiSASRec and a class of the caller."""

from sasrec.config.settings import ModelConfig
from sasrec.models.interface import SequenceModel
from sasrec.models.own import Encoder, check_class
from sasrec.models.sasrec import SASRec
from sasrec.models.tisasrec import TiSASRec

__all__ = ["SASRec", "SequenceModel", "TiSASRec", "build_model"]


def build_model(num_items: int, config: ModelConfig, encoder: Encoder | None = None) -> SequenceModel:
    """Build the own class `encoder` if it is given; else TiSASRec if `config.time` is set, else SASRec.

    PyTorch's global random generator draws the initial weights.

    Raises: ConfigError if `encoder` is not a subclass of SequenceModel. Remedy: pass one.
    """
    if encoder is not None:
        check_class(encoder)
        return encoder(num_items, config)
    return TiSASRec(num_items, config) if config.time else SASRec(num_items, config)
