"""What an error of the source database means for the job, and what its user is told.

The server's own words stay in the log: they can hold values of rows that are not the user's.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg
import structlog

from stream_app.db.sqlstates import Meaning, meaning_of
from stream_app.observability import metrics
from streaming_exporter.errors import ExporterError, Outage, Rejected, Retryable

log = structlog.get_logger(__name__)

REFUSALS: dict[str, tuple[str, str]] = {
    "42501": ("permission_denied", "the service's role must not read the table or one of its columns"),
    "42P01": ("missing_table", "a table that the dataset needs is missing"),
    "3F000": ("missing_table", "a schema that the dataset needs is missing"),
    "42703": ("missing_column", "a column that the dataset needs is missing"),
    "53400": ("query_refused", "the statement needs more temporary space than the server allows"),
}
"""By SQLSTATE: the error's code, and what it says to users."""

KINDS: dict[str, str] = {
    "21": "a subquery of the dataset yields several rows",
    "22": "a value cannot be computed or converted",
    "23": "a constraint is violated",
    "42": "the dataset does not fit the database",
    "54": "a value or the statement is larger than PostgreSQL can process",
    "HV": "a foreign table cannot be read",
    "P0": "a function of the dataset raised an error",
}
"""By class of SQLSTATE."""

MISCONFIGURED = frozenset({"22023", "42704"})
"""Codes with which a server refuses a parameter of a connection."""


@contextmanager
def source_errors(timed_out: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn an error of the driver into one of the service.

    ``timed_out`` says whether a statement that was cancelled had used up the time that an export has.

    Raises:
        Outage: the database does not work for anybody.
        Retryable: the error passes by itself.
        Rejected: the statement can never succeed; the text has nothing of the server's.
    """
    with metrics.count_errors("source_database"):
        try:
            yield
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            OSError,
        ) as error:  # TimeoutError is an OSError
            raise statement_error(error, timed_out()) from error


def statement_error(error: Exception, timed_out: bool = False) -> ExporterError:
    """What an error of a statement means.

    The driver only says that a connection is lost where the server had said why: then that is what counts.
    """
    cause = error.__cause__ or error.__context__
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and isinstance(cause, asyncpg.PostgresError):
        error = cause
    text = f"source database: {error or type(error).__name__}"
    if not isinstance(error, asyncpg.PostgresError):
        return Retryable(text)
    if isinstance(error, asyncpg.QueryCanceledError) and timed_out:
        return Rejected("the export took longer than is allowed; narrow it with filters", code="timeout")
    match meaning_of(error.sqlstate):
        case Meaning.OUTAGE:
            return Outage(text)
        case Meaning.REFUSED:
            log.warning("source.statement_refused", sqlstate=error.sqlstate, error=str(error))
            return rejected_statement(error)
        case Meaning.BUG:
            log.error("source.statement_failed", sqlstate=error.sqlstate, error=str(error))
    return Retryable(text)


def is_lost_connection(error: BaseException) -> bool:
    """Whether a connection was lost, and nobody said why."""
    said = isinstance(error.__cause__ or error.__context__, asyncpg.PostgresError)
    return isinstance(error, asyncpg.PostgresConnectionError | ConnectionError) and not said


def connection_error(error: Exception) -> ExporterError:
    """What it means that there is no connection: nothing that a request could be blamed for.

    A parameter of the URL that the server or a pooler refuses is refused for ever.
    """
    text = f"source database: {error or type(error).__name__}"
    state = getattr(error, "sqlstate", None)
    if state in MISCONFIGURED or "unsupported startup parameter" in str(error):
        log.error("source.url_refused", sqlstate=state, error=str(error))
        return Rejected(
            "the source database refuses a parameter of its URL; operators: see the log",
            code="source_misconfigured",
        )
    return Outage(text)


def rejected_statement(error: asyncpg.PostgresError) -> Rejected:
    """The error as users read it: its kind, and nothing that the server said."""
    state = error.sqlstate or ""
    code, reason = REFUSALS.get(state, ("query_refused", KINDS.get(state[:2], "it cannot be run")))
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    return Rejected(
        f"the source database refused the export: {reason} ({kind}, SQLSTATE {state}); "
        "operators find its words in the log by the id of the job or of the request",
        code=code,
    )
