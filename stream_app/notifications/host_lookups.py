"""Looks up the addresses of hosts that users name, in threads that nothing else needs.

A lookup cannot be cancelled: its thread stays in the resolver of the system, for minutes if a name server
does not answer. The threads of the event loop are few, and all other work of the process uses them.
"""

import asyncio
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from stream_app.notifications.channel import DeliveryFailed

LOOKUPS = 32
"""Limit of the lookups that run at a time. Those whose caller has given up count too."""

USER_LOOKUPS = 4
"""Lookups of one user at a time. It is the number of webhooks of one user that are sent at a time."""

BUSY = "too many names of receivers are being looked up"

Found: TypeAlias = list[
    tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]
]
"""The result of :func:`socket.getaddrinfo`."""


@dataclass(frozen=True, slots=True)
class HostLookups:
    """Lookups of one process, all from one event loop. ``running`` is how many run, by user."""

    running: Counter[str] = field(default_factory=Counter)

    async def find(self, host: str | None, port: int, *, user: str) -> Found:
        """Return what :func:`socket.getaddrinfo` finds for connections to ``host``.

        Args:
            host: the name or the address.
            port: the port.
            user: the user who has named the host.

        Raises:
            DeliveryFailed: too many lookups or threads run. The host was not looked up.
            OSError: the host has no address.
            UnicodeError: the name can never be looked up.
        """
        if self.running[user] >= USER_LOOKUPS or self.running.total() >= LOOKUPS:
            raise DeliveryFailed(BUSY, host_called=False)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Found] = loop.create_future()

        def settle(found: Found | Exception) -> None:
            self.running[user] -= 1
            if not self.running[user]:
                del self.running[user]
            if result.done():  # the caller has given up
                return
            if isinstance(found, Exception):
                result.set_exception(found)
            else:
                result.set_result(found)

        def run() -> None:
            found: Found | Exception
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
            except Exception as error:
                found = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, found)

        # The process must not wait for it when it ends, as it does for the threads of an executor.
        thread = threading.Thread(target=run, name="host-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no further thread
            raise DeliveryFailed(BUSY, host_called=False) from error
        self.running[user] += 1  # the loop calls `settle` later
        return await result
