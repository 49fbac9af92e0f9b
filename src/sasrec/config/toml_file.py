"""Read TOML files of settings, which somebody else may have written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sasrec.errors import ConfigError
from sasrec.files import missing
from sasrec.untrusted import MOST_TEXT, content_of, refuse_deep

_SHIPPED = Path(__file__).parents[1] / "recipes"
_CHECKOUT = Path(__file__).parents[3] / "recipes"


def recipe_folder() -> Path:
    """The folder of recipes: inside the package if installed from a wheel, beside src in a checkout."""
    return _SHIPPED if _SHIPPED.exists() else _CHECKOUT


def _recipe_for(path: Path) -> str:
    """Return the remedy for a file of settings that does not exist: the recipe of this name, or all names."""
    here, folder = Path.cwd(), recipe_folder()
    folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    if (found := folder / f"{path.name.removesuffix('.toml')}.toml").exists():
        return f"Name the file of this recipe: {found}."
    if path.suffix == ".toml":
        return "Name a TOML file."
    names = sorted(each.name for each in folder.glob("*.toml"))
    return f"Name a TOML file, such as one of {folder}: {', '.join(names)}."


def tables_of(path: Path, content: str = "settings") -> dict[str, Any]:
    """Return the tables of a TOML file. `content`: what the file has, for messages.

    Raises: ConfigError if it is not a TOML file. Remedy: name one, or correct it.
    """
    try:
        tables = tomllib.loads(content_of(path, MOST_TEXT).decode().replace("\r\n", "\n"))
        refuse_deep(tables)
        return tables
    except FileNotFoundError:
        remedy = _recipe_for(path) if content == "settings" else "Name a TOML file."
        raise ConfigError(f"the file of {content} {path} {missing(path)}. {remedy}") from None
    except OSError as error:
        raise ConfigError(f"the {content} {path} cannot be read: {error.strerror}. Name a TOML file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the {content} {path} are not UTF-8 text: {error.reason}. Name a TOML file.") from None
    except (ValueError, RecursionError) as error:  # ValueError also for numbers with thousands of digits
        reason = "they are nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"the {content} {path} are not valid TOML: {reason}. Correct the file.") from None
