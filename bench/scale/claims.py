"""The cost of claims in PostgreSQL alone, by the number of ended jobs and of waiting users."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import quantiles

import asyncpg
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import STATE, PostgresService
from stream_app.db.engine import create_engine
from stream_app.jobs.models import Base
from stream_app.jobs.queue import JobQueue
from stream_app.schedules import models as _schedules  # noqa: F401 - its tables are in the metadata
from stream_app.settings import Settings

ROUNDS = 3
"""Number of rounds. Tables take turns, so that a slow moment of the machine affects all of them."""

_PENDING = """
    INSERT INTO export_jobs (id, user_id, export_type, format, scope, created_at, admitted_at)
    SELECT gen_random_uuid(), 'user-' || n % $2, 'ledger', 'csv', 'own',
           clock_timestamp() + n * interval '1 us', now()
    FROM generate_series(1, $1::int) AS n
"""
_FINISHED = """
    INSERT INTO export_jobs (id, user_id, export_type, format, status, filters, scope, created_at,
        admitted_at, started_at, completed_at, expires_at, attempt, row_count, file_size, file_path,
        file_name, sha256, content_type, manifest)
    SELECT gen_random_uuid(), 'user-' || n % $2, 'ledger', 'csv', status, '{"kind": "proof"}', 'own', at,
           at, at, at, at + interval '7 days', 1, 1000, 50000, 'jobs/' || n || '/1/ledger-2026-11-24.csv',
           'ledger-2026-11-24.csv', md5(n::text) || md5(n::text), 'text/csv; charset=utf-8',
           jsonb_build_object('columns', ARRAY['id', 'kind', 'created_at'], 'rows', 1000)
    FROM generate_series(1, $1::int) AS n
    CROSS JOIN LATERAL (SELECT now() - n * interval '30 s' AS at) AS ended
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n % 50 = 0 THEN 'failed' WHEN at < now() - interval '7 days' THEN 'expired'
               ELSE 'completed' END AS status
    ) AS became
"""
# Ends the jobs of one claim as the projector does. Each user requests again, so the backlog stays equal.
_DONE = """
    UPDATE export_jobs SET status = 'completed', worker = NULL, lease_until = NULL, completed_at = now(),
        expires_at = now() + interval '7 days', row_count = 1000, file_size = 50000
    WHERE id = ANY ($1::uuid[])
"""
_AGAIN = """
    INSERT INTO export_jobs (id, user_id, export_type, format, scope, created_at, admitted_at)
    SELECT gen_random_uuid(), user_id, 'ledger', 'csv', 'own', clock_timestamp(), now()
    FROM unnest($1::text[]) AS user_id
"""


@dataclass(slots=True)
class Latency:
    """Measured claims from a table with ``finished`` jobs, while ``pending`` jobs of ``users`` wait."""

    finished: int
    pending: int
    users: int
    seconds: list[float] = field(default_factory=list)
    """Seconds of each claim, by a single worker."""
    rates: list[float] = field(default_factory=list)
    """Claims a second of several workers at the same time, in each round."""

    def quantile(self, percent: int) -> float:
        return quantiles(self.seconds, n=100)[percent - 1]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a round: ``claims`` claims of up to ``slots`` jobs, then claims of ``claimers`` workers."""

    finished: Sequence[int]
    users: Sequence[int]
    pending: int
    claims: int
    claimers: int
    slots: int


async def latencies(postgres: PostgresService, settings: Settings, plan: Plan) -> list[Latency]:
    """Measure one database for each number of finished jobs. The databases take turns."""
    found: list[Latency] = []
    tables = [await _Table.make(postgres, settings, finished, max(plan.users)) for finished in plan.finished]
    try:
        for users in plan.users:
            results = [Latency(table.finished, plan.pending, users) for table in tables]
            for table in tables:
                await table.fill(plan.pending, users)
            for _ in range(ROUNDS):
                for table, result in zip(tables, results, strict=True):
                    await table.claim(plan.claims // 10, plan.slots)  # its pages are read
                    result.seconds += await table.claim(plan.claims, plan.slots)
                    result.rates.append(await table.compete(plan.claims, plan.claimers, plan.slots))
            found += results
    finally:
        for table in tables:
            await table.close()
    return found


class _Table:
    """A state database of its own."""

    def __init__(self, finished: int, settings: Settings, pool: asyncpg.Pool) -> None:
        self.finished = finished
        self._settings = settings
        self._pool = pool
        self._engine: AsyncEngine = create_engine(settings, application="bench", pool_size=32)

    @classmethod
    async def make(cls, postgres: PostgresService, settings: Settings, finished: int, users: int) -> "_Table":
        name = f"bench_{finished}"
        admin = await asyncpg.connect(postgres.admin_url())
        await admin.execute(f"CREATE DATABASE {name} OWNER {STATE}")
        await admin.close()
        url = postgres.state_url.rpartition("/")[0] + f"/{name}"
        own = settings.model_copy(update={"database_url": SecretStr(url)})
        table = cls(finished, own, await asyncpg.create_pool(url, min_size=1, max_size=32))
        async with table._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("ALTER TABLE export_jobs DISABLE TRIGGER USER"))  # for the filling
        await table._pool.execute(_FINISHED, finished, users)
        await table._pool.execute("ALTER TABLE export_jobs ENABLE TRIGGER USER")
        return table

    def _store(self) -> JobQueue:
        return JobQueue(
            self._engine,
            lease=timedelta(seconds=30),
            user_slots=self._settings.user_slots,
            max_attempts=self._settings.max_attempts,
        )

    async def fill(self, pending: int, users: int) -> None:
        """Insert waiting jobs: ``pending`` jobs of ``users`` users. No job runs."""
        await self._pool.execute("DELETE FROM export_jobs WHERE status IN ('pending', 'processing')")
        await self._pool.execute(_PENDING, pending, users)
        await self._pool.execute("VACUUM ANALYZE export_jobs")

    async def claim(self, claims: int, slots: int) -> list[float]:
        """Return the seconds of each claim. Before the next claim its jobs end and others are inserted."""
        store, seconds = self._store(), []
        for _ in range(claims):
            began = time.perf_counter()
            claimed = await store.claim("bench", slots)
            seconds.append(time.perf_counter() - began)
            if len(claimed) != slots:
                raise RuntimeError(f"a claim took {len(claimed)} jobs instead of {slots}")
            await self._pool.execute(_DONE, [claim.job_id for claim in claimed])
            await self._pool.execute(_AGAIN, [claim.request.user_id for claim in claimed])
        return seconds

    async def compete(self, claims: int, claimers: int, slots: int) -> float:
        """Return the claims a second of several workers, which end their jobs between two claims."""
        began = time.perf_counter()
        each = max(1, claims // claimers)
        await asyncio.gather(*(self.claim(each, slots) for _ in range(claimers)))
        return each * claimers / (time.perf_counter() - began)

    async def close(self) -> None:
        await self._engine.dispose()
        await self._pool.close()
