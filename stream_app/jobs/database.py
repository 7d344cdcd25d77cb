"""The engine of the state database, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stream_app import metrics
from stream_app.errors import Retryable
from stream_app.settings import Settings


def create_engine(settings: Settings, *, application: str, **pool: Any) -> AsyncEngine:
    """An engine whose connections are called ``application``; ``pool`` holds SQLAlchemy's own options.

    asyncpg reads the URL itself, so that everything that libpq allows in one (``sslmode``) works here.
    """

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            settings.state_dsn,
            timeout=10,
            command_timeout=60,
            server_settings={"application_name": application, "timezone": "UTC"},
        )

    options = pool or {"pool_size": 5, "max_overflow": 5, "pool_timeout": 10}
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **options
    )
    event.listen(engine.sync_engine, "checkout", _replace_closed)
    return engine


def _replace_closed(connection: Any, *_: object) -> None:
    """Have a connection replaced whose end was seen; a ping would be three round trips each time."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


@contextmanager
def outages_are_retryable() -> Iterator[None]:
    """Turn whatever is not the fault of the values at hand into :class:`Retryable`.

    A database that is away, starting, read only, not migrated yet or refusing the role gets better, or
    somebody makes it better; a request must not suffer for it. A value that does not fit never will.
    """
    with metrics.errors_of("state_database"), _ours():
        yield


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if _is_the_values_fault(error):
            raise
        raise Retryable(f"state database: {error.orig}") from error
    except (PoolTimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Retryable(f"state database: {error or type(error).__name__}") from error


NOTIFY_QUEUE = "PreCommit_Notify"
"""PostgreSQL's function that finds the queue of notifications full, by which alone that error is known."""


def _where(error: DBAPIError) -> str | None:
    return getattr(getattr(error.orig, "__cause__", None), "server_source_function", None)


def _is_the_values_fault(error: DBAPIError) -> bool:
    """By class of SQLSTATE: cardinality, data, constraint, limits; or a value that cannot be sent at all."""
    state = getattr(error.orig, "sqlstate", None)
    if state == "54000" and _where(error) == NOTIFY_QUEUE:
        return False
    if state:
        return state[:2] in {"21", "22", "23", "54"}
    return isinstance(getattr(error.orig, "__cause__", None), asyncpg.DataError)
