"""Errors, each class named after what is done about it.

======================  ==========================================================
class                   action
======================  ==========================================================
:class:`Unreadable`     the message goes to the dead-letter topic
:class:`Rejected`       the job fails at once: asking again would not help
:class:`Retryable`      the job goes back to ``pending`` and is tried again later
:class:`Outage`         so it does, and the attempt does not count
:class:`NeedsOperator`  so it does, for a day at most, and its record says why
:class:`InDoubt`        as Retryable, but a user is told that it may have happened
======================  ==========================================================

:class:`BadSettings` ends the process at its start.
"""

from collections.abc import Iterable


class ExporterError(Exception):
    """Base of every error that the service raises on purpose.

    ``code`` is a stable machine-readable word; ``str(error)`` is for people.
    """

    code = "error"
    counted = False
    """Whether the metrics know of it: it may pass the edges of several parts."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Unreadable(ExporterError):
    """A message that is not a known event: dead-letter it, with this reason."""

    code = "unreadable"


class Rejected(ExporterError):
    """A request that can be read but never honoured: fail the job with this reason."""

    code = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        allowed: Iterable[str] | None = None,
    ) -> None:
        """Compose ``field: message; allowed: a, b, c`` so that the text alone says what to do."""
        text = f"{field}: {message}" if field else message
        if allowed is not None:
            text += "; allowed: " + ", ".join(allowed)
        super().__init__(text, code=code)
        self.field = field


def value_too_large(column: str, row: str, size: int, limit: int, output: str) -> Rejected:
    """The error for a value that cannot be written in bounded memory.

    ``row`` says which row has it (``the row whose id is 7``), ``size`` and ``limit`` are bytes, ``output`` is
    the format's name.
    """
    return Rejected(
        f"column {column!r} of {row} has {size:,} bytes, too many for a {output} file, in which a row "
        f"may have {limit:,}; leave the column or the row out, or choose another format",
        code="value_too_large",
    )


class Retryable(ExporterError):
    """A passing fault of a part (database, object store, network): try again later."""

    code = "temporarily_unavailable"


class TooLarge(ExporterError):
    """A message that Kafka will never take: send less."""

    code = "too_large"


class BadSettings(ExporterError):
    """Settings that cannot be used; the text has a line for each variable."""

    code = "bad_settings"


class Outage(Retryable):
    """A part cannot be reached at all: the job waits for it, however long, and that is not its failure."""

    code = "outage"


class NeedsOperator(Outage):
    """A part refuses the service until somebody changes something: the job waits for a day, and says so.

    ``reason`` is for users: what it waits for, in words that are not the part's own.
    """

    code = "waits_for_operator"

    def __init__(self, message: str, *, reason: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class Locked(Retryable):
    """A row that another transaction holds: the others need not wait for it."""

    code = "locked"


class InDoubt(Retryable):
    """Whether a change was committed is not known: it must not be reported as a no."""

    code = "in_doubt"


class PublishError(Retryable):
    """Kafka did not take an event in time; it may be published again, under the same id."""

    code = "kafka_unavailable"


class UsageError(ExporterError):
    """The command line makes no sense as it stands."""

    code = "usage"


class ApiError(ExporterError):
    """The API could not be reached, or answered with a problem."""

    code = "api_error"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class JobEnded(ExporterError):
    """The job ended without a file."""

    code = "job_ended"


class DownloadError(ExporterError):
    """The file could not be fetched, or is not the one that the service wrote."""

    code = "download_failed"
