"""Checks the worker's parts, writes the ready file, and ends a worker that cannot recover by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import faust
import structlog
from mode import Service

from stream_app.kafka.brokers import Brokers, Group, Partition
from stream_app.kafka.consumer import LosslessConsumer
from stream_app.kafka.transport import App
from stream_app.observability import metrics
from stream_app.periodic import repeat
from stream_app.retries import retry_until_possible
from stream_app.settings import Settings
from stream_app.worker.liveness import ExitTimer, write_ready_file
from stream_app.worker.watchdog import PartitionState, Signals, Stuck, Watchdog, WorkerState
from streaming_exporter.errors import ExporterError, Retryable
from streaming_exporter.kafka_connection import ensure_topics

log = structlog.get_logger(__name__)

CHECK_INTERVAL = 2.0
START_INTERVAL = 0.25
"""Seconds between two checks, in general and while the worker starts."""

CHECK_TIMEOUT = 5.0
"""Seconds in which a part must answer."""

BROKER_TIMEOUT = 0.45 * CHECK_TIMEOUT
"""Time-out of one query to the brokers, in seconds. A check makes two, which must end within its time-out."""

REMINDER_SECONDS = 60.0
"""Seconds between two warnings of a worker that is not ready, so that the reason is near the log's end."""

Check = Callable[[], Awaitable[object]]
"""Returns if the part answers; otherwise raises :class:`ExporterError`."""


class HealthCheck:
    """Checks one part periodically."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self._check = check
        self._problem: str | None = f"{name}: not checked yet"
        self._answered = time.monotonic()
        self.pause = START_INTERVAL

    @property
    def problem(self) -> str | None:
        """The reason why the part counts as unavailable, or ``None`` while it answers."""
        late = time.monotonic() - self._answered > 2 * CHECK_TIMEOUT + CHECK_INTERVAL
        return f"{self.name}: no answer" if late else self._problem

    async def run(self) -> None:
        """Check the part every :attr:`pause` seconds."""
        await repeat("health_check", self._run_once, lambda: self.pause, first=0)

    async def _run_once(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._check()
            self._problem = None
        except (ExporterError, TimeoutError) as error:
            self._problem = str(error) or f"{self.name}: no answer within {CHECK_TIMEOUT:.0f} s"
        except Exception as error:
            log.exception("health_check.crashed", part=self.name)
            self._problem = f"{self.name}: {error!r}"
        self._answered = time.monotonic()


class StateLog:
    """Logs each change of the worker's state, and repeatedly why it is not ready.

    Until the worker was ready once, or :data:`REMINDER_SECONDS` have passed, that is no warning: it starts.
    """

    def __init__(self, worker: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._last: tuple[WorkerState, str] | None = None
        self._ready_at = self._reminded_at = clock()
        self._is_starting = True

    def note(self, state: WorkerState, reason: str) -> None:
        """Log ``state`` and ``reason`` if they are new, or if the worker is not ready for a long time."""
        now = self._clock()
        if state is WorkerState.READY:
            self._ready_at = self._reminded_at = now
            self._is_starting = False
        is_reminder = now - self._reminded_at >= REMINDER_SECONDS
        if is_reminder:
            self._reminded_at = now
            self._is_starting = False
        if is_reminder or (state, reason) != self._last:
            more = {"unready_seconds": round(now - self._ready_at)} if is_reminder else {}
            self._write(state, {"worker": self._worker, "reason": reason, **more})
        self._last = state, reason

    def _write(self, state: WorkerState, fields: Mapping[str, object]) -> None:
        match state:
            case WorkerState.READY:
                log.info("worker.ready", **fields)
            case WorkerState.WAITING if self._is_starting:
                log.info("worker.waiting", **fields)
            case WorkerState.WAITING:
                log.warning("worker.waiting", **fields)
            case WorkerState.STUCK:
                log.error("worker.stuck", **fields)


async def wait_for_topics(settings: Settings, worker: str) -> None:
    """Create the topics that do not exist, as soon as Kafka answers. Until then the worker waits.

    ``worker`` is its client id.
    """
    states = StateLog(worker)

    async def try_once() -> None:
        try:
            await ensure_topics(settings)
        except Retryable as error:
            states.note(WorkerState.WAITING, str(error))
            raise

    await retry_until_possible(try_once)


class WorkerHealth(Service):
    """Checks the worker from before the app starts until after it has stopped."""

    def __init__(
        self,
        app: App,
        *,
        worker: str,
        prefix: str,
        brokers: Brokers,
        checks: Mapping[str, Check],
        watchdog: Watchdog,
        exit_timer: ExitTimer,
        exit_seconds: float,
        ready_file: Path | None,
    ) -> None:
        """Create the service.

        Args:
            app: the worker's app.
            worker: the app's client id.
            prefix: the prefix of topic names in the cluster. Metrics leave it out.
            brokers: answers queries about partitions.
            checks: the checks of parts, by the name of the part.
            watchdog: decides on the state of the worker.
            exit_timer: ends the process if the checks do not return.
            exit_seconds: how long the worker can take to stop.
            ready_file: the file that exists while the worker is ready.
        """
        super().__init__(loop=app.loop)
        self._app = app
        self._worker = worker
        self._state_log = StateLog(worker)
        self._prefix = prefix
        self._brokers = brokers
        self._checks = [
            HealthCheck("kafka", self._ask_brokers),
            *(HealthCheck(name, check) for name, check in checks.items()),
        ]
        self._watchdog = watchdog
        self._exit_timer = exit_timer
        self._exit_seconds = exit_seconds
        self._ready_file = ready_file
        self._group: Group | None = None
        self._ends: Mapping[Partition, int] = {}
        self._leaderless: Sequence[Partition] = ()
        self._topic_ids: dict[str, UUID] = {}
        self._replaced: str | None = None
        self._pause = START_INTERVAL

    async def on_started(self) -> None:
        """Start the checks, once the app runs."""
        self._exit_timer.start()
        for check in self._checks:
            self.add_future(check.run())
        self.add_future(self._run_checks())
        self.add_future(metrics.measure_loop_lag())

    async def on_shutdown(self) -> None:
        """Report that the worker is not ready, and close the connections."""
        self._set_ready(False)
        await self._brokers.close()

    async def _ask_brokers(self) -> None:
        self._group = await self._brokers.group()
        logs = await self._brokers.logs(list(partition_states(self._app)))
        self._ends, self._leaderless = logs.ends, logs.leaderless
        await self._reread_recreated_topics(logs.topic_ids)

    async def _reread_recreated_topics(self, ids: Mapping[str, UUID]) -> None:
        """Read topics from their beginning that were deleted and created again, which changes their ids."""
        for topic, found in ids.items():
            if self._topic_ids.get(topic, found) != found:
                await cast(LosslessConsumer, self._app.consumer).reread_topic(topic)
                # The next worker starts at the committed offset, without state of the old log.
                self._replaced = f"{topic} was deleted and created again"
        self._topic_ids |= ids

    async def _run_checks(self) -> None:
        while True:
            self._exit_timer.reset()
            if self._app.is_stopping:
                self._exit_timer.limit_exit(self._exit_seconds)
                self._set_ready(False)
            else:
                self._check()
            await asyncio.sleep(self._pause)

    def _check(self) -> None:
        if self._replaced is not None:
            self._exit_timer.limit_exit(self._exit_seconds)
            raise Stuck(f"the worker must restart: {self._replaced}")
        away = {check.name: problem for check in self._checks if (problem := check.problem) is not None}
        seen = partition_states(self._app)
        signals = Signals(
            self._worker,
            away,
            self._group,
            self._ends,
            seen,
            leaderless=self._leaderless,
            outage=self._app.outages.newest,
            progress={partition: self._app.steps(partition) for partition in seen},
        )
        metrics.set_consumer_lag(
            {name.removeprefix(self._prefix): lag for name, lag in signals.lag().items()}
        )
        health, reason = self._watchdog.assess(signals)
        self._state_log.note(health, reason)
        if health is WorkerState.READY:
            self._pause = CHECK_INTERVAL
            for check in self._checks:
                check.pause = CHECK_INTERVAL / 2
        self._set_ready(health is WorkerState.READY)
        if health is WorkerState.STUCK:
            self._exit_timer.limit_exit(self._exit_seconds)
            raise Stuck(f"the worker cannot recover by itself: {reason}")

    def _set_ready(self, ready: bool) -> None:
        metrics.READY.set(ready)
        if self._ready_file is None:
            return
        try:
            write_ready_file(self._ready_file, ready)
        except OSError as error:
            log.warning("ready_file.unwritable", error=str(error))


def partition_states(app: faust.App) -> dict[Partition, PartitionState]:
    """Return the state of each partition of the app's consumer; nothing while it has no partitions.

    Another thread writes the values. Each value is consistent, but two values can be of different moments.
    """
    consumer: Any = app._consumer
    client = getattr(getattr(consumer, "_thread", None), "_consumer", None)
    subscription = client and client._subscription.subscription
    assignment = subscription and subscription.assignment
    if not assignment or not assignment.active:
        return {}
    oldest: dict[Partition, int] = {}
    for message in list(consumer._unacked_messages):
        if message.generation_id == app.consumer_generation_id and not message.acked:
            partition = (message.topic, message.partition)
            oldest[partition] = min(message.offset, oldest.get(partition, message.offset))
    found = {}
    for tp in assignment.tps:
        partition = (tp.topic, tp.partition)
        position = assignment.state_value(tp)._position
        found[partition] = PartitionState(
            position,
            oldest.get(partition),
            consumer.has_offset_to_commit(tp),
            fetched=consumer.fetched.get(tp, 0),
            done=consumer.done.get(tp, 0),
        )
    return found
