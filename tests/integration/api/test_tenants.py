"""A user learns nothing from the API about the rows of others."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from api.jobs import estimates as estimates_module
from producers.tokens import sign_token
from stream_app.datasets.models import Dataset
from stream_app.exports.tables.catalog import Catalog
from tests.integration.api.conftest import Harness, order
from tests.waiting import WITHIN, at_most, patient, until_async

LIMIT = estimates_module.SECONDS
"""The time-out of an estimate. Tests of the API otherwise have a longer one."""

HIDDEN = ("hidden_", "secret-of-other-tenant")
"""Names and values that must not be in a response to a user."""


@pytest_asyncio.fixture(loop_scope="module")
async def database(source_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(source_dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def watcher(source_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A second connection, because pg_stat_activity does not change within a transaction."""
    connection = await asyncpg.connect(source_dsn)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(api: Harness, database: asyncpg.Connection) -> AsyncIterator[Harness]:
    """Datasets with hidden columns, a cast that fails on rows of other tenants, and a missing table."""
    schema = f"hidden_schema_{uuid4().hex[:8]}"
    await database.execute(
        f"""
        CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
        CREATE TABLE {schema}.hidden_table (id int PRIMARY KEY, hidden_tenant text, hidden_time timestamptz,
            word text, city text, balance int);
        INSERT INTO {schema}.hidden_table
            SELECT n, CASE WHEN n % 25 = 0 THEN 'me' ELSE 'other' END, now(),
                CASE WHEN n % 25 = 0 THEN '12' ELSE 'secret-of-other-tenant' END,
                CASE WHEN n % 25 = 0 THEN 'Home' ELSE 'Elsewhere' || n % 7 END,
                CASE WHEN n % 25 = 0 THEN 10 ELSE n END
            FROM generate_series(1, 10000) n;
        CREATE VIEW {schema}.hidden_view AS
            SELECT id, lower(hidden_tenant) AS hidden_tenant, hidden_time, word::int AS number, city, balance
            FROM {schema}.hidden_table;
        ANALYZE {schema}.hidden_table; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO PUBLIC
        """
    )
    common = {"owner": "hidden_tenant", "time": "hidden_time", "columns": ("id", "number", "city", "balance")}
    datasets = api.datasets_with(
        Dataset(name="shop", table=f"{schema}.hidden_view", **common),
        Dataset(name="gone", table=f"{schema}.hidden_missing", **common),
        Dataset(name="lacking", table=f"{schema}.hidden_table", columns=("hidden_missing",)),
    )
    services = api.app.state.services
    api.app.state.services = replace(
        services,
        datasets=datasets,
        validator=replace(services.validator, datasets=datasets),
        catalog=Catalog(services.catalog._sources),
    )
    yield api
    api.app.state.services = services
    await database.execute(f"DROP SCHEMA {schema} CASCADE")


async def _estimate(api: Harness, user: str = "me", **wanted: Any) -> dict[str, Any]:
    async with api.user(user_id=user) as client:
        answer = await client.post("/exports/jobs:estimate", json=order(export_type="shop", **wanted))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_no_response_names_hidden_tables_or_columns(
    shop: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """S7: nor does it have the message of the database."""
    bodies = [
        order(export_type=name, **changes)
        for name in ("shop", "gone", "lacking")
        for changes in (
            {},
            {"columns": ["nope"]},
            {"columns": ["id"], "filters": {"nope": 1}},
            {"filters": {"number": "x"}},
            {"filters": {"number": {"gte": 5}}},
            {"filters": {"number": {"near": 5}}},
            {"filters": {"city": {"gte": 5}}},
            {"scope": "all", "filters": {"number": {"gte": 5}}},
        )
    ]
    answers = []
    for roles in ((), ("exports:all",)):
        async with shop.user(*roles, user_id="me") as client:
            answers.append(await client.get("/exports/datasets"))
            for body in bodies:
                answers.append(await client.post("/exports/jobs:estimate", json=body))
                if body["export_type"] != "shop" or "filters" in body:
                    answers.append(await client.post("/exports/jobs", json=body))
                schedule = {**body, "schedule": "daily", "window": "since_last_run"}
                answers.append(await client.post("/exports/schedules", json=schedule))
    assert {answer.status_code for answer in answers} >= {200, 422}
    for answer in answers:
        assert [word for word in HIDDEN if word in answer.text] == [], answer.text
    (shown,) = (item for item in answers[0].json()["datasets"] if item["name"] == "shop")
    assert (shown["owner"], shown["time"], shown["has_owner"], shown["has_time"]) == (None, None, True, True)


async def test_an_estimate_depends_on_own_rows_only(shop: Harness, database: asyncpg.Connection) -> None:
    """S5: it does not depend on rows of others or on the planner's statistics."""
    filters: list[dict[str, Any]] = [
        {}, {"city": "Home"}, {"city": "Elsewhere3"}, {"balance": 10}, {"balance": {"gte": 5000}},
        {"number": 12},
        {"number": {"gte": 5}},
    ]  # fmt: skip
    before = [await _estimate(shop, filters=wanted) for wanted in filters]
    assert [item["rows"] for item in before] == [400, 400, 0, 400, 0, 400, 400]
    assert all(item["exact"] for item in before)
    table = shop.app.state.services.datasets["shop"].table.replace("hidden_view", "hidden_table")
    await database.execute(
        f"UPDATE {table} SET city = 'Home', balance = 1 WHERE hidden_tenant = 'other';ANALYZE {table}"
    )
    assert [await _estimate(shop, filters=wanted) for wanted in filters] == before
    assert (await _estimate(shop, user="nobody"))["rows"] == 0


async def test_beyond_the_limit_an_estimate_is_a_lower_limit(
    shop: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S5: it gives no larger number."""
    monkeypatch.setattr("api.jobs.estimates.COUNTED_ROWS", 150)
    found = await _estimate(shop)
    assert (found["rows"], found["exact"], found["at_least"]) == (151, False, True)
    monkeypatch.setattr("api.jobs.estimates.COUNT_MILLISECONDS", 1)
    monkeypatch.setattr("api.jobs.estimates.SAMPLE_MILLISECONDS", 1)
    found = await _estimate(shop, user="other", columns=["id"])
    assert found["exact"] is False
    assert found["rows"] <= 151


async def test_estimates_of_a_locked_table_delay_no_other_call(
    shop: Harness,
    database: asyncpg.Connection,
    watcher: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R12: neither requests nor the list of datasets wait, and the queries end with their clients."""
    services = shop.app.state.services
    table = services.datasets["shop"].table.replace("hidden_view", "hidden_table")
    waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'exporter estimate'"

    async def estimates() -> bool:
        return bool(await watcher.fetchval(waiting))

    async def no_estimate() -> bool:
        return not await estimates()

    long = 3 * patient(WITHIN)  # no query ends by itself while this test waits for its end
    monkeypatch.setattr("api.jobs.estimates.SECONDS", 2 * long)  # half of it is the time-out of locks
    for name in ("SAMPLE_MILLISECONDS", "COUNT_MILLISECONDS"):
        monkeypatch.setattr(f"api.jobs.estimates.{name}", round(long * 1_000))
    async with database.transaction():
        await database.execute(f"LOCK TABLE {table}")
        async with shop.user(user_id="me") as client:
            asking = [
                asyncio.create_task(client.post("/exports/jobs:estimate", json=order(export_type="shop")))
                for _ in range(4)
            ]
            await until_async(estimates)
            listed = await client.get("/exports/datasets")
            placed = await client.post("/exports/jobs", json=order())
            assert (listed.status_code, placed.status_code) == (200, 202)
            assert not [task for task in asking if task.done()], "they wait for longer than this test"
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await until_async(no_estimate)
            async with at_most(WITHIN):
                await _ask_and_leave(shop, estimates)
                await until_async(no_estimate)
            monkeypatch.setattr("api.jobs.estimates.SECONDS", LIMIT)
            for answer in await _timely(client, 4):
                assert answer.status_code == 503 or answer.json()["at_least"], answer.text


async def _timely(client: httpx2.AsyncClient, count: int) -> list[httpx2.Response]:
    """Ask for estimates at the same time, until all answers of a try come in time. A machine can be busy."""
    body = order(export_type="shop")
    for _ in range(3):
        with suppress(TimeoutError):
            async with at_most(4 * LIMIT):
                return await asyncio.gather(
                    *(client.post("/exports/jobs:estimate", json=body) for _ in range(count))
                )
    raise AssertionError(f"no estimates end within {4 * LIMIT:g} s")


async def _ask_and_leave(api: Harness, is_waiting: Callable[[], Awaitable[bool]]) -> None:
    """Send one request, and disconnect its client when its query waits."""
    body = json.dumps(order(export_type="shop")).encode()
    token = sign_token(api.settings, "me", ())
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": body, "more_body": False})

    async def send(_: Any) -> None:
        return None

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/exports/jobs:estimate", "raw_path": b"/exports/jobs:estimate", "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("api", 80), "state": {}, "root_path": "",
    }  # fmt: skip
    serving = asyncio.create_task(api.app(scope, messages.get, send))
    await until_async(is_waiting)
    assert not serving.done()
    messages.put_nowait({"type": "http.disconnect"})
    await serving
