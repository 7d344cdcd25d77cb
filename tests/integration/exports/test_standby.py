"""A standby that is behind: the export has the state that the standby has replayed (case Q1)."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from dev import postgres
from dev.postgres import PostgresService
from stream_app.datasets.models import Dataset
from stream_app.db.engine import create_engine
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources import transactions
from stream_app.exports.sources.session import REPLAY_TIME_QUERY
from stream_app.exports.sources.snapshot import Connection, single_value
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from stream_app.settings import Settings
from streaming_exporter.errors import Outage, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.waiting import at_most

pytestmark = pytest.mark.slow

BEHIND = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"


class Standby(PostgresService):
    """A copy of ``primary`` that follows it."""

    name = "standby"

    def __init__(self, run_dir: Path, primary: PostgresService) -> None:
        super().__init__(run_dir)
        self.password, self._primary = primary.password, primary

    def prepare(self) -> None:
        self.data_dir.mkdir(parents=True)
        if self._user is not None:
            self._make_reachable(self._user)
            shutil.chown(self._pgdata, self._user)
        os.chmod(self._pgdata, 0o700)
        command: list[str | Path] = [
            self._bin("pg_basebackup"), "-D", self._pgdata, "-R", "-X", "stream", "-c", "fast",
            "-d", self._primary.admin_url(),
        ]  # fmt: skip
        done = postgres._run_as(self._user, command)
        assert done.returncode == 0, done.stderr

    def after_start(self) -> None:
        """Do nothing, because the copy is complete."""


@pytest.fixture
def pair(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """The URLs of a primary and its standby, for a superuser."""
    replicating = {**postgres._OPTIONS, "wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}
    monkeypatch.setattr(postgres, "_OPTIONS", replicating)
    folder = tmp_path_factory.mktemp("pair")
    primary = PostgresService(folder)
    primary.start()
    standby = Standby(folder, primary)
    try:
        standby.start()
        yield primary.admin_url(), standby.admin_url()
    finally:
        for service in (standby, primary):
            if service._child is not None:
                service.stop()
                service.discard()


async def test_a_standby_that_is_behind(
    pair: tuple[str, str], settings: Settings, exporter_of: Callable[..., Exporter]
) -> None:
    """Q1: `as_of` is the replayed time, and a job waits until the standby has its whole window."""
    above, below = await asyncpg.connect(pair[0]), await asyncpg.connect(pair[1])
    await above.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    await _replayed(below, 1)
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(pair[1])}), connections=3)
    exporter = exporter_of(Dataset(name="t", table="public.t"), sources=source, catalog=Catalog(source))
    task = task_for(ExportRequest(user_id="u", export_type="t", format="csv", scope="all"))

    async def export(end: datetime | None) -> tuple[int | None, datetime | None]:
        window = None if end is None else {"column": "id", "from": end.isoformat(), "to": end.isoformat()}
        data = await exporter.run(replace(task, window=window), ExportProgress())
        return data.row_count, data.as_of

    try:
        await below.execute("SELECT pg_wal_replay_pause()")
        await asyncio.sleep(0.2)
        await above.execute("INSERT INTO t VALUES (2)")
        committed = datetime.now(UTC)
        async with at_most(30):
            while not await below.fetchval(BEHIND):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.02)
        rows, as_of = await export(None)
        assert rows == 1
        assert as_of is not None
        assert as_of < committed, "not the standby's clock"
        with pytest.raises(Outage, match="the source database has data up to"):
            await export(committed)
        assert (await export(as_of))[0] == 1
        await below.execute("SELECT pg_wal_replay_resume()")
        await _replayed(below, 2)
        await above.execute("INSERT INTO t VALUES (3)")  # a later commit shows how far the standby is
        await _replayed(below, 3)
        rows, as_of = await export(committed)
        assert rows == 3
        assert as_of is not None
        assert committed <= as_of <= datetime.now(UTC) + timedelta(seconds=1)
    finally:
        await source.close()
        await above.close()
        await below.close()


async def test_streams_of_a_standby_share_their_snapshot(
    pair: tuple[str, str], settings: Settings, exporter_of: Callable[..., Exporter]
) -> None:
    """A standby exports snapshots too."""
    above, below = await asyncpg.connect(pair[0]), await asyncpg.connect(pair[1])
    await above.execute("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 100000) AS i; ANALYZE t")
    await _replayed(below, 100_000)
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(pair[1])}), connections=3)
    exporter = exporter_of(
        Dataset(name="t", table="public.t", order=()),
        sources=source,
        catalog=Catalog(source),
        reading=ParallelReading(streams=3, min_bytes=0, range_bytes=2**16),
    )
    task = task_for(ExportRequest(user_id="u", export_type="t", format="csv", scope="all"))
    try:
        with structlog.testing.capture_logs() as logs:
            file = await exporter.run(task, ExportProgress())
    finally:
        await source.close()
        await above.close()
        await below.close()
    assert file.row_count == 100_000
    events = [line["event"] for line in logs]
    assert events.count("export.cut") == 1
    assert "source.stream_refused" not in events, "otherwise one stream has read all rows"


async def test_a_change_of_the_table_while_a_transaction_begins_is_seen(
    pair: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replayed after the standby was asked how far it has come, and before the snapshot."""
    above, below = await asyncpg.connect(pair[0]), await asyncpg.connect(pair[1])
    await above.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await _replayed(below, 0)
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(pair[1])}), connections=2)

    async def changing(connection: Connection, sql: str, timeout: float) -> str:
        value = await single_value(connection, sql, timeout)
        if sql == REPLAY_TIME_QUERY:
            await above.execute("ALTER TABLE t ADD COLUMN added int; INSERT INTO t VALUES (1)")
            await _replayed(below, 1)
        return value

    try:
        table = await Catalog(source).table(Dataset(name="t", table="public.t"))
        async with source.snapshot("test", initial_sql=table.fingerprint_sql) as snapshot:
            assert await table.is_unchanged(snapshot)
        monkeypatch.setattr(transactions, "single_value", changing)
        async with source.snapshot("test", initial_sql=table.fingerprint_sql) as snapshot:
            assert not await table.is_unchanged(snapshot)
    finally:
        await source.close()
        await above.close()
        await below.close()


async def test_the_replay_time_of_another_server_is_not_used(
    pair: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is the same in sessions with other settings."""
    other = await asyncpg.connect(pair[0])
    same = await asyncpg.connect(pair[1])
    await same.execute("SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'")
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(pair[1])}), connections=2)
    asked = same

    async def from_asked(connection: Connection, sql: str, timeout: float) -> str:
        return await single_value(asked if sql == REPLAY_TIME_QUERY else connection, sql, timeout)

    monkeypatch.setattr(transactions, "single_value", from_asked)
    try:
        async with source.snapshot("test") as snapshot:
            assert snapshot.is_standby
        asked = other
        with pytest.raises(Retryable, match="the pooler has changed the server"):
            async with source.snapshot("test"):
                pass
    finally:
        await source.close()
        await other.close()
        await same.close()


async def _replayed(standby: asyncpg.Connection, rows: int) -> None:
    async with at_most(30):
        while True:
            try:
                if await standby.fetchval("SELECT count(*) FROM t") == rows:
                    return
            except asyncpg.UndefinedTableError:
                pass
            await asyncio.sleep(0.05)


def of_both(pair: tuple[str, str], wanted: str) -> str:
    """Return the URL of both servers, the standby first."""
    above, below = urlsplit(pair[0]), urlsplit(pair[1])
    login = above.netloc.rpartition("@")[0]
    hosts = ",".join(parts.netloc.rpartition("@")[2] for parts in (below, above))
    return f"{above.scheme}://{login}@{hosts}{above.path}?target_session_attrs={wanted}"


async def test_the_requested_one_of_several_hosts_is_found(pair: tuple[str, str], settings: Settings) -> None:
    """P5: for sources, whose sessions are read only, and for the state database."""
    found = {}
    for wanted in ("primary", "read-write", "standby", "prefer-standby", "any"):
        url = of_both(pair, wanted)
        source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=2)
        try:
            (row,) = await source.fetch("SELECT pg_is_in_recovery() AS standby")
        finally:
            await source.close()
        engine = create_engine(
            settings.model_copy(update={"database_url": SecretStr(url)}), application="exporter-test"
        )
        async with engine.connect() as connection:
            state = await connection.scalar(text("SELECT pg_is_in_recovery()"))
        await engine.dispose()
        found[wanted] = (row["standby"], state)
    assert found == {
        "primary": (False, False),
        "read-write": (False, False),
        "standby": (True, True),
        "prefer-standby": (True, True),
        "any": (True, True),
    }
