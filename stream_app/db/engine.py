"""The engine and the transactions of the state database, and the mapping of its errors."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from stream_app.observability import metrics
from stream_app.settings import Settings
from streaming_exporter.errors import InDoubt, Locked, Retryable

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Errors of the driver. The last one: the server ended the session between two statements."""

KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 3
UNANSWERED_SECONDS = 25
"""Seconds after which a connection counts as lost if data that was sent is not acknowledged."""

_OPTIONS = (
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
    ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
    ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ("TCP_USER_TIMEOUT", UNANSWERED_SECONDS * 1_000),
)


def keep_alive(connection: Any) -> None:
    """Set keep-alives and ``TCP_USER_TIMEOUT`` on the socket of an asyncpg connection.

    A connection over a Unix socket needs none. Options that the platform does not have are left out.
    """
    found = connection._transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)


_AUTOCOMMITS = "exporter_autocommits"
"""Option of engines that are made with ``autocommit``."""

IDLE_TIMEOUT = "5s"
"""Time after which the server ends an idle transaction, and so releases the locks of a frozen process."""

LOCK_TIMEOUT = "3s"
"""How long a statement waits for a lock. Then its transaction fails and is retried."""

LOCK_NOT_AVAILABLE = "55P03"

COMMAND_SECONDS = 60
"""The client's time-out of a statement, in seconds."""

STATEMENT_TIMEOUT = f"{COMMAND_SECONDS + 5}s"
"""The server's. It is longer, so it counts only if the client stands still."""

DURABLE = """set_config('synchronous_commit', CASE current_setting('synchronous_commit')
    WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"""
"""Waits for the disk at the commit.

With ``off`` a crash of the server takes back what was committed last, such as requests that are acknowledged
to Kafka. Other values are the choice of operators with standbys.
"""

BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; "
    f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'; "
    f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'; "
    f"SELECT {DURABLE};"
)
"""Begins a transaction with its settings, whatever the server, the database or the role sets.

They are local to it, so that they also work behind a pooler.
"""


def create_engine(
    settings: Settings,
    *,
    application: str,
    command_timeout: float | None = COMMAND_SECONDS,
    autocommit: bool = False,
    **pool: Any,
) -> AsyncEngine:
    """Return an engine whose connections have the name ``application``. ``pool`` are options of SQLAlchemy.

    ``command_timeout`` is the time-out of a statement in seconds; None sets no limit. ``autocommit`` makes an
    engine that is :func:`autocommitting` from the beginning, which costs less than to switch each connection
    that is taken from the pool.

    asyncpg parses the URL, so parameters of libpq such as ``sslmode`` work.
    """

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await connect_to(settings, application=application, command_timeout=command_timeout)

    options = pool or {"pool_size": 5, "max_overflow": 5, "pool_timeout": 10}
    if autocommit:
        options |= {"isolation_level": "AUTOCOMMIT", "execution_options": {_AUTOCOMMITS: True}}
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **options
    )
    event.listen(engine.sync_engine, "checkout", _replace_closed)
    return engine


async def connect_to(
    settings: Settings, *, application: str, **options: Any
) -> "asyncpg.Connection[asyncpg.Record]":
    """Open one connection to the state database, with keep-alives. ``options`` are options of asyncpg.

    All connections to the state database are opened here.

    Raises:
        Retryable: the server refuses the value of a setting in the URL. No statement has that value.

    The driver's other errors pass.
    """
    try:
        connection = await asyncpg.connect(
            settings.state_dsn,
            timeout=10,
            server_settings={"application_name": application, "timezone": "UTC"},
            **options,
        )
    except asyncpg.PostgresError as error:
        if _states_value_error(error):
            raise Retryable(f"state database: {error}") from error
        raise
    keep_alive(connection)
    return connection


def autocommitting(engine: AsyncEngine) -> AsyncEngine:
    """Return ``engine`` in autocommit mode: every statement is a transaction, in one round trip."""
    if engine.sync_engine.get_execution_options().get(_AUTOCOMMITS):
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")


class Connections(Protocol):
    """Where the connection of a statement or a transaction comes from: an engine, or what it has given."""

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a connection for a block."""
        ...


def driver_connection(connection: AsyncConnection) -> Any:
    """Return asyncpg's connection of an open connection. SQLAlchemy's own way takes a greenlet."""
    opened: Any = connection.sync_connection
    return opened.connection.driver_connection


@asynccontextmanager
async def autocommit_connection(connections: Connections) -> AsyncIterator[AsyncConnection]:
    """Open a connection of an :func:`autocommitting` engine: every statement is a transaction of its own.

    Raises:
        Retryable: the database is away.
    """
    with outages_are_retryable():
        async with connections.connect() as connection:
            yield connection


@asynccontextmanager
async def transaction(connections: Connections, script: str = "") -> AsyncIterator[AsyncConnection]:
    """Open a transaction with time-outs.

    It is committed at the end of the block. All transactions of the service begin here.

    Do not wait for another system inside the block: the server ends an idle transaction after
    :data:`IDLE_TIMEOUT`.

    Args:
        connections: the result of :func:`autocommitting`, or connections that are kept of it.
        script: SQL without parameters that the transaction begins with. It costs no further round trip.

    Raises:
        Retryable: the database is away, or a row stayed locked; nothing was changed.
        InDoubt: the connection was lost during the commit.
    """
    with outages_are_retryable():
        async with connections.connect() as connection:
            raw = driver_connection(connection)
            try:
                await raw.execute(BEGIN + script)
                yield connection
            except BaseException as error:
                await _roll_back(raw, error)
                raise
            await _commit(raw)


async def _roll_back(raw: Any, error: BaseException) -> None:
    """Roll back, or close the connection: the pool does not know that a transaction is open."""
    if isinstance(error, Exception) and not raw.is_closed():
        try:
            await raw.execute("ROLLBACK", timeout=5)
            return
        except Exception:  # noqa: S110 - the cause is raised by the caller
            pass
    raw.terminate()


async def _commit(raw: Any) -> None:
    try:
        done = await raw.execute("COMMIT")
    except asyncpg.PostgresError as error:
        raw.terminate()
        if (error.sqlstate or "08")[:2] in {"08", "57", "58", "XX"}:
            raise InDoubt(f"state database: {error}") from error
        raise
    except BaseException as error:
        raw.terminate()
        if isinstance(error, Exception):
            raise InDoubt(f"state database: {error or type(error).__name__}") from error
        raise
    if done != "COMMIT":
        raise Retryable("state database: the transaction was rolled back")


def _replace_closed(connection: Any, *_: object) -> None:
    """Replace a connection that was closed, without a ping, which would need three round trips."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


@contextmanager
def outages_are_retryable() -> Iterator[None]:
    """Raise :class:`Retryable` for every error that is not caused by a value of the statement.

    The database can be unavailable, starting, read only, not migrated, or refuse the role. It recovers or is
    repaired, so a request must not fail. An error that a value causes is raised unchanged.
    """
    with metrics.count_errors("state_database"), _ours():
        yield


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if _is_value_error(error):
            raise
        if getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise Locked(f"state database: {error.orig}") from error
        raise Retryable(f"state database: {error.orig}") from error
    except asyncpg.LockNotAvailableError as error:
        raise Locked(f"state database: {error}") from error
    except (PoolTimeoutError, OSError, *DRIVER_ERRORS) as error:
        if _states_value_error(error):
            raise
        raise Retryable(f"state database: {error or type(error).__name__}") from error


NOTIFY_QUEUE = "PreCommit_Notify"
"""The function of PostgreSQL that raises the error of a full notification queue.

Nothing else distinguishes this error from others with the same code.
"""


def _is_value_error(error: DBAPIError) -> bool:
    """Return whether a value causes the error of a statement that SQLAlchemy has executed."""
    return _states_value_error(getattr(error.orig, "__cause__", None) or error.orig)


def _states_value_error(error: object) -> bool:
    """Return whether a value causes the driver's error: the SQLSTATE states so, or it cannot be encoded."""
    state = getattr(error, "sqlstate", None)
    if state == "54000" and getattr(error, "server_source_function", None) == NOTIFY_QUEUE:
        return False
    if state:
        return state[:2] in {"21", "22", "23", "54"}
    return isinstance(error, asyncpg.DataError)
