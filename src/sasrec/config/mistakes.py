"""Describe a mistake in a recipe to somebody who wrote it by hand."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

SHORT = reprlib.Repr()  # of values in messages, which can be long or nested deeply
SHORT.maxstring = SHORT.maxother = 100
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_NOT_WHOLE = ("int_from_float", "int_type", "int_parsing")


def in_words(error: Mapping[str, Any], sections: Mapping[str, Sequence[str]]) -> str:
    """Return one error of pydantic as a sentence without its full stop.

    `sections`: each section of a recipe, such as "training", and the names of its settings.
    """
    *section, name = map(str, error["loc"])
    place = ".".join((*section, name))
    if error["type"] in _UNKNOWN and section:
        close = difflib.get_close_matches(name, sections[section[0]], n=1)
        return f"[{section[0]}] has no setting {name!r}. " + (
            f"Did you mean {close[0]}?" if close else f"Its settings are: {', '.join(sections[section[0]])}"
        )
    if error["type"] in _UNKNOWN:
        if home := next((each for each, names in sections.items() if name in names), None):
            return f"{name} belongs into the section [{home}]"
        close = difflib.get_close_matches(name, sections, n=1)
        return f"the section [{name}] is unknown. " + (
            f"Did you mean [{close[0]}]?" if close else f"The sections are: {', '.join(sections)}"
        )
    if error["type"] in _NOT_WHOLE:
        return f"{place} must be a whole number, not {SHORT.repr(error['input'])}"
    return f"{place}: {error['msg']} (found {SHORT.repr(error['input'])})"
