"""The engine of the state database, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stream_app.errors import Retryable
from stream_app.settings import Settings


def create_engine(settings: Settings, *, application: str, pool_size: int = 5) -> AsyncEngine:
    """An engine with a small pool whose connections name ``application`` in ``pg_stat_activity``."""
    return create_async_engine(
        settings.state_dsn,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "timeout": 10,
            "command_timeout": 60,
            "server_settings": {"application_name": application, "timezone": "UTC"},
        },
    )


@contextmanager
def outages_are_retryable() -> Iterator[None]:
    """Turn a lost or refused connection to the state database into :class:`Retryable`.

    Anything else, such as a missing table, is a mistake that waiting does not mend, and passes.
    """
    try:
        yield
    except (TimeoutError, OperationalError, InterfaceError, PoolTimeoutError, OSError) as error:
        raise Retryable(f"state database: {error}") from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_shutdown(error):
            raise Retryable(f"state database: {error}") from error
        raise


def _is_shutdown(error: DBAPIError) -> bool:
    """Whether the server was starting, stopping, out of resources, or asked to serialize (SQLSTATE)."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return state[:2] in {"08", "53", "57", "58"} or state[:3] == "400"
