"""The claim of a delivery to a destination: what is on record of it, and its renewal during a transfer."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog

from stream_app.destinations.progress import DeliveryProgress
from stream_app.destinations.transfer import Transfer
from stream_app.notifications.channel import DeliveryFailed
from stream_app.notifications.notification import Notification
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.shared_paths import OthersAtPath, SetsAtPath
from stream_app.retries import retry_until_possible
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

RENEWALS = 4
"""How often a claim is renewed within the time of a claim."""

UNRECORDED = "the start of the delivery cannot be recorded"

CLAIM_LOST = "the claim of the delivery is lost, or the job was removed"

OTHERS_UNREADABLE = "the deliveries of other jobs cannot be read"

BUSY = "another export is being sent to the same path"


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """One delivery that this worker has claimed."""

    outbox: Outbox
    notification: Notification

    def held_until(self) -> float:
        """Return until when a claim that is renewed now is certainly held, by :func:`time.monotonic`."""
        return time.monotonic() + self.outbox.lease.total_seconds()

    async def begin(
        self, transfer: Transfer, progress: DeliveryProgress, is_free: Callable[[], Awaitable[bool]]
    ) -> DeliveryProgress | None:
        """Record that the attempt begins to write, and its paths, which all attempts must use.

        Args:
            transfer: the transfer.
            progress: the progress so far.
            is_free: asks the destination whether no file of another job is at the path. It is called if a
                newer job was sent to the destination before that was changed.

        Returns:
            The progress as it was recorded; or ``None`` if the files of a newer job are at the same path,
            which this one must not replace.

        Raises:
            DeliveryFailed: the claim is lost, or another job is being sent to the same path.
        """
        transfer.held_until = self.held_until()
        begun = replace(progress, writing=self.notification.attempt, removed=False)
        if not transfer.shares_paths:
            is_held = await self.record_start(begun)  # what is not on record would never be removed
        else:
            unbegun = replace(progress, removed=False).as_json()
            others = await self._begin_at_path(unbegun)
            if others.is_newer_elsewhere and not others.is_newer:
                async with self.renewed(transfer, self._renew_unchanged):
                    if not await is_free():
                        return None
                transfer.held_until = self.held_until()
                others = await self._begin_at_path(unbegun, is_free=True)
            if others.is_newer:
                return None
            transfer.others_wrote = others.wrote
            is_held = others.is_held
        if not is_held:
            raise DeliveryFailed(CLAIM_LOST, host_called=False)
        return begun

    async def _begin_at_path(self, unbegun: dict[str, Any], *, is_free: bool = False) -> OthersAtPath:
        """Let the attempt begin if no other job forbids it.

        Raises:
            DeliveryFailed: the database is away, or another job is being sent to the same path.
        """
        try:
            others = await self.outbox.begin_at_path(self.notification, unbegun, is_free=is_free)
        except Retryable as error:
            raise DeliveryFailed(OTHERS_UNREADABLE, host_called=False, detail=str(error)) from error
        if others.is_writing:
            raise DeliveryFailed(BUSY, host_called=False)
        return others

    async def _renew_unchanged(self) -> bool:
        return await self.outbox.renew(self.notification, self.notification.progress)

    async def record_start(self, progress: DeliveryProgress) -> bool:
        """Record the progress before the first file is written; return whether the claim holds the delivery.

        Raises:
            DeliveryFailed: the database is away.
        """
        try:
            return await self.outbox.renew(self.notification, progress.as_json())
        except Retryable as error:
            raise DeliveryFailed(UNRECORDED, host_called=False, detail=str(error)) from error

    async def begin_manifest(
        self, transfer: Transfer, progress: DeliveryProgress, is_free: bool
    ) -> bool | None:
        """Record that the attempt begins to write the manifest, whose path other jobs have too.

        Args:
            transfer: the transfer.
            progress: the progress so far.
            is_free: whether the destination has said that no file is at the path.

        Returns:
            Whether to write it. The manifest of a job that was requested later stays. ``None`` if that job
            was sent before the destination was changed: the destination has to be asked first.

        Raises:
            DeliveryFailed: the claim is lost, or another job writes a manifest there.
        """
        path = transfer.manifest_path
        async with transfer.recording:
            begun = replace(progress, manifest=path).as_json()
            try:
                others = await self.outbox.begin_at_path(
                    self.notification, begun, is_free=is_free, key="manifest"
                )
            except Retryable as error:
                raise DeliveryFailed(OTHERS_UNREADABLE, detail=str(error)) from error
            if others.is_held:
                transfer.manifest_begun = path
        if others.is_writing:
            raise DeliveryFailed(BUSY)
        if others.is_newer_elsewhere and not others.is_newer and not is_free:
            return None
        if not others.is_newer and not others.is_held:
            raise DeliveryFailed(CLAIM_LOST)
        if others.is_newer:
            log.info(
                "delivery.manifest_kept",
                delivery=str(self.notification.delivery_id),
                job_id=str(self.notification.job_id),
                destination=transfer.destination.name,
                path=path,
            )
        return not others.is_newer

    async def sets_at_path(self, progress: DeliveryProgress) -> SetsAtPath:
        """Return how many files the sets of other jobs have at the same path.

        Raises:
            DeliveryFailed: the database is away.
        """
        try:
            return await self.outbox.sets_at_path(self.notification, progress.as_json())
        except Retryable as error:
            raise DeliveryFailed(OTHERS_UNREADABLE, detail=str(error)) from error

    async def contents_at_path(self, progress: DeliveryProgress, number: int) -> list[tuple[int, str]]:
        """Return the sizes and digests that files of other jobs with this number have at the same path.

        Raises:
            DeliveryFailed: the database is away.
        """
        try:
            return await self.outbox.contents_at_path(self.notification, progress.as_json(), number)
        except Retryable as error:
            raise DeliveryFailed(OTHERS_UNREADABLE, detail=str(error)) from error

    async def begin_removal(self, transfer: Transfer, progress: DeliveryProgress) -> dict[str, Any] | None:
        """Record that no file is complete, and which files of other jobs at shared paths have to stay.

        Returns:
            What is on record now; ``None`` if another worker has the delivery.
        """
        emptied = replace(progress, files=0, sent=0, sent_files=transfer.most, path=transfer.path)
        none = emptied.as_json()
        if transfer.shares_paths:
            others = await retry_until_possible(
                self.outbox.begin_at_path, self.notification, none, is_removal=True
            )
            transfer.kept = math.inf if others.is_writing else others.files
            transfer.doubtful = others.files_elsewhere
            none |= {} if others.is_writing else {"writing": self.notification.attempt}
            is_held = others.is_held
        else:
            none |= {"writing": self.notification.attempt}
            is_held = await self.record(none)
        if is_held and transfer.shares_manifest:
            none |= {"manifest": transfer.manifest_path}
            others = await retry_until_possible(
                self.outbox.begin_at_path, self.notification, none, is_removal=True, key="manifest"
            )
            transfer.keeps_manifest, is_held = others.is_writing, others.is_held
            none |= {"manifest": None} if others.is_writing else {"writing": self.notification.attempt}
        return none if is_held else None

    async def record(self, progress: dict[str, Any]) -> bool:
        """Record the progress, once the database answers; return whether the claim holds the delivery."""
        return await retry_until_possible(self.outbox.record, self.notification, progress)

    async def renew(self, progress: DeliveryProgress) -> bool:
        """Record the progress. If the database is away, the files are possibly sent once more."""
        try:
            return await self.outbox.renew(self.notification, progress.as_json())
        except Retryable as error:
            log.info(
                "delivery.progress_unrecorded",
                delivery=str(self.notification.delivery_id),
                error=str(error),
            )
            return True

    @asynccontextmanager
    async def renewed(self, transfer: Transfer, renew: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
        """Renew the claim with ``renew`` during the block, which runs ``transfer``."""
        heartbeat = asyncio.create_task(self._heartbeat(transfer, renew))
        try:
            yield
        finally:
            heartbeat.cancel()

    async def _heartbeat(self, transfer: Transfer, renew: Callable[[], Awaitable[bool]]) -> None:
        """Renew the claim, and stop the transfer if it is lost or cannot be renewed in time."""
        pause = self.outbox.lease.total_seconds() / RENEWALS
        while True:
            await asyncio.sleep(pause)
            if time.monotonic() > transfer.held_until:  # the worker was frozen
                transfer.stopped.set()
                return
            renewed_until = self.held_until()
            held = True
            try:
                held = await renew()
                transfer.held_until = renewed_until
            except Retryable as error:
                log.warning(
                    "delivery.renewal_failed", delivery=str(self.notification.delivery_id), error=str(error)
                )
            if not held or time.monotonic() > transfer.held_until - pause:
                transfer.stopped.set()
                return
