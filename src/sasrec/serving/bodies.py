"""Read what clients send: bodies, numbers in queries, ids in paths. Refusals repeat nothing of it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from sasrec.serving.limits import Refused

_TIME = re.compile(r"\.(now|time|times\[\.*\d*\])`$")


class _Anything(Convertor[str]):
    """A part of a path with slashes and line feeds, which ids of users may have."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text of the path."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text for a path."""
        return value


register_url_convertor("anything", _Anything())


async def decoded(request: Request, kind: Any) -> Any:
    """Return the body as a type of schemas.py. Raises: Refused, with the place of the fault but not its value."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise Refused(422, "invalid", _unfit(str(error), kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(422, "not_json", "The body cannot be read as JSON in UTF-8. Correct it.") from None


def _unfit(said: str, kind: Any) -> str:
    """Return what msgspec says of a body, without what the client sent: names of unknown fields, and values."""
    reason, _, at = said.rpartition(" - at ")
    reason = reason or said
    at = at if at.startswith("`$") and len(at) < 100 else "The body"
    if reason.startswith("Object contains unknown field"):
        known = f" It may have {', '.join(kind.__struct_fields__)}." if at == "The body" else ""
        return f"{at} has a field that is not known.{known} GET /openapi.json describes it."
    if reason.startswith("Object missing required field"):
        return f"{at} needs the field {reason.rpartition(' ')[2]}."
    if not reason.startswith("Expected"):
        return f"The value at {at} is not one of those that are allowed. GET /openapi.json describes it."
    seconds = " Times are in seconds since 1970, not in milliseconds." if _TIME.search(at) else ""
    return f"{at}: {reason[0].lower()}{reason[1:]}.{seconds}"


def whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number of the query. Raises: Refused."""
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise Refused(422, "invalid", f"{name} must be a whole number from {least} to {most}.")
    return int(text)
