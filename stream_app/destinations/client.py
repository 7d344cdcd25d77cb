"""The delivery client of destinations: sends the files of a job, and keeps its claim while it does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog

from stream_app.datasets.caller import Caller
from stream_app.datasets.destinations import Destination
from stream_app.datasets.registry import Datasets
from stream_app.destinations.delivery_claim import CLAIM_LOST, DeliveryClaim
from stream_app.destinations.errors import IN_USE, DestinationError, FileUnavailable, TransferInterrupted
from stream_app.destinations.placement import further_paths, manifest_of, outgoing_files, path_facts
from stream_app.destinations.progress import DeliveryProgress, elsewhere, files_at, text_of_left
from stream_app.destinations.transfer import Transfer
from stream_app.exports.task import ExportedFile
from stream_app.jobs.job_files import JobFiles
from stream_app.jobs.models import ExportJob
from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused
from stream_app.notifications.notification import Notification, RequestSummary
from stream_app.notifications.outbox import Outbox
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Retryable

T = TypeVar("T")

log = structlog.get_logger(__name__)

THREADS = 4
"""Transfers that one worker runs at a time."""

PAGE = 500
"""Files that are read from the list of a job's files at a time."""

UNKNOWN_TYPE = "application/octet-stream"
"""The media type of a file whose format this version does not know."""

REPLACED = "replaced by a newer export, which has the same path"

STOPPED = "the worker was stopped during the transfer, which continues"


class DestinationClient:
    """Sends finished files to the destinations of the datasets file.

    A claim is renewed while files are sent. Without a renewal the transfer ends, because another worker can
    have claimed the delivery.
    """

    def __init__(
        self, settings: Settings, outbox: Outbox, storage: ObjectStore, files: JobFiles, datasets: Datasets
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._storage = storage
        self._files = files
        self._datasets = datasets
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="destination")
        self._running: set[Transfer] = set()
        self._stopping = False

    async def send(self, notification: Notification) -> None:
        """Send the files of one job. The errors are those of :meth:`.DeliveryClient.send`."""
        requested = notification.requested
        if requested is None:
            raise DeliveryRefused(notification.skip_reason or "the record of the job was deleted")
        destination = self._destination(notification)
        progress = DeliveryProgress.of(notification, requested, destination)
        if notification.skip_reason is not None:
            await self._refuse(notification, requested, destination, progress, notification.skip_reason)
        caller = Caller.of_claims(notification.user_id, requested.claims)
        if not destination.allows(caller, notification.export_type):
            text = "the user cannot use this destination any more"
            await self._refuse(notification, requested, destination, progress, text)
        transfer = await self._transfer(notification, requested, destination, progress)
        await self._run(notification, transfer, progress, requested)

    async def close_idle(self) -> None:
        """Do nothing: each transfer closes its connections at its end."""

    def interrupt(self) -> None:
        """End the transfers in progress soon, because the worker stops."""
        self._stopping = True
        for transfer in self._running:
            transfer.stopped.set()

    def _claim(self, notification: Notification) -> DeliveryClaim:
        return DeliveryClaim(self._outbox, notification)

    def _destination(self, notification: Notification) -> Destination:
        destination = self._datasets.destination(notification.address)
        if destination is None:
            # Another worker possibly has a newer datasets file.
            text = f"there is no destination {notification.address!r} any more"
            raise DeliveryFailed(text, host_called=False)
        return destination

    async def _transfer(
        self,
        notification: Notification,
        requested: RequestSummary,
        destination: Destination,
        progress: DeliveryProgress,
    ) -> Transfer:
        try:
            files = await self._list(notification)
        except Retryable as error:
            text = "the list of files cannot be read"
            raise DeliveryFailed(text, host_called=False, detail=str(error)) from error
        if not files:
            raise DeliveryRefused("the record of the job has no file")
        facts = path_facts(notification, requested, progress)
        claim, loop = self._claim(notification), asyncio.get_running_loop()
        try:
            outgoing = outgoing_files(destination, facts, files)
            manifest = manifest_of(destination, facts, requested.manifest, files, outgoing)
        except ValueError as error:
            raise DeliveryRefused(f"the files cannot be stored at this destination: {error}") from error

        def known() -> DeliveryProgress:
            located = replace(progress, path=transfer.path, writing=notification.attempt, removed=False)
            return transfer.noted(located)

        def in_loop(call: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(call, loop).result()

        transfer = Transfer(
            job_id=str(notification.job_id),
            destination=destination,
            settings=self._settings,
            storage=self._storage,
            files=files,
            outgoing=outgoing,
            manifest=manifest,
            tag=notification.delivery_id.hex[:12],
            attempt=notification.attempt,
            done=min(progress.files, len(files)),
            waits=progress.waits,
            most=min(progress.sent_files, len(files)),
            is_begun=progress.is_begun,
            begin_manifest=lambda is_free: in_loop(claim.begin_manifest(transfer, known(), is_free)),
            further=partial(further_paths, destination, facts, files),
            other_sets=lambda: in_loop(claim.sets_at_path(known())),
            other_contents=lambda number: in_loop(claim.contents_at_path(known(), number)),
            upload=progress.upload,
        )
        transfer.earlier = progress.earlier_files(transfer.path, len(files))
        transfer.record = self._recorder(transfer, lambda: claim.renew(known()))
        # Afterwards the same paths have new files, so without a record nothing is written.
        transfer.record_look = self._recorder(transfer, lambda: claim.record_start(known()))
        return transfer

    def _recorder(self, transfer: Transfer, write: Callable[[], Awaitable[bool]]) -> Callable[[], None]:
        """Return a function for the thread of the transfer, which records its progress with ``write``."""
        loop = asyncio.get_running_loop()

        async def written() -> bool:
            async with transfer.recording:
                return await write()

        def record() -> None:
            if not asyncio.run_coroutine_threadsafe(written(), loop).result():
                raise TransferInterrupted(CLAIM_LOST)

        return record

    async def _run(
        self,
        notification: Notification,
        transfer: Transfer,
        progress: DeliveryProgress,
        requested: RequestSummary,
    ) -> None:
        """Run the transfer in a thread.

        Raises:
            DeliveryFailed: it can be retried.
            DeliveryRefused: it cannot be sent.
        """
        if self._stopping:
            raise DeliveryFailed(STOPPED, host_called=False)
        self._running.add(transfer)
        try:
            before = progress = replace(progress, files=transfer.done, path=transfer.path)
            is_free = partial(self._in_thread, transfer.is_path_free)
            begun = await self._claim(notification).begin(transfer, progress, is_free)
            if begun is None:
                left = await self._discard(notification, transfer, progress)
                raise DeliveryRefused(_joined(REPLACED, left))
            progress = begun
            await self._send_in_claim(notification, transfer, progress)
        except TransferInterrupted as error:
            raise DeliveryFailed(STOPPED if self._stopping else str(error)) from error
        except DestinationError as error:
            if error.is_permanent:
                left = await self._discard(notification, transfer, progress)
                raise DeliveryRefused(_joined(str(error), left), detail=error.detail) from error
            if transfer.is_untouched and not transfer.is_same_place and not before.is_begun:
                # Else the place would count as one with files when the destination is moved.
                await self._claim(notification).renew(transfer.settled(before))
            advice = f"; operators: run `exporter destinations test {transfer.destination.name}`"
            raise DeliveryFailed(
                str(error) if str(error) == IN_USE else f"{error}{advice}",
                host_unreachable=error.affects_all,
                detail=error.detail,
            ) from error
        except FileUnavailable as error:
            if error.lost:
                left = await self._discard(notification, transfer, progress)
                raise DeliveryRefused(_joined(str(error), left), detail=error.detail) from error
            raise DeliveryFailed(str(error), detail=error.detail) from error
        except (DeliveryRefused, DeliveryFailed):
            raise
        except Exception as error:  # a transfer can be repeated, so it is not in doubt
            log.exception("delivery.transfer_crashed", delivery=str(notification.delivery_id))
            text = "an internal error; the log of the service has the details"
            raise DeliveryFailed(text, detail=repr(error)) from error
        finally:
            transfer.stopped.set()
            self._running.discard(transfer)

    async def _send_in_claim(
        self, notification: Notification, transfer: Transfer, progress: DeliveryProgress
    ) -> None:
        """Run the transfer in a thread, and renew the claim while it runs."""

        async def renew() -> bool:
            async with transfer.recording:
                return await self._outbox.renew(notification, transfer.noted(progress).as_json())

        # It begins after the start was recorded, so that it does not replace that by older progress.
        try:
            async with self._claim(notification).renewed(transfer, renew):
                await self._in_thread(transfer.run)
        finally:
            if moved := transfer.settled(progress).certainly_elsewhere(transfer.path):
                log.warning(
                    "delivery.moved",
                    delivery=str(notification.delivery_id),
                    job_id=str(notification.job_id),
                    destination=transfer.destination.name,
                    files=sum(earlier.get("files", 0) for earlier in moved),
                    paths=[earlier["path"] for earlier in moved],
                )
        if transfer.surplus_error is not None:
            log.warning(
                "delivery.surplus_left",
                delivery=str(notification.delivery_id),
                job_id=str(notification.job_id),
                destination=transfer.destination.name,
                files=transfer.surplus,
                error=transfer.surplus_error,
            )

    async def _refuse(
        self,
        notification: Notification,
        requested: RequestSummary,
        destination: Destination,
        progress: DeliveryProgress,
        reason: str,
    ) -> None:
        """Remove what earlier attempts have sent, and raise the reason.

        Raises:
            DeliveryRefused: always.
        """
        left = await self._remove_sent(notification, requested, destination, progress)
        raise DeliveryRefused(_joined(reason, left))

    async def retract(self, notification: Notification) -> str | None:
        """Remove the files that the attempts of a delivery have sent."""
        requested, destination = notification.requested, self._datasets.destination(notification.address)
        if not notification.progress:
            return None  # no attempt has begun to send
        if requested is None or destination is None:
            stored = notification.progress
            sent = 0 if stored.get("removed") else files_at(stored)
            return text_of_left(sent, elsewhere(stored.get("left", ())))
        progress = DeliveryProgress.of(notification, requested, destination)
        return await self._remove_sent(notification, requested, destination, progress)

    async def _remove_sent(
        self,
        notification: Notification,
        requested: RequestSummary,
        destination: Destination,
        progress: DeliveryProgress,
    ) -> str | None:
        """Remove what the attempts have sent; return a text on what is left of it."""
        if not progress.is_begun and not progress.left:
            return None
        try:
            transfer = await self._transfer(notification, requested, destination, progress)
        except (DeliveryFailed, DeliveryRefused):
            return text_of_left(progress.sent_files, progress.elsewhere)
        return await self._discard(notification, transfer, progress)

    async def _discard(
        self, notification: Notification, transfer: Transfer, progress: DeliveryProgress
    ) -> str | None:
        """Remove the files that were sent, so that no part of the job is left. Errors are only logged.

        Before it removes a file, it records that no file is complete. So a repeated delivery sends all. Files
        of other jobs at shared paths stay, even with the same content. For a delivery that has not begun to
        write, files are only removed that are found here after its destination got another name. Afterwards
        it records that all was removed.

        Returns:
            A text for the owner of the job if complete files are left, else ``None``.
        """
        progress = transfer.settled(progress)
        transfer.is_begun = progress.is_begun
        if not progress.is_begun and not transfer.can_find_earlier:
            return text_of_left(0, progress.elsewhere)
        claim = self._claim(notification)
        self._running.discard(transfer)  # a worker that stops ends transfers, but no removal
        transfer.stopped.clear()
        transfer.held_until = claim.held_until()
        none = await claim.begin_removal(transfer, progress)
        if none is None:
            return None  # another worker has the delivery

        def reached() -> dict[str, Any]:
            return none | {"left": list(transfer.settled(progress).left)}

        async def renew() -> bool:
            async with transfer.recording:
                return await self._outbox.record(notification, reached())

        transfer.record_look = self._recorder(transfer, lambda: claim.record(reached()))
        # Without a claim, another worker would send the files while they are removed.
        try:
            async with claim.renewed(transfer, renew):
                await self._in_thread(transfer.discard)
        except Exception as error:  # the owner must learn the first error, not this one
            detail = getattr(error, "detail", repr(error))
            log.warning(
                "delivery.discard_failed",
                destination=transfer.destination.name,
                files=transfer.left,
                error=detail,
            )
            return text_of_left(transfer.left, transfer.settled(progress).elsewhere)
        await claim.record(reached() | {"removed": True})
        return text_of_left(0, transfer.settled(progress).elsewhere)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        run = partial(copy_context().run, function)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def _list(self, notification: Notification) -> Sequence[ExportedFile]:
        job = ExportJob(
            id=notification.job_id,
            file_path=notification.file_path,
            file_name=notification.file_name,
            file_count=notification.file_count,
            file_size=notification.file_size,
            row_count=notification.row_count,
            content_type=notification.content_type or UNKNOWN_TYPE,
            sha256=notification.sha256,
        )
        files: list[ExportedFile] = []
        while page := await self._files.list(job, after=files[-1].number if files else 0, limit=PAGE):
            files += page
        return files


def _joined(reason: str, left: str | None) -> str:
    return reason if left is None else f"{reason}; {left}"
