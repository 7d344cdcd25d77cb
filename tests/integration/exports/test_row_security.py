"""Row-level security: every transaction that reads rows has the settings of the caller's claims."""

import ast
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from stream_app.datasets.caller import Caller
from stream_app.datasets.models import ColumnSettings, Dataset, SessionValue
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.reading.row_estimate import estimated_rows
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources.session_values import session_values
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits, ExportProgress, TaskPart
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.poolers import POOLERS, through

ROOT = Path(__file__).parents[3]

CREATE = """
CREATE TABLE things (id int PRIMARY KEY, tenant text, value text);
INSERT INTO things SELECT i, 'tenant' || i % 2, repeat('x', 300) || i FROM generate_series(1, 20000) AS i;
ANALYZE things;
ALTER TABLE things ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON things USING (tenant = current_setting('app.tenant'));
"""
"""A transaction without the setting fails, or finds no row."""

SESSION = {"app.tenant": SessionValue(claim="org")}


@pytest.fixture
async def dataset(database: asyncpg.Connection, schema: str) -> Dataset:
    await database.execute(CREATE)
    return Dataset(name="things", table=f"{schema}.things", order=("id",), session=SESSION)


def _request(org: Any = "tenant1", **request: Any) -> ExportRequest:
    data = {"user_id": "u", "export_type": "things", "format": "csv", "scope": "all", "claims": {"org": org}}
    return ExportRequest.parse({**data, **request})


async def _ids(storage: ObjectStore, exporter: Exporter, request: ExportRequest) -> tuple[set[int], Any]:
    result = await exporter.run(task_for(request), ExportProgress())
    keys = [file.key for file in result.files] or [result.key]
    contents = [await asyncio.to_thread(storage.read, key) for key in keys]
    rows = [line for content in contents for line in content.decode().split("\n")[1:] if line]
    return {int(row.split(",")[0]) for row in rows}, result


ODD = set(range(1, 20_000, 2))
EVEN = set(range(2, 20_001, 2))


@pytest.mark.parametrize("is_query", [False, True])
@pytest.mark.parametrize(
    "request_fields",
    [{}, {"split": {"rows": 3000}}, {"filters": {"id": {"gt": 0}}}, {"columns": ["id"]}],
    ids=["one file", "split", "filters", "columns"],
)
async def test_a_caller_gets_the_rows_of_the_own_tenant(
    is_query: bool,
    request_fields: dict[str, Any],
    dataset: Dataset,
    source: Source,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
) -> None:
    """Over several connections, for tables and queries; the manifest has the names of the settings only."""
    if is_query:
        values = {"table": None, "query": f"select * from {dataset.table}"}
        dataset = Dataset.model_validate({**dataset.model_dump(), **values})
    reading = ParallelReading(streams=3, min_bytes=0, range_bytes=2**18)
    exporter = exporter_of(dataset, sources=source, catalog=Catalog(source), reading=reading)
    for org, wanted in (("tenant1", ODD), ("tenant0", EVEN), ("none", set[int]())):
        with capture_logs() as logs:
            ids, result = await _ids(storage, exporter, _request(org, **request_fields))
        if not is_query and request_fields == {} and wanted:
            assert any(line["event"] == "export.cut" for line in logs)
        # A stream without the setting is refused, and the others read its rows.
        assert not any("refused the export" in line.get("error", "") for line in logs)
        assert ids == wanted
        assert result.manifest["session"] == ["app.tenant"]
        assert result.manifest["warnings"]["row_level_security"] == 1
        assert org not in str({**result.manifest, "files": []})


async def test_parts_and_their_plan_have_the_settings(
    dataset: Dataset, source: Source, storage: ObjectStore, exporter_of: Callable[..., Exporter]
) -> None:
    """Each part is read by another worker, which takes the claims from the request."""
    exporter = exporter_of(dataset, sources=source, catalog=Catalog(source))
    request = _request(split={"rows": 1000})
    found: list[int] = []
    async with PartPlanner(exporter, source, 0).open(task_for(request)) as plan:
        assert plan is not None
        assert plan.estimated_rows is None  # it would be about the rows of all tenants
        for one in plan.ranges:
            part = TaskPart(range=one.to_json(), snapshot=plan.shared, as_of=plan.as_of)
            task = task_for(request)
            object.__setattr__(task, "part", part)
            result = await exporter.run(task, ExportProgress())
            assert result.manifest["session"] == ["app.tenant"]
            found.append(result.row_count)
    assert len(found) > 1
    assert sum(found) == len(ODD)


async def test_counts_estimates_and_the_largest_row_have_the_settings(
    dataset: Dataset,
    source: Source,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
    database: asyncpg.Connection,
) -> None:
    catalog = Catalog(source)
    few = exporter_of(dataset, sources=source, catalog=catalog, limits=ExportLimits(max_rows=9_999))
    with pytest.raises(Rejected, match="more than 9,999 rows"):
        await few.run(task_for(_request()), ExportProgress())
    exporter = exporter_of(dataset, sources=source, catalog=catalog)
    found = await estimated_rows(task_for(_request()), source, *await _rows(exporter, dataset))
    assert found == len(ODD)
    await database.execute("UPDATE things SET value = repeat('y', 15000000) WHERE id IN (7, 8)")
    with pytest.raises(Rejected, match=r"'value' of the row whose id is '7'"):
        await exporter.run(task_for(_request(format="excel")), ExportProgress())


async def _rows(exporter: Exporter, dataset: Dataset) -> tuple[Any, Any]:
    from stream_app.exports.queries.row_query import row_query

    table = await exporter.catalog.table(dataset)
    return table, row_query(table, _request())


@pytest.mark.parametrize("org", [None, "", [], [""]])
async def test_a_missing_claim_reads_nothing(
    org: Any, dataset: Dataset, source: Source, exporter_of: Callable[..., Exporter]
) -> None:
    exporter = exporter_of(dataset, sources=source, catalog=Catalog(source))
    claims = {} if org is None else {"org": org}
    with pytest.raises(Rejected, match="needs the claim 'org'") as error:
        await exporter.run(task_for(_request(claims=claims)), ExportProgress())
    assert error.value.code == "missing_claim"


VALUES = ["a", "it's", "\\'; reset all; --", "'); drop table t; --", "日本語", "a,b", '{"a"}', " ", "\n"]


async def test_values_of_claims_are_bound(source: Source) -> None:
    """Whatever a claim has, the setting has it too; a list is an array of PostgreSQL."""
    dataset = Dataset(name="t", table="t", session={**SESSION, "app.user": SessionValue(claim="sub")})
    for value in VALUES:
        session = session_values(dataset, Caller(value, frozenset(), {"org": (value, "b")}))
        async with source.snapshot("test", session=session) as snapshot:
            (row,) = await snapshot.fetch(
                "SELECT current_setting('app.user') AS u, current_setting('app.tenant')::text[] AS t"
            )
            assert (row["u"], row["t"]) == (value, [value, "b"])


async def test_settings_end_with_the_transaction(source: Source, settings: Any) -> None:
    """The next transaction on the same connection is another user's."""
    only = Source(settings, connections=1)
    async with only.snapshot("first", session={"app.tenant": "acme"}):
        pass
    async with only.snapshot("second") as snapshot:
        (row,) = await snapshot.fetch("SELECT current_setting('app.tenant', true) AS t")
        assert not row["t"]
    await only.close()


@pytest.mark.parametrize("name", ["hash", "left(value, 1)"])
async def test_masks_and_settings_together(
    name: str,
    dataset: Dataset,
    source: Source,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
) -> None:
    """Streams have the keys of hashes as well as the settings."""
    masked = dataset.model_copy(update={"column_settings": {"value": ColumnSettings(mask=name)}})
    reading = ParallelReading(streams=3, min_bytes=0, range_bytes=2**18)
    exporter = exporter_of(masked, sources=source, catalog=Catalog(source), reading=reading)
    result = await exporter.run(task_for(_request()), ExportProgress())
    content = (await asyncio.to_thread(storage.read, result.key)).decode().split("\n")[1:-1]
    shown = [line.split(",")[2] for line in content]
    assert len(shown) == len(ODD)
    assert all(len(value) == (64 if name == "hash" else 1) for value in shown)


@pytest.mark.parametrize("kind", POOLERS)
async def test_behind_a_pooler(
    kind: str,
    dataset: Dataset,
    settings: Settings,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
    database: asyncpg.Connection,
    schema: str,
) -> None:
    """Each transaction can have another session of the server: no setting stays there or is missing."""
    await database.execute("CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE things ADD mood mood DEFAULT 'ok'")
    fields = {
        "table": None,
        "query": f"select id, value, mood from {dataset.table} where id % :n = 0",
        "parameters": {"n": {"type": "integer", "required": True}},
        "column_settings": {"value": {"mask": "hash"}},
    }
    query = Dataset.model_validate({**dataset.model_dump(), **fields})
    async with through(kind, settings.source_dsn) as url:
        changed = settings.model_copy(update={"source_database_url": SecretStr(url)})
        pooled = Source(changed, connections=3)

        async def ids(org: str, number: int) -> set[int]:
            exporter = exporter_of(query, sources=pooled, catalog=Catalog(pooled))
            return (await _ids(storage, exporter, _request(org, parameters={"n": number})))[0]

        found = await asyncio.gather(*(ids(f"tenant{n % 2}", 3 + n % 2) for n in range(6)))
        await pooled.close()
    for number, rows in enumerate(found):
        step = 3 + number % 2
        assert rows == {n for n in (ODD if number % 2 else EVEN) if n % step == 0}


READS_NO_ROWS = {"exporter catalog", "exporter check"}
"""Sessions that read descriptions, or nothing."""


async def test_a_filter_is_only_computed_for_rows_of_the_tenant(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """An error that a calculated column raises for a row of another tenant must not reach the caller."""
    await database.execute(
        """
        CREATE TABLE orders (id int PRIMARY KEY, tenant text, divisor int);
        INSERT INTO orders SELECT i, 'other', 0 FROM generate_series(1, 3000) AS i;
        INSERT INTO orders VALUES (0, 'me', 1); ANALYZE orders;
        CREATE VIEW shares AS SELECT id, 10 / divisor AS share FROM orders
            WHERE tenant = ANY (current_setting('app.tenant')::text[]);
        """
    )
    query = f"select id, 10 / divisor as share from {schema}.orders "
    query += "where tenant = any (current_setting('app.tenant')::text[])"
    for origin in ({"query": query}, {"table": f"{schema}.shares"}):
        dataset = Dataset.model_validate({"name": "things", "session": SESSION, **origin})
        table = await Catalog(source).table(dataset)
        for tests in ({"gt": 5}, {"ne": 5}, {"in": [10]}, {"is_null": False}):
            rows = row_query(table, _request(["me"], filters={"share": tests}))
            async with source.snapshot("test", search_path=table.search_path, session=rows.session) as found:
                assert [row["id"] for row in await found.fetch(render(rows.select))] == [0]


def test_every_snapshot_gets_the_settings() -> None:
    """A new transaction that reads rows cannot forget them: each call says which settings it has."""
    calls = 0
    for path in [*ROOT.glob("stream_app/**/*.py"), *ROOT.glob("api/**/*.py")]:
        if "plugins/conformance" in path.as_posix():
            continue  # a database of tests
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "snapshot" or not node.args:
                continue
            name = node.args[0]
            if isinstance(name, ast.Constant) and name.value in READS_NO_ROWS:
                continue
            calls += 1
            assert any(word.arg == "session" for word in node.keywords), f"{path}:{node.lineno}"
    assert calls >= 7
