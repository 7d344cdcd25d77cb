"""Waits until all outcomes are applied that were on Kafka when this worker started."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from stream_app.kafka.brokers import Brokers, Partition
from streaming_exporter.errors import Outage

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
NO_PROGRESS_SECONDS = 30.0
"""Seconds without progress after which the replay ends. Time in which writes fail does not count."""
WRITE_CHECK_SECONDS = 5.0
"""Seconds between two checks whether outcomes can be applied, while there is no progress."""


class OutcomeReplay:
    """Delays admission and claims until old outcomes are applied, so that no finished job runs again.

    After the state database was restored, the consumer group reads outcomes again that the table lacks. Until
    they are applied, no job is admitted, claimed or recovered. Usually there are none, and the replay ends at
    once. If outcomes are missing, or their number is unknown because Kafka does not answer, the replay ends
    early only after :data:`NO_PROGRESS_SECONDS` without progress. Time in which outcomes cannot be applied
    does not count: they will be applied later, and must be applied first.
    """

    def __init__(
        self,
        brokers: Brokers,
        topic: str,
        *,
        failed_at: Callable[[], float | None],
        check_writes: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait for the outcomes on ``topic``.

        Args:
            brokers: queries the brokers.
            topic: the name of the topic of outcomes.
            failed_at: returns when this worker last failed to apply outcomes, by ``clock``, while it fails.
            check_writes: raises an error while outcomes cannot be applied, by this worker or by another one.
            clock: returns seconds.
        """
        self._brokers = brokers
        self._topic = topic
        self._failed_at = failed_at
        self._check_writes = check_writes
        self._clock = clock
        self._end = asyncio.Event()
        self._problem: str | None = None

    async def wait(self) -> None:
        """Wait until the replay has ended."""
        await self._end.wait()

    def require_end(self) -> None:
        """Return if the replay has ended.

        Raises:
            Outage: it has not.
        """
        if not self._end.is_set():
            raise Outage("earlier outcomes are still being applied")

    async def run(self) -> None:
        """Wait for the outcomes, then for the end of the worker."""
        try:
            await self._read()
        finally:
            self._end.set()
            await self._brokers.close()
        await asyncio.Event().wait()

    async def _read(self) -> None:
        began = self._clock()
        while (state := await self._first_state()) is None:
            if self._clock() - began > NO_PROGRESS_SECONDS:
                log.warning("replay.abandoned", behind=None)
                return
            await asyncio.sleep(POLL_SECONDS)
        starts, ends, seen = state
        since = self._clock()
        checked = since
        behind: int | None = seen
        if behind:
            log.info("replay.progressed", behind=behind)
        while behind != 0:
            await asyncio.sleep(POLL_SECONDS)
            behind = await self._behind_if_known(starts, ends)
            if behind is not None and behind != seen:
                log.info("replay.progressed", behind=behind)
                seen, since = behind, self._clock()
                continue
            if self._clock() - checked >= WRITE_CHECK_SECONDS:
                if not await self._can_apply():
                    since = self._clock()
                checked = self._clock()
            since = max(since, self._failed_at() or since)
            if self._clock() - since > NO_PROGRESS_SECONDS:
                log.warning("replay.abandoned", behind=seen)
                return

    async def _first_state(self) -> tuple[dict[Partition, int], dict[Partition, int], int] | None:
        """Return where the logs begin and end, and how many outcomes are not applied; None without Kafka."""
        try:
            numbers = await self._brokers.partitions([self._topic])
            partitions = [(self._topic, number) for number in numbers.get(self._topic, ())]
            starts, ends = (
                await self._brokers.beginning_offsets(partitions),
                await self._brokers.end_offsets(partitions),
            )
            behind = await self._behind(starts, ends)
        except Outage as error:
            self._note_problem(str(error))
            return None
        self._problem = None
        return starts, ends, behind

    async def _behind_if_known(self, starts: dict[Partition, int], ends: dict[Partition, int]) -> int | None:
        """Return how many outcomes are not applied yet, or ``None`` while Kafka is away."""
        try:
            behind = await self._behind(starts, ends)
        except Outage as error:
            self._note_problem(str(error))
            return None
        self._problem = None
        return behind

    def _note_problem(self, problem: str) -> None:
        """Log why Kafka cannot be queried, unless that is known from the query before."""
        if problem != self._problem:
            log.warning("replay.state_unknown", error=problem)
        self._problem = problem

    async def _can_apply(self) -> bool:
        try:
            await self._check_writes()
        except Exception as error:  # outcomes would fail with the same error
            log.warning("replay.write_check_failed", error=repr(error))
            return False
        return True

    async def _behind(self, starts: dict[Partition, int], ends: dict[Partition, int]) -> int:
        committed = (await self._brokers.group()).committed
        return sum(
            max(0, end - max(committed.get(partition, 0), starts.get(partition, 0)))
            for partition, end in ends.items()
        )
