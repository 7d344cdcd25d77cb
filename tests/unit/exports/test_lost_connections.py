"""A connection that the driver has lost in an unusual way is a lost connection."""

from typing import Any, cast
from unittest.mock import MagicMock

import asyncpg
import pytest

from stream_app.exports.sources.connection_pool import ConnectionPool
from stream_app.exports.sources.errors import is_lost_connection
from stream_app.exports.sources.snapshot import Snapshot
from streaming_exporter.errors import Outage


async def copy(error: Exception, *, is_closed: bool) -> None:
    """Run a COPY whose driver raises ``error``."""

    async def fail(*_: object, **__: object) -> str:
        raise error

    connection = MagicMock(copy_from_query=fail)
    connection.is_closed.return_value = is_closed
    moment = cast(Any, None)
    snapshot = Snapshot(connection, moment, moment, 60)

    async def sink(_: bytes) -> None: ...

    await snapshot.copy("SELECT 1", {}, sink)


async def test_the_driver_reads_on_from_a_connection_that_it_has_lost() -> None:
    with pytest.raises(asyncpg.ConnectionDoesNotExistError) as raised:
        await copy(AttributeError("'NoneType' object has no attribute 'resume_reading'"), is_closed=True)
    assert is_lost_connection(raised.value)


async def test_a_mistake_of_the_service_is_not_taken_for_a_lost_connection() -> None:
    with pytest.raises(AttributeError):
        await copy(AttributeError("a mistake"), is_closed=False)


def test_a_session_that_was_ended_while_it_was_idle_is_lost() -> None:
    assert is_lost_connection(asyncpg.InternalClientError("cannot switch to state 18"))


class OnePool:
    """A pool whose connections do not work: each transaction fails with ``error``."""

    def __init__(self) -> None:
        self.acquired = 0
        self.expired = 0

    async def acquire(self, **_: object) -> Any:
        self.acquired += 1
        return MagicMock(is_closed=lambda: False)

    async def release(self, _: object) -> None: ...

    async def expire_connections(self) -> None:
        self.expired += 1


@pytest.mark.parametrize(
    ("error", "tries", "raises"),
    [
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), 2, Outage),
        (asyncpg.ProtocolViolationError("server conn crashed?"), 2, Outage),  # of a pooler
        (TimeoutError(), 1, Outage),
        (asyncpg.DivisionByZeroError("division by zero"), 1, asyncpg.DivisionByZeroError),
    ],
)
@pytest.mark.parametrize("is_optional", [False, True])
async def test_a_connection_that_is_lost_before_there_is_a_snapshot_is_an_outage(
    monkeypatch: pytest.MonkeyPatch,
    is_optional: bool,
    error: Exception,
    tries: int,
    raises: type[Exception],
) -> None:
    """No statement of an export has run by then. So its attempt must not count."""
    pool = OnePool()

    async def start(_: object) -> Snapshot:
        raise error

    async def open_pool() -> Any:
        return pool

    connections = ConnectionPool("default", 1, lambda: "")
    monkeypatch.setattr(connections, "_pool_of_driver", open_pool)
    with pytest.raises(raises):
        async with connections.open(start, is_optional=is_optional):
            raise AssertionError
    assert (connections.unavailable_since is not None) is (raises is Outage and not is_optional)
    assert (pool.acquired, pool.expired) == (tries, tries - 1)
