"""Types that list the words which some options accept; the command line imports them without PyTorch."""

from typing import Literal, TypeAlias

Candidates: TypeAlias = Literal["full", "sampled"]
SplitName: TypeAlias = Literal["valid", "test"]
