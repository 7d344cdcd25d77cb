"""A job that a worker of version 0.1 plans from a schedule has all fields of the schedule.

After a rollback, such workers plan runs of schedules with fields that they do not know, such as ``encrypt``.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text

from stream_app.jobs import queue, queue_sql
from stream_app.jobs.queue import JobQueue
from tests.integration.jobs.jobs import ids
from tests.integration.schedules.conftest import START, Schedules, days

INSERT_OF_0_1 = text(
    """
    INSERT INTO export_jobs AS job (id, user_id, export_type, format, source, traceparent, created_at,
        filters, columns, options, scope, recipients, webhook, priority, admitted_at, cancel_requested_at,
        outcome, lease_until, schedule_id, run_at, "window", not_before)
    SELECT :id, user_id, export_type, format, '/exporter/schedules/' || id, NULL, now(),
        filters, columns, options, scope, email_recipients, webhook, 2, now(), NULL,
        NULL, now() + interval '10 s', id, now(), NULL, NULL
    FROM scheduled_exports WHERE id = :schedule_id
    ON CONFLICT (id) DO UPDATE SET
        admitted_at = excluded.admitted_at, outcome = excluded.outcome,
        cancel_requested_at = excluded.cancel_requested_at, lease_until = excluded.lease_until
    WHERE job.admitted_at IS NULL AND job.outcome IS NULL AND job.status = 'pending'
        AND excluded.admitted_at IS NOT NULL
    """
)
"""The statement with which version 0.1 inserts the job of a run."""


async def plan_as_0_1(schedules: Schedules, schedule_id: UUID) -> Row[Any]:
    """Insert the job of a run as version 0.1 does, twice, as two ticks of the same time; return its row."""
    values = {"id": uuid4(), "schedule_id": schedule_id}
    for _ in range(2):
        async with schedules.engine.begin() as connection:
            await connection.execute(INSERT_OF_0_1, values)
    (job,) = await schedules.jobs(schedule_id)
    return job


async def claim_as_0_1(monkeypatch: pytest.MonkeyPatch, jobs: JobQueue) -> list[UUID]:
    with monkeypatch.context() as patch:
        marker = "set_config('exporter.reads', 'split', true),"
        assert marker in queue_sql.CLAIM_SETTINGS
        patch.setattr(queue, "CLAIM_SETTINGS", queue_sql.CLAIM_SETTINGS.replace(marker, ""))
        return ids(await jobs.claim("old", 10))


@pytest.mark.parametrize(
    "values",
    [
        {"encrypt": {"zip_password": True}},
        {"split": {"rows": 5}},
        {"split": {"rows": 5}, "consistency": "part"},
        {"parameters": {"day": "2026-03-01"}},
        {"claims": {"roles": ["sales"]}, "claims_until": datetime(2999, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda values: "-".join(values),
)
async def test_only_a_worker_that_knows_the_fields_runs_the_job(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    made = await schedules.create(format="csv", name="Daily", destination="partner", **values)
    job = await plan_as_0_1(schedules, made)
    kept = {name: getattr(job, name) for name in values if name != "claims_until"}
    assert kept == {name: value for name, value in values.items() if name != "claims_until"}
    assert (job.name, job.destination) == ("Daily", "partner")
    assert await claim_as_0_1(monkeypatch, schedules.queue) == []
    (claim,) = await schedules.queue.claim("new", 10)
    assert claim.job_id == job.id
    requested = claim.request.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    assert {name: requested[name] for name in kept} == kept


async def test_claims_that_have_expired_give_no_rights_and_still_keep_the_job_from_older_workers(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    job = await plan_as_0_1(schedules, await schedules.create(claims={"roles": ["a"]}, claims_until=past))
    assert job.claims == {}
    assert await claim_as_0_1(monkeypatch, schedules.queue) == []
    (claim,) = await schedules.queue.claim("new", 10)
    assert not claim.request.claims


async def test_a_plain_schedule_is_served_by_older_workers_and_its_jobs_stay_as_they_are(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await schedules.create(claims={}, parameters={})
    job = await plan_as_0_1(schedules, made)
    assert (job.encrypt, job.split, job.parameters, job.claims, job.destination) == (None,) * 5
    assert await claim_as_0_1(monkeypatch, schedules.queue) == [job.id]


async def test_what_this_version_plans_is_not_changed(schedules: Schedules) -> None:
    """A relative date is resolved in the job, and the schedule has it as it is."""
    until = datetime.now(UTC) + timedelta(days=400)
    asked: dict[str, Any] = {
        "encrypt": {"zip_password": True},
        "claims": {"roles": ["a"]},
        "claims_until": until,
    }
    made = await schedules.create(**asked, filters={"recorded_at": {"gte": "now-1d"}})
    await schedules.scheduler().run_due(START + days(1.5))
    job = (await schedules.jobs(made))[-1]
    assert (job.encrypt, job.claims) == (asked["encrypt"], asked["claims"])
    assert job.parameters is None
