"""Runs one scenario: three workers, jobs and faults; then checks the result."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any
from uuid import UUID

import asyncpg

from dev.stack import Stack
from streaming_exporter.events import Event, EventType, cancel_event, request_event
from tests.chaos.freezing import frozen
from tests.chaos.items import Source
from tests.chaos.plan import Fault, Plan, PlannedJob
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import Job, SystemClient
from tests.chaos.verdict import unswept_objects, wrong_files, wrong_histories
from tests.waiting import until_async

SETTINGS = {
    "EXPORTER_LEASE_SECONDS": "3",
    "EXPORTER_DRAIN_SECONDS": "2",
    "EXPORTER_WORKER_SLOTS": "3",
    "EXPORTER_USER_SLOTS": "2",
    "EXPORTER_MAX_ATTEMPTS": "50",  # no job may run out of attempts: the cause is never the job
}

SETTLING_SECONDS = 120.0
"""If no job ends for this time, the remaining jobs count as stuck. A busy machine needs longer in all."""


@dataclass(frozen=True)
class Loss:
    """An attempt whose worker was killed."""

    job_id: UUID
    attempt: int
    at: datetime


@dataclass
class Figures:
    """The figures of a scenario. Times are in seconds."""

    jobs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    gave_up: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the kill of a worker to the next attempt at its job."""
    admissions: list[float] = field(default_factory=list)
    """Seconds from a request on Kafka to its ``export.accepted``."""
    settling: float = 0
    seconds: float = 0

    def add(self, other: "Figures") -> None:
        """Add the figures of another scenario."""
        self.jobs += other.jobs
        self.faults += other.faults
        self.gave_up += other.gave_up
        self.endings += other.endings
        self.attempts += other.attempts
        self.recoveries += other.recoveries
        self.admissions += other.admissions
        self.settling = max(self.settling, other.settling)
        self.seconds += other.seconds

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs ({_listed(self.endings)}) in {self.attempts} attempts, {self.seconds:.0f} s; "
            f"{_listed(self.faults)}; {self.gave_up} workers ended by themselves; "
            f"{len(self.recoveries)} attempts of killed workers recovered after {_spread(self.recoveries)}; "
            f"requests were admitted after {_spread(self.admissions)}; "
            f"all had ended {self.settling:.1f} s after the last fault"
        )


def _spread(times: list[float]) -> str:
    ordered = sorted(times) or [0.0]
    slow = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{median(ordered):.1f} s (p50), {slow:.1f} s (p99), {ordered[-1]:.1f} s (longest)"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


class Scenario:
    """Executes a plan. ``wrong`` lists the errors of the system that were found."""

    def __init__(self, stack: Stack, workers: Supervisor, source: Source, plan: Plan) -> None:
        self._stack = stack
        self._workers = workers
        self._source = source
        self._plan = plan
        self._losses: list[Loss] = []
        self._began = 0.0
        self._published: dict[UUID, datetime] = {}
        self._breaking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Each part has one fault at a time."""
        self.figures = Figures(jobs=len(plan.orders))
        self.wrong: list[str] = []

    async def run(self) -> None:
        """Run from the first request to the verdict.

        Raises:
            AssertionError: a job has not ended in time.
        """
        self._began = time.monotonic()
        gave_up = self._workers.gave_up()
        async with SystemClient(self._stack) as client:
            async with asyncio.TaskGroup() as group:
                for order in self._plan.orders:
                    group.create_task(self._ask(client, order))
                for fault in self._plan.faults:
                    group.create_task(self._strike(client, fault))
            quiet = time.monotonic()
            jobs = await self._settled(client)
            self.figures.settling = time.monotonic() - quiet
            await self._judge(client, jobs)
        self.figures.gave_up = self._workers.gave_up() - gave_up
        self.figures.seconds = time.monotonic() - self._began

    async def _at(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self._began + seconds - time.monotonic()))

    async def _ask(self, client: SystemClient, order: PlannedJob) -> None:
        asking = [self._publish(client, order.at, _requested(order))]
        if order.twice:
            asking.append(self._publish(client, order.at + 1, _requested(order)))
        if order.cancelled_at is not None:
            cancellation = cancel_event(order.job_id, source="/chaos")
            if order.cancelled_at < order.at:
                await self._publish(client, order.cancelled_at, cancellation)
            else:
                asking.append(self._publish(client, order.cancelled_at, cancellation))
        await asyncio.gather(*asking)

    async def _publish(self, client: SystemClient, at: float, event: Event) -> None:
        await self._at(at)
        await client.publish(event)
        if event.type is EventType.REQUESTED:
            self._published.setdefault(event.job_id, datetime.now(UTC))

    async def _strike(self, client: SystemClient, fault: Fault) -> None:
        await self._at(fault.at)
        await self._act(client, fault)
        self.figures.faults[fault.kind] += 1

    def _act(self, client: SystemClient, fault: Fault) -> Coroutine[Any, Any, None]:
        match fault.kind:
            case "kill":
                return self._kill(client, fault.worker)
            case "rebalance":
                return self._rebalance(fault.worker)
            case "freeze":
                return self._freeze(fault)
        return self._outage(fault)

    async def _kill(self, client: SystemClient, number: int) -> None:
        with suppress(AssertionError):  # a starting worker has no job; in an outage no worker is ready
            await until_async(lambda: self._workers.is_ready(number), within=10)
        name = await asyncio.to_thread(self._workers.kill, number)
        at = datetime.now(UTC)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            lost = await client.fetch(
                "SELECT id, attempt FROM export_jobs "
                "WHERE worker = $1 AND status = 'processing' AND outcome IS NULL AND id = ANY ($2)",
                name,
                [order.job_id for order in self._plan.orders],  # other tests have left jobs, which it can run
            )
            self._losses += [Loss(row["id"], row["attempt"], at) for row in lost]

    async def _rebalance(self, number: int) -> None:
        await asyncio.to_thread(self._workers.restart, number)

    async def _freeze(self, fault: Fault) -> None:
        pid = await asyncio.to_thread(self._workers.freeze, fault.worker)
        await asyncio.sleep(fault.down)
        self._workers.thaw(pid)

    async def _outage(self, fault: Fault) -> None:
        service = self._stack.services[fault.kind.removeprefix("frozen ")]
        if fault.kind.startswith("frozen "):
            async with self._breaking[service.name]:
                with frozen(service):
                    await asyncio.sleep(fault.down)
            return
        async with self._breaking[service.name]:
            await asyncio.to_thread(service.stop if fault.gently else service.kill)
            await asyncio.sleep(fault.down)
            await asyncio.to_thread(service.restart)

    async def _settled(self, client: SystemClient) -> dict[UUID, Job]:
        endings = {order.job_id: order.endings for order in self._plan.orders}

        def over(job: Job) -> bool:
            return job["status"] in endings[job["id"]] and job["outcome"] is None

        before = -1
        while True:
            try:
                return await client.until(endings.keys(), over, within=SETTLING_SECONDS)
            except AssertionError:
                known = await client.jobs(endings.keys())
                ended = sum(map(over, known.values()))
                if ended == before:
                    self.wrong += await client.whereabouts(endings.keys() - known.keys())
                    raise
                before = ended

    async def _judge(self, client: SystemClient, jobs: dict[UUID, Job]) -> None:
        told = await client.history(jobs.keys())
        found = await asyncio.to_thread(client.found)
        self.wrong += await wrong_files(client, self._source, self._plan.orders, jobs)
        self.wrong += unswept_objects(jobs, found, client.settings)
        self.wrong += wrong_histories(jobs, told, late=True)
        self.wrong += await client.dead_letters_of(jobs.keys())
        self.figures.endings = Counter(job["status"] for job in jobs.values())
        self.figures.attempts = sum(job["attempt"] for job in jobs.values())
        self.figures.admissions = [
            (event.time - self._published[job_id]).total_seconds()
            for job_id, events in told.items()
            for event in events
            if event.type is EventType.ACCEPTED and event.time is not None
        ]
        self.figures.recoveries = [
            seconds for loss in self._losses if (seconds := _recovery(loss, told[loss.job_id])) is not None
        ]


def _requested(order: PlannedJob) -> Event:
    return request_event(order.request, job_id=order.job_id, source="/chaos")


def _recovery(loss: Loss, events: list[Event]) -> float | None:
    """Return the time from the kill to the next attempt; ``None`` if the job ended without another one."""
    for event in events:
        if event.type is EventType.STARTED and event.lifecycle.attempt > loss.attempt:
            return (event.lifecycle.started_at - loss.at).total_seconds()  # type: ignore[operator]
    return None
