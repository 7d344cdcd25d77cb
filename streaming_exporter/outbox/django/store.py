"""The outbox of the relay in a database of Django's settings."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import Error, IntegrityError, connections, transaction
from django.db.models import Count, Min
from django.utils import timezone

from streaming_exporter.errors import BadSettings
from streaming_exporter.outbox.database_failures import failure_of
from streaming_exporter.outbox.django.models import OutboxEvent, OutboxLease
from streaming_exporter.outbox.entries import LEASE_NAME, Backlog, Entry
from streaming_exporter.outbox.store import LeaseState, within

Result = TypeVar("Result")

CALL_SECONDS = 30.0
"""The longest time of one transaction."""

CREATION = "`manage.py migrate` creates it, with `streaming_exporter.outbox.django` in INSTALLED_APPS"


class DjangoStore:
    """The outbox in the database ``using``; one thread with a connection of its own does the work."""

    def __init__(self, using: str = "default") -> None:
        """Prepare the thread; it connects at the first call.

        Raises:
            BadSettings: the settings of Django have no such database.
        """
        if using not in connections:
            raise BadSettings(
                f"the settings of Django have no database {using!r}; allowed: {', '.join(connections)}"
            )
        self._using = using
        self._thread = ThreadPoolExecutor(1, "outbox")

    async def lease(self) -> LeaseState:
        """Return the row of the lease."""

        def look() -> LeaseState:
            row = OutboxLease.objects.using(self._using).filter(name=LEASE_NAME).first()
            return LeaseState() if row is None else LeaseState(row.owner, row.version)

        return await self._call(look)

    async def change_lease(self, seen: LeaseState, owner: str | None) -> bool:
        """Give the lease to ``owner``, unless it has changed since ``seen``. Return whether it was given."""
        values = {"owner": owner, "version": seen.version + 1}

        def change() -> bool:
            rows = OutboxLease.objects.using(self._using)
            if seen.version:
                return bool(rows.filter(name=LEASE_NAME, version=seen.version).update(**values))
            try:
                with transaction.atomic(using=self._using):
                    rows.create(name=LEASE_NAME, **values)
            except IntegrityError:
                return False
            return True

        return await self._call(change)

    async def read(self, count: int, size: int) -> Sequence[Entry]:
        """Return the oldest entries that wait: at most ``count``, and ``size`` bytes or a single entry."""

        def read() -> list[Entry]:
            rows = self._rows().filter(refusal=None).order_by("id")
            ids = within(list(rows.values_list("id", "size")[:count]), size)
            return [Entry(row.id, row.job_id, row.payload.encode()) for row in rows.filter(id__in=ids)]

        return await self._call(read)

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete entries whose events Kafka has acknowledged."""
        await self._call(lambda: self._rows().filter(id__in=ids).delete())

    async def refuse(self, entry_id: int, reason: str) -> None:
        """Mark an entry that Kafka refuses for good, so that it no longer waits."""
        await self._call(lambda: self._rows().filter(id=entry_id).update(refusal=reason))

    async def backlog(self) -> Backlog:
        """Return how many entries there are."""

        def count() -> Backlog:
            waiting = self._rows().filter(refusal=None).aggregate(count=Count("id"), oldest=Min("created_at"))
            seconds = 0.0
            if waiting["oldest"] is not None:
                seconds = max(0.0, (timezone.now() - waiting["oldest"]).total_seconds())
            refused = self._rows().exclude(refusal=None).count()
            return Backlog(waiting["count"], seconds, refused)

        return await self._call(count)

    async def close(self) -> None:
        """Close the connection of the thread."""
        await self._call(lambda: connections[self._using].close())
        self._thread.shutdown(wait=False)

    def _rows(self) -> Any:
        return OutboxEvent.objects.using(self._using)

    async def _call(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in one transaction.

        Raises:
            Retryable: the database does not answer, or refuses it.
        """
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)
        except (Error, OSError, TimeoutError) as error:
            settings = connections.databases[self._using]
            place = ":".join(str(part) for part in (settings["HOST"], settings["PORT"]) if part)
            raise failure_of(error, place=place or str(settings["NAME"]), creation=CREATION) from error

    def _do(self, work: Callable[[], Result]) -> Result:
        connection = connections[self._using]
        connection.close_if_unusable_or_obsolete()
        try:
            with transaction.atomic(using=self._using):
                return work()
        except Error:
            connection.close()  # the next call connects anew
            raise
