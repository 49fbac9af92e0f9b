"""Read files that somebody else may have made: only regular files, only what fits into memory, no deep nesting."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    import polars as pl

MOST_TEXT = 2**28
"""Bytes of a text that is read as a whole, such as state.json. Ours have a thousandth of this."""
_MOST_DEPTH = 50
_MOST_DIGITS, _MOST_BITS = 30, 128
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def refuse_no_file(path: Path) -> int:
    """Return the size of a file.

    Raises: OSError if it is not a regular file, since a pipe or a device could be read without end. The `strerror`
    says what it is. The caller adds the remedy.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    return found.st_size


def refuse_large(path: Path) -> int:
    """Return the size of a file that is to be read as a whole.

    Raises: OSError, as `refuse_no_file`, and if the file does not fit into the free memory.
    """
    size = refuse_no_file(path)
    if size > (free := free_memory()):
        raise OSError(errno.ENOMEM, f"it has {size:,} bytes, but {free:,} bytes of memory are free", str(path))
    return size


def content_of(path: Path, most: int | None = None) -> bytes:
    """Return the bytes of a regular file that fits into the free memory and has at most `most` bytes.

    Raises: OSError otherwise; its `strerror` is the reason. The caller adds the remedy.
    """
    size = refuse_large(path)
    if most is not None and size > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {most:,}", str(path))
    try:
        return path.read_bytes()
    except MemoryError:
        raise OSError(errno.ENOMEM, "it does not fit into memory", str(path)) from None


def free_memory() -> int:
    """Return how many bytes of memory are free for this process, as far as the system tells."""
    known = [2**62]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        known += [max(0, int(limit) - int(used))] if limit.isdecimal() else []
    except (OSError, ValueError):  # no Linux, or no cgroup
        pass
    return min(known)


def json_text(text: bytes | str) -> Any:
    """Parse JSON.

    Raises: ValueError if it is not valid, is nested deeply, or has a number of very many digits. The message is
    the reason. The caller adds the remedy.
    """
    try:
        found = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    refuse_deep(found)
    return found


def json_of(path: Path) -> Any:
    """Read a JSON file, as `json_text` and `content_of` do. Raises: OSError and ValueError, as they do."""
    return json_text(content_of(path, MOST_TEXT))


def in_words(error: ValueError) -> str:
    """Return the reason of an error of `json_text` or of pydantic, with the entry that is wrong, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        entry = ".".join(map(str, first["loc"]))[:100]
        return f"{entry or 'its content'}: {first['msg'].removeprefix('Value error, ')}"
    return str(error)


def visible(text: str, *, lines: bool = False) -> str:
    """Return text in which characters that steer a terminal, or turn the direction of text, are escapes.

    `lines`: line breaks stay.
    """
    return _STEERING.sub(lambda sign: sign[0] if lines and sign[0] == "\n" else repr(sign[0])[1:-1], text)


def refuse_deep(value: Any) -> None:
    """Raise ValueError if a value is nested so deeply, or has numbers so long, that using it could fail."""
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        if any(type(each) is int and each.bit_length() > _MOST_BITS for each in level):
            raise ValueError("it has a number of very many digits")
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def parquet_of(path: Path) -> pl.DataFrame:
    """Read a Parquet file.

    Raises: ValueError if the file is missing, damaged, not regular, or does not fit into memory. The message is
    the reason. The caller adds the remedy.
    """
    import polars as pl  # here, so that the first word of the command line need not wait for it

    try:
        refuse_large(path)
        table = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        cells = table.select(pl.len()).collect().item() * max(1, len(table.collect_schema()))
        if cells * 8 > free_memory():  # a few bytes can stand for any number of equal values
            raise ValueError(f"it claims {cells:,} values, which do not fit into memory")
        return table.collect()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else "it is damaged") from None
