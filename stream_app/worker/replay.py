"""Whether the outcomes that Kafka had as this worker started are on record."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from stream_app.kafka.brokers import Brokers, Partition
from streaming_exporter.errors import Outage

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
"""How long to wait while the group reads nothing and could, or Kafka does not say whether it does."""
PROOF_SECONDS = 5.0
"""Between two proofs that the group could, while it reads nothing."""


class OutcomeReplay:
    """Holds back what would do a job again whose end is still to be read.

    After the state database was restored, the group reads outcomes again that the record lacks. Until they
    are applied nothing is admitted, claimed or given up. As a rule there is nothing to be read, and it is
    over as it begins. While Kafka is away at the start nobody can know, and nothing is held back. Once it is
    known that there is something to be read, only time without progress ends it early. Time in which outcomes
    cannot be applied does not count: they are applied later, and what was held back must not overtake them.
    """

    def __init__(
        self,
        brokers: Brokers,
        topic: str,
        *,
        failed_at: Callable[[], float | None],
        prove: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``topic`` is the name of that of the outcomes.

        ``failed_at`` says when this worker last failed to apply outcomes, by ``clock``. ``prove`` raises
        whatever prevents that outcomes are applied, by this worker or by another that has the partition.
        """
        self._brokers = brokers
        self._topic = topic
        self._refused_at = failed_at
        self._prove = prove
        self._clock = clock
        self._over = asyncio.Event()

    async def over(self) -> None:
        """Wait until it is over."""
        await self._over.wait()

    def check(self) -> None:
        """Return if it is over.

        Raises:
            Outage: it is not.
        """
        if not self._over.is_set():
            raise Outage("outcomes of before are still being read")

    async def run(self) -> None:
        """Find out, then stay until the worker ends."""
        try:
            await self._read()
        except Outage as error:
            log.warning("replay.unknown", error=str(error))
        finally:
            self._over.set()
            await self._brokers.close()
        await asyncio.Event().wait()

    async def _read(self) -> None:
        partitions = await self._brokers.partitions([self._topic])
        places = [(self._topic, number) for number in partitions.get(self._topic, ())]
        starts, ends = await self._brokers.begins(places), await self._brokers.ends(places)
        seen, since = await self._behind(starts, ends), self._clock()
        proven = since
        behind: int | None = seen
        if behind:
            log.info("replay.waited", behind=behind)
        while behind != 0:
            await asyncio.sleep(PAUSE_SECONDS)
            behind = await self._behind_if_known(starts, ends)
            if behind is not None and behind != seen:
                log.info("replay.waited", behind=behind)
                seen, since = behind, self._clock()
                continue
            if self._clock() - proven >= PROOF_SECONDS:
                if not await self._can_apply():
                    since = self._clock()
                proven = self._clock()
            since = max(since, self._refused_at() or since)
            if self._clock() - since > PATIENCE_SECONDS:
                log.warning("replay.given_up", behind=seen)
                return

    async def _behind_if_known(self, starts: dict[Partition, int], ends: dict[Partition, int]) -> int | None:
        """How many outcomes are not applied yet; ``None`` while Kafka does not say."""
        try:
            return await self._behind(starts, ends)
        except Outage as error:
            log.warning("replay.unknown", error=str(error))
            return None

    async def _can_apply(self) -> bool:
        try:
            await self._prove()
        except Exception as error:  # whatever prevents it, it is the same for outcomes
            log.warning("replay.refused", error=repr(error))
            return False
        return True

    async def _behind(self, starts: dict[Partition, int], ends: dict[Partition, int]) -> int:
        committed = (await self._brokers.group()).committed
        return sum(
            max(0, end - max(committed.get(place, 0), starts.get(place, 0))) for place, end in ends.items()
        )
