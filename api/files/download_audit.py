"""Records downloads: a line in the log, and an event for systems that keep an audit trail."""

import asyncio
from types import TracebackType
from typing import Self

import structlog

from stream_app.jobs.models import ExportJob
from streaming_exporter.errors import PublishError
from streaming_exporter.events import download_event
from streaming_exporter.publisher import Publisher

log = structlog.get_logger(__name__)

MAX_PUBLISHING = 1000
"""Limit of events that wait for Kafka. Further downloads are only logged."""


class DownloadAudit:
    """Logs downloads and publishes their events.

    The log line is the record, because a download does not wait for Kafka and does not fail with it.
    """

    def __init__(self, publisher: Publisher, *, source: str) -> None:
        self._publisher = publisher
        self._source = source
        self._publishing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.settle()

    def downloaded(self, job: ExportJob, number: int, *, by: str, method: str) -> None:
        """Record that ``by`` got a link to one of the job's files. A link for HEAD is only logged."""
        log.info(
            "download.link_issued",
            user_id=by,
            job_id=str(job.id),
            owner=job.user_id,
            method=method,
            number=number,
        )
        if method == "GET" and len(self._publishing) < MAX_PUBLISHING:
            task = asyncio.create_task(self._publish(job, by))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def settle(self) -> None:
        """Wait until each waiting event is published or has failed."""
        if self._publishing:
            await asyncio.wait(self._publishing)

    async def _publish(self, job: ExportJob, by: str) -> None:
        try:
            await self._publisher.publish(
                download_event(job.id, by=by, owner=job.user_id, source=self._source)
            )
        except PublishError as error:
            log.warning("download.publish_failed", job_id=str(job.id), user_id=by, error=str(error))
