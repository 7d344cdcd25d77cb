"""Errors of the driver that are no fault of a statement are outages: the work is tried again."""

import asyncpg
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from stream_app.db.engine import outages_are_retryable
from streaming_exporter.errors import Retryable


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        ConnectionResetError("reset by peer"),
        PoolTimeoutError("no connection is free"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_an_outage(error: Exception) -> None:
    with pytest.raises(Retryable, match=r"^state database: "), outages_are_retryable():
        raise error


@pytest.mark.parametrize("error", [asyncpg.DataError("a value"), LookupError("a fault of the service")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), outages_are_retryable():
        raise error
