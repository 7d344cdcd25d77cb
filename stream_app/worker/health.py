"""Watches the worker from inside: says whether it is ready, and ends it when it is beyond recovery."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import faust
import structlog
from mode import Service

from stream_app.kafka.brokers import Brokers, Group, Place
from stream_app.kafka.transport import App, LosslessConsumer
from stream_app.observability import metrics
from stream_app.worker.process_health import Deadman, say_ready
from stream_app.worker.watchdog import Health, Reading, Signs, Stuck, Watchdog
from streaming_exporter.errors import ExporterError

log = structlog.get_logger(__name__)

BEAT = 2.0
HURRIED = 0.25
"""Seconds between beats, and between those of a worker that only starts."""

PATIENCE = 5.0
"""Seconds that a part has for an answer."""

BROKERS_PATIENCE = 0.45 * PATIENCE
"""Seconds for one question to the brokers: two make an answer, and should fail by themselves."""

Check = Callable[[], Awaitable[object]]
"""Returns if the part answers, raises :class:`ExporterError` if not."""


class Probe:
    """Asks one part, over and over."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self._check = check
        self._problem: str | None = f"{name}: not asked yet"
        self._answered = time.monotonic()
        self.pause = HURRIED

    @property
    def problem(self) -> str | None:
        """Why the part counts as away; ``None`` while it answers."""
        late = time.monotonic() - self._answered > 2 * PATIENCE + BEAT
        return f"{self.name}: no answer" if late else self._problem

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._check()
                self._problem = None
            except (ExporterError, TimeoutError) as error:
                self._problem = str(error) or f"{self.name}: no answer within {PATIENCE:.0f} s"
            except Exception as error:
                log.exception("probe.crashed", part=self.name)
                self._problem = f"{self.name}: {error!r}"
            self._answered = time.monotonic()
            await asyncio.sleep(self.pause)


class Watch(Service):
    """Beats beside the app, from before it starts until after it has stopped."""

    def __init__(
        self,
        app: App,
        *,
        worker: str,
        prefix: str,
        brokers: Brokers,
        checks: Mapping[str, Check],
        watchdog: Watchdog,
        deadman: Deadman,
        ending: float,
        ready_file: Path | None,
    ) -> None:
        """``worker`` is the app's client id, ``ending`` how long, in seconds, it may take to stop.

        ``prefix`` is what the cluster's names of topics begin with, and the metrics' do not.
        """
        super().__init__(loop=app.loop)
        self._app = app
        self._worker = worker
        self._prefix = prefix
        self._brokers = brokers
        self._probes = [
            Probe("kafka", self._ask_brokers),
            *(Probe(name, check) for name, check in checks.items()),
        ]
        self._watchdog = watchdog
        self._deadman = deadman
        self._ending = ending
        self._ready_file = ready_file
        self._group: Group | None = None
        self._ends: dict[Place, int] = {}
        self._topic_ids: dict[str, UUID] = {}
        self._replaced: str | None = None
        self._said: tuple[Health, str] | None = None
        self._pause = HURRIED

    async def on_started(self) -> None:
        self._deadman.start()
        for probe in self._probes:
            self.add_future(probe.run())
        self.add_future(self._beats())
        self.add_future(metrics.watch_loop())

    async def on_shutdown(self) -> None:
        self._say_ready(False)
        await self._brokers.close()

    async def _ask_brokers(self) -> None:
        self._group = await self._brokers.group()
        self._ends, ids = await self._brokers.logs(list(readings(self._app)))
        await self._notice_new_topics(ids)

    async def _notice_new_topics(self, ids: Mapping[str, UUID]) -> None:
        """One of the same name with another id is another topic, whose log the offsets are not of."""
        for topic, found in ids.items():
            if self._topic_ids.get(topic, found) != found:
                await cast(LosslessConsumer, self._app.consumer).begin_anew(topic)
                # The next worker begins where was committed, and knows nothing of the other log.
                self._replaced = f"{topic} was deleted and made anew"
        self._topic_ids |= ids

    async def _beats(self) -> None:
        while True:
            self._deadman.alive()
            if self._app.should_stop:
                self._deadman.last(self._ending)
                self._say_ready(False)
            else:
                self._beat()
            await asyncio.sleep(self._pause)

    def _beat(self) -> None:
        if self._replaced is not None:
            self._deadman.last(self._ending)
            raise Stuck(f"the worker has to start anew: {self._replaced}")
        away = {probe.name: problem for probe in self._probes if (problem := probe.problem) is not None}
        seen = readings(self._app)
        signs = Signs(
            self._worker,
            away,
            self._group,
            self._ends,
            seen,
            held_up_at=self._app.held_up_at,
            held_up_by=self._app.held_up_by,
            progress={place: self._app.steps(place) for place in seen},
        )
        metrics.lag({name.removeprefix(self._prefix): lag for name, lag in signs.behind().items()})
        health, reason = self._watchdog.look(signs)
        if (health, reason) != self._said:
            log.info(f"worker.{health.value}", worker=self._worker, reason=reason)
        self._said = health, reason
        if health is Health.WELL:
            self._pause = BEAT
            for probe in self._probes:
                probe.pause = BEAT / 2
        self._say_ready(health is Health.WELL)
        if health is Health.STUCK:
            self._deadman.last(self._ending)
            raise Stuck(f"the worker cannot recover by itself: {reason}")

    def _say_ready(self, ready: bool) -> None:
        metrics.READY.set(ready)
        if self._ready_file is None:
            return
        try:
            say_ready(self._ready_file, ready)
        except OSError as error:
            log.warning("ready_file.unwritable", error=str(error))


def readings(app: faust.App) -> dict[Place, Reading]:
    """What the app's consumer believes of each partition that it has; empty while it has none.

    Read from another thread than it is written in: every value by itself is whole.
    """
    consumer: Any = app._consumer
    client = getattr(getattr(consumer, "_thread", None), "_consumer", None)
    subscription = client and client._subscription.subscription
    assignment = subscription and subscription.assignment
    if not assignment or not assignment.active:
        return {}
    oldest: dict[Place, int] = {}
    for message in list(consumer._unacked_messages):
        if message.generation_id == app.consumer_generation_id and not message.acked:
            place = (message.topic, message.partition)
            oldest[place] = min(message.offset, oldest.get(place, message.offset))
    found = {}
    for partition in assignment.tps:
        place = (partition.topic, partition.partition)
        position = assignment.state_value(partition)._position
        found[place] = Reading(
            position,
            oldest.get(place),
            bool(consumer._acked.get(partition)),
            fetched=consumer.fetched.get(partition, 0),
            done=consumer.done.get(partition, 0),
        )
    return found
