"""TCP keep-alives: a peer that is gone without a word is noticed within half a minute."""

import socket
from typing import Any

IDLE_SECONDS = 10
INTERVAL_SECONDS = 5
PROBES = 3
UNANSWERED_SECONDS = 25
"""How long data that was sent may wait for its acknowledgement before the connection counts as lost."""

_OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_SECONDS),
    ("TCP_KEEPINTVL", INTERVAL_SECONDS),
    ("TCP_KEEPCNT", PROBES),
    ("TCP_USER_TIMEOUT", UNANSWERED_SECONDS * 1_000),
)


def keep_alive(connection: Any) -> None:
    """Set keep-alives and ``TCP_USER_TIMEOUT`` on the socket of an asyncpg connection.

    A connection by Unix socket needs none. What the platform lacks is left at its default.
    """
    found = connection._transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)
