"""The lease of the relay: of several relays on one outbox a single one publishes, so that order is kept.

The lease is a row with an owner and a version. Its holder increases the version again and again. Another
relay takes the lease when it has seen the same version for the whole time of the lease, by its own clock, so
that clocks need not agree. Databases behind a pooler work too, since no connection holds a lock.
"""

import time
from collections.abc import Callable

from streaming_exporter.outbox.store import LeaseState, OutboxStore


class Lease:
    """The lease as one relay sees it."""

    def __init__(
        self,
        store: OutboxStore,
        owner: str,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without the lease.

        Args:
            store: the outbox.
            owner: a name that no other relay has.
            seconds: how long the lease stays with a holder that no longer renews it.
            clock: seconds of a clock that never goes back.
        """
        self._store = store
        self._owner = owner
        self._seconds = seconds
        self._clock = clock
        self._seen = LeaseState()
        self._seen_at = clock()
        self._renewed_at: float | None = None

    async def hold(self) -> bool:
        """Take or renew the lease where that is due; return whether this relay holds it.

        Raises:
            Retryable: the database does not answer.
        """
        if self._renewed_at is not None and self._clock() - self._renewed_at < self._seconds / 3:
            return True
        self._renewed_at = None
        now = self._clock()
        state = await self._store.lease()
        if state != self._seen:
            self._seen, self._seen_at = state, now
        is_free = state.owner in {None, self._owner} or now - self._seen_at >= self._seconds
        if is_free and await self._store.change_lease(state, self._owner):
            self._renewed_at = now
        return self._renewed_at is not None

    async def release(self) -> None:
        """Give the lease back, if this relay holds it, so that another one need not wait.

        Raises:
            Retryable: the database does not answer.
        """
        self._renewed_at = None
        state = await self._store.lease()
        if state.owner == self._owner:
            await self._store.change_lease(state, None)
