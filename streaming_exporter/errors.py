"""Errors; the class decides what happens next.

======================  ===================================================================
class                   what happens
======================  ===================================================================
:class:`Unreadable`     the message goes to the dead-letter topic
:class:`Rejected`       the job fails at once, because a retry cannot succeed
:class:`Retryable`      the job returns to ``pending`` and is retried later
:class:`Outage`         as Retryable, and the attempt does not count
:class:`NeedsOperator`  as Outage, for one day at most; the job's record has the reason
:class:`InDoubt`        as Retryable; the user is informed that the change can have been made
======================  ===================================================================

:class:`BadSettings` ends the process at its start.
"""

from collections.abc import Iterable
from uuid import UUID


class ExporterError(Exception):
    """Base of every error that the service raises on purpose.

    ``code`` is a stable word for programs; ``str(error)`` is a sentence for users.
    """

    code = "error"
    counted = False
    """Whether the metrics have counted this error: it counts once, even if several parts pass it on."""
    job_id: UUID | None = None
    """The job that the error is about, where it is known."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Unreadable(ExporterError):
    """A message that is no known event; it goes to the dead-letter topic with this reason."""

    code = "unreadable"


class Rejected(ExporterError):
    """A request that can be read but cannot be fulfilled; the job fails with this reason."""

    code = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        allowed: Iterable[str] | None = None,
    ) -> None:
        """Compose the text ``field: message; allowed: a, b, c``."""
        text = f"{field}: {message}" if field else message
        if allowed is not None:
            text += "; allowed: " + (", ".join(allowed) or "none")
        super().__init__(text, code=code)
        self.field = field


def value_too_large(column: str, row: str, size: int, limit: int, output: str) -> Rejected:
    """Return the error for a value that cannot be written in bounded memory.

    Args:
        column: the column's name.
        row: which row has the value, such as ``the row whose id is 7``.
        size: bytes of the value. It can be less than the limit if other columns or escapes are long, too.
        limit: bytes that a row can have.
        output: the format's name.
    """
    return Rejected(
        f"column {column!r} of {row} has {size:,} bytes and makes the row too long for a {output} file, in "
        f"which a row can have {limit:,} with all its columns and escapes; leave the column or the row out, "
        "or choose another format",
        code="value_too_large",
    )


class Retryable(ExporterError):
    """A temporary fault of a part (database, object store, network); a retry can succeed."""

    code = "temporarily_unavailable"


class TooLarge(ExporterError):
    """A message that is too large for Kafka; a retry of the same message cannot succeed."""

    code = "too_large"


class BadSettings(ExporterError):
    """Settings that cannot be used; the text has a line for each variable."""

    code = "bad_settings"


class Outage(Retryable):
    """A part that cannot be reached. The job waits for it without limit, and no failure is counted."""

    code = "outage"


class NeedsOperator(Outage):
    """A part that refuses the service until an operator changes something; the job waits for one day at most.

    ``reason`` explains to users what the job waits for. It does not contain the part's own message.
    """

    code = "waits_for_operator"

    def __init__(self, message: str, *, reason: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class Locked(Retryable):
    """A row that another transaction has locked; other rows do not wait for it."""

    code = "locked"


class InDoubt(Retryable):
    """It is not known whether a change was committed; it must not be reported as failed."""

    code = "in_doubt"


class PublishError(Retryable):
    """Kafka did not acknowledge an event in time; it can be published again with the same id.

    ``job_id`` is the job that the event is about; ``None`` where it is about none. If ``is_in_doubt``, the
    event can have arrived. A request that is published again with this ``job_id`` is the same job.
    """

    code = "kafka_unavailable"

    def __init__(self, message: str, *, job_id: UUID | None = None, is_in_doubt: bool = False) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.is_in_doubt = is_in_doubt


class EventTooLarge(TooLarge, PublishError):
    """An event that is too large for Kafka. It has not arrived, and a retry cannot succeed."""


class UsageError(ExporterError):
    """Options or arguments of a command that are invalid, or that cannot be combined."""

    code = "usage"


RETRYABLE_STATUSES = frozenset({408, 425, 429})
"""Statuses below 500 of a call that can succeed later: time-out, too early, too many calls."""


class ApiError(ExporterError):
    """The API could not be reached (``status`` is ``None``), or refused the call with an HTTP status.

    ``problem_code`` is the code in its answer, such as ``unknown_dataset``; ``None`` where it has none.
    ``retry_after`` is the seconds after which the API wants the next call; ``None`` where it does not say.
    If ``is_in_doubt``, the API can have done what it was asked to do: its answer was lost. A request that is
    made again with ``idempotency_key``, if there is one, is the same job. If ``is_foreign``, the answer is
    not one of this API but, for example, the page of a proxy.
    """

    code = "api_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        problem_code: str | None = None,
        retry_after: float | None = None,
        is_in_doubt: bool = False,
        is_foreign: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem_code = problem_code
        self.retry_after = retry_after
        self.is_in_doubt = is_in_doubt
        self.is_foreign = is_foreign
        self.idempotency_key: str | None = None

    @property
    def is_retryable(self) -> bool:
        """Whether the same call can succeed later."""
        return self.status is None or self.status >= 500 or self.status in RETRYABLE_STATUSES


class JobEnded(ExporterError):
    """The job ended without a file."""

    code = "job_ended"


class DownloadError(ExporterError):
    """The file could not be downloaded, or differs from the one that the service wrote."""

    code = "download_failed"
