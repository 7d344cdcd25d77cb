"""A dataset made of a query, with parameters, masks and row-level security, over HTTP."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from producers.tokens import sign_token
from stream_app.settings import Settings
from tests.integration.api.conftest import changed, client_of, order, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREATE = """
CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
CREATE TABLE {schema}.orders (id int PRIMARY KEY, tenant text, region text, placed date, email text);
INSERT INTO {schema}.orders SELECT n, 'tenant' || n % 2, (array['emea', 'apac'])[1 + n % 3 / 2],
    '2026-01-01'::date + n, 'name' || n || '@example.com' FROM generate_series(1, 300) n;
ALTER TABLE {schema}.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.orders USING (tenant = current_setting('app.tenant'));
GRANT SELECT ON {schema}.orders TO PUBLIC; ANALYZE {schema}.orders
"""

FILE = """
[datasets.orders]
query = "select * from {schema}.orders where region = :region and placed >= :since -- the end"
[datasets.orders.parameters.region]
choices = ["emea", "apac"]
required = true
label = "Region"
[datasets.orders.parameters.since]
type = "date"
default = "2026-01-01"
[datasets.orders.session]
"app.tenant" = {{ claim = "org" }}
[datasets.orders.columns.email]
mask = "hash"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    api_settings: Settings, source_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx2.AsyncClient]:
    """The API with the dataset, for a user of ``tenant1``."""
    schema = f"orders_{uuid4().hex[:8]}"
    database = await asyncpg.connect(source_dsn)
    await database.execute(CREATE.format(schema=schema))
    file = tmp_path_factory.mktemp("api") / "datasets.toml"
    file.write_text(FILE.format(schema=schema))
    settings = changed(api_settings, datasets_file=file)
    token = sign_token(settings, "u", ["exports:all"], claims={"org": "tenant1"})
    async with running(settings) as app, client_of(app, token) as made:
        yield made
    await database.execute(f"DROP SCHEMA {schema} CASCADE")
    await database.close()


def _body(**parameters: Any) -> dict[str, Any]:
    return order(export_type="orders", scope="all", parameters=parameters)


async def test_parameters_are_listed_checked_and_used(client: httpx2.AsyncClient) -> None:
    (listed,) = (await client.get("/exports/datasets")).json()["datasets"]
    assert listed["error"] is None
    region, since = listed["parameters"]
    assert (region["name"], region["choices"], region["required"]) == ("region", ["emea", "apac"], True)
    assert (region["label"], since["type"], since["default"]) == ("Region", "date", "2026-01-01")
    (email,) = (item for item in listed["columns"] if item["name"] == "email")
    assert (email["type"], email["masked"], email["operators"]) == ("text", True, [])

    made = await client.post("/exports/jobs:estimate", json=_body(region="emea"))
    assert made.status_code == 200, made.text
    rows = {n for n in range(1, 301) if n % 2 == 1 and n % 3 < 2}
    assert (made.json()["rows"], made.json()["exact"]) == (len(rows), True)
    some = await client.post("/exports/jobs:estimate", json=_body(region="emea", since="2026-10-01"))
    assert some.json()["rows"] == len([n for n in rows if n >= 273])
    job = await client.post("/exports/jobs", json=_body(region="apac", since="today"))
    assert job.status_code == 202
    record = (await client.get(f"/exports/jobs/{job.json()['export_job_id']}")).json()
    assert record["parameters"] == {"region": "apac", "since": "today"}


@pytest.mark.parametrize(
    ("parameters", "field", "reason"),
    [
        ({}, "parameters.region", "allowed: emea, apac"),
        ({"region": "x' or 1=1; --"}, "parameters.region", "allowed: emea, apac"),
        ({"region": "emea", "since": "yesterday'"}, "parameters.since", "a date such as"),
        ({"region": "emea", "limit": 5}, "parameters.limit", "allowed: region, since"),
        ({"region": "emea", "since": 7}, "parameters.since", "a date such as"),
    ],
)
async def test_wrong_parameters_are_refused_at_once(
    client: httpx2.AsyncClient, parameters: dict[str, Any], field: str, reason: str
) -> None:
    body = _body(**parameters)
    answers = [
        await client.post("/exports/jobs", json=body),
        await client.post("/exports/jobs:estimate", json=body),
        await client.post("/exports/schedules", json={**body, "schedule": "daily"}),
    ]
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert field in answer.text
        assert reason in answer.text


async def test_a_schedule_keeps_its_parameters(client: httpx2.AsyncClient) -> None:
    body = {**_body(region="emea", since="today-7d"), "schedule": "daily"}
    made = await client.post("/exports/schedules", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["parameters"] == {"region": "emea", "since": "today-7d"}
    path = f"/exports/schedules/{made.json()['id']}"
    assert (await client.patch(path, json={"parameters": {"region": "none"}})).status_code == 422
    done = await client.patch(path, json={"parameters": {"region": "apac"}})
    assert (done.status_code, done.json()["parameters"]) == (200, {"region": "apac"})


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
async def test_a_number_that_is_no_json_is_not_taken_for_null(
    client: httpx2.AsyncClient, number: str
) -> None:
    """The default would apply instead, and the file would have other rows."""
    for path, more in (
        ("/exports/jobs", ""),
        ("/exports/jobs:estimate", ""),
        ("/exports/schedules", "daily"),
    ):
        text = '{"export_type": "orders", "format": "csv", "scope": "all", "parameters": '
        text += f'{{"region": "emea", "since": {number}}}' + (', "schedule": "daily"}' if more else "}")
        response = await client.post(path, content=text, headers={"content-type": "application/json"})
        found = response.json()
        assert (response.status_code, found["code"], found["field"]) == (422, "invalid_number", "parameters")
