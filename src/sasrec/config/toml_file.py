"""Read TOML files of settings, which somebody else may have written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sasrec.errors import ConfigError
from sasrec.untrusted import MOST_TEXT, content_of, refuse_deep


def tables_of(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises: ConfigError if it is not one. Remedy: name one, or correct it."""
    try:
        tables = tomllib.loads(content_of(path, MOST_TEXT).decode().replace("\r\n", "\n"))
        refuse_deep(tables)
        return tables
    except OSError as error:
        raise ConfigError(f"the settings {path} cannot be read: {error.strerror}. Name a TOML file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the settings {path} are not UTF-8 text: {error.reason}. Name a TOML file.") from None
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with thousands of digits
        reason = "they are nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"the settings {path} are not valid TOML: {reason}. Correct the file.") from None
