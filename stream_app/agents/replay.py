"""Whether the outcomes that Kafka had as this worker started are on record."""

import asyncio
import time

import structlog

from stream_app.brokers import Brokers, Place
from stream_app.errors import Outage

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
"""How long to wait while the group reads nothing."""


class Replay:
    """Holds back what would do a job again whose end is still to be read.

    After the state database was restored, the group reads outcomes again that the record lacks. Until they
    are applied nothing is admitted, claimed or given up. As a rule there is nothing to be read, and it is
    over as it begins. While Kafka is away nobody can know, and nothing is held back.
    """

    def __init__(self, brokers: Brokers, topic: str) -> None:
        """``topic`` is the name of that of the outcomes."""
        self._brokers = brokers
        self._topic = topic
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
        seen, since = -1, time.monotonic()
        while behind := await self._behind(starts, ends):
            if behind != seen:
                log.info("replay.waited", behind=behind)
                seen, since = behind, time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                log.warning("replay.given_up", behind=behind)
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _behind(self, starts: dict[Place, int], ends: dict[Place, int]) -> int:
        committed = (await self._brokers.group()).committed
        return sum(
            max(0, end - max(committed.get(place, 0), starts.get(place, 0))) for place, end in ends.items()
        )
