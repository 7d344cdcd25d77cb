"""LISTEN: tells of new work, cancellations and changes the moment they are committed."""

import asyncio
from collections.abc import Callable

import asyncpg
import structlog

from stream_app.jobs.database import connect_to
from stream_app.jobs.store import WAKE_CHANNEL
from stream_app.settings import Settings

log = structlog.get_logger(__name__)


async def listen(
    settings: Settings, wake: Callable[[str], None], *, application: str, channel: str = WAKE_CHANNEL
) -> None:
    """Call ``wake`` with the payload of each notification on ``channel``, for ever, across lost connections.

    It is called with an empty text whenever a connection is there: something may have been missed.
    """
    while True:
        try:
            connection = await connect_to(settings, application=application)
        except (TimeoutError, OSError, asyncpg.PostgresError) as error:
            log.warning("listener.unconnected", error=str(error))
            await asyncio.sleep(1)
            continue
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.add_listener(channel, lambda *args: wake(str(args[3])))
            wake("")
            await lost.wait()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("listener.lost", error=str(error))
        finally:
            connection.terminate()
