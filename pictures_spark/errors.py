"""The exceptions a user may meet, each with its own exit code (DESIGN section 4).

Messages say what is wrong, where, and what to do; they name value classes and object ids, never an identifier.
"""


class PicturesError(Exception):
    """Base of every error that is shown to a user as one sentence, without a traceback."""

    exit_code = 1


class ConfigError(PicturesError):
    """A setting, an argument or a question is wrong."""

    exit_code = 10


class InputError(PicturesError):
    """The input data as a whole cannot be used."""

    exit_code = 11


class NotPermittedError(PicturesError):
    """A permission or an approval is missing."""

    exit_code = 12


class ChecksFailedError(PicturesError):
    """The result failed its own checks and was not released."""

    exit_code = 13


class TimeBudgetError(PicturesError):
    """The time budget is used up."""

    exit_code = 14


class ZoneViolationError(PicturesError):
    """A read or write outside the zones of the job's role."""

    exit_code = 15


class QuarantineLimitError(PicturesError):
    """More of the input than the declared limit is in quarantine."""

    exit_code = 20
