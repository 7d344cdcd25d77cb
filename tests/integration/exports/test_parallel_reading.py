"""Exports over several connections: the same bytes, bounded, and ended with the first error."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from pydantic import SecretStr

from stream_app.datasets.models import Dataset
from stream_app.exports import preparation
from stream_app.exports.formats.base import Document
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.reading import ranges
from stream_app.exports.reading.pipe import BytePipe
from stream_app.exports.reading.ranges import plan_ranges
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources import session as source_session
from stream_app.exports.sources import source as source_module
from stream_app.exports.sources.errors import NoFreeConnection, SnapshotNotShared
from stream_app.exports.sources.monitor import SourceMonitor
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Outage, Rejected, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import exported_by, task_for
from tests.poolers import POOLERS, through
from tests.waiting import at_most, patient, until_async

TINY = 20_000
"""Bytes of a range, so that few rows have many ranges."""

MAKE = """
    CREATE TABLE things (
        gone text, id int PRIMARY KEY, lead int, n numeric(12,3), t text, at timestamptz, ok boolean, j jsonb,
        b bytea, tags text[]
    );
    INSERT INTO things SELECT
        'x', i, CASE WHEN i % 10 > 0 THEN i / 33 END, i / 7.0,
        CASE i % 13 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'a "b"\\n,\\t\\\\ \\r' WHEN 3 THEN '=1+1'
            ELSE repeat('xyz ', i % 40) END,
        CASE i % 501 WHEN 0 THEN 'infinity' ELSE '2026-01-01'::timestamptz + i * interval '1 s' END,
        i % 3 = 0, jsonb_build_object('i', i, 't', E'a\\n"b"'), decode(md5(i::text), 'hex'),
        ARRAY['a', NULL, i::text]
    FROM generate_series(1, 4000) AS i;
    ALTER TABLE things DROP COLUMN gone;
    DELETE FROM things WHERE id % 7 = 0 OR id BETWEEN 1000 AND 1700;
    UPDATE things SET t = 'moved' WHERE id % 11 = 0;
    CREATE INDEX ON things (lead, id);
    ANALYZE things
"""


@pytest.fixture
async def many(settings: Settings) -> AsyncIterator[Source]:
    """A source with connections for several streams."""
    source = Source(settings, connections=8)
    yield source
    await source.close()


@pytest.fixture
def reading(exporter_of: Callable[..., Exporter], many: Source, storage: ObjectStore) -> Callable[..., Any]:
    """Export a table over this number of streams."""

    async def run(dataset: Dataset, format_name: str, streams: int, **request: Any) -> Any:
        parts = ParallelReading(streams, min_bytes=0, range_bytes=TINY)
        exporter = exporter_of(dataset, sources=many, reading=parts)
        return await exported_by(exporter, storage, dataset, format_name, **request)

    return run


@pytest.fixture
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files have the same time of their snapshot: it is part of a workbook and of a Parquet file."""

    def document(**facts: Any) -> Document:
        return Document(**{**facts, "as_of": datetime(2026, 11, 26, tzinfo=UTC)})

    monkeypatch.setattr(preparation, "Document", document)


ORDERS = {"pages": (), "key": ("id",), "ties and NULL": ("lead", "id")}


@pytest.mark.parametrize(
    ("format_name", "order"),
    [
        *(("csv", order) for order in ORDERS),
        *((name, "ties and NULL") for name in ("json", "ndjson", "excel", "parquet")),
    ],
)
async def test_the_file_is_that_of_one_copy(
    schema: str,
    database: asyncpg.Connection,
    reading: Callable[..., Any],
    same_time: None,
    format_name: str,
    order: str,
) -> None:
    """By hash, for 1 and 4 streams without a filter, and for 1 and 2 streams with one."""
    await database.execute(MAKE)
    dataset = Dataset(name="things", table=f"{schema}.things", order=ORDERS[order])
    requests: dict[int, dict[str, Any]] = {4: {}, 2: {"filters": {"id": {"gt": 300}, "t": {"ne": "moved"}}}}
    for streams, request in requests.items():
        wanted = await reading(dataset, format_name, 1, **request)
        with structlog.testing.capture_logs() as logs:
            found = await reading(dataset, format_name, streams, **request)
        assert [line["ranges"] > 10 for line in logs if line["event"] == "export.cut"] == [True]
        assert wanted.data.row_count == found.data.row_count > 2000
        assert hashlib.sha256(wanted.content).digest() == hashlib.sha256(found.content).digest()


KINDS = ["int", "int8", "numeric(9,2)", "text", "date", "timestamptz", "uuid", "boolean", "float8"]
VALUES = {
    "int": "{n} - 500", "int8": "{n} * 10000000000", "numeric(9,2)": "{n} / 3.0", "text": "'t ' || {n}",
    "date": "'2026-01-01'::date + {n}", "timestamptz": "'2026-01-01'::timestamptz + {n} * interval '1 h'",
    "uuid": "md5(({n})::text)::uuid", "boolean": "{n} % 2 = 0", "float8": "sqrt({n})",
}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
async def test_random_tables_give_the_same_bytes(
    schema: str,
    database: asyncpg.Connection,
    reading: Callable[..., Any],
    same_time: None,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Random columns, ties, NULLs, holes, orders, filters, sizes of ranges, and numbers of streams."""
    monkeypatch.setattr(ranges, "MOST_READS", 1_000.0)
    monkeypatch.setattr(ranges, "SMALLEST_RANGE", 1)
    chance = random.Random(seed)
    kinds = chance.choices(KINDS, k=4)
    rows = chance.choice([1, 700, 4000])
    values = ", ".join(
        f"CASE WHEN random() < {chance.choice([0, 0.1, 0.9])} THEN NULL ELSE "
        + VALUES[kind].format(n=f"(i * 7919 % {chance.choice([3, 40, 100000])})")
        + " END"
        for kind in kinds
    )
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    await database.execute(f"""
        CREATE TABLE things (id int PRIMARY KEY, {columns});
        INSERT INTO things SELECT i, {values} FROM generate_series(1, {rows}) AS i;
        DELETE FROM things WHERE id % {chance.randrange(2, 9)} = 0;
        CREATE INDEX ON things (c0, id);
        CREATE INDEX ON things (c1, c2);
        ANALYZE things
    """)
    orders: list[tuple[str, ...]] = [(), ("id",), ("c0", "id"), ("c1", "c2", "id")]
    requests: list[dict[str, Any]] = [{}, {"filters": {"id": {"lt": rows // 2}}}, {"columns": ["c3", "c0"]}]
    for order in orders:
        dataset = Dataset(name="things", table=f"{schema}.things", order=order)
        request = chance.choice(requests)
        output = chance.choice(["csv", "ndjson", "excel", "parquet"])
        wanted = await reading(dataset, output, 1, **request)
        found = await reading(dataset, output, chance.randrange(2, 5), **request)
        assert found.data.row_count == wanted.data.row_count
        assert found.content == wanted.content


async def test_an_empty_table(schema: str, database: asyncpg.Connection, reading: Callable[..., Any]) -> None:
    await database.execute("CREATE TABLE things (id int PRIMARY KEY); ANALYZE things")
    file = await reading(Dataset(name="things", table=f"{schema}.things"), "csv", 4)
    assert (file.content, file.data.row_count) == (b"id\n", 0)


async def _sessions(database: asyncpg.Connection) -> int:
    return int(
        await database.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'exporter %' AND xact_start "
            "IS NOT NULL"
        )
    )


@pytest.fixture
async def large(schema: str, database: asyncpg.Connection) -> Dataset:
    """A table of 12 MB."""
    await database.execute(f"""
        CREATE TABLE things AS SELECT i AS id, repeat('x', 250) AS t FROM generate_series(1, {ROWS}) AS i;
        GRANT SELECT ON things TO PUBLIC;
        ANALYZE things
    """)
    return Dataset(name="things", table=f"{schema}.things", order=())


ROWS = 40_000
LARGE = ParallelReading(streams=3, min_bytes=0, range_bytes=2**20, buffer_bytes=2**20)


@pytest.mark.parametrize("connections", [1, 3])
async def test_ten_exports_at_once_share_few_connections(
    settings: Settings, large: Dataset, exporter_of: Callable[..., Exporter], connections: int
) -> None:
    """None of them waits for a second connection while it has one, so all end."""
    source = Source(settings, connections=connections)
    parts = {"catalog": Catalog(source), "threads": ThreadPoolExecutor(10)}
    exporter = exporter_of(large, sources=source, reading=replace(LARGE, range_bytes=2**15), **parts)
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "things", "format": "csv", "scope": "all", "columns": ["id"]}
    )
    try:
        async with at_most(60):
            done = await asyncio.gather(
                *(exporter.run(task_for(request), ExportProgress()) for _ in range(10))
            )
    finally:
        await source.close()
    assert {one.row_count for one in done} == {ROWS}
    assert len({one.sha256 for one in done}) == 1
    assert source.pool.free_connections == connections


@pytest.fixture
async def limited(settings: Settings, database: asyncpg.Connection, schema: str) -> AsyncIterator[Source]:
    """A source whose role can have one session."""
    role = f"limited_{schema}"
    await database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1")
    parts = urlsplit(settings.source_dsn)
    url = f"postgresql://{role}:secret@{parts.hostname}:{parts.port}{parts.path}"
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=4)
    yield source
    await source.close()
    await database.execute(f"DROP ROLE {role}")


async def test_connections_that_the_server_refuses_cost_only_streams(
    limited: Source, large: Dataset, exporter_of: Callable[..., Exporter]
) -> None:
    """The first stream reads everything, and the source is not away."""
    exporter = exporter_of(large, sources=limited, catalog=Catalog(limited), reading=LARGE)
    with structlog.testing.capture_logs() as logs:
        file = await exporter.run(task_for(_everything("csv")), ExportProgress())
    assert file.row_count == ROWS
    events = [line["event"] for line in logs]
    assert events.count("source.stream_refused") == 2
    assert "source.lost" not in events


async def test_a_source_without_a_connection_left_is_away_only_for_those_who_have_none(
    limited: Source, settings: Settings
) -> None:
    """Otherwise operators are called, and no job of the source is claimed, while it exports."""
    monitor = SourceMonitor(cast(Any, {limited.name: limited}))
    async with limited.snapshot("first"):
        with pytest.raises(Outage):
            async with limited.snapshot("second"):
                raise AssertionError
        with pytest.raises(NoFreeConnection):
            await limited.check(5)
        await monitor._ask(limited)
        assert monitor.states() == {limited.name: "ok"}
        assert limited.pool.unavailable_since is None
        other = Source(settings, connections=1, dsn=limited.pool._dsn)
        with pytest.raises(Outage):
            await other.check(5)
        assert other.pool.unavailable_since is not None
        await other.close()


async def test_a_server_that_shares_no_snapshots_is_read_over_one_connection(
    many: Source, large: Dataset, exporter_of: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once; its refusal ends the transaction, and the export begins anew."""

    async def export(snapshot: Snapshot) -> str:
        with suppress(asyncpg.PostgresError):
            await snapshot.connection.execute("SELECT 1 / 0")
        raise SnapshotNotShared("not here")

    monkeypatch.setattr(Snapshot, "export", export)
    exporter = exporter_of(large, sources=many, reading=LARGE)
    for _ in range(2):
        file = await exporter.run(task_for(_everything("csv")), ExportProgress())
        assert file.row_count == ROWS
        assert not many.can_share_snapshots


async def test_a_stream_that_would_wait_for_a_lock_does_not_join(
    many: Source,
    large: Dataset,
    database: asyncpg.Connection,
    source_dsn: str,
    exporter_of: Callable[..., Exporter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ALTER TABLE waits for the first stream, and every later request for a lock waits behind it."""
    changing = await asyncpg.connect(source_dsn)
    waiting = asyncio.Event()
    export = Snapshot.export

    async def export_with_a_waiting_change(snapshot: Snapshot) -> str:
        tasks.append(asyncio.create_task(changing.execute(f"ALTER TABLE {large.table} ADD COLUMN late int")))
        await until_async(
            lambda: database.fetchval(
                "SELECT bool_or(NOT granted) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
            )
        )
        waiting.set()
        return await export(snapshot)

    tasks: list[asyncio.Task[Any]] = []
    monkeypatch.setattr(Snapshot, "export", export_with_a_waiting_change)
    exporter = exporter_of(large, sources=many, reading=LARGE)
    async with at_most(30):
        file = await exporter.run(task_for(_everything("csv")), ExportProgress())
    assert waiting.is_set()
    assert file.row_count == ROWS
    await asyncio.gather(*tasks)
    await changing.close()


def _everything(output: str) -> ExportRequest:
    return ExportRequest.parse({"user_id": "u", "export_type": "things", "format": output, "scope": "all"})


class Blocked:
    """A sink that takes no rows until the event ``go_on`` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, _: bytes) -> None:
        await self.go_on.wait()


@pytest.fixture
def blocked(
    exporter_of: Callable[..., Exporter], many: Source, large: Dataset, monkeypatch: pytest.MonkeyPatch
) -> tuple[Exporter, Blocked]:
    """An exporter with a :class:`Blocked` sink, and the sink."""
    sink = Blocked()
    write = BytePipe.write

    async def wait_and_write(pipe: BytePipe, chunk: bytes) -> None:
        await sink(chunk)
        await write(pipe, chunk)

    monkeypatch.setattr(BytePipe, "write", wait_and_write)
    return exporter_of(large, sources=many, reading=LARGE), sink


async def test_a_cancellation_reaches_every_stream_at_once(
    blocked: tuple[Exporter, Blocked], many: Source, database: asyncpg.Connection
) -> None:
    """All three statements end at the server."""
    exporter, _ = blocked
    running = asyncio.create_task(exporter.run(task_for(_everything("csv")), ExportProgress()))
    await until_async(lambda: _has_sessions(database, 3))
    running.cancel()
    async with at_most(2):
        with pytest.raises(asyncio.CancelledError):
            await running
        await until_async(lambda: _has_sessions(database, 0))
    assert many.pool.free_connections == 8


async def _has_sessions(database: asyncpg.Connection, count: int) -> bool:
    return await _sessions(database) == count


async def test_a_lost_stream_ends_the_export_as_a_lost_connection_does(
    blocked: tuple[Exporter, Blocked], many: Source, database: asyncpg.Connection
) -> None:
    """The session of the second stream is ended; no file is left, and no session."""
    exporter, sink = blocked
    running = asyncio.create_task(exporter.run(task_for(_everything("csv")), ExportProgress()))
    # A stream that is lost before it reads is not missed. It has to read a range, and not only join.
    reads_a_range = "application_name LIKE '% stream 2' AND query LIKE '%WITH rows AS%'"
    select_it = f"SELECT pid FROM pg_stat_activity WHERE {reads_a_range}"
    pid = await until_async(lambda: database.fetchval(select_it))
    await database.execute("SELECT pg_terminate_backend($1)", pid)
    sink.go_on.set()
    with pytest.raises(Outage):
        await running
    await until_async(lambda: _has_sessions(database, 0))
    assert many.pool.free_connections == 8


async def test_streams_wait_for_a_slow_upload(
    blocked: tuple[Exporter, Blocked], database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream whose rows wait is idle between two ranges, for longer than other transactions can be."""
    monkeypatch.setattr(source_session, "IDLE_SECONDS", 1)
    exporter, sink = blocked
    running = asyncio.create_task(exporter.run(task_for(_everything("csv")), ExportProgress()))
    await until_async(lambda: _has_sessions(database, 3))
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name LIKE 'exporter %' AND now() - state_change > interval '1.5 s'
    """

    async def have_waited() -> bool:
        return bool(await database.fetchval(waiting) == 3)

    await until_async(have_waited)
    sink.go_on.set()
    assert (await running).row_count == ROWS


async def test_a_row_that_is_too_large_is_named(
    schema: str, database: asyncpg.Connection, many: Source, exporter_of: Callable[..., Exporter]
) -> None:
    """It is in a late range, which another stream reads."""
    await database.execute("""
        CREATE TABLE things (id int PRIMARY KEY, t text);
        INSERT INTO things SELECT i, repeat('x', 250) FROM generate_series(1, 20000) AS i;
        INSERT INTO things VALUES (99999, repeat(md5('1'), 500000));
        ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{schema}.things", order=("id",))
    exporter = exporter_of(dataset, sources=many, reading=LARGE)
    with pytest.raises(Rejected, match="the row whose id is '99999'"):
        await exporter.run(task_for(_everything("csv")), ExportProgress())
    assert many.pool.free_connections == 8


@pytest.mark.parametrize("kind", POOLERS)
async def test_streams_behind_a_pooler_share_their_snapshot(
    kind: str, settings: Settings, large: Dataset, exporter_of: Callable[..., Exporter]
) -> None:
    """In transaction mode a transaction keeps its server connection, and with it its snapshot."""
    async with through(kind, settings.source_dsn) as url:
        source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=4)
        exporter = exporter_of(large, sources=source, catalog=Catalog(source), reading=LARGE)
        with structlog.testing.capture_logs() as logs:
            file = await exporter.run(task_for(_everything("csv")), ExportProgress())
        await source.close()
    assert file.row_count == ROWS
    assert [line["event"] for line in logs].count("export.cut") == 1
    assert "source.stream_refused" not in [line["event"] for line in logs]


@pytest.mark.parametrize("kind", POOLERS)
async def test_a_stream_does_not_wait_for_a_connection_of_a_pooler(
    kind: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that waits in the pooler's queue would be served before an export that needs it."""
    monkeypatch.setattr(source_module, "JOIN_SECONDS", 3)
    async with through(kind, settings.source_dsn) as url:
        source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=4)
        async with source.snapshot("first") as first, source.snapshot("second"):
            shared = await first.export()
            began = time.monotonic()
            with suppress(Retryable):  # pgbouncer has two connections, the other pooler has any number
                async with source.snapshot("third", shared=shared, only_free=True):
                    pass
            assert time.monotonic() - began < patient(8)
        await source.close()


async def test_a_table_that_is_known_to_be_small_costs_no_question(
    schema: str, database: asyncpg.Connection, source: Source
) -> None:
    """Small exports take no longer than before."""
    await database.execute("CREATE TABLE things AS SELECT 1 AS id; ANALYZE things")
    table = await Catalog(source).table(Dataset(name="things", table=f"{schema}.things"))
    rows = row_query(table, _everything("csv"))
    nothing = cast(Snapshot, None)
    assert len(await plan_ranges(nothing, table, rows, target_bytes=1, min_bytes=2**20)) == 1


@pytest.mark.parametrize("format_name", ["csv", "json", "excel", "parquet"])
async def test_split_files_are_those_of_one_copy(
    schema: str,
    database: asyncpg.Connection,
    reading: Callable[..., Any],
    same_time: None,
    format_name: str,
) -> None:
    """Each file of the same rows has the same bytes."""
    await database.execute(MAKE)
    dataset = Dataset(name="things", table=f"{schema}.things", order=("id",))
    request = {"split": {"rows": 800}}
    found = [(await reading(dataset, format_name, streams, **request)).data.files for streams in (1, 3)]
    one, three = [[(file.row_count, file.sha256) for file in files] for files in found]
    assert len(one) > 3
    assert one == three
