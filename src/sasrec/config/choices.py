"""The words that some options take, as types: the command line knows them without importing PyTorch."""

from typing import Literal, TypeAlias

Candidates: TypeAlias = Literal["full", "sampled"]
SplitName: TypeAlias = Literal["valid", "test"]
