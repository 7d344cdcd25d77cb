"""Datasets and health checks, and calls while parts are unavailable."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.sample import DATASETS
from producers.tokens import sign_token
from stream_app.settings import Settings
from streaming_exporter.errors import PublishError
from streaming_exporter.events import ExportRequest, Topic
from streaming_exporter.publisher import Publisher
from tests.integration.api.conftest import Harness, changed, client_of, order, running
from tests.topics import events_on
from tests.waiting import until_async


async def test_datasets_list_columns_operators_and_formats(api: Harness) -> None:
    async with api.user() as client:
        content = (await client.get("/exports/datasets")).json()
    datasets = {item["name"]: item for item in content["datasets"]}
    assert set(datasets) == {"enrollments", "proofs", "ledger"}
    columns = {item["name"]: item for item in datasets["ledger"]["columns"]}
    assert columns["kind"]["kind"] == "text"
    assert "prefix" in columns["kind"]["operators"]
    assert "prefix" not in columns["id"]["operators"]
    formats = {item["name"]: item for item in content["formats"]}
    assert formats["csv"]["media_type"].startswith("text/csv")


async def test_a_missing_table_does_not_hide_the_others(api_settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "datasets.toml"
    path.write_text(
        DATASETS.read_text("utf-8") + '[datasets.gone]\ntable = "public.not_there"\nowner = "id"\n'
    )
    settings = changed(api_settings, datasets_file=path)
    async with running(settings) as app, client_of(app, sign_token(settings, "u")) as client:
        content = (await client.get("/exports/datasets")).json()
        refused = await client.post("/exports/jobs", json=order(export_type="gone"))
    errors = {item["name"]: item["error"] for item in content["datasets"]}
    error = errors.pop("gone")
    assert "'gone' cannot be exported at the moment: its table does not exist" in error
    assert "not_there" not in error, "users need not know what tables are called"
    assert set(errors.values()) == {None}
    assert (refused.status_code, refused.json()["code"]) == (422, "missing_table")


async def test_without_a_datasets_file_the_api_says_that_there_are_no_datasets(
    api_settings: Settings,
) -> None:
    settings = changed(api_settings, datasets_file=None)
    with structlog.testing.capture_logs() as lines:
        async with running(settings) as app, client_of(app, sign_token(settings, "u")) as client:
            content = (await client.get("/exports/datasets")).json()
            refused = await client.post("/exports/jobs", json=order())
    assert content["datasets"] == []
    assert {item["name"] for item in content["formats"]} >= {"csv", "pdf"}
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_dataset")
    assert refused.json()["detail"].endswith("allowed: none")
    (line,) = (line for line in lines if line["event"] == "dataset.not_configured")
    assert line["log_level"] == "error"
    assert "enrollments, proofs and ledger" in line["reason"]
    assert "EXPORTER_DATASETS_FILE" in line["advice"]


ALL_OK = {"database": "ok", "kafka": "ok", "object_store": "ok"}


async def ready(client: httpx2.AsyncClient, **unavailable: str) -> httpx2.Response:
    """Return the answer in which only ``unavailable`` parts are; at first others can still be connecting."""

    async def asked() -> httpx2.Response | None:
        answer = await client.get("/readyz")
        return answer if answer.json()["parts"] == ALL_OK | unavailable else None

    return await until_async(asked)


async def test_ready(api: Harness) -> None:
    async with client_of(api.app, None) as client:
        response = await ready(client)
        assert (await client.get("/healthz")).json()["status"] == "ok"
    assert response.status_code == 200, response.text


NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"database_url": SecretStr(f"postgresql://u:p@{NOWHERE}/exporter")}, "database"),
        ({"kafka_bootstrap_servers": NOWHERE}, "kafka"),
        ({"s3_endpoint": f"http://{NOWHERE}"}, "object_store"),
    ],
)
async def test_not_ready_names_the_part(api_settings: Settings, changes: dict[str, Any], part: str) -> None:
    settings = changed(api_settings, **changes)
    async with running(settings) as app, client_of(app, None) as client:
        response = await ready(client, **{part: "unavailable"})
        assert (await client.get("/healthz")).status_code == 200
    assert response.status_code == 503


@pytest.mark.parametrize("part", ["kafka", "object_store", "database"])
async def test_a_probe_can_need_only_the_database(api_settings: Settings, part: str) -> None:
    """Without Kafka or the store the API still accepts requests, so a load balancer must not drop it."""
    away: dict[str, dict[str, Any]] = {
        "kafka": {"kafka_bootstrap_servers": NOWHERE},
        "object_store": {"s3_endpoint": f"http://{NOWHERE}"},
        "database": {"database_url": SecretStr(f"postgresql://u:p@{NOWHERE}/exporter")},
    }
    async with running(changed(api_settings, **away[part])) as app, client_of(app, None) as client:
        await ready(client, **{part: "unavailable"})
        one = await client.get("/readyz?needs=database")
        both = await client.get("/readyz?needs=database,kafka,object_store")
        wrong = await client.get("/readyz?needs=databse")
    expected = (503, "unavailable") if part == "database" else (200, "degraded")
    assert (one.status_code, one.json()["status"]) == expected
    assert both.status_code == 503
    assert wrong.status_code == 422


async def test_a_database_that_cannot_be_written_is_a_part_of_its_own(
    api_settings: Settings, own_settings: Settings, engine: AsyncEngine
) -> None:
    """Reads go on, so it does not take the API away from a load balancer."""
    async with engine.begin() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
        await connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    settings = changed(api_settings, database_url=own_settings.database_url)
    async with running(settings) as app, client_of(app, None) as client:
        response = await ready(client, database_writes="unavailable")
        needed = await client.get("/readyz?needs=database")
        written = await client.get("/readyz?needs=database_writes")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert (needed.status_code, written.status_code) == (200, 503)


async def test_tables_that_are_not_migrated_are_not_ready(
    api_settings: Settings, own_settings: Settings, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE export_jobs DROP COLUMN manifest")
    settings = changed(api_settings, database_url=own_settings.database_url)
    async with running(settings) as app, client_of(app, None) as client:
        response = await ready(client, database="unavailable")
    assert response.status_code == 503


async def test_requests_and_cancellations_are_accepted_without_kafka(
    api_settings: Settings, api: Harness
) -> None:
    """R5: they are on record, and are applied when Kafka is back, or before."""
    async with api.user(user_id="u") as client:
        known = (await client.post("/exports/jobs", json=order())).headers["location"]
    settings = changed(api_settings, kafka_bootstrap_servers=NOWHERE)
    async with running(settings) as app, client_of(app, sign_token(settings, "u")) as client:
        placed = await client.post("/exports/jobs", json=order())
        assert placed.status_code == 202
        assert (await client.delete(known)).status_code == 202
        assert (await client.get(known)).json()["cancel_requested"] is True
        assert (await client.get(placed.headers["location"])).json()["status"] == "pending"
        schedule = await client.post("/exports/schedules", json=order(schedule="daily"))
        run = await client.post(f"{schedule.headers['location']}:run")
        assert run.status_code == 202
    assert await api.count() == 3


async def test_calls_without_databases_have_retry_after(api_settings: Settings) -> None:
    nowhere = SecretStr(f"postgresql://u:hunter2@{NOWHERE}/exporter")
    settings = changed(api_settings, database_url=nowhere, source_database_url=nowhere)
    async with running(settings) as app, client_of(app, sign_token(settings, "u")) as client:
        listed = await client.get("/exports/datasets")
        assert listed.status_code == 200, "another source could answer"
        errors = {item["error"] for item in listed.json()["datasets"]}
        assert all("its source database does not answer" in error for error in errors)
        assert NOWHERE not in listed.text
        for method, path, body in (("GET", "/exports/jobs", None), ("POST", "/exports/jobs", order())):
            response = await client.request(method, path, json=body)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert "hunter2" not in response.text
            assert NOWHERE not in response.text


async def test_the_publisher_waits_until_kafka_has_the_event(api_settings: Settings) -> None:
    request = ExportRequest(user_id="u", export_type="ledger", format="csv")
    async with Publisher(api_settings) as publisher:
        event = await publisher.request(request)
    assert [item.id for item in await events_on(api_settings, Topic.REQUESTS)].count(event.id) == 1


async def test_the_publisher_names_the_brokers_that_do_not_answer(api_settings: Settings) -> None:
    settings = api_settings.model_copy(update={"kafka_bootstrap_servers": f"{NOWHERE},127.0.0.1:2"})
    request = ExportRequest(user_id="u", export_type="ledger", format="csv")
    async with Publisher(settings) as publisher:
        with pytest.raises(PublishError, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2"):
            await publisher.request(request)
