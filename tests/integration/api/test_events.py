"""Server-sent events: a listener gets its own updates and no others."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import uvicorn
from fastapi import FastAPI
from sqlalchemy import insert

from api.jobs.live_updates import UNFINISHED_LISTED
from stream_app.jobs.models import ExportJob
from tests.integration.api.conftest import Harness, order
from tests.waiting import WITHIN, patient, until_async


@dataclass
class Told:
    """One event."""

    id: str
    job: dict[str, Any]


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve the application on a real socket, because a stream is read while it is written."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))
    task = asyncio.create_task(server.serve())
    await until_async(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    server.force_exit = True
    await task


@asynccontextmanager
async def listening(
    address: str, client: httpx2.AsyncClient, path: str, last: str | None = None
) -> AsyncIterator[AsyncIterator[Told]]:
    headers = {"Authorization": client.headers["Authorization"]} | ({"Last-Event-ID": last} if last else {})
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, timeout=patient(WITHIN)) as browser,
        browser.stream("GET", path) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield told(response)


async def told(response: httpx2.Response) -> AsyncIterator[Told]:
    seen: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, content = line.partition(": ")
            seen[name] = content
        elif "data" in seen:
            assert seen["event"] == "job"
            yield Told(seen["id"], json.loads(seen["data"]))
            seen = {}


async def place(client: httpx2.AsyncClient) -> str:
    job_id: str = (await client.post("/exports/jobs", json=order())).json()["export_job_id"]
    return job_id


def numbers(event_id: str) -> list[int]:
    return [int(part) for part in event_id.split(".")]


async def test_a_job_is_followed_until_it_ends(api: Harness) -> None:
    async with api.user() as client, served(api.app) as address:
        job_id = await place(client)
        path = f"/exports/jobs/{job_id}/events"
        seen = []
        async with listening(address, client, path) as events:
            steps: Iterator[dict[str, Any]] = iter(
                [
                    {"status": "processing", "attempt": 1, "row_count": 0},
                    {"row_count": 20_000, "estimated_rows": 50_000},
                    {"status": "pending", "row_count": None},
                    {"status": "processing", "attempt": 2, "row_count": 7},
                    {"cancel_requested_at": datetime.now(UTC)},
                    {"status": "cancelled"},
                ]
            )
            async for event in events:
                seen.append(event)
                if step := next(steps, None):
                    await api.set(job_id, **step)
        record = (await client.get(f"/exports/jobs/{job_id}")).json()
    assert [(event.job["status"], event.job["row_count"]) for event in seen] == [
        ("pending", None),
        ("processing", 0),
        ("processing", 20_000),
        ("pending", None),
        ("processing", 7),
        ("processing", 7),
        ("cancelled", 7),
    ]
    assert seen[-1].job == record
    ids = [numbers(event.id) for event in seen]
    assert ids == sorted(ids)
    assert len({event.id for event in seen}) == len(seen)


async def test_a_listener_that_reconnects_gets_only_new_updates(api: Harness) -> None:
    async with api.user() as client, served(api.app) as address:
        job_id = await place(client)
        path = f"/exports/jobs/{job_id}/events"
        async with listening(address, client, path) as events:
            last = (await anext(events)).id
        async with listening(address, client, path, last) as events:
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.4)
            assert not first.done(), "nothing has changed"
            await api.set(job_id, status="processing", attempt=1)
            assert (await first).job["status"] == "processing"
        await api.set(job_id, status="failed", error_code="timeout", error_message="took too long")
        async with listening(address, client, path, last) as events:
            seen = [event async for event in events]
        headers = {"Last-Event-ID": seen[-1].id}
        again = await client.get(path, headers=headers)
    assert [event.job["error"]["code"] for event in seen] == ["timeout"]
    assert (again.status_code, again.content) == (204, b""), "which tells browsers not to come back"


async def test_a_listener_gets_all_jobs_of_its_user_and_no_others(api: Harness) -> None:
    async with api.user() as client, api.user() as other, served(api.app) as address:
        known = await place(client)
        ended = await place(client)
        await api.set(ended, status="failed")
        async with listening(address, client, "/exports/events") as events:
            assert (await anext(events)).job["export_job_id"] == known
            await place(other)
            new = await place(client)
            event = await anext(events)
            assert (event.job["export_job_id"], event.job["status"]) == (new, "pending")
            last = event.id
        await api.set(known, status="completed", completed_at=datetime.now(UTC))
        async with listening(address, client, "/exports/events", last) as events:
            resumed = {
                event.job["export_job_id"]: event.job["status"]
                for event in [await anext(events) for _ in range(2)]
            }
        assert resumed == {new: "pending", known: "completed"}


async def test_a_user_of_very_many_unfinished_jobs(api: Harness) -> None:
    """A listener gets the newest jobs, and then every change, also of the other jobs."""
    user_id, now = f"user-{uuid4()}", datetime.now(UTC)
    rows = [
        {
            "id": uuid4(),
            "user_id": user_id,
            "export_type": "ledger",
            "format": "csv",
            "status": "pending",
            "created_at": now - timedelta(seconds=age),
        }
        for age in range(1_300)
    ]
    async with api.engine.begin() as connection:
        await connection.execute(insert(ExportJob), rows)
    expected = [str(row["id"]) for row in rows[:UNFINISHED_LISTED]]
    oldest = str(rows[-1]["id"])
    async with (
        api.user(user_id=user_id) as client,
        served(api.app) as address,
        listening(address, client, "/exports/events") as events,
    ):
        first = [(await anext(events)).job["export_job_id"] for _ in expected]
        await api.set(oldest, status="processing", attempt=1)
        event = await anext(events)
    assert set(first) == set(expected)
    assert (event.job["export_job_id"], event.job["status"]) == (oldest, "processing")


async def test_each_users_newest_unfinished_jobs(api: Harness) -> None:
    async with api.user(user_id="a") as one, api.user(user_id="b") as two:
        placed = {name: [await place(client) for _ in range(3)] for name, client in (("a", one), ("b", two))}
    await api.set(placed["a"][2], status="failed")
    found = await api.queries.list_unfinished(["a", "b", "nobody"], 2)
    assert sorted((job.user_id, str(job.id)) for job in found) == sorted(
        [("a", placed["a"][0]), ("a", placed["a"][1]), ("b", placed["b"][1]), ("b", placed["b"][2])]
    )


async def test_only_the_owner_can_listen(api: Harness) -> None:
    async with api.user() as client, api.user() as other:
        path = f"/exports/jobs/{await place(client)}/events"
        assert (await other.get(path)).status_code == 404
        assert (await client.get(f"/exports/jobs/{uuid4()}/events")).status_code == 404


async def test_updates_continue_after_a_lost_database_connection(api: Harness) -> None:
    async with api.user() as client, served(api.app) as address:
        job_id = await place(client)
        async with listening(address, client, f"/exports/jobs/{job_id}/events") as events:
            await anext(events)
            async with api.engine.begin() as connection:
                await connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name LIKE 'exporter-api%%'"
                )
            await api.set(job_id, status="failed")
            assert (await anext(events)).job["status"] == "failed"


async def test_subscriptions_end_with_their_clients(api: Harness) -> None:
    live_updates = api.app.state.services.live_updates
    async with api.user() as client, served(api.app) as address:
        job_id = await place(client)
        async with (
            listening(address, client, f"/exports/jobs/{job_id}/events") as one,
            listening(address, client, "/exports/events") as every,
        ):
            await anext(one), await anext(every)
            assert live_updates.listeners == 2
        await until_async(lambda: not live_updates.listeners)
