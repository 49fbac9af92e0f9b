"""The words which some options accept, and defaults; the command line imports them without PyTorch."""

from typing import Literal, TypeAlias

Candidates: TypeAlias = Literal["full", "sampled"]
SplitName: TypeAlias = Literal["valid", "test"]

# The defaults of `refresh` (docs/measurements/production.md has the figures).
REFRESH_EPOCHS = 5
REFRESH_WORSE = 0.05
