"""The order of the rows in a file: none unless the dataset names one, and then no plan sorts."""

from typing import Any

import asyncpg
import pytest
from pydantic_core import from_json

from dev.sample import DATASETS
from stream_app.datasets.file import load_datasets
from stream_app.datasets.models import Dataset
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.queries.row_query import CopyStatement, row_query
from stream_app.exports.sources.source import Source
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Export
from tests.integration.exports.selecting import described

LARGE = 20_000
SAMPLE = tuple(load_datasets(DATASETS).datasets.values())

TABLES = {
    "plain": "CREATE TABLE t ({columns}, PRIMARY KEY (id)) WITH ({off})",
    "key of several columns": "CREATE TABLE t ({columns}, PRIMARY KEY (owner, at, id)) WITH ({off})",
    "partitioned": (
        "CREATE TABLE t ({columns}, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (5000) WITH ({off});"
        " CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (5000) TO (MAXVALUE) WITH ({off})"
    ),
}
COLUMNS = "id int NOT NULL, owner text NOT NULL, at timestamptz NOT NULL, value int"
FILTERS: list[dict[str, Any]] = [
    {},
    {"at": {"gte": "2026-01-01", "lt": "2026-01-02"}},
    {"id": {"lt": 100}},
    {"value": {"in": [1, 2, 3]}, "at": {"gte": "2026-01-01"}},
]


def nodes(plan: dict[str, Any]) -> list[str]:
    """The types of all nodes of a plan."""
    return [plan["Node Type"], *(name for part in plan.get("Plans", []) for name in nodes(part))]


async def plan_of(database: asyncpg.Connection, sql: str) -> list[str]:
    explained = await database.fetchval(f"EXPLAIN (FORMAT JSON) {sql}")
    return nodes(from_json(explained)[0]["Plan"])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("rows", [10, LARGE])
@pytest.mark.parametrize("indexed", [False, True])
async def test_no_default_plan_sorts(
    source: Source, database: asyncpg.Connection, schema: str, table: str, rows: int, indexed: bool
) -> None:
    """Whatever the scope, the filters, the indexes, the statistics and the number of rows are."""
    await database.execute(TABLES[table].format(columns=COLUMNS, off="autovacuum_enabled = off"))
    # The rows are stored in another order than that of the key and of the time.
    await database.execute(
        "INSERT INTO t SELECT n * 7919 % 100003, 'user-' || n % 50, timestamptz '2026-01-01'"
        f" + n * 31 % 1009 * interval '1 hour', n % 100 FROM generate_series(1, {rows}) n"
    )
    if indexed:
        await database.execute(
            "CREATE INDEX ON t (owner, at); CREATE INDEX ON t (at); CREATE INDEX ON t (value)"
        )
    described_table = await described(
        source, Dataset(name="t", table=f"{schema}.t", owner="owner", time="at")
    )
    assert described_table.primary_key
    for analyzed in (False, True):
        if analyzed:
            await database.execute("VACUUM ANALYZE t")
        for scope in ("own", "all"):
            for filters in FILTERS:
                for name in ("csv", "json"):
                    request = ExportRequest.parse(
                        {"user_id": "user-7", "export_type": "t", "format": name}
                        | {"scope": scope, "filters": filters}
                    )
                    rows_of = row_query(described_table, request)
                    sql = CopyStatement.of(rows_of, FORMATS[name], request.options).sql
                    found = await plan_of(database, sql)
                    assert not [node for node in found if "Sort" in node], (scope, filters, name)


@pytest.mark.parametrize("dataset", SAMPLE, ids=lambda dataset: dataset.name)
@pytest.mark.parametrize("scope", ["own", "all"])
async def test_datasets_of_the_sample_are_not_sorted(
    source: Source, database: asyncpg.Connection, dataset: Dataset, scope: str
) -> None:
    table = await described(source, dataset)
    request = ExportRequest.parse(
        {"user_id": "user-1", "export_type": dataset.name, "format": "csv", "scope": scope}
    )
    sql = CopyStatement.of(row_query(table, request), FORMATS["csv"], request.options).sql
    assert not [node for node in await plan_of(database, sql) if "Sort" in node]


@pytest.mark.parametrize(
    ("order", "shown", "ids"),
    [
        (None, [], [1, 3, 4]),
        ((), [], [1, 3, 4]),
        (("at", "id"), ["at", "id"], [3, 4, 1]),
        (("id",), ["id"], [1, 3, 4]),
        (("at", "secret", "id"), ["at"], [4, 3, 1]),
    ],
)
async def test_the_order_of_the_dataset_is_that_of_the_file(
    export: Export,
    database: asyncpg.Connection,
    schema: str,
    order: tuple[str, ...] | None,
    shown: list[str],
    ids: list[int],
) -> None:
    """The manifest names the order, and no column that the dataset hides."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, owner text, at date, secret int)")
    await database.execute(
        "INSERT INTO t VALUES (1, 'u', '2026-03-01', 1), (2, 'other', '2026-01-01', 2),"
        " (3, 'u', '2026-01-01', 9), (4, 'u', '2026-01-01', 4)"
    )
    dataset = Dataset(
        name="t", table=f"{schema}.t", owner="owner", time="at", columns=("id", "at"), order=order
    )
    exported = await export("", "csv", dataset=dataset, scope="own", columns=["id"])
    assert exported.content == ("id\n" + "".join(f"{number}\n" for number in ids)).encode()
    assert exported.data.manifest is not None
    assert exported.data.manifest["order"] == shown
