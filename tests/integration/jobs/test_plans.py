"""Ended jobs cost nothing: no statement about jobs reads the whole table, or sorts waiting jobs.

PostgreSQL reports the plan of every executed statement, with its settings, parameters and row counts
(auto_explain). So changed and new statements are checked too.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import Select, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.stack import Stack
from stream_app.jobs.claim import AttemptProgress
from stream_app.jobs.job_queries import JobQueries, JobSearch, read_backlog
from stream_app.jobs.queue import USERS_PER_CLAIM
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.states import Status
from stream_app.jobs.submission import SubmitResult
from stream_app.notifications.outbox import insert_deliveries
from stream_app.schedules.store import ScheduleStore
from stream_app.settings import Settings
from stream_app.storage.listing import ListedObject
from stream_app.worker.maintenance.bucket_cleaner import owning_jobs
from stream_app.worker.maintenance.job_cleaner import JobCleaner
from tests.datasets import datasets_of
from tests.integration.jobs.jobs import Jobs, completed, request

FINISHED, PENDING, USERS = 20_000, 5_000, 500
MOST = 6 * USERS_PER_CLAIM
"""Limit of rows that one step of a statement can read.

A claim reads two jobs of each of its users: the next users in turn, those of the oldest jobs, and those of
abandoned jobs.
"""

TIMES = 7
"""Number of runs of each statement. From the sixth run on PostgreSQL can use a generic plan."""

SCHEDULE = UUID(int=1)

_FILL = f"""
    INSERT INTO export_jobs (id, user_id, export_type, format, status, created_at, admitted_at, completed_at,
        expires_at, attempt, worker, lease_until, outcome, schedule_id)
    SELECT id, user_id, 'ledger', 'csv', status, at, at,
           CASE WHEN ended THEN at END, CASE WHEN ended THEN at + interval '7 days' END,
           CASE WHEN ended THEN 1 ELSE 0 END, CASE status WHEN 'processing' THEN 'lost' END,
           CASE WHEN status = 'processing' OR sealed THEN now() - interval '1 minute' END,
           CASE WHEN sealed THEN jsonb_build_object('job_id', id, 'user_id', user_id, 'export_type', 'ledger',
               'format', 'csv', 'attempt', 1, 'status', 'expired') END,
           CASE WHEN n % 100 = 0 THEN '{SCHEDULE}'::uuid END
    FROM generate_series(1, {FINISHED + PENDING}) AS n
    CROSS JOIN LATERAL (
        SELECT md5(n::text)::uuid AS id, 'user-' || n % {USERS} AS user_id,
               now() - n * interval '1 minute' AS at, n > {PENDING} AS ended, n % 1000 = 0 AS sealed
    ) AS known
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n <= 100 THEN 'processing'
                    WHEN NOT ended THEN 'pending'
                    WHEN n % 50 = 1 THEN 'failed'
                    WHEN at > now() - interval '8 days' THEN 'completed'
                    ELSE 'expired' END AS status
    ) AS became
"""


_GARBAGE = """
    INSERT INTO early_cancellations (job_id, requested_at)
    SELECT md5('garbage ' || n)::uuid, now() - n * interval '50 seconds' FROM generate_series(1, 20000) AS n
"""
"""Q7: cancellations of jobs that never come, for more than a week."""


@dataclass
class Plans:
    """The plans of all statements since the last reading."""

    of: list[dict[str, Any]] = field(default_factory=list)

    def note(self, _: object, message: Any) -> None:
        _, found, document = message.message.partition("plan:\n")
        if found:
            self.of.append(json.loads(document))

    async def take(self) -> list[dict[str, Any]]:
        await asyncio.sleep(0)  # listeners are called by the loop
        taken, self.of = self.of, []
        return taken


@pytest.fixture
async def plans(stack: Stack, own_settings: Settings, engine: AsyncEngine) -> Plans:
    """A table as after a year, and PostgreSQL's plans of the statements on it."""
    found = Plans()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs DISABLE TRIGGER USER"))
        await connection.execute(text(_FILL))
        await connection.execute(text("ALTER TABLE export_jobs ENABLE TRIGGER USER"))
        await connection.execute(text(_GARBAGE))
        await connection.execute(text("ANALYZE export_jobs, early_cancellations"))
    await engine.dispose()
    name = own_settings.database_url.get_secret_value().rpartition("/")[2]
    options = {
        "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_timing": "off",
        "auto_explain.log_format": "json",
        "auto_explain.log_level": "info",
    }
    admin = await asyncpg.connect(stack.postgres.admin_url())
    for option, value in options.items():
        await admin.execute(f"ALTER DATABASE {name} SET {option} = '{value}'")
    await admin.close()

    def listen(connection: Any, _: object) -> None:
        connection.driver_connection.add_log_listener(found.note)

    event.listen(engine.sync_engine, "connect", listen)
    return found


def steps(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from steps(inner)


def rows(step: dict[str, Any]) -> float:
    """Return the number of rows that a step read."""
    dropped = sum(step.get(f"Rows Removed by {reason}", 0) for reason in ("Filter", "Index Recheck"))
    return float((step["Actual Rows"] + dropped) * step["Actual Loops"])


def judge(what: str, plans: list[dict[str, Any]], most: float) -> None:
    for found in plans:
        for step in steps(found["Plan"]):
            kind, read = step["Node Type"], rows(step)
            of_jobs = step.get("Relation Name") in {"export_jobs", "early_cancellations"}
            fine = not (of_jobs and kind == "Seq Scan") and (read <= most or not (of_jobs or "Sort" in kind))
            # A document of each step would cost more time than all statements.
            assert fine, (
                f"{what}: {kind} of {read} rows\n{found['Query Text']}\n{json.dumps(found['Plan'], indent=1)}"
            )


Statements = dict[str, Callable[[], Awaitable[object]]]


def of_workers(jobs: Jobs, some_ids: list[UUID]) -> Statements:
    """Return the statements of workers, periodic and for each job."""
    store, engine = jobs.store, jobs.engine

    async def end_one() -> None:
        (claim,) = await store.claim("w", 1)
        await store.store_outcome(claim, completed(claim))
        assert await jobs.apply(completed(claim))
        assert await store.completed_attempt(claim.job_id) == claim.attempt
        async with store.transaction() as connection:
            await insert_deliveries(connection, [claim.job_id])

    async def hand_one_back() -> None:
        (claim,) = await store.claim("w", 1)
        await store.renew("w", [AttemptProgress(claim.job_id, claim.attempt, 1, 2)])
        assert await store.release(claim)

    async def owners() -> None:
        async with engine.connect() as connection:
            now = datetime.now(UTC)
            assert await owning_jobs(connection, [ListedObject("k", job_id, 1, now) for job_id in some_ids])

    async def cancel() -> None:
        assert await jobs.cancel(await jobs.admit()) is not None

    return {
        "claim": lambda: store.claim("w", 4),
        "claim, store the outcome, apply, plan deliveries": end_one,
        "claim, renew, release": hand_one_back,
        "admit, cancel": cancel,
        "unpublished": store.unclaimed.take_unpublished,
        "unadmitted": store.admission.take_unadmitted,
        "exhausted": store.unclaimed.end_exhausted,
        "expired": store.unclaimed.expire_files,
        "early cancellations": store.cancellations.apply_early,
        "old cancellations": store.cancellations.delete_old,
        "sweep": owners,
        "prune": JobCleaner(store, timedelta(days=41)).clean,
    }


def of_the_api(jobs: Jobs, some_ids: list[UUID]) -> Statements:
    """Return the statements of calls of the API."""
    queries, user = jobs.queries, "user-7"
    lately, before = datetime.now(UTC) - timedelta(days=1), (datetime.now(UTC) - timedelta(days=20), uuid4())
    return {
        "one": lambda: queries.get(some_ids[0]),
        "some": lambda: queries.get_many(some_ids),
        "list": lambda: queries.list_newest(user, limit=50),
        "list, next page": lambda: queries.list_newest(user, before=before, limit=50),
        "list by status": lambda: queries.list_newest(user, status=Status.FAILED, limit=50),
        "list of completed ones": lambda: queries.list_newest(user, status=Status.COMPLETED, limit=50),
        "list of expired ones": lambda: queries.list_newest(user, status=Status.EXPIRED, limit=50),
        "list by dataset": lambda: queries.list_newest(user, export_type="ledger", limit=50),
        "list of everybody": lambda: queries.list_newest(None, limit=50),
        "list of everybody, next page": lambda: queries.list_newest(None, before=before, limit=50),
        "unfinished": lambda: queries.unfinished(user),
        "unfinished of some": lambda: queries.list_unfinished([user, "user-8"], 500),
        "ended lately": lambda: queries.list_ended_since(user, lately, 100),
        "ended ever (Q8)": lambda: queries.list_ended_since(user, datetime.fromtimestamp(0, UTC), 100),
        "runs of a schedule": lambda: ScheduleStore(jobs.engine).runs(SCHEDULE, limit=50),
    }


async def test_no_statement_reads_rows_that_it_does_not_need(engine: AsyncEngine, plans: Plans) -> None:
    async with engine.connect() as connection:
        ids = list(await connection.scalars(text("SELECT id FROM export_jobs LIMIT 100")))
    jobs = Jobs(engine, user_slots=2)
    for what, ask in (of_workers(jobs, ids) | of_the_api(jobs, ids)).items():
        await plans.take()
        for _ in range(TIMES):
            await ask()
        taken = await plans.take()
        assert len(taken) >= TIMES, what
        judge(what, taken, MOST)
    backlog = await read_backlog(engine)
    assert sum(backlog.jobs.values()) > 0.9 * PENDING
    judge("count of the queue", await plans.take(), PENDING)


_WAITING_RUNS = """
    INSERT INTO export_jobs (id, user_id, export_type, format, status, priority, created_at, run_at,
        admitted_at, not_before, attempt, schedule_id)
    SELECT md5('run ' || n)::uuid, 'user-7', 'ledger', 'csv', 'pending', 2, at, at, at,
           at + interval '8 days', 0, md5('schedule ' || n % 10)::uuid
    FROM generate_series(1, 20000) AS n
    CROSS JOIN LATERAL (SELECT now() - n * interval '30 seconds' AS at) AS due
"""
"""Ten schedules that run each minute and wait a week for late rows."""


async def test_runs_that_wait_for_late_rows_delay_no_job_of_their_user(
    engine: AsyncEngine, plans: Plans
) -> None:
    """Their number follows from the calendars, and jobs of users are counted under a lock."""
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs DISABLE TRIGGER USER"))
        await connection.execute(text(_WAITING_RUNS))
        await connection.execute(text("ALTER TABLE export_jobs ENABLE TRIGGER USER"))
    queue = Jobs(engine).store
    validator = RequestValidator({"csv"}, datasets_of("ledger"), has_passwords=lambda: True)

    async def submitted(limit: int, priority: int = 1) -> SubmitResult:
        job = validator.job(request(uuid4(), user_id="user-7"), now=datetime.now(UTC))
        return await queue.admission.submit(replace(job, priority=priority), user_limit=limit)

    for analyzed in (False, True):
        if analyzed:
            async with engine.begin() as connection:
                await connection.execute(text("ANALYZE export_jobs"))
        await plans.take()
        for priority in [0, 1, 2] * TIMES:
            assert await submitted(100, priority) is SubmitResult.NEW
        taken = await plans.take()
        assert len(taken) >= 3 * TIMES
        judge("submit with a limit", taken, MOST)
    async with engine.begin() as connection:
        for change in ("status = 'processing'", "outcome = '{}'"):
            await connection.execute(
                text(
                    f"UPDATE export_jobs SET {change} WHERE id = (SELECT id FROM export_jobs "
                    "WHERE user_id = 'user-7' AND schedule_id IS NULL AND status = 'pending' "
                    "ORDER BY created_at DESC LIMIT 1)"
                )
            )
        unfinished = await connection.scalar(
            text(
                "SELECT count(*) FROM export_jobs WHERE user_id = 'user-7' "
                "AND status IN ('pending', 'processing') AND not_before IS NULL"
            )
        )
    assert await submitted(unfinished) is SubmitResult.TOO_MANY
    assert await submitted(unfinished + 1) is SubmitResult.NEW


_OLD_JOBS = """
    INSERT INTO export_jobs (id, user_id, export_type, format, status, created_at, admitted_at, completed_at)
    SELECT md5('old ' || n)::uuid, 'old', 'ledger', 'csv', 'expired', at, at, at
    FROM generate_series(1, 3000) AS n
    CROSS JOIN LATERAL (SELECT now() - n * interval '1 hour' AS at) AS due
"""


_SOME_END = """
    UPDATE export_jobs SET outcome = '{}'
    WHERE id IN (SELECT id FROM export_jobs WHERE status = 'processing' LIMIT 5)
"""


async def test_jobs_that_have_ended_delay_no_job_of_their_user(engine: AsyncEngine, plans: Plans) -> None:
    """The count reads no index further than the user's own part.

    While an old snapshot is open, the entries of jobs that have ended stay in the indexes. The row counts of
    a plan leave them out, so its conditions are compared.
    """
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs DISABLE TRIGGER USER"))
        await connection.execute(text(_OLD_JOBS))
        await connection.execute(text("UPDATE export_jobs SET outcome = NULL WHERE outcome IS NOT NULL"))
        await connection.execute(text(_SOME_END))
        await connection.execute(text("ALTER TABLE export_jobs ENABLE TRIGGER USER"))
    queue = Jobs(engine).store
    validator = RequestValidator({"csv"}, datasets_of("ledger"), has_passwords=lambda: True)

    async def submitted(limit: int) -> SubmitResult:
        job = validator.job(request(uuid4(), user_id="old"), now=datetime.now(UTC))
        return await queue.admission.submit(job, user_limit=limit)

    await plans.take()
    for _ in range(TIMES):
        assert await submitted(100) is SubmitResult.NEW
    taken = await plans.take()
    assert len(taken) >= TIMES
    judge("submit of a user with old jobs", taken, TIMES)
    scans = [step for plan in taken for step in steps(plan["Plan"]) if "Index Name" in step]
    assert {scan["Index Name"] for scan in scans} >= {"export_jobs_ended_unstarted"}
    assert not [scan for scan in scans if "user_id = " not in scan.get("Index Cond", "")]
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE export_jobs SET outcome = '{}' WHERE user_id = 'old' AND status = 'pending'")
        )
    assert await submitted(TIMES) is SubmitResult.TOO_MANY, "one of few"
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE export_jobs SET outcome = '{}' WHERE status = 'expired'"))
    await plans.take()
    assert await submitted(TIMES) is SubmitResult.TOO_MANY, "one of many"
    assert await submitted(TIMES + 1) is SubmitResult.NEW
    judge("submit where jobs have ended before they started", await plans.take(), TIMES)


WANTED: list[dict[str, Any]] = [
    {},
    {"status": Status.FAILED},
    {"status": Status.EXPIRED},
    {"code": "timeout"},
    {"name": "monthly"},
    {"search": JobSearch([("monthly", ())], with_names=True)},
    {"until": datetime.now(UTC)},
    {"before": (datetime.now(UTC), UUID(int=1))},
]


async def test_the_list_of_a_user_with_many_old_jobs_reads_no_jobs_of_others(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs of everybody look cheap, because many are of this user. But these can all be the oldest."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO export_jobs (id, user_id, export_type, format, status, created_at) "
                "SELECT md5(n::text)::uuid, CASE WHEN n % 3 = 0 THEN 'batch' ELSE 'user-' || n % 300 END, "
                "'ledger', 'csv', CASE n % 10 WHEN 1 THEN 'failed' ELSE 'expired' END, "
                "now() - n * interval '1 minute' FROM generate_series(1, 12000) AS n"
            )
        )
        await connection.execute(text("ANALYZE export_jobs"))
    queries, statements = JobQueries(engine), []

    async def note(statement: Select[Any]) -> list[Any]:
        statements.append(statement)
        return []

    monkeypatch.setattr(queries, "_jobs", note)
    for wanted in WANTED:
        await queries.list_newest("batch", limit=21, **wanted)
    async with engine.connect() as connection:
        for wanted, statement in zip(WANTED, statements, strict=True):
            sql = statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
            plan = "\n".join((await connection.exec_driver_sql(f"EXPLAIN {sql}")).scalars())
            assert "export_jobs_user_" in plan, f"{wanted}: {plan}"
            assert "Seq Scan" not in plan, f"{wanted}: {plan}"
