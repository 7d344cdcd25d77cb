"""``Prefer: wait=N`` on ``POST /exports/jobs``."""

import asyncio
import time
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from api.jobs import routes
from api.middleware.request_limits import CONCURRENT_CALLS
from stream_app.jobs.job_queries import JobQueries
from stream_app.jobs.models import ExportJob
from tests.integration.api.conftest import Harness, order
from tests.integration.api.test_events import listening, served
from tests.waiting import WITHIN, at_most, patient, until_async

DONE: dict[str, Any] = {
    "status": "completed",
    "attempt": 1,
    "row_count": 7,
    "file_path": "jobs/x/1/ledger.csv",
    "file_name": "ledger.csv",
}


async def the_job(api: Harness, count: int = 1) -> list[UUID]:
    """Return the ids of the jobs, when there are ``count``."""
    await until_async(lambda: _has(api, count))
    return [job.id for job in await api.queries.list_newest(None, limit=count)]


async def _has(api: Harness, count: int) -> bool:
    return await api.count() == count


async def test_a_job_that_ends_in_time_is_the_response(api: Harness) -> None:
    async with api.user() as client:
        call = asyncio.create_task(
            client.post("/exports/jobs", json=order(), headers={"Prefer": "respond-async, wait=20"})
        )
        (job_id,) = await the_job(api)
        await api.set(job_id, status="processing", attempt=1, row_count=3)
        await api.set(job_id, **DONE)
        response = await call
        content = response.json()
        assert response.status_code == 200
        assert (content["status"], content["row_count"]) == ("completed", 7)
        assert content["download_url"] == f"/exports/jobs/{job_id}/download"
        assert response.headers["Preference-Applied"] == "wait=20"
        assert response.headers["Location"] == f"/exports/jobs/{job_id}"
        assert content == (await client.get(f"/exports/jobs/{job_id}")).json()


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_job_that_ends_without_a_file_is_the_response_too(api: Harness, status: str) -> None:
    async with api.user() as client:
        call = asyncio.create_task(client.post("/exports/jobs", json=order(), headers={"Prefer": "wait=20"}))
        (job_id,) = await the_job(api)
        await api.set(job_id, status=status, error_code="bad", error_message="it is bad")
        response = await call
        assert (response.status_code, response.json()["status"]) == (200, status)
        assert response.json()["download_url"] is None


async def test_a_job_that_does_not_end_in_time_is_accepted(api: Harness) -> None:
    async with api.user() as client:
        started = time.monotonic()
        response = await client.post("/exports/jobs", json=order(), headers={"Prefer": "wait=1"})
        assert time.monotonic() - started >= 1
        assert (response.status_code, response.json()["status"]) == (202, "pending")
        assert response.headers["Preference-Applied"] == "wait=1"


async def test_slow_lists_stop_no_wait_no_stream_and_no_repeated_request(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, slow = 12, 0

    async def search(queries: JobQueries, *_: object, **__: object) -> list[ExportJob]:
        nonlocal slow
        async with queries._sessions() as session:
            slow += 1
            await session.execute(text("SELECT pg_sleep(60)"))
        return []

    async with api.user() as client, api.user() as other:
        key = {"Idempotency-Key": "one"}
        await client.post("/exports/jobs", json=order(), headers=key)
        with monkeypatch.context() as patch:
            patch.setattr(JobQueries, "list_newest", search)
            patch.setattr(routes, "SEARCH_SECONDS", 60)
            lists = [
                asyncio.create_task(user.get("/exports/jobs")) for user in (client, other) for _ in range(6)
            ]
            await until_async(lambda: slow >= count - 2)  # the pool has no more connections
        async with at_most(30):  # the lists keep their connections for longer
            call = asyncio.create_task(
                client.post("/exports/jobs", json=order(), headers=key | {"Prefer": "wait=20"})
            )
            (job_id,) = await the_job(api)
            async with (
                served(api.app) as address,
                listening(address, client, f"/exports/jobs/{job_id}/events") as events,
            ):
                await anext(events)
                await api.set(job_id, **DONE)
                assert (await call).status_code == 200
                assert (await anext(events)).job["status"] == "completed"
        for task in lists:
            task.cancel()
        await asyncio.wait(lists)


async def test_without_the_preference_nothing_waits(api: Harness) -> None:
    async with api.user() as client:
        for headers in ({}, {"Prefer": "wait=0"}, {"Prefer": "wait=soon"}, {"Prefer": "respond-async"}):
            response = await client.post("/exports/jobs", json=order(), headers=headers)
            assert response.status_code == 202
            assert "Preference-Applied" not in response.headers


async def test_the_same_key_waits_for_the_same_job(api: Harness) -> None:
    async with api.user() as client:
        key = {"Idempotency-Key": "one"}
        first = await client.post("/exports/jobs", json=order(), headers=key)
        job_id = first.json()["export_job_id"]
        await api.set(job_id, **DONE)
        again = await client.post("/exports/jobs", json=order(), headers=key | {"Prefer": "wait=20"})
        assert (again.status_code, again.json()["export_job_id"]) == (200, job_id)


async def test_a_call_that_waits_does_not_hold_up_the_users_other_calls(api: Harness) -> None:
    """Only that many calls of a user work at a time; a call that waits does no work."""
    async with api.user() as client:
        count = CONCURRENT_CALLS + 2
        calls = [
            asyncio.create_task(client.post("/exports/jobs", json=order(), headers={"Prefer": "wait=20"}))
            for _ in range(count)
        ]
        for job_id in await the_job(api, count):
            assert (await client.get(f"/exports/jobs/{job_id}")).status_code == 200
            await api.set(job_id, **DONE)
        assert {(await call).status_code for call in calls} == {200}


async def test_a_client_that_leaves_ends_its_wait_and_its_request_has_succeeded(api: Harness) -> None:
    """The job exists. So the audit log must not say that the call was refused."""
    waits = api.app.state.services.job_waits
    async with api.user() as client, served(api.app) as address:
        headers = {"Authorization": client.headers["Authorization"], "Prefer": "wait=20"}
        with capture_logs() as logs:
            async with httpx2.AsyncClient(
                base_url=address, headers=headers, timeout=patient(WITHIN)
            ) as leaving:
                call = asyncio.create_task(leaving.post("/exports/jobs", json=order()))
                await until_async(lambda: waits.waiting == 1)
                call.cancel()
                await asyncio.wait({call})
            await until_async(lambda: waits.waiting == 0)
            await until_async(lambda: any(line["event"] == "call.audited" for line in logs))
    (line,) = (line for line in logs if line["event"] == "call.audited")
    (job_id,) = await the_job(api)
    assert (line["status"], line["outcome"], line["object"]) == (202, "allowed", f"job:{job_id}")


async def test_a_wait_that_is_cut_short_is_no_applied_preference(api: Harness) -> None:
    waits = replace(api.services.job_waits)
    api.use(job_waits=waits)
    async with api.user() as client:
        call = asyncio.create_task(client.post("/exports/jobs", json=order(), headers={"Prefer": "wait=20"}))
        await until_async(lambda: waits.waiting == 1)
        waits.stop()
        for response in (
            await call,
            await client.post("/exports/jobs", json=order(), headers={"Prefer": "wait=20"}),
        ):
            assert response.status_code == 202
            assert "Preference-Applied" not in response.headers


async def test_waiting_calls_make_no_queries_of_their_own(
    api: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 calls wait: their jobs are read when something changes, 200 with each query."""
    waits, count = api.app.state.services.job_waits, 500
    reads: list[int] = []
    live_updates = api.app.state.services.live_updates
    get_many = live_updates._job_queries.get_many

    async def counted(ids: list[UUID]) -> Any:
        reads.append(len(ids))
        return await get_many(ids)

    monkeypatch.setattr(live_updates._job_queries, "get_many", counted)
    async with api.user() as client:
        job_id = (await client.post("/exports/jobs", json=order())).json()["export_job_id"]
        calls = [
            asyncio.create_task(waits.until_ended(UUID(job_id), 20, user_id=str(number)))
            for number in range(count)
        ]
        await until_async(lambda: waits.waiting == count)
        reads.clear()
        await api.set(job_id, **DONE)
        ended = await asyncio.gather(*calls)
    assert [waited.job and waited.job.job_id for waited in ended] == [UUID(job_id)] * count
    assert sum(reads) <= 3
