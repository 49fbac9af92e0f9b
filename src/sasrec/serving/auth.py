"""Bearer tokens, and what each may do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from sasrec.errors import ConfigError
from sasrec.files import missing
from sasrec.untrusted import content_of

SCOPES = ("read", "write", "admin")
_SHORTEST = 16


def tokens_of(path: Path) -> dict[bytes, frozenset[str]]:
    """Read a file of tokens; return the hash of each, and its scopes.

    A line is `SCOPES TOKEN`, such as `read,write 6f1c…`; `#` begins a comment at its start or after a blank.

    Raises: ConfigError that names the line. Remedy: correct it.
    """
    try:
        text = content_of(path, 2**20).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = missing(path) if not path.exists() else getattr(error, "strerror", None) or "is not text"
        raise ConfigError(f"{path} {reason}. Give a file of tokens.") from None
    tokens: dict[bytes, frozenset[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) != 2:
            raise ConfigError(f"{where}: write SCOPES TOKEN, such as read,write 6f1c09a4d27b85e3.")
        scopes = frozenset(words[0].split(","))
        if wrong := sorted(scopes - set(SCOPES)):
            raise ConfigError(f"{where}: {wrong[0]!r} is not a scope. Use {', '.join(SCOPES)}.")
        if len(words[1]) < _SHORTEST or not words[1].isascii():
            raise ConfigError(
                f"{where}: a token needs at least {_SHORTEST} characters, all ASCII. Use such a one."
            )
        known = _hash(words[1])
        tokens[known] = tokens.get(known, frozenset()) | scopes
    if not tokens:
        raise ConfigError(f"{path} has no token. Add a line, such as read 6f1c09a4d27b85e3.")
    return tokens


def scopes_of(tokens: Mapping[bytes, frozenset[str]], header: str) -> frozenset[str] | None:
    """Return the scopes of an Authorization header; None if its token is unknown.

    Only hashes are compared, so the time of an answer does not tell how much of a token was right.
    """
    kind, _, token = header.partition(" ")
    return tokens.get(_hash(token.strip())) if kind.lower() == "bearer" else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
