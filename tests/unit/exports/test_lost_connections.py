"""A connection that the driver has lost in an unusual way is a lost connection."""

from typing import Any, cast
from unittest.mock import MagicMock

import asyncpg
import pytest

from stream_app.exports.sources.errors import is_lost_connection
from stream_app.exports.sources.snapshot import Snapshot


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
