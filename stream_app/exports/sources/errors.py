"""The errors of the source database as exceptions of the service. No other module maps them.

The server's message goes to the log only: it can quote values of rows that the user must not see.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg
import structlog

from stream_app.datasets.models import DEFAULT_SOURCE
from stream_app.db.sqlstates import Meaning, meaning_of
from stream_app.observability import metrics
from streaming_exporter.errors import ExporterError, Outage, Rejected, Retryable

log = structlog.get_logger(__name__)

QUERY_REFUSED = "query_refused"
"""The code of a query that can never succeed, for a reason without a code of its own."""

REFUSALS: dict[str, tuple[str, str]] = {
    "42501": (
        "permission_denied",
        "the service's role has no permission to read the table or one of its columns",
    ),
    "42P01": ("missing_table", "a table of the dataset does not exist"),
    "3F000": ("missing_table", "a schema of the dataset does not exist"),
    "42703": ("missing_column", "a column of the dataset does not exist"),
    "53400": (QUERY_REFUSED, "the query needs more temporary space than the server allows"),
}
"""By SQLSTATE: the code of the error, and the reason that users read."""

KINDS: dict[str, str] = {
    "21": "a subquery of the dataset returns more than one row",
    "22": "a value cannot be calculated or converted",
    "23": "a constraint is violated",
    "42": "the dataset does not fit the database",
    "54": "a value or the query is larger than PostgreSQL can process",
    "HV": "a foreign table cannot be read",
    "P0": "a function of the dataset raised an error",
}
"""By class of SQLSTATE: the reason that users read."""

MISCONFIGURED = frozenset({"22023", "42601", "42704", "55P02"})
"""SQLSTATEs with which a server refuses a parameter of a connection."""


_LOST_SNAPSHOT = frozenset({"0A000", "22023", "42704", "55000"})
"""SQLSTATEs with which servers of all versions refuse a snapshot that they do not have."""


class SnapshotLost(Retryable):
    """The transaction that shared its snapshot has ended, or the connection leads to another server."""

    code = "snapshot_lost"


class SnapshotNotShared(Retryable):
    """The server cannot share snapshots, such as a reader of Amazon Aurora."""

    code = "snapshot_not_shared"


class TableLocked(Retryable):
    """A session that waits to change the table is before a transaction with a shared snapshot.

    That session waits until the transaction that has shared the snapshot ends.
    """

    code = "table_locked"


class SessionEnded(Outage):
    """The session was ended from outside while an export used it: the server ran on, or told so.

    It can be chance, such as a failover. But a limit outside of the service, such as that of a proxy or of a
    job that ends long queries, ends each attempt at the same age.
    """

    code = "session_ended"

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(f"{message}; the session was {seconds:,.0f} s old")
        self.seconds = seconds


class NoFreeConnection(Retryable):
    """All connections of the process's pool are in use."""

    code = "no_free_connection"


class TooManyConnections(Outage):
    """The server, or the limit of the role or of the database, has no connection left."""


def is_lost_snapshot(error: asyncpg.PostgresError) -> bool:
    """Return whether the server refused a shared snapshot because it does not have it."""
    return error.sqlstate in _LOST_SNAPSHOT


def is_temporary(error: asyncpg.PostgresError) -> bool:
    """Return whether the same statement can succeed later."""
    return meaning_of(error.sqlstate) in (Meaning.PASSES, Meaning.OUTAGE)


def time_limit_exceeded() -> Rejected:
    """Return the error of an export that has used up its time."""
    return Rejected("the export took longer than the time limit; narrow it with filters", code="timeout")


DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises. ``TimeoutError`` is an ``OSError``. The third is raised by a statement on a session
that the server ended while it was idle."""


@contextmanager
def source_errors(timed_out: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn errors of the driver into exceptions of the service.

    Args:
        timed_out: returns whether the export has used up its time. Then a cancelled statement is a time-out.

    Raises:
        Outage: the database does not work for any export.
        Retryable: the error is temporary.
        Rejected: the statement can never succeed. The text has no part of the server's message.
    """
    with metrics.count_errors("source_database"):
        try:
            yield
        except DRIVER_ERRORS as error:
            raise statement_error(error, timed_out()) from error


def statement_error(error: Exception, timed_out: bool = False) -> ExporterError:
    """Return the exception for an error of a statement.

    If the server sent the reason before the connection was lost, the driver reports the lost connection and
    has the reason as its cause. Then the reason decides.
    """
    cause = error.__cause__ or error.__context__
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and isinstance(cause, asyncpg.PostgresError):
        error = cause
    text = f"source database: {error or type(error).__name__}"
    if not isinstance(error, asyncpg.PostgresError):
        return Retryable(text)
    if isinstance(error, asyncpg.QueryCanceledError) and timed_out:
        return time_limit_exceeded()
    match meaning_of(error.sqlstate):
        case Meaning.OUTAGE:
            return Outage(text)
        case Meaning.REFUSED:
            return refused_statement(error)
        case Meaning.BUG:
            log.error("source.statement_failed", sqlstate=error.sqlstate, error=str(error))
    return Retryable(text)


def is_ended_session(error: BaseException) -> bool:
    """Return whether the server has told that it ends the session: it shuts down, or an operator wants it."""
    cause = error.__cause__ or error.__context__
    return isinstance(error, asyncpg.AdminShutdownError) or isinstance(cause, asyncpg.AdminShutdownError)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether a connection was lost without a message of the server."""
    has_message = isinstance(error.__cause__ or error.__context__, asyncpg.PostgresError)
    kinds = asyncpg.PostgresConnectionError | ConnectionError | asyncpg.InternalClientError
    return isinstance(error, kinds) and not has_message


def connection_error(error: Exception, source: str = DEFAULT_SOURCE) -> ExporterError:
    """Return the exception for a failure to connect to the source database ``source``.

    No request can cause it.

    It is an outage, except if the server or a pooler refuses a parameter of the URL: that does not pass.
    """
    text = f"source database {source}: {error or type(error).__name__}"
    state = getattr(error, "sqlstate", None)
    if state in MISCONFIGURED or "unsupported startup parameter" in str(error):
        log.error("source.url_refused", source=source, sqlstate=state, error=str(error))
        return Rejected(
            "the source database refuses a parameter of its URL; operators: correct the URL, the log has the "
            "server's message",
            code="source_misconfigured",
        )
    return TooManyConnections(text) if state == "53300" else Outage(text)


def refused_statement(error: asyncpg.PostgresError) -> Rejected:
    """Log the server's message for operators, and return the error for users."""
    log.warning("source.statement_refused", sqlstate=error.sqlstate, error=str(error))
    return rejected_statement(error)


def rejected_statement(error: asyncpg.PostgresError) -> Rejected:
    """Return the error for users: its kind and SQLSTATE, without the server's message."""
    state = error.sqlstate or ""
    code, reason = REFUSALS.get(state, (QUERY_REFUSED, KINDS.get(state[:2], "the query cannot be run")))
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    return Rejected(
        f"the source database refused the export: {reason} ({kind}, SQLSTATE {state}); "
        "operators: the log has the server's message under the id of the job or of the request",
        code=code,
    )
