"""Where the queue of a study is kept: a journal in its folder, or a PostgreSQL data base."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sasrec.errors import ConfigError, FolderError

_JOURNAL = "journal.log"
_PATIENCE = 1800.0  # seconds without the data base before a worker gives up
_PAUSE = 2.0  # seconds between two attempts
# A cable that was pulled says nothing: these find out within half a minute.
_LIVENESS = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
T = TypeVar("T")


def storage_of(folder: Path, url: str | None) -> Any:
    """Return the storage of Optuna that holds the queue.

    Raises: ConfigError if Optuna, or the driver of PostgreSQL, is not installed, or the data base cannot be
    reached. Remedy: install it, or correct `storage`.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage, RDBStorage

        from sasrec.studies.journal import Journal
    except ImportError:
        raise ConfigError('studies need Optuna. Install it: pip install "sasrec[studies]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would name every point on stderr
    if url is None:
        return JournalStorage(Journal(folder / _JOURNAL))
    try:
        from sqlalchemy.pool import NullPool  # a connection that rests for an hour of training is cut somewhere

        return RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            engine_kwargs={"poolclass": NullPool, "connect_args": _LIVENESS},
        )
    except ImportError:
        raise ConfigError(
            'a study with `storage` needs psycopg. Install it: pip install "sasrec[studies,postgresql]"'
        ) from None
    except Exception as error:
        if not is_lost(error):
            raise
        raise ConfigError(
            f"the data base {url} cannot be reached: {_reason(error)}. Start it, or correct `storage`."
        ) from None


def is_lost(error: BaseException) -> bool:
    """Whether an error, or its cause, says that the data base did not answer."""
    if not isinstance(error, Exception):
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OperationalError", "InterfaceError", "DBAPIError", "StorageInternalError"}) or (
        error.__cause__ is not None and is_lost(error.__cause__)
    )


def patient(call: Callable[[], T], say: Callable[[str], None]) -> T:
    """Return what `call` returns; while the data base does not answer, try again. `call` may be repeated.

    Raises: FolderError after half an hour. Remedy: start the data base again, and then the workers.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            return call()
        except Exception as error:
            if not is_lost(error):
                raise
            if time.monotonic() - began > _PATIENCE:
                raise FolderError(
                    f"the data base of the study has not answered for {_PATIENCE / 60:.0f} minutes: "
                    f"{_reason(error)}. Start it again, and then the workers."
                ) from None
            if not said:
                said = True
                say(f"note: the data base of the study does not answer; trying again ({_reason(error)})")
        time.sleep(_PAUSE)


def _reason(error: BaseException) -> str:
    """The first line of the innermost error, which is the driver's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
