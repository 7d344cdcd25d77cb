"""A row that this version cannot read does not fail the other rows of its committed batch (R6)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs import queue, queue_sql
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.submission import submit
from streaming_exporter.events import Split
from tests.datasets import datasets_of
from tests.integration.jobs.jobs import Jobs, Requests, completed, ids, request


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


async def execute(jobs: Jobs, statement: str, **values: Any) -> None:
    async with jobs.engine.begin() as connection:
        await connection.execute(text(statement), values)


@pytest.mark.parametrize(
    "change",
    [
        """options = '{"compression": "brotli"}'""",
        "options = '[]'",
        "scope = '?'",
        """filters = '{"a": 1}', columns = '"all"'""",
        "recipients = '3'",
        "export_type = repeat('x', 101)",
    ],
)
async def test_a_job_of_a_newer_version_is_released_and_the_others_run(jobs: Jobs, change: str) -> None:
    unknown, known = await jobs.admit("a"), await jobs.admit("b")
    await execute(jobs, f"UPDATE export_jobs SET {change} WHERE id = :id", id=unknown)
    for _ in range(4):
        assert ids(await jobs.store.claim("w", 10)) in ([known], [])
        await execute(jobs, "UPDATE export_jobs SET not_before = NULL")
    job = await jobs.queries.get(unknown)
    assert job is not None
    assert (job.status, job.failures, job.worker, job.outcome) == ("pending", 0, None, None)


async def test_a_job_that_no_version_can_read_fails_after_a_week(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    await execute(jobs, "UPDATE export_jobs SET scope = '?', created_at = now() - interval '8 days'")
    assert await jobs.store.claim("w", 10) == []
    (outcome,) = await jobs.store.unclaimed.take_unpublished()
    assert (outcome.job_id, outcome.status, outcome.attempt) == (job_id, "failed", 1)
    assert outcome.error is not None
    assert outcome.error.code == "unknown_request"
    assert await jobs.apply(outcome)


async def test_an_unreadable_outcome_does_not_block_other_outcomes(jobs: Jobs) -> None:
    one, other = await jobs.admit("a"), await jobs.admit("b")
    claims = {claim.job_id: claim for claim in await jobs.store.claim("w", 2)}
    for claim in claims.values():
        await jobs.store.store_outcome(claim, completed(claim))
    await execute(jobs, "UPDATE export_jobs SET outcome = '{\"status\": 5}' WHERE id = :id", id=one)
    await jobs.expire_leases()
    assert [outcome.job_id for outcome in await jobs.store.unclaimed.take_unpublished()] == [other]


@pytest.mark.parametrize("ending", ["exhausted", "expired", "unadmitted"])
async def test_an_unreadable_job_does_not_block_the_events_of_others(jobs: Jobs, ending: str) -> None:
    one, other = await jobs.admit("a", admitted=False), await jobs.admit("b", admitted=False)
    changes = {
        "exhausted": "status = 'processing', failures = 9, lease_until = now() - interval '1 s'",
        "expired": "status = 'completed', expires_at = now() - interval '1 s'",
        "unadmitted": "lease_until = now() - interval '1 s'",
    }
    await execute(jobs, f"UPDATE export_jobs SET {changes[ending]}")
    spoilt = "priority = 9" if ending == "unadmitted" else "format = ''"
    await execute(jobs, f"UPDATE export_jobs SET {spoilt} WHERE id = :id", id=one)
    found: list[UUID] = []
    if ending == "unadmitted":
        found = [event.job_id for event in await jobs.store.admission.take_unadmitted()]
    else:
        end = (
            jobs.store.unclaimed.end_exhausted if ending == "exhausted" else jobs.store.unclaimed.expire_files
        )
        found = [outcome.job_id for outcome in await end()]
    assert found == [other]


async def test_a_worker_of_version_0_1_claims_no_split_job_and_every_other(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, plain = await jobs.admit("a", split={"rows": 5}), await jobs.admit("b")
    with monkeypatch.context() as patch:
        marker = "set_config('exporter.reads', 'split', true),"
        assert marker in queue_sql.CLAIM_SETTINGS
        patch.setattr(queue, "CLAIM_SETTINGS", queue_sql.CLAIM_SETTINGS.replace(marker, ""))
        assert ids(await jobs.store.claim("old", 10)) == [plain]
    job = await jobs.queries.get(split)
    assert job is not None
    assert (job.status, job.attempt, job.split) == ("pending", 0, {"rows": 5})
    (claim,) = await jobs.store.claim("new", 10)
    assert (claim.job_id, claim.request.split) == (split, Split(rows=5))


@pytest.mark.parametrize("change", [{"export_type": "newer"}, {"format": "newer"}])
@pytest.mark.parametrize("is_recorded", [True, False])
async def test_a_job_that_the_api_accepted_waits_for_a_worker_that_knows_its_dataset(
    jobs: Jobs, change: dict[str, str], is_recorded: bool
) -> None:
    """A change of the datasets file reaches the API before this worker, which must not let the job fail."""
    event, now = request(uuid4(), **change), datetime.now(UTC)
    if is_recorded:
        of_api = RequestValidator({"csv", "newer"}, datasets_of("ledger", "newer")).job(event, now=now)
        async with jobs.store.transaction() as connection:
            await submit(connection, [of_api])
    handler = Requests(jobs.store)
    await handler.handle(event)
    await handler.handle(event)
    if is_recorded:
        assert handler.kinds(event.job_id) == ["accepted"]
        assert ids(await jobs.store.claim("w", 1)) == [event.job_id]
    else:
        assert handler.kinds(event.job_id) == ["accepted", "failed"]
