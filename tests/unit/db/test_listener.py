"""The connection that receives notifications is opened again, whatever the driver raises."""

import asyncio
from typing import Any

import asyncpg
import pytest

from stream_app.db import listener
from stream_app.db.listener import listen
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable
from tests.waiting import until_async


def kinds(base: type[Exception]) -> set[type[Exception]]:
    return {base}.union(*(kinds(kind) for kind in base.__subclasses__()))


RAISED: list[type[Exception]] = sorted(
    {
        *(OSError, TimeoutError, ConnectionRefusedError, ValueError, Retryable),
        *(asyncpg.PostgresError, asyncpg.CannotConnectNowError, asyncpg.InvalidPasswordError),
        *kinds(asyncpg.InterfaceError),
        *kinds(asyncpg.InternalClientError),
    },
    key=lambda kind: kind.__name__,
)


class Opened:
    """A connection that nothing closes."""

    executed = ""

    async def execute(self, sql: str) -> None:
        """Keep the statement."""
        self.executed += sql

    def add_termination_listener(self, _: object) -> None:
        """Ignore the listener."""

    async def add_listener(self, *_: object) -> None:
        """Ignore the channel."""

    def terminate(self) -> None:
        """Ignore the end."""


async def test_every_error_of_a_connection_is_followed_by_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """During a failover every server that is reached is a replica: TargetServerAttributeNotMatched."""
    assert asyncpg.TargetServerAttributeNotMatched in RAISED
    assert asyncpg.exceptions.ClientConfigurationError in RAISED
    left, woken, opened = list(RAISED), list[str](), Opened()

    async def connect(*_: object, **__: object) -> Any:
        if left:
            raise left.pop()("no server")
        return opened

    monkeypatch.setattr(listener, "connect_to", connect)
    monkeypatch.setattr(listener, "RETRY_SECONDS", 0)
    task = asyncio.create_task(listen(Settings(_env_file=None), woken.append, application="t"))
    await until_async(lambda: woken or task.done())
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (left, woken) == ([], [""])
    assert "set_config('idle_session_timeout', '0', false)" in opened.executed
