"""Ranges of rows: together they have the rows of the whole query, in its order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.row_query import RowQuery, row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.reading import ranges as ranges_module
from stream_app.exports.reading import row_reader
from stream_app.exports.reading.ranges import plan_ranges
from stream_app.exports.reading.row_range import RowRange
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources import source as source_module
from stream_app.exports.sources.errors import SnapshotLost
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.waiting import until_async

Cut = Callable[..., Awaitable[tuple[tuple[RowRange, ...], list[list[Any]], list[Any]]]]

ORDERED: dict[str, str] = {
    "smallint": "(i % 500)::int2",
    "integer": "i * 7 % 1000",
    "bigint": "i * 1000000007::int8",
    "numeric": "(i % 300) / 7.0",
    "real": "(i % 300) / 3.0",
    "double precision": "CASE i % 50 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE i / 3.0 END",
    "text": "CASE WHEN i % 9 = 0 THEN '' ELSE chr(33 + i % 90) || '\\ ''\"%:' || i END",
    'text COLLATE "POSIX"': "CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'A' ELSE 'ä' END || i % 400",
    "public.citext": "CASE i % 2 WHEN 0 THEN 'a' ELSE 'A' END || i % 400",
    "character varying(20)": "chr(65 + i % 26) || i % 300",
    "character(8)": "chr(65 + i % 26) || repeat(' ', i % 3)",
    "name": "('n' || i)::name",
    '"char"': 'chr(65 + i % 26)::"char"',
    "uuid": "md5(i::text)::uuid",
    "date": "CASE i % 99 WHEN 0 THEN 'infinity' ELSE '2026-01-01'::date - i END",
    "time": "'00:00'::time + i * interval '7 s'",
    "time with time zone": "('00:00'::time + i * interval '7 s')::timetz",
    "timestamp": "CASE i % 99 WHEN 0 THEN '-infinity' ELSE '0001-01-01'::timestamp - i * interval '1 d' END",
    "timestamp with time zone": "'2026-01-01'::timestamptz + i * interval '1.000001 s'",
    "interval": "CASE i % 2 WHEN 0 THEN interval '1 mon' ELSE interval '30 d' END * (i % 100)",
    "bytea": "decode(md5(i::text), 'hex')",
    "boolean": "i % 2 = 0",
    "jsonb": "jsonb_build_object('a', i % 100, 'b', ARRAY[i])",
    "inet": "'10.0.0.0'::inet + i",
    "money": "(i / 7.0)::numeric::money",
    "bit varying(20)": "(i % 1000)::bit(10)::varbit(20)",
    "int4range": "int4range(i % 100, i % 100 + i)",
    "test_mood": "(ARRAY['low', 'high', 'fine'])[1 + i % 3]::test_mood",
    "test_even": "(i - i % 2)::test_even",
}
"""Types of a first column of an order, and an expression for 5,000 values."""


@pytest.fixture
async def types(schema: str, database: asyncpg.Connection) -> str:
    """A schema with types of its own."""
    await database.execute("""
        CREATE TYPE test_mood AS ENUM ('fine', 'low', 'high');
        CREATE DOMAIN test_even AS integer CHECK (VALUE % 2 = 0);
        CREATE TYPE test_pair AS (a int, b int);
        CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
    """)
    return schema


@pytest.fixture
def cut(source: Source) -> Cut:
    """Cut a table and read both the ranges and the whole: the ranges, their rows, and all rows."""

    async def run(dataset: Dataset, target_bytes: int = 16_384, **request: Any) -> Any:
        table = await Catalog(source).table(dataset)
        rows = row_query(table, _request(dataset, **request))
        async with source.snapshot("test", search_path=table.search_path) as snapshot:
            ranges = await plan_ranges(snapshot, table, rows, target_bytes=target_bytes)
            ranges = tuple(RowRange.from_json(one.to_json()) for one in ranges)
            async with source.snapshot(
                "test 2", search_path=table.search_path, shared=await snapshot.export()
            ) as other:
                parts = [[tuple(row) for row in await other.fetch(_text(one.apply(rows)))] for one in ranges]
            return ranges, parts, [tuple(row) for row in await snapshot.fetch(_text(rows))]

    return run


def _request(dataset: Dataset, **request: Any) -> ExportRequest:
    wanted = {"user_id": "u", "export_type": dataset.name, "format": "csv", "scope": "all", **request}
    return ExportRequest.parse(wanted)


def _text(rows: RowQuery) -> str:
    return f"SELECT rows::text FROM ({render(rows.select)}) AS rows"


def _joined(parts: list[list[Any]]) -> list[Any]:
    return [row for part in parts for row in part]


@pytest.mark.parametrize("kind", ORDERED)
async def test_ranges_of_every_type_join_to_the_ordered_rows(
    types: str, database: asyncpg.Connection, cut: Cut, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties stay together, NULL is last, and no row is lost or repeated."""
    monkeypatch.setattr(ranges_module, "MOST_READS", 1_000.0)  # in the order of another column
    await database.execute(f"""
        CREATE TABLE things (v {kind}, id int PRIMARY KEY, t text);
        INSERT INTO things SELECT CASE WHEN i % 20 > 0 THEN {ORDERED[kind]} END, i, repeat('x', 30)
        FROM generate_series(1, 5000) AS i;
        CREATE INDEX ON things (v, id);
        ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{types}.things", order=("v", "id"))
    ranges, parts, whole = await cut(dataset)
    assert len(ranges) > (2 if kind in ("boolean", "test_mood") else 5)
    assert ranges[-1].is_null
    assert len(parts[-1]) == 250
    assert _joined(parts) == whole


@pytest.mark.parametrize(
    "index", ["(v DESC, id DESC)", "(v NULLS FIRST, id)", "(v DESC NULLS LAST)", "(v) INCLUDE (t)"]
)
async def test_ranges_do_not_depend_on_the_direction_of_the_index(
    schema: str, database: asyncpg.Connection, cut: Cut, index: str
) -> None:
    await database.execute(f"""
        CREATE TABLE things (v int, id int PRIMARY KEY, t text);
        INSERT INTO things SELECT CASE WHEN i % 20 > 0 THEN i / 3 END, i, repeat('x', 30)
        FROM generate_series(1, 5000) AS i;
        CREATE INDEX ON things {index};
        ANALYZE things
    """)
    ranges, parts, whole = await cut(Dataset(name="things", table=f"{schema}.things", order=("v", "id")))
    assert len(ranges) > 5
    assert _joined(parts) == whole


@pytest.mark.parametrize("order", [(), ("at", "id")])
async def test_few_pages_with_large_values_are_cut(
    schema: str, database: asyncpg.Connection, cut: Cut, order: tuple[str, ...]
) -> None:
    """They are stored outside of the rows, where ANALYZE does not look. The column ``at`` is generated."""
    await database.execute("""
        CREATE TABLE things (id int PRIMARY KEY, at int GENERATED ALWAYS AS (id / 2) STORED, t text);
        INSERT INTO things (id, t)
        SELECT i, (
            SELECT string_agg(sha512(convert_to(i || ' ' || j, 'UTF8'))::text, '')
            FROM generate_series(1, 120) AS j
        ) FROM generate_series(1, 400) AS i;
        CREATE INDEX ON things (at, id); ANALYZE things; SELECT pg_stat_force_next_flush()
    """)
    ranges, parts, whole = await cut(Dataset(name="things", table=f"{schema}.things", order=order), 2**20)
    assert len(ranges) > (5 if order else 2), "although each page has rows of several ranges"
    assert _joined(parts) == whole


async def test_rows_with_null_in_a_column_that_is_not_null_are_not_lost(
    schema: str, database: asyncpg.Connection, cut: Cut
) -> None:
    """PostgreSQL 18 calls a column NOT NULL whose constraint is NOT VALID: older rows can have NULL."""
    await database.execute("""
        CREATE TABLE things (v int, id int PRIMARY KEY, t text);
        INSERT INTO things SELECT CASE WHEN i <= 4900 THEN i END, i, repeat('x', 30)
        FROM generate_series(1, 5000) AS i;
        CREATE INDEX ON things (v, id);
        ANALYZE things
    """)
    if await database.fetchval("SELECT current_setting('server_version_num')::int >= 180000"):
        await database.execute("ALTER TABLE things ADD CONSTRAINT filled NOT NULL v NOT VALID")
    ranges, parts, whole = await cut(Dataset(name="things", table=f"{schema}.things", order=("v", "id")))
    assert len(ranges) > 5
    assert len(whole) == 5000
    assert _joined(parts) == whole


async def test_ranges_by_page_join_to_the_rows_of_one_scan(
    schema: str, database: asyncpg.Connection, cut: Cut
) -> None:
    """Pages have holes, dead rows, dropped columns and rows that an update has moved."""
    await database.execute("""
        CREATE TABLE things (gone text, id int, t text);
        INSERT INTO things SELECT 'x', i, repeat('x', i % 90) FROM generate_series(1, 20000) AS i;
        ALTER TABLE things DROP COLUMN gone;
        DELETE FROM things WHERE id % 7 = 0 OR id BETWEEN 5000 AND 9000
    """)
    await database.execute("VACUUM things")
    await database.execute("""
        UPDATE things SET t = 'moved' || t WHERE id % 11 = 0;
        INSERT INTO things SELECT -i, NULL FROM generate_series(1, 3000) AS i;
        ANALYZE things
    """)
    ranges, parts, whole = await cut(Dataset(name="things", table=f"{schema}.things", order=()))
    assert len(ranges) > 20
    assert ranges[0].column is None
    assert _joined(parts) == whole

    filters = {"id": {"gt": 3000}, "t": {"contains": "moved"}}
    ranges, parts, whole = await cut(
        Dataset(name="things", table=f"{schema}.things", order=(), owner="id"), 4096, filters=filters
    )
    assert len(ranges) > 1
    assert _joined(parts) == whole


@pytest.mark.parametrize("order", [(), ("id",)])
async def test_a_large_table_has_as_many_ranges_as_it_needs(
    schema: str, database: asyncpg.Connection, source: Source, order: tuple[str, ...]
) -> None:
    """With larger ranges a stream would fill its buffer and wait for its turn, as if it were alone."""
    await database.execute("""
        CREATE TABLE things (id int, t text) WITH (fillfactor = 40);
        ALTER TABLE things ALTER COLUMN t SET STORAGE PLAIN;
        INSERT INTO things SELECT i, repeat('x', 700) FROM generate_series(1, 55000) AS i;
        CREATE INDEX ON things (id); ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{schema}.things", order=order)
    table = await Catalog(source).table(dataset)
    rows = row_query(table, _request(dataset))
    async with source.snapshot("test", search_path=table.search_path) as snapshot:
        ranges = await plan_ranges(snapshot, table, rows, target_bytes=3_000)
        assert len(ranges) > 12_000
        some = (ranges[0], ranges[6_000], ranges[-1])
        counts = [len(await snapshot.fetch(_text(one.apply(rows)))) for one in some]
    assert max(counts) < 20, "each has about four rows"


TABLE_AND_CHILD = """
    CREATE TABLE things (id int PRIMARY KEY, t text);
    INSERT INTO things SELECT i, repeat('x', 30) FROM generate_series(1, 5000) AS i;
    CREATE TABLE child (id int PRIMARY KEY, t text);
    INSERT INTO child SELECT i, 'child' FROM generate_series(1, 9000) AS i;
    ANALYZE things
"""
"""The child is attached to the table by the tests."""


@pytest.mark.parametrize("order", [(), ("id",)])
async def test_a_child_that_is_attached_meanwhile_is_in_no_range(
    schema: str, database: asyncpg.Connection, source: Source, order: tuple[str, ...]
) -> None:
    """The snapshot sees the rows of the child, and PostgreSQL looks up children anew for each statement."""
    await database.execute(TABLE_AND_CHILD)
    dataset = Dataset(name="things", table=f"{schema}.things", order=order)
    table = await Catalog(source).table(dataset)
    rows = row_query(table, _request(dataset))
    async with source.snapshot("test", search_path=table.search_path) as snapshot:
        ranges = await plan_ranges(snapshot, table, rows, target_bytes=16_384)
        whole = [tuple(row) for row in await snapshot.fetch(_text(rows))]
        await database.execute("ALTER TABLE child INHERIT things")
        assert await snapshot.fetch(_text(rows)) != whole, "the child's rows are visible"
        parts = [[tuple(row) for row in await snapshot.fetch(_text(one.apply(rows)))] for one in ranges]
    assert len(ranges) > 5
    assert _joined(parts) == whole


@pytest.mark.parametrize("order", [(), ("id",)])
async def test_a_child_that_is_attached_while_the_table_is_read_is_in_no_file(
    schema: str,
    database: asyncpg.Connection,
    settings: Settings,
    exporter_of: Callable[..., Exporter],
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[str, ...],
) -> None:
    """All ranges of an export over several connections leave it out, as the first one does."""
    await database.execute(TABLE_AND_CHILD)
    cut: list[int] = []

    async def planned(*arguments: Any, **options: Any) -> Sequence[RowRange]:
        ranges = await plan_ranges(*arguments, **options)
        cut.append(len(ranges))
        await database.execute("ALTER TABLE child INHERIT things")
        return ranges

    monkeypatch.setattr(row_reader, "plan_ranges", planned)
    dataset = Dataset(name="things", table=f"{schema}.things", order=order)
    source = Source(settings, connections=4)
    try:
        reading = ParallelReading(2, min_bytes=0, range_bytes=16_384)
        exporter = exporter_of(dataset, sources=source, reading=reading)
        result = await exporter.run(task_for(_request(dataset)), ExportProgress())
    finally:
        await source.close()
    assert cut[0] > 5
    assert result.row_count == 5000


async def test_a_table_with_its_first_child_is_described_anew(
    schema: str, database: asyncpg.Connection, source: Source
) -> None:
    """Its description says that its rows can be cut: the ranges would leave out the rows of the child."""
    await database.execute("CREATE TABLE things (id int PRIMARY KEY)")
    table = await Catalog(source).table(Dataset(name="things", table=f"{schema}.things"))
    assert table.can_be_cut
    unchanged = []
    for sql in ("SELECT 1", "CREATE TABLE child () INHERITS (things)", "DROP TABLE child"):
        await database.execute(sql)
        async with source.snapshot("test", initial_sql=table.fingerprint_sql) as snapshot:
            unchanged.append(await table.is_unchanged(snapshot))
    assert unchanged == [True, False, True]


@pytest.mark.parametrize(
    ("sql", "order"),
    [
        ("CREATE VIEW things AS SELECT * FROM kept", ("id",)),
        ("CREATE VIEW things AS SELECT * FROM kept ORDER BY id LIMIT 100", ()),
        ("CREATE TABLE things (LIKE kept); INSERT INTO things TABLE kept", ("id",)),
        (
            "CREATE TABLE things (LIKE kept, PRIMARY KEY (id)); "
            "INSERT INTO things SELECT * FROM kept ORDER BY hashint4(id)",
            ("id",),
        ),
        ("CREATE TABLE things (LIKE kept); CREATE TABLE below () INHERITS (things)", ()),
        (
            "CREATE TABLE things (id int PRIMARY KEY, t text) PARTITION BY RANGE (id); "
            "CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (6000); "
            "INSERT INTO things TABLE kept",
            ("id",),
        ),
        ("CREATE TABLE things (LIKE kept, p test_pair); CREATE INDEX ON things (p, id)", ("p", "id")),
        (
            "CREATE DOMAIN feeling AS test_mood; CREATE TABLE things (LIKE kept, m feeling); "
            "INSERT INTO things SELECT *, (ARRAY['fine', 'low'])[1 + id / 3000]::test_mood FROM kept; "
            "CREATE INDEX ON things (m, id)",
            ("m", "id"),
        ),
        ("CREATE TABLE things (LIKE kept); CREATE INDEX ON things (id) WHERE id > 10", ("id",)),
        ("CREATE TABLE things (id int PRIMARY KEY, t text)", ("id",)),
    ],
    ids=[
        "view",
        "limited view",
        "no index",
        "scattered",
        "inheritance",
        "partitions",
        "composite",
        "domain over an enum",
        "partial",
        "empty",
    ],
)
async def test_rows_that_cannot_be_cut_are_one_range(
    types: str, database: asyncpg.Connection, cut: Cut, sql: str, order: tuple[str, ...]
) -> None:
    """One query is right everywhere; ranges are for where PostgreSQL reads each of them alone."""
    await database.execute(f"""
        CREATE TABLE kept AS SELECT i AS id, repeat('x', 50) AS t FROM generate_series(1, 5000) AS i;
        {sql}; ANALYZE
    """)
    ranges, parts, whole = await cut(Dataset(name="things", table=f"{types}.things", order=order))
    assert ranges == (RowRange(),)
    assert parts == [whole]


async def test_an_index_of_several_columns_serves_the_order_of_the_first(
    schema: str, database: asyncpg.Connection, cut: Cut
) -> None:
    """The planner expects scattered rows for such an index. A sample of the rows is more exact."""
    await database.execute("""
        CREATE TABLE things (id int PRIMARY KEY, at timestamptz, t text);
        INSERT INTO things SELECT i, '2026-01-01'::timestamptz + (i + i % 7) * interval '1 s', repeat('x', 90)
        FROM generate_series(1, 30000) AS i;
        CREATE INDEX ON things (at, id); ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{schema}.things", order=("at", "id"))
    for filters in ({}, {"id": {"gt": 500}}):
        ranges, parts, whole = await cut(dataset, 2**17, filters=filters)
        assert len(ranges) > 20
        assert _joined(parts) == whole


async def test_a_filter_with_an_index_is_not_cut_by_page(
    schema: str, database: asyncpg.Connection, cut: Cut
) -> None:
    """PostgreSQL finds the rows by the index; ranges of pages would read the whole table."""
    await database.execute("""
        CREATE TABLE things AS SELECT i AS id, i % 100 AS kind, repeat('x', 90) AS t
        FROM generate_series(1, 50000) AS i ORDER BY i % 100;
        CREATE INDEX ON things (kind); ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{schema}.things", order=())
    ranges, _, _ = await cut(dataset, 4096, filters={"kind": 3})
    assert ranges == (RowRange(),)


@pytest.mark.parametrize("ended", [True, False])
async def test_a_snapshot_that_has_ended_is_told_apart(source: Source, ended: bool) -> None:
    """A stream that needs the shared snapshot must start with another one. It is no error of the export."""
    name = "no-such-id"
    if ended:
        async with source.snapshot("test") as snapshot:
            name = await snapshot.export()
    with pytest.raises(SnapshotLost):
        async with source.snapshot("test", shared=name):
            raise AssertionError("the snapshot does not exist")


async def test_no_one_who_shares_a_snapshot_waits_for_ever(
    schema: str,
    database: asyncpg.Connection,
    source: Source,
    source_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second transaction waits for ALTER TABLE, that for the first, and the first for the second."""
    monkeypatch.setattr(source_module, "SHARED_LOCK_SECONDS", 0.3)
    await database.execute("CREATE TABLE things AS SELECT 1 AS id")
    changing = await asyncpg.connect(source_dsn)
    table = f"{schema}.things"
    async with source.snapshot("test") as snapshot:
        await snapshot.fetch(f"SELECT FROM {table}")
        waiting = asyncio.create_task(changing.execute(f"ALTER TABLE {table} ADD COLUMN late int"))
        await until_async(lambda: database.fetchval("SELECT bool_or(NOT granted) FROM pg_locks"))
        with pytest.raises(Retryable, match="lock timeout"):
            async with source.snapshot("test 2", shared=await snapshot.export()) as other:
                await other.fetch(f"SELECT FROM {table}")
    await waiting
    await changing.close()


async def test_another_snapshot_with_the_same_id_is_not_taken(
    schema: str, database: asyncpg.Connection, source: Source
) -> None:
    """Several servers behind one address can have snapshots with the same id: rows would be lost."""
    await database.execute("BEGIN; CREATE TABLE open (i int); SAVEPOINT s; INSERT INTO open VALUES (1)")
    async with source.snapshot("test") as snapshot:
        shared = await snapshot.export()
        name, check = shared.split()
        async with source.snapshot("test", shared=shared):
            pass
        with pytest.raises(SnapshotLost):
            async with source.snapshot("test", shared=f"{name} {int(check) + 1}"):
                raise AssertionError("it is the snapshot of another server")
    await database.execute("ROLLBACK")


async def test_statements_of_ranges_are_not_compiled(source: Source) -> None:
    """Before PostgreSQL 18 a sequential scan that cannot be avoided would have each of them compiled."""
    shown = "SELECT current_setting('enable_seqscan'), current_setting('jit')"
    async with source.snapshot("test") as snapshot:
        before = await snapshot.first(shown)
        await snapshot.explain("SELECT 1", as_shared=True)
        assert await snapshot.first(shown) == before
        async with source.snapshot("test 2", shared=await snapshot.export()) as other:
            assert await other.first(shown) == await snapshot.first(shown) == ("off", "off")
    async with source.snapshot("a part", indexes_only=True) as part:
        assert await part.first(shown) == ("off", "off")
        await part.explain("SELECT 1", as_shared=True)
        assert await part.first(shown) == ("off", "off"), "it still has to read its range alone"


async def test_a_refused_question_leaves_the_snapshot_usable(
    schema: str, database: asyncpg.Connection, source: Source
) -> None:
    """A table that was removed after its description is an error of the export, not of the planning."""
    await database.execute("CREATE TABLE things AS SELECT i AS id FROM generate_series(1, 9) AS i")
    dataset = Dataset(name="things", table=f"{schema}.things")
    table = await Catalog(source).table(dataset)
    await database.execute("DROP TABLE things")
    async with source.snapshot("test") as snapshot:
        rows = row_query(table, _request(dataset))
        assert await plan_ranges(snapshot, table, rows, target_bytes=1) == (RowRange(),)
        assert [tuple(row) for row in await snapshot.fetch("SELECT 1")] == [(1,)]
