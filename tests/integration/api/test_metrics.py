"""``GET /metrics``: the queue in the database."""

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.operations.queue_metrics import QueueMetrics
from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.models import DEFAULT_SOURCE
from stream_app.datasets.registry import Datasets
from stream_app.jobs.claim_pauses import PauseStore
from stream_app.jobs.job_queries import BACKLOG
from stream_app.jobs.models import ExportJob
from stream_app.notifications import statistics
from stream_app.settings import Settings
from tests.integration.api.conftest import Harness, changed, client_of, running

OLDEST = ("exporter_oldest_pending_seconds", frozenset[tuple[str, str]]())
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(exposition: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def unfinished(found: Samples) -> dict[tuple[str, ...], float]:
    return {
        tuple(dict(labels)[name] for name in ("state", "dataset", "format")): value
        for (name, labels), value in found.items()
        if name == "exporter_jobs_unfinished"
    }


async def add(engine: AsyncEngine, count: int = 1, age: float = 0, **values: object) -> None:
    job = {"user_id": "secret-user", "export_type": "ledger", "format": "csv", "status": "pending", **values}
    asked = datetime.now(UTC) - timedelta(seconds=age)
    async with engine.begin() as connection:
        await connection.execute(
            insert(ExportJob), [{"id": uuid4(), "created_at": asked, **job} for _ in range(count)]
        )


async def test_unfinished_jobs_are_counted_with_a_bounded_number_of_labels(api: Harness) -> None:
    await add(api.engine, 3, age=50)
    await add(api.engine, 2, age=9_000, status="processing", format="json")
    await add(api.engine, 5, age=9_000, status="completed")
    for name in ("a-users-own-word", "another"):
        await add(api.engine, export_type=name, format=name)
    later = datetime.now(UTC) + timedelta(hours=1)
    await add(api.engine, age=9_000, not_before=later)
    async with client_of(api.app, None) as client:
        response = await client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        again = await client.get("/metrics")
    found = samples(response.text)
    assert unfinished(found) == {
        ("pending", "ledger", "csv"): 4,
        ("processing", "ledger", "json"): 2,
        ("pending", "other", "other"): 2,
    }
    assert found["exporter_queue_read", frozenset()] == 1
    assert 50 <= found["exporter_oldest_pending_seconds", frozenset()] < 80
    assert found["process_resident_memory_bytes", frozenset()] > 0
    assert unfinished(samples(again.text)) == unfinished(found)
    for private in ("secret-user", "a-users-own-word"):
        assert private not in response.text


async def test_the_age_of_a_retried_job_counts_from_its_request(api: Harness) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=5)
    await add(api.engine, age=600, attempt=1, not_before=soon)
    found = samples((await QueueMetrics(api.engine, api.datasets_with()).render()).decode())
    assert found["exporter_oldest_pending_seconds", frozenset()] >= 600


@pytest.mark.parametrize(
    ("scope", "mixed"),
    [
        ("user:held", "ledger"),
        ("dataset:ledger", "ledger"),
        ("dataset:ledger", "both"),
        (f"source:{DEFAULT_SOURCE}", "both"),
    ],
)
async def test_the_oldest_job_is_none_of_a_paused_user_or_dataset(
    api: Harness, scope: str, mixed: str
) -> None:
    """Otherwise one pause hides that other jobs wait, or the jobs that it holds back are a false alarm."""
    content = api.datasets_with().content
    both = BundleSettings(name="both", datasets=("ledger",))
    known = Datasets(replace(content, bundles={"both": Bundle.of(both, [content.datasets["ledger"]])}))
    await add(api.engine, age=90_000, user_id="held", export_type=mixed)
    await add(api.engine, age=600, export_type="elsewhere")
    queue_metrics = QueueMetrics(api.engine, known, cache_seconds=0)
    assert samples((await queue_metrics.render()).decode())[OLDEST] >= 90_000
    await PauseStore(api.engine).pause(scope, reason=None, by="operator")
    found = samples((await queue_metrics.render()).decode())
    assert 600 <= found[OLDEST] < 90_000
    assert sum(unfinished(found).values()) == 2
    await PauseStore(api.engine).pause("dataset:elsewhere", reason=None, by="operator")
    assert samples((await queue_metrics.render()).decode())[OLDEST] == 0


async def test_concurrent_scrapes_share_one_count(api: Harness) -> None:
    queue_metrics = QueueMetrics(api.engine, api.datasets_with(), cache_seconds=600)
    first = await asyncio.gather(*(queue_metrics.render() for _ in range(5)))
    await add(api.engine, 7)
    assert ("pending", "ledger", "csv") not in unfinished(samples((await queue_metrics.render()).decode()))
    queue_metrics._valid_until = 0
    assert unfinished(samples((await queue_metrics.render()).decode()))["pending", "ledger", "csv"] == 7
    assert all(b"exporter_queue_read 1.0" in answer for answer in first)


async def test_deliveries_that_cannot_be_counted_hide_no_other_metric(api: Harness) -> None:
    await add(api.engine, 3)
    async with api.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE deliveries"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statistics, "TIMEOUT", "100ms")
            found = samples((await QueueMetrics(api.engine, api.datasets_with()).render()).decode())
    assert found["exporter_queue_read", frozenset()] == 1
    assert unfinished(found) == {("pending", "ledger", "csv"): 3}
    assert math.isnan(found["exporter_deliveries_waiting", frozenset()])
    found = samples((await QueueMetrics(api.engine, api.datasets_with()).render()).decode())
    assert found["exporter_deliveries_waiting", frozenset()] == 0


async def test_the_other_metrics_are_served_without_the_database(api_settings: Settings) -> None:
    settings = changed(api_settings, database_url=SecretStr("postgresql://u:p@127.0.0.1:1/exporter"))
    async with running(settings) as app, client_of(app, None) as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    found = samples(response.text)
    assert found["exporter_queue_read", frozenset()] == 0
    assert not unfinished(found)
    away = (
        "exporter_errors_total",
        frozenset({("part", "state_database"), ("kind", "temporarily_unavailable")}),
    )
    assert found[away] >= 1


@pytest.mark.parametrize("finished", [20_000])
async def test_the_count_does_not_read_ended_jobs(api: Harness, finished: int) -> None:
    async with api.engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO export_jobs (id, user_id, export_type, format, status)"
                " SELECT gen_random_uuid(), 'u', 'ledger', 'csv', 'completed' FROM generate_series(1, :n)"
            ),
            {"n": finished},
        )
        await connection.execute(text("ANALYZE export_jobs"))
        plan = await connection.execute(text(f"EXPLAIN {BACKLOG.text}"), {"users": [], "datasets": []})
        lines = "\n".join(row[0] for row in plan)
    assert "Seq Scan" not in lines, lines
