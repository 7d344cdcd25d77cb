"""A relay that kills itself at one step, as ``kill -9`` would: ``doomed_relay.py STEP DATABASE_URL``."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.outbox.lease import Lease
from streaming_exporter.outbox.relay import Relay
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore, open_engine
from streaming_exporter.publisher import Publisher

BEFORE, AFTER = "before", "after"
STEPS: dict[str, tuple[type, str, str]] = {
    "before the lease": (SqlAlchemyStore, "change_lease", BEFORE),
    "with the lease": (SqlAlchemyStore, "change_lease", AFTER),
    "entries are read": (SqlAlchemyStore, "read", AFTER),
    "the first event is published": (Publisher, "publish_raw", AFTER),
    "all are published": (SqlAlchemyStore, "delete", BEFORE),
    "the first batch is deleted": (SqlAlchemyStore, "delete", AFTER),
    "before the lease is released": (Lease, "release", BEFORE),
}


def doom(owner: type, method: str, moment: str) -> None:
    """Make the process die before or after the first call of a method."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def die(*arguments: Any, **named: Any) -> Any:
        if moment == AFTER:
            await original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, method, die)


async def main(step: str, url: str) -> None:
    """Publish what waits, as far as the step."""
    doom(*STEPS[step])
    store = SqlAlchemyStore(open_engine(url))
    await Relay(store, KafkaSettings.from_environment(), batch_entries=8).drain()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
