"""Every error a user can cause, each naming its remedy. Programmer errors stay assertions."""


class SasrecError(Exception):
    """Base of all errors that the command line prints as one sentence, without a traceback."""


class ConfigError(SasrecError):
    """A setting is unknown, malformed or contradicts another: change the setting."""


class DataError(SasrecError):
    """The events cannot be used as they are: fix the file, the column names or the reading options."""


class DownloadError(SasrecError):
    """A public data set could not be fetched or verified: retry, or give a local copy."""


class CheckpointError(SasrecError):
    """A run folder or checkpoint is missing, damaged or belongs to something else: name another."""


class EvaluationError(SasrecError):
    """The model or data cannot be scored (a NaN score, no user with a target): the message says which."""


class TrainingError(SasrecError):
    """Training cannot go on (a loss that is not finite): lower the learning rate or check the data."""
