"""Connections of the pool that were lost without a sign, as in a failover."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from stream_app.exports.sources.source import Source
from stream_app.settings import Settings
from streaming_exporter.errors import Outage
from tests.tcp_proxy import TcpProxy, proxied

CONNECTIONS = 3


@pytest.fixture
async def behind(settings: Settings) -> AsyncIterator[tuple[TcpProxy, Source]]:
    """A source behind a proxy. All connections of its pool are open and idle."""
    async with proxied(settings.source_dsn) as (proxy, url):
        source = Source(
            settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=CONNECTIONS
        )
        await asyncio.gather(*(source.fetch("SELECT pg_sleep(0.1)") for _ in range(CONNECTIONS)))
        yield proxy, source
        await source.close()


async def test_a_transaction_begins_on_a_new_connection(behind: tuple[TcpProxy, Source]) -> None:
    """One stale connection shows that the others are stale, too."""
    proxy, source = behind
    proxy.break_on_use()
    for _ in range(CONNECTIONS):
        assert await source.fetch("SELECT 7") == [(7,)]
    assert source.pool.unavailable_since is None


async def test_a_transaction_that_shares_a_snapshot_begins_on_a_new_connection(
    behind: tuple[TcpProxy, Source],
) -> None:
    proxy, source = behind
    async with source.snapshot("exporter first") as first:
        shared = await first.export()
        proxy.break_on_use()
        async with source.snapshot("exporter second", shared=shared) as second:
            assert await second.connection.fetchval("SELECT 7") == 7


async def test_a_server_that_cannot_be_reached_again_is_an_outage(behind: tuple[TcpProxy, Source]) -> None:
    proxy, source = behind
    proxy.break_on_use()
    proxy.refuses = True
    with pytest.raises(Outage):
        await source.fetch("SELECT 7")
    assert source.pool.unavailable_since is not None


async def test_a_connection_that_is_always_lost_is_an_outage(
    behind: tuple[TcpProxy, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, source = behind
    connect = source.pool._connect
    opened = 0

    async def connect_and_break(*arguments: object, **options: object) -> object:
        nonlocal opened
        connection = await connect(*arguments, **options)
        proxy.break_on_use()
        opened += 1
        return connection

    assert source.pool._pool is not None
    monkeypatch.setattr(source.pool._pool, "_connect", connect_and_break)
    proxy.break_on_use()
    with pytest.raises(Outage, match="cannot begin"):
        await source.fetch("SELECT 7")
    assert opened == 1
