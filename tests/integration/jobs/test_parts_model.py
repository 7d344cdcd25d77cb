"""Whatever happens in whatever order, a part is completed once, and only by the worker that holds it.

Holders plan, lose their lease, and are replaced. Parts are claimed, renewed, completed, released and lost, in
any interleaving. What must always hold is checked after each step. In the end each job is driven to its end.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting
from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim, PartKey, PartProgress
from stream_app.jobs.parts import PartStore
from tests.integration.jobs.jobs import Jobs, completed
from tests.integration.jobs.parts import part_claims, plan
from tests.waiting import patient

USER_SLOTS = 3
MAX_ATTEMPTS = 3
LEASE = timedelta(hours=1)
"""Leases only end by the rules for it, also on a busy machine."""
PARTS = 3
ANY = st.integers(0, 1_000)
Result = TypeVar("Result")


class Life(RuleBasedStateMachine):
    """Two split jobs of one user, and two workers. The parts of the second job have their own snapshots."""

    engine: AsyncEngine
    loop: asyncio.AbstractEventLoop

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(step, self.loop).result(patient(30))

    @initialize()
    def empty(self) -> None:
        self.jobs = Jobs(self.engine, lease=LEASE, user_slots=USER_SLOTS, max_attempts=MAX_ATTEMPTS)
        self.parts = PartStore(self.jobs.store)
        self.holders: list[Claim] = []
        self.claims: list[PartClaim] = []
        self.seen: dict[PartKey, Row[Any]] = {}
        self.run(self._execute("DELETE FROM export_parts", "DELETE FROM export_jobs"))
        self.shared, self.own = self.run(self.jobs.admit()), self.run(self.jobs.admit())

    # --- holders ---------------------------------------------------------------------------------

    @precondition(lambda self: self.holders)
    @rule(which=ANY)
    def begin_parts(self, which: int) -> None:
        """Plan anew, except where parts of an earlier attempt are kept."""
        claim = self.holders[-1 - which % len(self.holders)]
        self._begin_parts(claim)

    def _begin_parts(self, claim: Claim) -> None:
        own = claim.job_id == self.own
        if own and self.run(self.parts.kept_plan(claim.job_id)) is not None:
            return
        assert self.run(plan(self.parts, claim, PARTS, own_snapshots=own)) == self._is_held(claim)
        if self._is_held(claim):
            self.seen = {key: row for key, row in self.seen.items() if key.job_id != claim.job_id}

    @rule(job=st.booleans())
    def cancel(self, job: bool) -> None:
        self.run(self.jobs.cancel(self.own if job else self.shared))

    @precondition(lambda self: self.holders)
    @rule(which=ANY)
    def release_job(self, which: int) -> None:
        self.run(self.jobs.store.release(self.holders[-1 - which % len(self.holders)], failed=False))

    @precondition(lambda self: self.holders)
    @rule(which=ANY)
    def end_job(self, which: int) -> None:
        """End the job as its holder does: once all its parts are completed."""
        claim = self.holders[-1 - which % len(self.holders)]
        self._end(claim)

    def _end(self, claim: Claim) -> None:
        kept = self.run(self.parts.kept_plan(claim.job_id))
        attempt = kept.attempt if kept else claim.attempt
        state = self.run(self.parts.state(claim.job_id, attempt))
        if state.parts and state.completed == state.parts and self._is_held(claim):
            results = self.run(self.parts.results(claim.job_id, attempt))
            assert [result["number"] for result in results] == list(range(1, PARTS + 1))
            assert self.run(self.jobs.store.store_outcome(claim, completed(claim)))

    @rule()
    def lose_jobs(self) -> None:
        self.run(self.jobs.expire_leases())

    # --- workers ---------------------------------------------------------------------------------

    @rule(worker=st.sampled_from(["w1", "w2"]), limit=st.integers(1, 4))
    def claim(self, worker: str, limit: int) -> None:
        parts, jobs = self.rows(), self._jobs()
        claimed = self.run(self.jobs.store.claim(worker, limit))
        for claim in part_claims(claimed):
            part, job = parts[claim.key], jobs[claim.job_id]
            assert claim.part_attempt == part.part_attempt + 1
            assert part.status == "pending" or (part.status == "processing" and part.silent)
            assert (job.status, job.outcome, job.cancel_requested_at) == ("processing", None, None)
            assert not job.silent
            assert part.snapshot is None or part.attempt == job.attempt
        if claimed:
            running = Counter(
                key.job_id
                for key, row in self.rows().items()
                if row.status == "processing" and not row.silent
            )
            slots = [
                max(1, running[job_id])
                for job_id, job in self._jobs().items()
                if job.status == "processing" and job.outcome is None and not job.silent
            ]
            if set(running) <= {job_id for job_id, job in jobs.items() if not job.silent}:
                assert sum(slots) <= USER_SLOTS
        self.claims += part_claims(claimed)
        self.holders += [claim for claim in claimed if not isinstance(claim, PartClaim)]

    @precondition(lambda self: self.claims)
    @rule(which=ANY, rows=st.integers(0, 9))
    def heartbeat(self, which: int, rows: int) -> None:
        claim, holds = self._claim(which)
        job = self._jobs()[claim.job_id]
        needed = job.outcome is None and (
            job.status in ("pending", "processing")
            if claim.snapshot is None
            else job.status == "processing" and job.attempt == claim.attempt
        )
        held, cancelled = self.run(self.parts.renew(claim.worker, [PartProgress.of(claim, rows)]))
        assert held == ({claim.key} if holds and needed else set())
        assert cancelled == (held if job.cancel_requested_at else set())

    @precondition(lambda self: self.claims)
    @rule(which=ANY)
    def complete(self, which: int) -> None:
        claim, holds = self._claim(which)
        self._complete(claim, holds)

    def _complete(self, claim: PartClaim, holds: bool) -> None:
        result = {"number": claim.number, "by": claim.worker, "part_attempt": claim.part_attempt}
        row = self.rows().get(claim.key)
        again = row is not None and row.status == "completed" and row.result == result
        assert self.run(self.parts.complete(claim, result, rows=1)) == (holds or again)

    @precondition(lambda self: self.claims)
    @rule(which=ANY, failed=st.booleans())
    def release_part(self, which: int, failed: bool) -> None:
        claim, holds = self._claim(which)
        assert self.run(self.parts.release(claim, failed=failed)) == holds

    @rule()
    def lose_parts(self) -> None:
        self.run(self._execute("UPDATE export_parts SET lease_until = now() - interval '1 second'"))

    @rule()
    def clean(self) -> None:
        self.run(self.parts.delete_of_ended())
        for job_id, job in self._jobs().items():
            if job.outcome is not None or job.status not in ("pending", "processing"):
                assert job_id not in {key.job_id for key in self.rows()}

    # --- invariants -----------------------------------------------------------------------

    @invariant()
    def a_completed_part_stays_as_it_is(self) -> None:
        if not hasattr(self, "seen"):
            return
        rows = self.rows()
        for key, row in rows.items():
            old = self.seen.get(key)
            if old is not None:
                assert row.part_attempt >= old.part_attempt
                assert row.failures >= old.failures
                if old.status == "completed":
                    assert (row.status, row.result) == ("completed", old.result)
        self.seen = rows

    def teardown(self) -> None:
        """Nothing is stuck: with workers that go on, each job ends or has a part that failed too often."""
        if not hasattr(self, "jobs"):
            return
        for _ in range(4 * MAX_ATTEMPTS):
            for claim in self.run(self.jobs.store.claim("w3", 10)):
                if isinstance(claim, PartClaim):
                    self._complete(claim, True)
                else:
                    self.holders.append(claim)
                    self._begin_parts(claim)
            for claim in self.holders:
                self._begin_parts_if_none(claim)
                self._end(claim)
            self.lose_parts()
            self.run(self.jobs.store.unclaimed.end_exhausted())
        for job_id, job in self._jobs().items():
            stuck = [
                key
                for key, row in self.rows().items()
                if key.job_id == job_id and row.status != "completed" and row.failures + 1 < MAX_ATTEMPTS
            ]
            assert job.outcome is not None or job.status not in ("pending", "processing") or not stuck

    def _begin_parts_if_none(self, claim: Claim) -> None:
        if self._is_held(claim) and not self.run(self.parts.state(claim.job_id, claim.attempt)).parts:
            self._begin_parts(claim)

    # --- helpers -----------------------------------------------------------------------------------

    def rows(self) -> dict[PartKey, Row[Any]]:
        found = self.run(self._fetch("SELECT *, lease_until < now() AS silent FROM export_parts"))
        return {PartKey(row.job_id, row.attempt, row.number): row for row in found}

    def _jobs(self) -> dict[UUID, Row[Any]]:
        found = self.run(self._fetch("SELECT *, lease_until < now() AS silent FROM export_jobs"))
        return {row.id: row for row in found}

    async def _fetch(self, statement: str) -> list[Row[Any]]:
        async with autocommitting(self.engine).connect() as connection:
            return list(await connection.execute(text(statement)))

    async def _execute(self, *statements: str) -> None:
        async with autocommitting(self.engine).connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    def _is_held(self, claim: Claim) -> bool:
        job = self._jobs()[claim.job_id]
        return (job.status, job.attempt, job.worker, job.outcome) == (
            "processing",
            claim.attempt,
            claim.worker,
            None,
        )

    def _claim(self, which: int) -> tuple[PartClaim, bool]:
        """One of all claims that ever were, the newest most often, and whether it still holds its part."""
        claim = self.claims[-1 - which % len(self.claims)]
        row = self.rows().get(claim.key)
        holds = row is not None and (row.status, row.part_attempt, row.worker) == (
            "processing",
            claim.part_attempt,
            claim.worker,
        )
        return claim, holds


async def test_every_interleaving_keeps_the_promises(engine: AsyncEngine) -> None:
    class Here(Life):
        pass

    Here.engine, Here.loop = engine, asyncio.get_running_loop()
    bounds = settings(
        max_examples=6,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, Here, settings=bounds)
