"""Builds the AsyncAPI 3.0 document of the events on Kafka. Does no I/O.

It describes the service from its own side: an operation *receives* the events that others publish.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from streaming_exporter.events import (
    TICK_KEY,
    TOPIC_OF,
    Event,
    EventType,
    ExportRequest,
    JobError,
    LifecycleData,
    Topic,
    cancel_event,
    download_event,
    lifecycle_event,
    request_event,
    tick_event,
)
from tools.schemas import KNOWN, STATUS_OF, Schema, event_schema

JOB_ID = UUID("4f1c2d3e-0000-4000-8000-000000000001")
ASKED = datetime(2026, 11, 24, 6, tzinfo=UTC)
ENDED = ASKED + timedelta(seconds=2)

SUMMARIES = {
    EventType.REQUESTED: "A service requests an export; publishing it twice requests one job",
    EventType.CANCEL_REQUESTED: "Cancels a job or removes its file; it can precede the request",
    EventType.TICK: "A minute began; the runs of schedules that are due are started",
    EventType.ACCEPTED: "The request is recorded",
    EventType.STARTED: "An attempt began; a job that is retried has several",
    EventType.PROGRESSED: "The number of rows so far, about once a second",
    EventType.COMPLETED: "The file is in the object store",
    EventType.FAILED: "The export failed, at once or after the last attempt",
    EventType.CANCELLED: "The job was cancelled",
    EventType.EXPIRED: "The file has expired and was removed",
    EventType.DOWNLOADED: "A user received a link to the file",
}

ACTIONS = {
    Topic.REQUESTS: ("admitRequests", "receive", "Records requests as jobs, and cancels jobs"),
    Topic.TICKS: ("startSchedules", "receive", "Starts the runs of schedules that are due"),
    Topic.EVENTS: ("tellWhatHappened", "send", "Publishes what happens to jobs; each job ends once"),
    Topic.AUDIT: ("tellDownloads", "send", "Publishes who received a link to a file; once, without waiting"),
    Topic.DEAD_LETTERS: ("putAside", "send", "Publishes messages that cannot be read, as they were received"),
}

DEAD_LETTER = "dead-letter"
DEAD_LETTER_HEADERS: Schema = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "maxLength": 1000, "description": "The reason why it cannot be read"},
        "topic": {"type": "string", "description": "The topic of the message"},
        "partition": {"type": "string", "pattern": "^[0-9]+$"},
        "offset": {"type": "string", "pattern": "^[0-9]+$"},
        "cut_from_bytes": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "Its length in bytes, where it is too long to be kept whole",
        },
    },
    "required": ["error", "topic", "partition", "offset"],
}

FACTS: dict[str, Any] = {
    "row_count": 3120,
    "file_size": 401_223,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "bucket": "exports",
    "key": f"jobs/{JOB_ID}/1/ledger-2026-11-24.csv",
    "content_type": "text/csv; charset=utf-8",
    "file_name": "ledger-2026-11-24.csv",
    "as_of": ASKED + timedelta(seconds=1),
    "started_at": ASKED + timedelta(seconds=1),
    "completed_at": ENDED,
    "expires_at": ENDED + timedelta(days=7),
    "error": JobError(code="rejected", message="filters.colour: ledger has no such column"),
}


def example(kind: EventType) -> Event:
    """Return the example of this type; it is the same at each call."""
    match kind:
        case EventType.REQUESTED:
            request = ExportRequest.model_validate(
                {
                    "user_id": "user-17",
                    "export_type": "ledger",
                    "format": "csv",
                    "name": "Proofs of January",
                    "filters": {"kind": "proof", "created_at": {"gte": "2026-01-01", "lt": "2026-02-01"}},
                    "columns": ["id", "kind", "created_at"],
                    "options": {"compression": "gzip"},
                    "recipients": ["ops@example.com"],
                }
            )
            event = request_event(request, job_id=JOB_ID, source="/services/billing")
        case EventType.CANCEL_REQUESTED:
            event = cancel_event(JOB_ID, source="/services/billing")
        case EventType.TICK:
            event = tick_event(ASKED, source="/exporter/ticker")
        case EventType.DOWNLOADED:
            event = download_event(JOB_ID, by="user-17", owner="user-17", source="/exporter/api")
        case _:
            data = LifecycleData(
                job_id=JOB_ID,
                user_id="user-17",
                export_type="ledger",
                format="csv",
                name="Proofs of January",
                attempt=0 if kind is EventType.ACCEPTED else 1,
                status=STATUS_OF[kind],
                **{name: FACTS[name] for name in KNOWN.get(kind, ())},
            )
            event = lifecycle_event(kind, data)
    own_id = event.id if kind is EventType.REQUESTED else str(uuid5(JOB_ID, kind))
    return event.model_copy(update={"id": own_id, "time": ENDED if kind in KNOWN else ASKED})


def document(version: str) -> Schema:
    """Return the document; ``version`` is the version of the contract."""
    schemas: Schema = {}
    messages: Schema = {kind.value: _message(kind, schemas) for kind in EventType}
    messages[DEAD_LETTER] = {
        "title": DEAD_LETTER,
        "summary": "A message that cannot be read, with its bytes and key as received",
        "contentType": "application/octet-stream",
        "headers": DEAD_LETTER_HEADERS,
        "payload": {"description": "The bytes as received; the beginning of a message that is too long"},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Streaming exporter",
            "version": version,
            "description": "Exports of PostgreSQL tables, requested by event. Messages are CloudEvents 1.0 "
            "in structured mode; binary mode is read as well. Delivery is at least once: a repetition has "
            "the same `source` and `id`. "
            "Unknown fields are ignored; messages of unknown types are dead letters. Where "
            "EXPORTER_KAFKA_TOPIC_PREFIX is set, it stands before the name of every topic.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {"kafka": {"host": "{brokers}", "protocol": "kafka", "variables": {"brokers": {
            "default": "127.0.0.1:9092", "description": "The value of EXPORTER_KAFKA_BOOTSTRAP_SERVERS",
        }}}},
        "channels": {topic.value: _channel(topic) for topic in Topic},
        "operations": {
            operation: {
                "action": action,
                "channel": {"$ref": f"#/channels/{topic.value}"},
                "summary": summary,
                "messages": [
                    {"$ref": f"#/channels/{topic.value}/messages/{name}"} for name in _messages_of(topic)
                ],
            }
            for topic, (operation, action, summary) in ACTIONS.items()
        },
        "components": {"messages": messages, "schemas": schemas},
    }  # fmt: skip


def _messages_of(topic: Topic) -> list[str]:
    return [kind.value for kind in EventType if TOPIC_OF[kind] is topic] or [DEAD_LETTER]


def _channel(topic: Topic) -> Schema:
    return {
        "address": topic.value,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages_of(topic)},
        "bindings": {"kafka": {"topic": topic.value, "bindingVersion": "0.5.0"}},
    }


def _message(kind: EventType, schemas: Schema) -> Schema:
    """Return the message; the schemas that it refers to are added to ``schemas``."""
    payload = _with_component_references(event_schema(kind))
    del payload["$schema"]
    schemas.update(payload.pop("$defs", {}))
    schemas[kind.value] = payload
    key: Schema = {"type": "string", "format": "uuid", "description": "The job's id"}
    if kind is EventType.TICK:
        key = {"type": "string", "const": TICK_KEY}
    return {
        "name": kind.value,
        "title": kind.value,
        "summary": SUMMARIES[kind],
        "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
        "payload": {"$ref": f"#/components/schemas/{kind.value}"},
        "examples": [{"payload": example(kind).model_dump(mode="json", exclude_none=True)}],
    }


def _with_component_references(node: Any) -> Any:
    """Return ``node`` with references to the document's components instead of ``$defs``."""
    if isinstance(node, dict):
        return {name: _with_component_references(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_with_component_references(value) for value in node]
    return node.replace("#/$defs/", "#/components/schemas/") if isinstance(node, str) else node
