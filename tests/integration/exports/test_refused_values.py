"""A value of a filter that only PostgreSQL can check is named in the error (V16)."""

from typing import Any

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import Export, RunBundle, bundle_of


@pytest.fixture
async def table(database: asyncpg.Connection, schema: str) -> str:
    await database.execute(
        """CREATE DOMAIN host AS inet; CREATE DOMAIN small AS interval CHECK (VALUE < '1 day');
        CREATE TABLE t (id int PRIMARY KEY, ip inet, host host, span int4range, bits bit(3), every interval,
            pause small, user_id text);
        INSERT INTO t VALUES (1, '10.0.0.1', '::1', '[1,3)', '101', '1 day', '1 h', 'u')"""
    )
    return f"{schema}.t"


@pytest.mark.parametrize(
    ("filters", "complaint"),
    [
        ({"ip": "10.0.0.256"}, "filters.ip: expected a value of type inet, got '10.0.0.256'"),
        ({"host": {"gte": "x"}}, "filters.host.gte: expected a value of type "),
        ({"span": {"in": ["[1,3)", None, "[3,1)"]}}, "filters.span.in: expected a value of type int4range, "),
        ({"bits": {"ne": "102"}}, "filters.bits.ne: expected a value of type bit(3), got '102'"),
        ({"every": {"lt": "1 fortnight"}, "ip": "::"}, "filters.every.lt: expected a value of type interval"),
    ],
)
async def test_the_value_is_named(
    table: str, export: Export, filters: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(Rejected) as caught:
        await export(table, "csv", filters=filters)
    assert str(caught.value).startswith(complaint)
    assert caught.value.code == "bad_filter_value"


async def test_values_that_the_type_has_are_no_reason(
    table: str, export: Export, database: asyncpg.Connection, schema: str
) -> None:
    filters = {"ip": "10.0.0.1", "span": "[1,2]", "bits": "101", "pause": {"lt": "2 days"}}
    found = await export(table, "csv", filters=filters, columns=["id"])
    assert found.content == b"id\n1\n"
    await database.execute("CREATE VIEW broken AS SELECT id, ip, 1 / (id - 1) AS n FROM t")
    with pytest.raises(Rejected, match="division by zero"):
        await export(f"{schema}.broken", "csv", filters={"ip": "10.0.0.1"})


async def test_a_bundle_names_its_dataset_too(
    table: str, run_bundle: RunBundle, members: tuple[Dataset, ...]
) -> None:
    bundle = bundle_of(members[0], Dataset(name="hosts", table=table, owner="user_id", order=("id",)))
    with pytest.raises(Rejected, match=r"^filters\.hosts\.ip: dataset 'hosts' .*type inet, got 'x'"):
        await run_bundle(bundle, "csv", filters={"hosts": {"ip": "x"}})


async def test_a_bundle_names_the_dataset_whose_query_is_refused(
    run_bundle: RunBundle, members: tuple[Dataset, ...], database: asyncpg.Connection, schema: str
) -> None:
    """The reader of the error knows which of the datasets to leave out."""
    await database.execute(
        "CREATE VIEW broken AS SELECT id, user_id, 1 / (id - 1) AS n FROM people ORDER BY id"
    )
    broken = Dataset(name="broken", table=f"{schema}.broken", owner="user_id")
    with pytest.raises(Rejected, match=r"^dataset 'broken' of bundle .*division by zero") as caught:
        await run_bundle(bundle_of(members[0], broken), "csv")
    assert caught.value.code == "query_refused"
