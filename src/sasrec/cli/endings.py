"""How a command ends when the system fails it: sentences, exit statuses, and limits that are refused at once."""

from __future__ import annotations

import errno
import os
import sys

from sasrec.cli.console import err, say
from sasrec.errors import ConfigError

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

BROKEN_PIPE = 128 + 13
"""The exit status that a shell reports of a program ended by SIGPIPE."""
OTHER_LOCALE = "Set LC_ALL=C.UTF-8 and unset PYTHONUTF8, or use names in ASCII."
_ADDRESS_SPACE = 3_000_000_000  # bytes; with 2 to 32 threads, importing torch and training needed 2.0e9 to 2.5e9
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free disk space, and run the same command again."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Fix the permissions, or name another folder."),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Allow more open files (ulimit -n)."),
    errno.EIO: "Check the disk.",
}


def failed(message: str) -> int:
    """Print an error, and return its exit status."""
    say(err, message, label="error:", style="red")
    return 1


def flushed(status: int) -> int:
    """Write out what stdout still buffers, and return the exit status, which is not 0 if that failed.

    Python's own flush, at the end of the process, would print a traceback.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return without_reader(status)
    except OSError as error:
        _discard_stdout()
        return status or failed(f"stdout: {of_system(error)}")
    return status


def without_reader(status: int = 0) -> int:
    """Return the exit status after the reader of stdout, such as `head`, has gone: that of SIGPIPE."""
    _discard_stdout()
    return status or BROKEN_PIPE


def _discard_stdout() -> None:
    """Let what is still buffered, and all that follows, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def of_system(error: OSError) -> str:
    """Return a sentence on an error of the system: the file if it is known, the reason, and the remedy."""
    reason = error.strerror or str(error)
    if "temporary directory" in reason:
        return f"{reason}. Set TMPDIR to a folder that can be written."
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{where}{reason}. {_REMEDIES.get(error.errno or 0, 'Check the path.')}"


def unreadable(word: str) -> str:
    """Return a sentence on a word of the command line that is not text in the encoding of the locale."""
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return f"{word} is not UTF-8 text. Rename the file or folder, or correct the option."
    return f"{word} is not text in the encoding of this locale, {encoding}. {OTHER_LOCALE}"


def check_address_space() -> None:
    """Refuse a limit of the address space under which the libraries abort or hang, which nothing can catch.

    Raises: ConfigError. Remedy: raise the limit.
    """
    if resource is None:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE:
        raise ConfigError(
            f"the address space of a process is limited to {limit / 1e9:.1f} GB (ulimit -v), but the libraries "
            f"need {_ADDRESS_SPACE / 1e9:.0f} GB to start. Raise the limit: ulimit -v unlimited."
        )


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out in NumPy or PyTorch. PyTorch has a class for this error only on some devices."""
    return isinstance(error, MemoryError) or any(
        words in str(error)
        for words in ("out of memory", "can't allocate memory", "Cannot allocate memory", "failed to map segment")
    )
