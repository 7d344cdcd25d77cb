"""Calls that stream server-sent events: of one job until it ends, or of all jobs of a user."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from api.auth.authenticator import CurrentUser, User
from api.documented_route import DocumentedRoute
from api.errors import problem_responses
from api.jobs.live_updates import UNFINISHED_LISTED, version
from api.jobs.routes import find_job
from api.jobs.schemas import JobView
from api.middleware.head_requests import IS_HEAD
from api.services import ApiServices, InjectedServices
from stream_app.jobs.states import UNFINISHED

router = APIRouter(tags=["events"], route_class=DocumentedRoute)
log = structlog.get_logger(__name__)

PING_SECONDS = 5
"""A client that hears nothing for longer knows that the service does not answer. The page waits 12 s."""
RETRY_MILLISECONDS = 2000
"""Time after which a client reconnects when its stream has ended early."""
SEND_SECONDS = 30.0
"""Time-out of sending one event to a client."""
LOOK_BACK = timedelta(minutes=1)
"""A resumed stream repeats the changes of this time before its last event. Repetitions do no harm."""
RESUMED = 200
"""Limit of ended jobs that a resumed stream reports."""

LastEventId = Annotated[
    str | None, Header(max_length=100, description="`id` of the last event that the client has received")
]

_STREAM: dict[str, Any] = {
    "description": "Events named `job`. `data` is the job, in the form of GET /exports/jobs/{id}",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'id: 1.0.20000.0\nevent: job\ndata: {"export_job_id": "4f1c…", "row_count": 2}\n\n',
        }
    },
}


class EventStream(EventSourceResponse):
    """A stream that ends when the client's token expires, or when the client does not read."""

    def __init__(self, events: AsyncIterator[ServerSentEvent], user: User) -> None:
        super().__init__(
            events, sep="\n", ping=PING_SECONDS, ping_message_factory=_ping, send_timeout=SEND_SECONDS
        )
        self._seconds = user.expires - time.time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream. HEAD has its headers only."""
        if IS_HEAD in scope.get("state", {}):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("live_updates.client_timed_out")
        except TimeoutError:
            await send({"type": "http.response.body", "body": b""})


@router.get(
    "/exports/jobs/{job_id}/events",
    operation_id="watchExport",
    response_class=Response,
    responses={
        200: _STREAM,
        204: {"description": "The job has ended, and `Last-Event-ID` is its last event. Do not reconnect"},
        **problem_responses(401, 404, 422, 429, 500, 503),
    },
)
async def watch_export(
    job_id: UUID, services: InjectedServices, user: CurrentUser, last_event_id: LastEventId = None
) -> Response:
    """Stream the changes of a job until it ends.

    Sends the job at once and after each change. The event with the final status is the last one.
    """
    job = await find_job(services, user, job_id)
    if job.status not in UNFINISHED and last_event_id == version(job):
        return Response(status_code=204)
    events = _one(services, job_id, last_event_id, data=user.can_see_data(job.user_id))
    return EventStream(events, user)


@router.get(
    "/exports/events",
    operation_id="watchExports",
    response_class=Response,
    responses={200: _STREAM, **problem_responses(401, 422, 429, 500, 503)},
)
async def watch_exports(
    services: InjectedServices, user: CurrentUser, last_event_id: LastEventId = None
) -> Response:
    """Stream the changes of all your jobs.

    Sends your unfinished jobs (at most the newest 500), then every change of your jobs.

    With `Last-Event-ID` it also sends the jobs that have ended since that event.
    """
    await services.job_queries.unfinished(
        user.id
    )  # an outage is reported now, while the status can still be sent
    return EventStream(_every(services, user.id, _moment(last_event_id)), user)


async def _one(
    services: ApiServices, job_id: UUID, last: str | None, *, data: bool
) -> AsyncIterator[ServerSentEvent]:
    with services.live_updates.job(job_id) as subscription:
        # Read after the subscription has begun, so that no change is missed.
        for job in await services.job_queries.get_many([job_id]):
            if version(job) != last or job.status not in UNFINISHED:
                subscription.offer(services.live_updates.update_of(job))
            else:
                subscription.known.setdefault(job_id, version(job))
        async for update in subscription.updates():
            body = update.body if data else JobView.model_validate_json(update.body).without_data()
            yield _event(body if isinstance(body, str) else body.model_dump_json(), update.version)
            if update.ended:
                return
        yield _ended_early()


async def _every(
    services: ApiServices, user_id: str, since: datetime | None
) -> AsyncIterator[ServerSentEvent]:
    with services.live_updates.user(user_id) as subscription:
        ended = (
            await services.job_queries.list_ended_since(user_id, since - LOOK_BACK, RESUMED) if since else []
        )
        unfinished = await services.job_queries.list_unfinished([user_id], UNFINISHED_LISTED)
        for job in [*unfinished, *reversed(ended)]:
            subscription.offer(services.live_updates.update_of(job))
        async for update in subscription.updates():
            yield _event(update.body, str(int(services.clock.now().timestamp() * 1000)))
        yield _ended_early()


def _event(body: str, event_id: str) -> ServerSentEvent:
    return ServerSentEvent(body, event="job", id=event_id)


def _ended_early() -> ServerSentEvent:
    """Return the event that ends a stream early. The next stream starts with the current state."""
    return ServerSentEvent('{"code": "stream_ended"}', event="error", retry=RETRY_MILLISECONDS)


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="still here")


def _moment(event_id: str | None) -> datetime | None:
    """Return the time in the id of a user's event, in milliseconds; ``None`` if the id is not one."""
    if event_id is None or not event_id.isascii() or not event_id.isdigit() or len(event_id) > 13:
        return None
    return datetime.fromtimestamp(int(event_id) / 1000, UTC)
