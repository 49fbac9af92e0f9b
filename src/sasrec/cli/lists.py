"""Read the lists of the command line: ids of items, and times."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

from sasrec.errors import ConfigError, for_shell
from sasrec.files import unicode_text

_SEPARATORS = re.compile(r"[,;\t|]|::")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_MARKS = "\"'[](){} \ufeff"  # what stands around ids in other notations
_LONGEST_JOIN = 6  # how many neighbours can be parts of one id with commas


def ids(option: str, text: str, is_item: Callable[[str], bool]) -> list[str]:
    """Parse ids separated by commas; with @FILE, read them from FILE, one per line.

    Ids in double quotes are read as CSV writes them. Blanks around an id, and byte order marks, are ignored.
    `option` names the list in messages. `is_item` says whether an id is an item; a text that is read as one id but
    consists of several, or the reverse, is refused.

    Raises: ConfigError if the file cannot be read, or where it is unclear which ids are meant. Remedy: quotes.
    """
    if text.startswith("@"):
        return _ids_of_file(option, Path(text[1:]), is_item)
    if '"' in text:
        try:
            parts = [_clean(part) for part in next(csv.reader([text], skipinitialspace=True, strict=True), [])]
        except csv.Error as error:
            raise ConfigError(
                f"the double quotes of {option} {text} do not match ({error}). Put an id with a comma between "
                f"""double quotes, as in {option} '"a,b",c', and write a quote inside it twice."""
            ) from None
        return [part for part in parts if part]
    raw = text.split(",")
    for size in range(2, min(_LONGEST_JOIN, len(raw)) + 1):
        for start in range(len(raw) - size + 1):
            joined = _clean(",".join(raw[start : start + size]))
            if is_item(joined):
                quoted = ",".join(f'"{_clean(part)}"' for part in joined.split(","))
                raise ConfigError(
                    f"{joined} in {option} is the id of one item, because it has a comma. Write "
                    f"""{option} '"{joined}"' for this item, or {option} '{quoted}' for several."""
                )
    parts = [part for part in map(_clean, raw) if part]
    for part in parts:
        if not is_item(part) and os.path.isfile(part):
            raise ConfigError(f"{part} is a file, not the id of an item. To read it, write {option} @{part}.")
        _refuse_several(part, is_item, option, f"Separate ids by commas, as in {option} {{}}")
    return parts


def refuse_unknown(
    option: str, text: str, found: list[str], is_item: Callable[[str], bool], some: list[str]
) -> None:
    """Raise ConfigError if no id of a list is an item. Remedy: the form of the list, with `some` items.

    `found`: the ids that were read from `text`.
    """
    if not any(map(is_item, found)):
        example = for_shell(",".join(f'"{each}"' if "," in each else each for each in some))
        raise ConfigError(
            f"{option} {for_shell(text)} names no item that the model knows. Write the ids of items, oldest first "
            f"and separated by commas, such as {option} {example}."
        )


def _ids_of_file(option: str, path: Path, is_item: Callable[[str], bool]) -> list[str]:
    found = []
    for number, line in enumerate(_lines(option, path), start=1):
        item_id = _clean(line)
        if item_id.startswith('"'):
            item_id = _unquoted(item_id, f"{path}, line {number}", is_item)
        elif item_id:
            _refuse_several(item_id, is_item, f"{path}, line {number}", "Write one id a line and nothing else")
        if item_id:
            found.append(item_id)
    return found


def _lines(option: str, path: Path) -> list[str]:
    """Return the lines of a file, whatever its line ends. Raises: ConfigError if it is not readable text."""
    try:
        text = unicode_text(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: {error}. Save the file as UTF-8 (Excel: CSV UTF-8), or convert it: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path} > NEW"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the file of {option} @{path} cannot be read: {error}. Name a text file with one id a line; an id "
            f"""that begins with @ is written {option} '"@id"'."""
        ) from None
    return re.split(r"\r\n|\r|\n", text)


def _unquoted(line: str, place: str, is_item: Callable[[str], bool]) -> str:
    """Return the id of a line that begins with a quote; the whole line if its quotes are not those of CSV."""
    try:
        fields = next(csv.reader([line], skipinitialspace=True, strict=True), [])
    except csv.Error:
        _refuse_several(line, is_item, place, "Write one id a line and nothing else")
        return line
    if len(fields) > 1:
        raise ConfigError(f"{place}: {line!r} has several fields. Write one id a line and nothing else.")
    return _clean(fields[0])


def _refuse_several(text: str, is_item: Callable[[str], bool], place: str, remedy: str) -> None:
    """Raise ConfigError if `text` is not an item but its parts are, so that it would be ignored as unknown."""
    if is_item(text):
        return
    quoted = [part.replace('""', '"') for part in _QUOTED.findall(text)]
    fields = [_clean(part.strip(_MARKS)) for part in _SEPARATORS.split(text)]
    fields += map(_clean, _SEPARATORS.split(text))
    words = [part.strip(_MARKS) for part in text.split()]
    parts = [part for part in (*quoted, *fields) if is_item(part)]
    if not parts and 2 * sum(map(is_item, words)) >= len(words) > 1:
        parts = [part for part in words if is_item(part)]
    if parts:
        remedy = remedy.format(",".join(dict.fromkeys(parts)))
        raise ConfigError(
            f"{place}: {text!r} is not the id of an item, but {parts[0]!r} is. {remedy}; if {text!r} is one id, "
            "put it between double quotes."
        )


def _clean(text: str) -> str:
    """Remove blanks and byte order marks around an id; ids of the data have none."""
    return text.strip().strip("\ufeff").strip()


def seconds(text: str) -> list[float]:
    """Parse numbers separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--times must be numbers separated by commas: {error}. Correct --times.") from None
