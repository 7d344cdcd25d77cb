"""Adds the agents of a worker, which handle requests, lifecycle events and ticks."""

from functools import partial
from typing import cast

import faust

from stream_app.composition.components import WorkerComponents
from stream_app.datasets.retention import longest_retention
from stream_app.db.engine import autocommitting
from stream_app.exports.formats.registry import FORMATS
from stream_app.jobs.write_check import write_trial_job
from stream_app.kafka.faust_app import bytes_topic
from stream_app.schedules.run_planner import RunPlanner
from stream_app.worker.batches import Messages, handle_in_batches
from stream_app.worker.lifecycle_handler import LifecycleHandler, is_without_outcome
from stream_app.worker.request_handler import RequestHandler
from stream_app.worker.scheduler import Scheduler
from streaming_exporter.events import Topic

OUTCOMES_INTERVAL = 0.05
"""Seconds from one batch of outcomes to the next while jobs wait for a slot.

Then outcomes come one by one, and several are applied in one transaction. Otherwise each is applied at once.
"""


def add_agents(worker: WorkerComponents) -> None:
    """Add the agents, which handle requests, lifecycle events and ticks."""
    app, settings, queue, producer = worker.app, worker.settings, worker.queue, worker.producer
    replay, check_writes = worker.replay, partial(write_trial_job, queue)
    admission = RequestHandler(queue, producer, worker.validator, settings.history, worker.dispatcher.admit)
    projector = LifecycleHandler(
        queue,
        producer,
        settings.schedule_max_failures,
        mail_limit=settings.user_mail_limit,
        formats=FORMATS,
        history=settings.history,
        kept=lambda: longest_retention(worker.datasets, settings.retention_days),
    )
    scheduler = Scheduler(
        autocommitting(worker.connections.database),
        producer,
        RunPlanner(worker.validator, worker.datasets, settings),
        settings,
        note_progress=lambda: app.note_progress(settings.topic(Topic.TICKS)),
    )

    async def admit(messages: Messages) -> None:
        replay.require_end()
        await admission.handle(messages)

    async def tick(messages: Messages) -> None:
        replay.require_end()
        await scheduler.handle(messages)

    app.unneeded[settings.topic(Topic.EVENTS)] = is_without_outcome

    @app.agent(bytes_topic(app, settings.topic(Topic.REQUESTS)), name="requests")
    async def requests(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(cast(faust.Stream[bytes], stream), admit, producer, check_writes)

    @app.agent(bytes_topic(app, settings.topic(Topic.EVENTS)), name="lifecycle")
    async def lifecycle(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(
            cast(faust.Stream[bytes], stream),
            projector.handle,
            producer,
            check_writes,
            lambda: OUTCOMES_INTERVAL if queue.is_work_left else 0.0,
        )

    @app.agent(bytes_topic(app, settings.topic(Topic.TICKS)), name="ticks")
    async def ticks(stream: faust.StreamT[bytes]) -> None:
        await handle_in_batches(cast(faust.Stream[bytes], stream), tick, producer, check_writes)
