"""POST /exports/jobs/{id}:rerun makes a new job with the same request and the same owner."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import update

from stream_app.jobs.models import ExportJob
from stream_app.schedules.models import ScheduledExport
from tests.integration.api.conftest import Harness
from tests.integration.api.test_jobs import place

REQUEST: dict[str, Any] = {
    "filters": {"kind": "secret-kind", "created_at": {"gte": "now-7d"}},
    "columns": ["id", "kind"],
    "options": {"compression": "gzip"},
    "split": {"rows": 1000},
    "consistency": "part",
    "recipients": ["ada@example.com"],
}


async def rerun(client: httpx2.AsyncClient, job_id: str, key: str | None = None) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(f"/exports/jobs/{job_id}:rerun", headers=headers)


async def record(api: Harness, job_id: str) -> ExportJob:
    job = await api.queries.get(UUID(job_id))
    assert job is not None
    return job


async def test_the_new_job_has_the_same_request_and_its_own_id(api: Harness) -> None:
    """P19: whatever the first job asked for, the second does, in its event too."""
    for ended in (
        {"status": "pending"},
        {"status": "failed", "error_code": "timeout"},
        {"status": "expired"},
    ):
        async with api.user(user_id="user-7") as client:
            first = await place(client, **REQUEST)
            await api.set(first, **ended)
            answer = await rerun(client, first)
            assert answer.status_code == 202, answer.text
            second = answer.json()["export_job_id"]
            assert second != first
            assert answer.headers["location"] == f"/exports/jobs/{second}"
            seen = (await client.get(f"/exports/jobs/{second}")).json()
        assert (seen["rerun_of"], seen["status"], seen["user_id"]) == (first, "pending", "user-7")
        [event], [original] = await api.published(second), await api.published(first)
        assert event.data == original.data, "also the relative date, which counts from the new job on"
        assert (await record(api, second)).created_at > (await record(api, first)).created_at


async def test_the_same_key_is_the_same_new_job(api: Harness) -> None:
    async with api.user(user_id="user-7") as client, api.user("exports:operate") as operator:
        first, other = await place(client), await place(client)
        ids = {(await rerun(client, first, "k")).json()["export_job_id"] for _ in range(3)}
        assert len(ids) == 1
        ids |= {
            (await rerun(client, job, key)).json()["export_job_id"]
            for job, key in ((other, "k"), (first, "l"))
        }
        ids.add((await rerun(operator, first, "k")).json()["export_job_id"])
    assert len(ids) == 4, "another job, another key and another caller are other jobs"


@pytest.mark.parametrize("role", ["exports:operate", "exports:admin"])
async def test_others_run_a_job_again_for_its_owner(api: Harness, role: str) -> None:
    async with api.user(user_id="user-7") as owner, api.user(role, user_id="boss") as other:
        first = await place(owner, **REQUEST)
        answer = await rerun(other, first)
        second = answer.json()["export_job_id"]
        assert "secret" not in answer.text
        assert (await owner.get(f"/exports/jobs/{second}")).json()["filters"] == REQUEST["filters"]
        seen = await other.get(f"/exports/jobs/{second}")
        assert ("secret" in seen.text) == (role == "exports:admin")
        assert seen.json()["rerun_of"] == first


async def test_a_run_that_exported_a_lost_window_is_repeated_as_a_usual_job(api: Harness) -> None:
    """Only runs of the schedule have the begin of the window in the paths at a destination."""
    window = {"column": "created_at", "from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}
    async with api.user() as client:
        first = await place(client)
        await api.set(first, window=window | {"gap": True}, status="failed")
        second = (await rerun(client, first)).json()["export_job_id"]
    assert (await record(api, second)).window == window


async def test_the_limit_of_unfinished_jobs_is_that_of_the_owner(api: Harness) -> None:
    limit = api.settings.user_pending_limit
    async with api.user(user_id="user-7") as owner, api.user("exports:operate") as operator:
        first = await place(owner)
        for _ in range(limit - 1):
            assert (await rerun(operator, first)).status_code == 202
        answer = await rerun(operator, first)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_jobs")
    assert await api.count() == limit


async def test_an_owner_without_the_role_cannot_repeat_scope_all(api: Harness) -> None:
    async with api.user("exports:all", user_id="user-7") as allowed:
        first = await place(allowed, scope="all")
        assert (await rerun(allowed, first)).status_code == 202
    async with api.user(user_id="user-7") as client:
        answer = await rerun(client, first)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed")


@pytest.mark.parametrize("values", [{"scope": "all"}, {"claims": {"org": "acme"}}])
async def test_rights_of_the_owner_end_also_through_a_chain_of_reruns(
    api: Harness, values: dict[str, Any]
) -> None:
    """Others can repeat a request with rights only for as long as a schedule would keep them."""
    grant = timedelta(days=api.settings.schedule_grant_days)
    async with api.user(user_id="user-7") as owner, api.user("exports:admin") as admin:
        first = await place(owner)
        proved = datetime.now(UTC) - grant + timedelta(hours=1)
        await api.set(first, created_at=proved, **values)
        second = (await rerun(admin, first)).json()["export_job_id"]
        assert (await record(api, second)).rights_at == proved
        third = (await rerun(admin, second)).json()["export_job_id"]
        await api.set(third, rights_at=proved - timedelta(hours=1))
        answer = await rerun(admin, third)
        assert (answer.status_code, answer.json()["code"]) == (403, "grant_lapsed")
        await api.set(first, schedule_id=uuid4())
        for job_id in (first, second):
            answer = await rerun(admin, job_id)
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed"), (
                "no such schedule"
            )


@pytest.mark.parametrize(
    ("job", "schedule", "status"),
    [
        ({"claims": {"roles": ["x", "y"]}}, {"claims": {"roles": ["y", "x"]}}, 202),
        ({"claims": {"roles": ["x", "y"]}}, {"claims": {"roles": ["y"]}}, 403),
        ({"claims": {"org": "acme"}}, {"claims": {"org": "other"}}, 403),
        ({"claims": {"org": "acme"}}, {"claims": None}, 403),
        ({"scope": "all"}, {"scope": "own"}, 403),
        ({}, {"claims": None}, 202),
    ],
)
async def test_others_do_not_bring_back_rights_that_a_schedule_has_lost(
    api: Harness, job: dict[str, Any], schedule: dict[str, Any], status: int
) -> None:
    """The rights of the owner ended, and the schedule lost them, after the run of the job."""
    order = {"export_type": "ledger", "format": "csv", "scope": "own", "schedule": "daily"}
    async with api.user(user_id="user-7") as owner, api.user("exports:admin") as admin:
        made = await owner.post("/exports/schedules", json=order)
        assert made.status_code == 201, made.text
        schedule_id = UUID(made.json()["id"])
        first = await place(owner)
        await api.set(first, schedule_id=schedule_id, **job)
        until = datetime.now(UTC) + timedelta(days=1)
        async with api.engine.begin() as connection:
            values = {"claims_until": until, **schedule}
            await connection.execute(
                update(ScheduledExport).where(ScheduledExport.id == schedule_id).values(values)
            )
        answer = await rerun(admin, first)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["code"] == "grant_lapsed"


async def test_a_request_that_is_not_valid_any_more_is_refused(api: Harness) -> None:
    async with api.user(user_id="user-7") as owner, api.user("exports:operate") as operator:
        first = await place(owner)
        await api.set(first, filters={"kind": {"gone": "secret"}})
        mine, theirs = await rerun(owner, first), await rerun(operator, first)
        assert (mine.status_code, theirs.status_code) == (422, 422)
        assert "gone" in mine.json()["detail"]
        assert "gone" not in theirs.text
        await api.set(first, user_id=f"forgotten:{first}")
        gone = await rerun(operator, first)
    assert (gone.status_code, gone.json()["code"]) == (409, "forgotten")
    assert await api.count() == 1


async def test_the_list_is_limited_by_time_and_code(api: Harness) -> None:
    """P19, P20: since, until and code limit the list; other names are refused with the allowed ones."""
    async with api.user() as client:
        old, failed, new = [await place(client) for _ in range(3)]
        await api.set(old, created_at=datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC))
        await api.set(
            failed, status="failed", error_code="timeout", created_at=datetime(2026, 2, 1, tzinfo=UTC)
        )

        async def listed(**query: str) -> set[str]:
            answer = await client.get("/exports/jobs", params=query)
            assert answer.status_code == 200, answer.text
            return {job["export_job_id"] for job in answer.json()["jobs"]}

        assert await listed(since="today") == await listed(since="now-1h") == {new}
        assert await listed(until="2026-01-31") == {old}
        assert await listed(until="2026-02-01T00:00:00Z") == {old}
        assert await listed(until="2026-02-01T00:00:00") == {old}
        assert await listed(until="2026-02-01[Europe/Berlin]") == {old, failed}
        assert await listed(until="2026-01-31[Europe/Berlin]") == set()
        assert await listed(since="2026-02-01", until="2026-02-01") == {failed}
        assert await listed(until="9999-12-31") == {old, failed, new}
        assert await listed(code="timeout") == {failed}
        await api.set(old, name="month end")
        assert await listed(name="month end") == {old}
        for name, value in (("since", "01.02.2026"), ("until", "0001-01-01T00:00:00+14:00"), ("since", "x")):
            answer = await client.get("/exports/jobs", params={name: value})
            assert (answer.status_code, answer.json()["field"]) == (422, name)
            assert "expected a time such as" in answer.json()["detail"]
        answer = await client.get("/exports/jobs?state=failed")
        assert answer.status_code == 422
        async with api.user("exports:operate") as operator, api.user("exports:admin") as admin:
            assert (await operator.get("/exports/jobs?name=x")).status_code == 403
            assert len((await admin.get("/exports/jobs?name=month end")).json()["jobs"]) == 1
        allowed = set(answer.json()["detail"].partition("allowed: ")[2].split(", "))
        assert {"code", "export_type", "name", "since", "status", "until", "user_id"} <= allowed
