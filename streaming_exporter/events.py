"""The event contract: topics, types, envelope, encoding and decoding. Does no I/O.

Events are JSON, CloudEvents 1.0 (https://github.com/cloudevents/spec), UTF-8, keyed by job id. They are
written in structured mode and read in both modes of the specification's Kafka protocol binding. In structured
mode the message's value is the whole event. In binary mode the attributes are headers that begin with
``ce_``, and the value is the data. Unknown fields are ignored. An unknown type, or an envelope without the
attributes that the specification requires, raises :class:`~streaming_exporter.errors.Unreadable`.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from streaming_exporter.errors import Unreadable
from streaming_exporter.event_json import has_nul, read_json
from streaming_exporter.payloads import (
    CsvOptions,
    DestinationName,
    DownloadData,
    Encrypt,
    ExportRequest,
    FileData,
    JobError,
    LifecycleData,
    Name,
    Options,
    PdfOptions,
    RequestIdentity,
    Scope,
    Split,
    TickData,
    Values,
    Word,
    read,
)
from streaming_exporter.sent_fields import sent_fields
from streaming_exporter.traceparent import Traceparent
from streaming_exporter.validation import explained

__all__ = [
    "SCHEDULES",
    "SOURCE",
    "TICK_KEY",
    "TOPIC_OF",
    "CsvOptions",
    "DestinationName",
    "DownloadData",
    "Encrypt",
    "Event",
    "EventType",
    "ExportRequest",
    "FileData",
    "JobError",
    "LifecycleData",
    "Name",
    "Options",
    "PdfOptions",
    "RequestIdentity",
    "Scope",
    "Split",
    "TickData",
    "Topic",
    "Values",
    "Word",
    "cancel_event",
    "decode",
    "download_event",
    "lifecycle_event",
    "request_event",
    "tick_event",
]


DEAD_LETTER_HEADERS = ("error", "topic", "partition", "offset")
"""Headers that are added to those of a dead-lettered message: the error, and the place of the message."""

TRUNCATED_HEADER = "cut_from_bytes"
"""Header of a truncated dead letter: how many bytes the message had."""


class Topic(StrEnum):
    """The topics that the service reads or writes."""

    REQUESTS = "exports.requests"
    TICKS = "exports.ticks"
    EVENTS = "exports.events"
    AUDIT = "exports.audit"
    DEAD_LETTERS = "exports.dead-letters"


class EventType(StrEnum):
    """The event types."""

    REQUESTED = "export.requested"
    CANCEL_REQUESTED = "export.cancel_requested"
    TICK = "schedule.tick"
    ACCEPTED = "export.accepted"
    STARTED = "export.started"
    PROGRESSED = "export.progressed"
    COMPLETED = "export.completed"
    FAILED = "export.failed"
    CANCELLED = "export.cancelled"
    EXPIRED = "export.expired"
    DOWNLOADED = "export.downloaded"


TOPIC_OF: dict[EventType, Topic] = {
    EventType.REQUESTED: Topic.REQUESTS,
    EventType.CANCEL_REQUESTED: Topic.REQUESTS,
    EventType.TICK: Topic.TICKS,
    EventType.ACCEPTED: Topic.EVENTS,
    EventType.STARTED: Topic.EVENTS,
    EventType.PROGRESSED: Topic.EVENTS,
    EventType.COMPLETED: Topic.EVENTS,
    EventType.FAILED: Topic.EVENTS,
    EventType.CANCELLED: Topic.EVENTS,
    EventType.EXPIRED: Topic.EVENTS,
    EventType.DOWNLOADED: Topic.AUDIT,
}
"""The topic of each type."""

TICK_KEY = "tick"

SOURCE = "/exporter"
"""The ``source`` of events that the service publishes; source and id together identify an event."""

SCHEDULES = f"{SOURCE}/schedules"
"""The ``source`` of a schedule's requests begins with this."""


JSON_TYPE = explained(
    r"^(?i:[\w.+-]+/([\w.+-]+\+)?json)\s*(;.*)?$", "a content type of JSON, such as application/json"
)
JsonType = Annotated[str, StringConstraints(pattern=JSON_TYPE)]


class _Data(BaseModel):
    """The media type of the data."""

    datacontenttype: JsonType


class Event(BaseModel):
    """One CloudEvents envelope."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    source: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    type: EventType
    subject: str | None = None
    time: AwareDatetime | None = None
    datacontenttype: JsonType = "application/json"
    traceparent: Traceparent = None
    data: dict[str, Any] = Field(default_factory=dict, repr=False)
    """It is not in the text of the event, because it can have the URLs and claims of a request."""

    @property
    def topic(self) -> Topic:
        """The topic of this event."""
        return TOPIC_OF[self.type]

    @property
    def key(self) -> bytes:
        """The Kafka key: the job id, or ``tick``."""
        return (TICK_KEY if self.type is EventType.TICK else str(self.job_id)).encode()

    @cached_property
    def job_id(self) -> UUID:
        """The id of the event's job: ``id`` of a request, ``subject`` of other events.

        Raises:
            Unreadable: that attribute is no UUID.
        """
        name = "id" if self.type is EventType.REQUESTED else "subject"
        value = getattr(self, name)
        try:
            return UUID(value)
        except (TypeError, ValueError) as error:
            raise Unreadable(f"{self.type}: {name} must be the job's UUID, got {value!r}") from error

    @cached_property
    def identity(self) -> RequestIdentity:
        """The user, the dataset and the format of a request.

        Raises:
            Unreadable: ``user_id``, ``export_type`` or ``format`` is missing or unusable.
        """
        return read(RequestIdentity, self.data, "data")

    @cached_property
    def lifecycle(self) -> LifecycleData:
        """The payload of a lifecycle event.

        Raises:
            Unreadable: a field is missing or has a wrong type.
        """
        return read(LifecycleData, self.data, "data")

    @property
    def tick(self) -> datetime:
        """The minute that a tick stands for, in UTC.

        Raises:
            Unreadable: ``data.at`` is missing or is no time with an offset.
        """
        return read(TickData, self.data, "data").at.astimezone(UTC)

    def encode(self) -> bytes:
        """Return the event as the value of a Kafka message."""
        return self.model_dump_json(exclude_none=True).encode()


Headers = Iterable[tuple[str, bytes | None]]
"""Headers of a Kafka message, in their order. If several have the same name, the last one counts."""

CONTENT_TYPE = "content-type"
ATTRIBUTE = "ce_"
"""The prefix of headers that hold an attribute, in binary mode."""


def decode(message: bytes | None, headers: Headers = ()) -> Event:
    """Decode one message, in structured or binary mode.

    Raises:
        Unreadable: it is no JSON, no CloudEvent, or of an unknown type; its data lacks a field that its type
            requires; or it holds NUL characters or infinite numbers, which PostgreSQL cannot store.
    """
    values = {name.lower(): value for name, value in headers if value is not None}
    media_type = _text(values, CONTENT_TYPE).partition(";")[0].strip().lower()
    if media_type.startswith("application/cloudevents-batch"):
        raise Unreadable(f"content-type: {media_type} is a batch of events; publish each as its own message")
    is_structured = media_type.startswith("application/cloudevents")
    if is_structured and media_type not in {"application/cloudevents", "application/cloudevents+json"}:
        raise Unreadable(f"content-type: {media_type} is not read; allowed: application/cloudevents+json")
    if not is_structured and f"{ATTRIBUTE}specversion" in values:
        content = _binary(message, values)
    else:
        content = _structured(message)
    if "traceparent" in values:
        content.setdefault("traceparent", values["traceparent"].decode("ascii", "replace"))
    event = read(Event, content)
    _check_data(event)
    return event


def _structured(message: bytes | None) -> dict[str, Any]:
    """Return attributes and data of a message in structured mode."""
    if not message:
        raise Unreadable("the message is empty")
    content = read_json(message)
    if not isinstance(content, dict):
        hint = "; publish each event as its own message" if isinstance(content, list) else ""
        raise Unreadable(f"not a CloudEvent: expected a JSON object, got {type(content).__name__}{hint}")
    if content.get("data_base64") is not None:
        raise Unreadable("data_base64: binary data is not read; put a JSON object into data")
    return {name: value for name, value in content.items() if value is not None}


def _binary(message: bytes | None, headers: dict[str, bytes]) -> dict[str, Any]:
    """Return attributes and data of a message in binary mode."""
    content: dict[str, Any] = {
        name.removeprefix(ATTRIBUTE): _text(headers, name) for name in headers if name.startswith(ATTRIBUTE)
    }
    content.pop("data", None)
    if CONTENT_TYPE in headers:
        content["datacontenttype"] = _text(headers, CONTENT_TYPE)
    if "datacontenttype" in content:
        _ = read(_Data, content)  # refuse another media type before the data is parsed as JSON
    if has_nul(content):
        raise Unreadable("contains a NUL character, which cannot be stored")
    if message:
        content["data"] = read_json(message)
        if content["data"] is None:
            del content["data"]
    return content


def _text(headers: dict[str, bytes], name: str) -> str:
    try:
        return headers.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"header {name}: not UTF-8: {error}") from error


def _check_data(event: Event) -> None:
    match event.type:
        case EventType.TICK:
            _ = event.tick
        case EventType.REQUESTED:
            _ = event.job_id, event.identity
        case EventType.CANCEL_REQUESTED | EventType.DOWNLOADED:
            _ = event.job_id
        case _:
            _ = event.job_id, event.lifecycle


def request_event(
    request: RequestIdentity, *, job_id: UUID | None = None, source: str, traceparent: str | None = None
) -> Event:
    """Make an ``export.requested`` event. Publishing it twice requests one job.

    Raises:
        Rejected: a field of the request has become invalid since it was made.
    """
    return Event(
        id=str(job_id or uuid4()),
        source=source,
        type=EventType.REQUESTED,
        time=datetime.now(UTC),
        traceparent=traceparent,
        data=sent_fields(request),
    )


def cancel_event(
    job_id: UUID, *, source: str, by: str | None = None, traceparent: str | None = None
) -> Event:
    """Make an ``export.cancel_requested`` event; ``by`` is the user who cancels, where that is known."""
    return Event(
        id=str(uuid4()),
        source=source,
        type=EventType.CANCEL_REQUESTED,
        subject=str(job_id),
        time=datetime.now(UTC),
        traceparent=traceparent,
        data={} if by is None else {"by": by},
    )


def download_event(job_id: UUID, *, by: str, owner: str, source: str) -> Event:
    """Make an ``export.downloaded`` event: ``by`` received a link to the file of a job of ``owner``."""
    return Event(
        id=str(uuid4()),
        source=source,
        type=EventType.DOWNLOADED,
        subject=str(job_id),
        time=datetime.now(UTC),
        data=DownloadData(job_id=job_id, by=by, user_id=owner).model_dump(mode="json"),
    )


def tick_event(at: datetime, *, source: str) -> Event:
    """Make a ``schedule.tick`` event for the minute ``at``."""
    return Event(
        id=str(uuid4()),
        source=source,
        type=EventType.TICK,
        time=datetime.now(UTC),
        data={"at": at.isoformat()},
    )


def lifecycle_event(
    kind: EventType,
    data: LifecycleData,
    *,
    source: str = SOURCE,
    occasion: str = "",
) -> Event:
    """Make a lifecycle event. Its id is computed from job, attempt, type, ``occasion`` and data.

    An event with the same content therefore has the same id, and consumers can drop repetitions. Other
    content has another id. The manifest and the list of files do not count, because they are left out where
    they are too large.
    """
    values = data.model_dump(mode="json", exclude_none=True)
    facts = {name: value for name, value in values.items() if name not in {"manifest", "files"}}
    content = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return Event(
        id=str(uuid5(data.job_id, f"{data.attempt}/{kind}/{occasion}/{content}")),
        source=source,
        type=kind,
        subject=str(data.job_id),
        time=datetime.now(UTC),
        traceparent=data.traceparent,
        data=values,
    )
