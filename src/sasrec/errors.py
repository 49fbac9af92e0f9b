"""All errors that a user can cause, and the category of all warnings.

Each error names the remedy; mistakes of programmers are assertions.
"""

import shlex


class SasrecError(Exception):
    """Base class of all errors that you can correct, such as a wrong setting or a damaged file. The command line
    prints the message of such an error without a traceback.
    """


class ConfigError(SasrecError):
    """A setting or an argument is unknown, malformed or contradicts another one. Remedy: change it."""


class DataError(SasrecError):
    """Events, a history or a file of an export cannot be read or used. Remedy: as the message says, for example
    fix the file, the column names or the reading options.
    """


class DownloadError(SasrecError):
    """A public data set could not be downloaded or verified. Remedy: try again, or pass a local copy."""


class CheckpointError(SasrecError):
    """A run folder or checkpoint is missing or damaged, or does not fit the data or the model.

    Remedy: name another run or checkpoint.
    """


class FolderError(SasrecError):
    """A folder cannot be written to: another process writes to it, or it has files that sasrec did not write.

    Remedy: wait until the other process ends, or name another folder.
    """


class StoreError(SasrecError):
    """The server's store of events cannot be read or written now: it is locked, full, damaged or does not answer.

    Remedy: as the message says; then send the events again with the same ids.
    """


class EvaluationError(SasrecError):
    """Measuring failed, for example because a score is NaN, or because no user has a target. Remedy: as the
    message says.
    """


class TrainingError(SasrecError):
    """Training cannot continue, for example because the loss is NaN or infinite.

    Remedy: lower the learning rate, or check the data.
    """


def amount(count: int, noun: str, verb: str = "") -> str:
    """Return a count with its noun, and with a verb if one is given, for messages.

    The noun is that of one, the verb that of many: "1 user", "1,234 users"; "1 row is", "2 rows are".
    """
    several = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    one = {"are": "is", "have": "has", "": ""}.get(verb, f"{verb}s")
    return f"{count:,} {noun if count == 1 else several} {one if count == 1 else verb}".rstrip()


class SasrecWarning(UserWarning):
    """Category of all warnings of sasrec. A warning says what was assumed, what was left out, or what looks odd.

    The command line prints warnings as notes. The list `report["warnings"]` of a Dataset has the warnings about
    its data.
    """


def for_shell(value: object) -> str:
    """Quote a value for the shell; with double quotes if it has single ones, as conditions in SQL have."""
    text = str(value)
    plain = "'" not in text or any(sign in text for sign in '"$`\\!')
    return shlex.quote(text) if plain else f'"{text}"'
