"""Runs a month: sets the clock, kills processes as planned, and records the ticks that arrive."""

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from dev.process import Child
from dev.stack import ROOT, Stack
from streaming_exporter.events import Topic, decode
from tests.chaos.month import GREAT_SILENCE, LONGEST_SILENCE, START, Fault, Month
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import SystemClient
from tests.chaos.ticking import Clock
from tests.waiting import until_async

PACE = 0.012
"""Seconds for which the clock stands at each moment. Without delays the month takes a minute."""

BACKLOG = 100
"""Number of due or unfinished runs at which the clock waits.

So faults meet runs at all stages, and no tick waits in Kafka for so long that it counts as one from before an
outage.
"""

WAIT_SECONDS = 600.0
"""Limit of every wait in seconds, also on a slow machine."""

until = partial(until_async, within=WAIT_SECONDS)


class Tickers:
    """Real tickers with one simulated clock; a killed ticker is started again."""

    def __init__(self, stack: Stack, count: int, folder: Path, lost: Sequence[datetime]) -> None:
        (folder / "lost.json").write_text(json.dumps([at.isoformat() for at in lost]))
        self.clock = Clock(folder / "clock")
        self.clock.set(START)
        self.killed = 0
        self._logs = stack.run_dir / "logs"
        self._environment = {
            **stack.environment(),
            "CLOCK": str(folder / "clock"),
            "LOST": str(folder / "lost.json"),
        }
        self._children = {number: self._start(number) for number in range(count)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.kill()

    def kill(self, *numbers: int) -> None:
        """Send SIGKILL."""
        for number in numbers or self._children:
            child = self._children[number]
            assert child.exit_code is None, child.tail()
            child.kill()
            self.killed += 1

    def start(self, *numbers: int) -> None:
        """Start the killed processes."""
        for number in numbers or self._children:
            self._children[number] = self._start(number)

    def _start(self, number: int) -> Child:
        command = [sys.executable, "-m", "tests.chaos.ticking"]
        log = self._logs / f"ticker-{number}.log"
        return Child(f"ticker-{number}", command, log, env=self._environment, cwd=ROOT)


class Listener:
    """``async with Listener(servers) as listener``: records all later ticks in their order."""

    def __init__(self, servers: str) -> None:
        self.ticks: list[datetime] = []
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self._part = TopicPartition(Topic.TICKS, 0)

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign([self._part])
        self._first = (await self._consumer.end_offsets([self._part]))[self._part]
        self._consumer.seek(self._part, self._first)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._consumer.stop()

    @property
    def latest(self) -> datetime:
        return max(self.ticks, default=START)

    async def all(self) -> list[datetime]:
        """Return all ticks, after no process publishes any more."""
        end = (await self._consumer.end_offsets([self._part]))[self._part]
        await until(lambda: len(self.ticks) >= end - self._first)
        return self.ticks

    async def _listen(self) -> None:
        async for message in self._consumer:
            self.ticks.append(decode(message.value).tick)


class Simulation:
    """One month on three workers and two tickers."""

    def __init__(self, plan: Month, client: SystemClient, workers: Supervisor, tickers: Tickers) -> None:
        self._plan = plan
        self._client = client
        self._workers = workers
        self._tickers = tickers
        self._now = START
        self._backlog = 0

    async def play(self, heard: Listener) -> None:
        """Run from the first moment to the last. At the end all tickers have ended."""
        faults = list(self._plan.faults)
        watching = asyncio.create_task(self._watch())
        for moment in self._plan.moments:
            while faults and faults[0].at <= moment:
                await self._strike(faults.pop(0))
            self._set(moment)
            await asyncio.sleep(PACE)
            if moment not in self._plan.lost and moment - heard.latest > LONGEST_SILENCE / 2:
                await until(lambda: heard.latest >= self._now)
            if moment == self._plan.silence:
                await self._fall_silent(heard)
            await until(lambda: self._backlog <= BACKLOG or watching.done())
            if watching.done():
                await watching
        await until(lambda: heard.latest >= self._now)
        await asyncio.to_thread(self._tickers.kill)
        watching.cancel()

    def _set(self, moment: datetime) -> None:
        self._now = moment
        self._tickers.clock.set(moment)

    async def _strike(self, fault: Fault) -> None:
        if fault.kind == "worker":
            await asyncio.to_thread(self._workers.kill, fault.number)
        else:
            await asyncio.to_thread(self._tickers.kill, fault.number)
            await asyncio.to_thread(self._tickers.start, fault.number)

    async def _fall_silent(self, heard: Listener) -> None:
        """Keep all tickers stopped for so long that many runs are missed."""
        await asyncio.to_thread(self._tickers.kill)
        await heard.all()
        self._set(self._plan.silence + GREAT_SILENCE)
        await asyncio.to_thread(self._tickers.start)
        await until(lambda: heard.latest >= self._now)

    async def _watch(self) -> None:
        """Record how many runs wait, and check that no run starts before its time."""
        while True:
            (row,) = await self._client.fetch(
                """
                SELECT count(*) FILTER (WHERE status IN ('pending', 'processing')) AS unfinished,
                       (SELECT count(*) FROM scheduled_exports WHERE next_run <= $1) AS due,
                       max(run_at) AS latest
                FROM export_jobs
                """,
                self._now,
            )
            self._backlog = row["unfinished"] + row["due"]
            assert row["latest"] is None or row["latest"] <= self._now, f"{row['latest']} > {self._now}"
            await asyncio.sleep(0.3)
