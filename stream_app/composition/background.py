"""Adds the tasks that run beside the agents of a worker."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from stream_app.composition.components import WorkerComponents
from stream_app.composition.sender import create_sender
from stream_app.db.listener import listen
from stream_app.exports.live_datasets import datasets_watcher
from stream_app.exports.sources.monitor import SourceMonitor
from stream_app.garbage_collection import exclude_started_objects
from stream_app.notifications.models import Channel
from stream_app.observability import metrics
from stream_app.retries import retry_until_possible
from stream_app.worker.background_tasks import add_background_tasks
from stream_app.worker.maintenance.bucket_cleaner import CLEANING_LOCK_0_1, BucketCleaner
from stream_app.worker.maintenance.job_cleaner import JobCleaner
from stream_app.worker.maintenance.request_relay import RequestRelay


def add_tasks(worker: WorkerComponents) -> None:
    """Add the tasks that run beside the agents, and what happens when the worker stops."""
    settings, connections, queue = worker.settings, worker.connections, worker.queue
    dispatcher, presence, replay = worker.dispatcher, worker.presence, worker.replay
    storage, sources, plan_sources = connections.storage, connections.sources, connections.plan_sources
    sender = create_sender(settings, connections.database, storage, worker.name, datasets=worker.datasets)
    relay = RequestRelay(queue.admission, worker.producer.publish_all)
    bucket_cleaner = BucketCleaner(queue, storage, settings, worker.datasets)
    job_cleaner = JobCleaner(queue, settings.history)
    monitor = SourceMonitor(sources)
    watcher = datasets_watcher(
        settings, worker.datasets, sources, plan_sources, then=metrics.start_ended_job_series
    )

    async def work() -> None:
        """Claim jobs as soon as the bucket exists. Until then requests are only admitted."""
        await retry_until_possible(storage.run_in_thread, storage.ensure_bucket)
        await replay.wait()
        exclude_started_objects()
        await dispatcher.work()

    async def recover() -> None:
        await replay.wait()
        await dispatcher.recover()

    def tasks() -> tuple[Coroutine[Any, Any, None], ...]:
        return (
            work(),
            dispatcher.heartbeat(),
            presence.run(),
            replay.run(),
            recover(),
            relay.run(),
            queue.clock.run(),
            *(sender.run(channel) for channel in Channel),
            sender.recover_expired(),
            listen(settings, dispatcher.wake, application=worker.name, shared_lock=CLEANING_LOCK_0_1),
            bucket_cleaner.run(),
            job_cleaner.run(),
            monitor.run(),
            watcher.run(),
        )

    async def drain() -> None:
        await asyncio.gather(dispatcher.drain(settings.drain_seconds), sender.drain())
        await presence.leave()

    add_background_tasks(worker.app, tasks, drain=drain, close=connections.close)
