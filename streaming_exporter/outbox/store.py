"""What the relay needs from the database that holds the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streaming_exporter.outbox.entries import Backlog, Entry


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The row of the lease: its owner, and a number that every change increases. 0: there is no row."""

    owner: str | None = None
    version: int = 0


class OutboxStore(Protocol):
    """The outbox in a database. Each method is one short transaction.

    Every method raises :class:`~streaming_exporter.errors.Retryable` where the database does not answer.
    """

    async def lease(self) -> LeaseState:
        """Return the row of the lease."""
        ...

    async def change_lease(self, seen: LeaseState, owner: str | None) -> bool:
        """Give the lease to ``owner``, unless it has changed since ``seen``. Return whether it was given."""
        ...

    async def read(self, count: int, size: int) -> Sequence[Entry]:
        """Return the oldest entries that wait: at most ``count``, and ``size`` bytes or a single entry."""
        ...

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete entries whose events Kafka has acknowledged."""
        ...

    async def refuse(self, entry_id: int, reason: str) -> None:
        """Mark an entry that Kafka refuses for good, so that it no longer waits."""
        ...

    async def backlog(self) -> Backlog:
        """Return how many entries there are."""
        ...

    async def close(self) -> None:
        """Close the connections that the store opened."""
        ...


def within(sizes: Sequence[tuple[int, int]], size: int) -> list[int]:
    """Return the ids of the first entries that together have at most ``size`` bytes, and at least one.

    Args:
        sizes: the id and the bytes of each entry, in their order.
        size: bytes.
    """
    ids: list[int] = []
    for entry_id, length in sizes:
        size -= length
        if ids and size < 0:
            break
        ids.append(entry_id)
    return ids
