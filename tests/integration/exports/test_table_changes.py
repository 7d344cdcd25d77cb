"""Exports of tables that change or hide rows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading import ranges, row_reader
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress
from streaming_exporter.errors import Outage, Rejected, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.waiting import until_async

CHANGES = {
    "renamed": "ALTER TABLE t RENAME v TO w",
    "another type": "ALTER TABLE t ALTER v TYPE text USING 'a' || v",
    "another length": "ALTER TABLE t ALTER word TYPE varchar(20)",
    "dropped": "ALTER TABLE t DROP v",
    "added": "ALTER TABLE t ADD later text DEFAULT 'x'",
    "replaced": "DROP TABLE t; CREATE TABLE t AS SELECT 1 AS id, 'one' AS v",
    "a view instead": "ALTER TABLE t RENAME TO old; CREATE VIEW t AS SELECT id, v + 1 AS next FROM old",
}


@pytest.fixture
async def dataset(database: asyncpg.Connection, schema: str) -> Dataset:
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int, word varchar(5)); INSERT INTO t VALUES (1, 2, 'w')"
    )
    return Dataset(name="t", table=f"{schema}.t")


async def _file(exporter: Exporter, **request: object) -> dict[str, object]:
    wanted = {"user_id": "u", "export_type": "t", "format": "ndjson", "scope": "all", **request}
    data = await exporter.run(task_for(ExportRequest.parse(wanted)), ExportProgress())
    assert data.manifest is not None
    return {**data.manifest, "count": data.row_count}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_table_that_is_changed_between_two_exports(
    change: str, database: asyncpg.Connection, dataset: Dataset, exporter_of: Callable[..., Exporter]
) -> None:
    """V15: the description is read again before the export fails or writes wrong values."""
    exporter = exporter_of(dataset)
    await _file(exporter)
    await database.execute(CHANGES[change])
    await database.execute(f"GRANT SELECT ON {dataset.table} TO PUBLIC")
    found = await _file(exporter)
    fresh = await _file(exporter_of(dataset))
    assert found["columns"] == fresh["columns"]
    assert found["sha256"] == fresh["sha256"]


async def test_a_request_for_a_column_that_was_just_added(
    database: asyncpg.Connection, dataset: Dataset, exporter_of: Callable[..., Exporter]
) -> None:
    """V15: a new column, and a new value of an enum."""
    await database.execute("CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE t ADD mood mood")
    exporter = exporter_of(dataset)
    await _file(exporter)
    await database.execute("ALTER TYPE mood ADD VALUE 'sad'; ALTER TABLE t ADD fresh int")
    await _file(exporter, columns=["fresh"], filters={"mood": "sad"})
    with pytest.raises(Rejected, match="no column 'never'"):
        await _file(exporter, columns=["never"])


async def test_an_unchanged_table_is_read_once(
    database: asyncpg.Connection,
    dataset: Dataset,
    source: Source,
    exporter_of: Callable[..., Exporter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = []
    fetch = source.fetch

    async def counted(sql: str, *values: Any) -> list[asyncpg.Record]:
        reads.append(sql)
        return await fetch(sql, *values)

    monkeypatch.setattr(source, "fetch", counted)
    exporter = exporter_of(dataset, catalog=Catalog(source))
    for _ in range(3):
        await _file(exporter)
    assert len(reads) == 1


POLICIES = {
    "none": ("SELECT 1", False),
    "policy": ("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (id = 1)", True),
    "no policy": ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", True),
    "below a view of its owner": (
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t RENAME TO b; CREATE VIEW t AS TABLE b",
        False,
    ),
    "below a view of the reader": (
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t RENAME TO b;"
        "CREATE VIEW t WITH (security_invoker = true) AS TABLE b",
        True,
    ),
    **{
        f"below a view of the reader, who is written {value}": (
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t RENAME TO b;"
            f"CREATE VIEW t WITH (security_barrier, security_invoker = '{value}') AS TABLE b",
            reader,
        )
        for value, reader in {"T": True, "Yes": True, "ON": True, "1": True, "tru": True, "of": False}.items()
    },
    "below a view of a role that it filters": (
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t RENAME TO b; GRANT SELECT ON b TO {role};"
        "CREATE VIEW t AS TABLE b; ALTER VIEW t OWNER TO {role}",
        True,
    ),
    "forced on its owner": (
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;"
        "ALTER TABLE t OWNER TO exporter_reader",
        True,
    ),
    "on a partitioned table": (
        "ALTER TABLE t RENAME TO b; CREATE TABLE t (id int, v int, word varchar) PARTITION BY LIST (id);"
        "CREATE TABLE part PARTITION OF t DEFAULT; ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        True,
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_file_without_the_rows_that_a_policy_hides(
    policy: str,
    database: asyncpg.Connection,
    schema: str,
    dataset: Dataset,
    exporter_of: Callable[..., Exporter],
) -> None:
    """P8: the file has fewer rows than the table, and a warning with the reason."""
    sql, filtered = POLICIES[policy]
    role = f"filtered_{uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {role}; GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}")
    try:
        await database.execute(sql.format(role=role))
        await database.execute(f"GRANT SELECT ON {dataset.table} TO PUBLIC")
        found = await _file(exporter_of(dataset))
        assert found["warnings"] == ({"row_level_security": 1} if filtered else {})
    finally:
        await database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_an_export_waits_until_the_source_has_its_whole_window(
    dataset: Dataset, exporter_of: Callable[..., Exporter]
) -> None:
    """Q1: otherwise rows of the window could be written later, and no run would export them."""
    request = ExportRequest(user_id="u", export_type="t", format="csv", scope="all")
    window = {"column": "at", "from": "2026-01-01T00:00:00+01:00", "to": "2999-01-01T00:00:00+01:00"}
    with pytest.raises(Outage, match="window ends at 2999"):
        await exporter_of(dataset).run(replace(task_for(request), window=window), ExportProgress())
    past = {**window, "to": "2026-01-02T00:00:00+01:00"}
    assert (
        await exporter_of(dataset).run(replace(task_for(request), window=past), ExportProgress())
    ).row_count == 1


REFILLED = {
    "table": "SELECT 1",
    "view": "ALTER TABLE t RENAME TO b; CREATE VIEW t AS SELECT id, v FROM b",
    "view of a part": "ALTER TABLE t RENAME TO b; CREATE VIEW t AS SELECT 0 AS id UNION ALL SELECT id FROM b",
    "partitions": (
        "DROP TABLE t; CREATE TABLE t (id int, v int) PARTITION BY LIST (id);"
        "CREATE TABLE b PARTITION OF t DEFAULT; CREATE TABLE c PARTITION OF t FOR VALUES IN (2);"
        "INSERT INTO t VALUES (1, 1), (2, 2)"
    ),
}


REFILL = "TRUNCATE b ; INSERT INTO b (id) VALUES (1), (7)"
REWRITE = "ALTER TABLE b ADD x float DEFAULT random()"
_WAITS = [*((shape, REFILL) for shape in REFILLED), ("table", REWRITE), ("view", REWRITE)]


@pytest.mark.parametrize(("shape", "change"), _WAITS)
async def test_a_table_that_is_filled_again_while_the_export_waits_does_not_look_empty(
    shape: str,
    change: str,
    database: asyncpg.Connection,
    schema: str,
    dataset: Dataset,
    source_dsn: str,
    exporter_of: Callable[..., Exporter],
) -> None:
    """A refresh truncates and fills a table in one transaction. The snapshot from before it sees no row."""
    await database.execute(REFILLED[shape])
    await database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO PUBLIC")
    name = "t" if shape == "table" else "b"
    exporter = exporter_of(dataset)
    await _file(exporter)
    async with _changing(source_dsn, f"{schema}.{name}", change.replace(" b ", f" {name} ")):
        exporting = asyncio.ensure_future(_file(exporter))
    with pytest.raises(Retryable, match="being changed"):
        await exporting
    assert (await _file(exporter))["count"] == await database.fetchval("SELECT count(*) FROM t")


async def test_no_parts_are_planned_for_a_table_that_is_filled_again_meanwhile(
    schema: str,
    dataset: Dataset,
    source: Source,
    source_dsn: str,
    exporter_of: Callable[..., Exporter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each part would see no row in the snapshot of the plan, at each of its attempts."""
    monkeypatch.setattr(ranges, "SMALLEST_RANGE", 2**10)
    exporter = exporter_of(dataset)
    await _file(exporter)
    wanted = {"user_id": "u", "export_type": "t", "format": "csv", "scope": "all", "split": {"rows": 10}}
    task = task_for(ExportRequest.parse(wanted))

    async def count() -> int:
        async with PartPlanner(exporter, source, 0).open(task) as plan:
            return 1 if plan is None else len(plan.ranges)

    refill = "TRUNCATE t; INSERT INTO t (id) SELECT generate_series(1, 5000)"
    async with _changing(source_dsn, f"{schema}.t", refill):
        counting = asyncio.ensure_future(count())
    with pytest.raises(Retryable, match="being changed"):
        await counting
    assert await count() > 1


@asynccontextmanager
async def _changing(source_dsn: str, table: str, sql: str) -> AsyncIterator[None]:
    """Run ``sql`` before the block, and commit it as soon as another session waits for the table."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass($1)"
    other = await asyncpg.connect(source_dsn)
    try:
        async with other.transaction():
            await other.execute(f'SET LOCAL search_path TO "{table.split(".")[0]}"; {sql}')
            yield
            await until_async(lambda: other.fetchval(waiting, table))
    finally:
        await other.close()


async def test_a_table_with_rows_is_read_without_a_further_check(
    dataset: Dataset, exporter_of: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small export pays for no round trip that its rows make needless."""
    checked: list[object] = []

    async def check(snapshot: object) -> None:
        checked.append(snapshot)

    monkeypatch.setattr(row_reader, "check_storage", check)
    await _file(exporter_of(dataset))
    assert checked == []
    await _file(exporter_of(dataset), filters={"id": 5})
    assert len(checked) == 1
