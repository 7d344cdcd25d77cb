"""A job ends once, whatever happens in whatever order.

Requests, cancellations, claims, heartbeats, lost leases, outcomes, retries, the projector and replays of the
topic come in any interleaving; what must always hold is checked after every step, and in the end every job is
driven to its end.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting
from stream_app.jobs.claim import AttemptProgress, Claim
from stream_app.jobs.models import ExportJob
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.projector import apply_events
from stream_app.jobs.states import EVENT_OF, OUTCOMES, TRANSITIONS, UNFINISHED, Status
from streaming_exporter.events import (
    Event,
    EventType,
    JobError,
    LifecycleData,
    cancel_event,
    decode,
    lifecycle_event,
)
from tests.integration.jobs.jobs import Jobs, Requests, request
from tests.waiting import patient

USER_SLOTS = 2
MAX_ATTEMPTS = 3
LEASE = timedelta(hours=1)
"""Leases only end by the rule for it, also on a busy machine."""
Result = TypeVar("Result")
NUMBERS = st.integers(0, 3)
ANY = st.integers(0, 1_000)


class Life(RuleBasedStateMachine):
    """Four jobs of one user, two workers, one topic."""

    engine: AsyncEngine
    loop: asyncio.AbstractEventLoop

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(step, self.loop).result(patient(30))

    @initialize()
    def empty(self) -> None:
        self.jobs = Jobs(self.engine, lease=LEASE, user_slots=USER_SLOTS, max_attempts=MAX_ATTEMPTS)
        self.store = self.jobs.store
        self.requests = Requests(self.store)
        self.ids = [uuid4() for _ in range(4)]
        self.claims: list[Claim] = []
        self.cancelled_early: set[UUID] = set()
        self.projected = self.heard = 0
        self.ends: dict[UUID, set[tuple[EventType, int]]] = {}
        self.seen: dict[UUID, Row[Any]] = {}
        self.run(self._execute("DELETE FROM export_jobs", "DELETE FROM early_cancellations"))

    # --- producers ---------------------------------------------------------------------

    @rule(number=NUMBERS, impossible=st.booleans())
    def admit(self, number: int, impossible: bool) -> None:
        self.run(self.requests.handle(request(self.ids[number], format="docx" if impossible else "csv")))

    @rule(number=NUMBERS)
    def cancel(self, number: int) -> None:
        if self.ids[number] not in self.seen:
            self.cancelled_early.add(self.ids[number])
        self.run(self.requests.handle(cancel_event(self.ids[number], source="/t")))

    # --- workers -----------------------------------------------------------------------

    @rule(number=NUMBERS, worker=st.sampled_from(["w1", "w2"]))
    def admit_and_claim(self, number: int, worker: str) -> None:
        """Admit a job at a worker that starts it at once if nothing waits."""
        claimed: list[Claim] = []

        async def start(job: NewJob) -> list[LifecycleData] | None:
            if job.outcome is not None:
                return None
            admitted = await self.store.admission.admit_and_claim(worker, job)
            claimed.extend(admitted.claims)
            return admitted.accepted

        before = self.seen
        self.run(self.requests.handle(request(self.ids[number]), start=start))
        waiting = [row for row in before.values() if row.status == Status.PENDING and not row.outcome]
        if claimed:
            assert waiting == []
            assert not any(row.silent for row in before.values() if self._runs(row))
            assert sum(self._runs(row) for row in self.rows().values()) <= USER_SLOTS
        self.claims += claimed

    @rule(worker=st.sampled_from(["w1", "w2"]), limit=st.integers(1, 3))
    def claim(self, worker: str, limit: int) -> None:
        before = self.seen
        claimed = self.run(self.store.claim(worker, limit))
        for claim in claimed:
            row = before[claim.job_id]
            assert claim.attempt == row.attempt + 1
            assert row.outcome is None
            assert row.cancel_requested_at is None
            assert row.status == Status.PENDING or (row.status == Status.PROCESSING and row.silent)
        if claimed:
            running = [
                row
                for row in self.rows().values()
                if row.status == Status.PROCESSING and not row.outcome and not row.silent
            ]
            assert len(running) <= USER_SLOTS
        self.claims += claimed

    @precondition(lambda self: self.claims)
    @rule(which=ANY, rows=st.integers(0, 9))
    def heartbeat(self, which: int, rows: int) -> None:
        claim, row = self._claim(which)
        held, cancelled = self.run(
            self.store.renew(claim.worker, [AttemptProgress(claim.job_id, claim.attempt, rows, None)])
        )
        assert held == ({claim.job_id} if self._holds(claim, row) else set())
        assert cancelled == (held if row.cancel_requested_at else set())

    @precondition(lambda self: self.claims)
    @rule(which=ANY, expired=st.booleans())
    def complete(self, which: int, expired: bool) -> None:
        claim, row = self._claim(which)
        self._store_twice(claim, row, completed(claim, expired))

    @precondition(lambda self: self.claims)
    @rule(which=ANY)
    def fail(self, which: int) -> None:
        claim, row = self._claim(which)
        error = JobError(code="c", message="m")
        now = datetime.now(UTC)
        self._store_twice(claim, row, claim.lifecycle(Status.FAILED, error=error, completed_at=now))

    @precondition(lambda self: self.claims)
    @rule(which=ANY, failed=st.booleans())
    def hand_back(self, which: int, failed: bool) -> None:
        claim, row = self._claim(which)
        assert self.run(self.store.release(claim, failed=failed)) == self._holds(claim, row)

    @rule()
    def lose_leases(self) -> None:
        self.run(self.jobs.expire_leases())

    @rule()
    def tend(self) -> None:
        for step in (
            self.store.unclaimed.take_unpublished,
            self.store.unclaimed.end_exhausted,
            self.store.unclaimed.expire_files,
        ):
            self._publish(self.run(step()))
        self._publish(self.run(self.store.cancellations.apply_early()))

    # --- the projector ---------------------------------------------------------------

    @precondition(lambda self: self.projected < len(self.requests.published))
    @rule()
    def project(self) -> None:
        self._apply(self.requests.published[self.projected])
        self.projected += 1

    @precondition(lambda self: self.requests.published)
    @rule(which=ANY)
    def replay(self, which: int) -> None:
        self._apply(self.requests.published[which % len(self.requests.published)])

    # --- invariants ---------------------------------------------------------------------

    @invariant()
    def every_job_ends_once(self) -> None:
        if not hasattr(self, "seen"):
            return
        rows = self.rows()
        assert rows.keys() >= self.seen.keys()
        for job_id, row in rows.items():
            old = self.seen.get(job_id)
            if old is not None:
                assert row.attempt >= old.attempt
                assert row.failures <= row.attempt
                steps = TRANSITIONS[Status(old.status)] | {old.status}
                assert row.status in steps, f"{old.status} became {row.status}"
                if old.outcome is not None and row.outcome is not None:
                    assert row.outcome == old.outcome
                    assert row.attempt == old.attempt
        self.seen = rows

    @invariant()
    def nobody_hears_of_two_ends(self) -> None:
        if not hasattr(self, "requests"):
            return
        for event in self.requests.published[self.heard :]:
            if event.type in OUTCOMES:
                self.ends.setdefault(event.job_id, set()).add((event.type, event.lifecycle.attempt))
        self.heard = len(self.requests.published)
        for ends in self.ends.values():
            assert len([type_ for type_, _ in ends if OUTCOMES[type_] is not Status.EXPIRED]) <= 1, ends
        for job_id in self.cancelled_early:
            assert {OUTCOMES[type_] for type_, _ in self.ends.get(job_id, ())} <= {"cancelled"}
        assert self.cancelled_early.isdisjoint(claim.job_id for claim in self.claims)

    def teardown(self) -> None:
        """No job is stuck: workers that continue bring every job to its end."""
        if not hasattr(self, "requests"):
            return
        for _ in range(4 * MAX_ATTEMPTS):
            before = self.rows()
            self.lose_leases()
            self.tend()
            for claim in self.run(self.store.claim("w3", 10)):
                self._store_twice(claim, self.rows()[claim.job_id], completed(claim, False))
            while self.projected < len(self.requests.published):
                self.project()
            if self._have_ended() and self.rows() == before:
                break  # this round has changed nothing, so no other one would
        rows = self.rows()
        assert {row.status for row in rows.values()}.isdisjoint(UNFINISHED)
        assert {row.outcome for row in rows.values()} <= {None}
        self._apply(*self.requests.published)
        assert self.rows() == rows

    # --- helpers ---------------------------------------------------------------------------------

    def rows(self) -> dict[UUID, Row[Any]]:
        async def read() -> dict[UUID, Row[Any]]:
            silent = text("lease_until < now() AS silent")
            async with autocommitting(self.engine).connect() as connection:
                rows = await connection.execute(select(ExportJob.__table__, silent))
                return {row.id: row for row in rows}

        return self.run(read())

    def _have_ended(self) -> bool:
        return self.projected == len(self.requests.published) and all(
            row.status not in UNFINISHED and row.outcome is None for row in self.rows().values()
        )

    async def _execute(self, *statements: str) -> None:
        async with autocommitting(self.engine).connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    @staticmethod
    def _runs(row: Row[Any]) -> bool:
        return row.status == Status.PROCESSING and not row.outcome

    def _claim(self, which: int) -> tuple[Claim, Row[Any]]:
        """Return one of all earlier claims, most often the newest, and its job."""
        claim = self.claims[-1 - which % len(self.claims)]
        return claim, self.seen[claim.job_id]

    def _holds(self, claim: Claim, row: Row[Any]) -> bool:
        return (row.status, row.attempt, row.worker, row.outcome) == (
            Status.PROCESSING,
            claim.attempt,
            claim.worker,
            None,
        )

    def _store_twice(self, claim: Claim, row: Row[Any], outcome: LifecycleData) -> None:
        """Store a new outcome, twice: each ends at another time, or it would be taken for an earlier one."""
        is_stored = self.run(self.store.store_outcome(claim, outcome))
        assert is_stored == self._holds(claim, row)
        assert self.run(self.store.store_outcome(claim, outcome)) == is_stored
        if is_stored:
            self._publish([outcome])

    def _publish(self, outcomes: list[LifecycleData]) -> None:
        self.requests.published += [
            lifecycle_event(EVENT_OF[Status(outcome.status)], outcome) for outcome in outcomes
        ]

    def _apply(self, *events: Event) -> None:
        async def write() -> None:
            async with self.store.transaction() as connection:
                for event in events:
                    await apply_events(connection, [decode(event.encode())])

        self.run(write())


def completed(claim: Claim, expired: bool) -> LifecycleData:
    now = datetime.now(UTC)
    kept = timedelta(days=-1 if expired else 1)
    return claim.lifecycle(
        Status.COMPLETED,
        row_count=1,
        file_size=2,
        sha256="x",
        key="k",
        completed_at=now,
        expires_at=now + kept,
    )


@pytest.mark.unmeasured  # the other tests of the folder reach the same lines
@pytest.mark.parametrize("examples", [12, pytest.param(18, marks=pytest.mark.slow)])
async def test_every_interleaving_keeps_the_promises(engine: AsyncEngine, examples: int) -> None:
    @seed(examples)  # each row has other ones
    class Here(Life):
        pass

    Here.engine, Here.loop = engine, asyncio.get_running_loop()
    bounds = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, Here, settings=bounds)
