"""JSON Schemas of the events, made from the models of the contract. Does no I/O."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from stream_app.jobs.states import OUTCOMES, Status
from streaming_exporter.events import DownloadData, Event, EventType, ExportRequest, LifecycleData, TickData
from streaming_exporter.payloads import CancelData

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

STATUS_OF = {
    EventType.ACCEPTED: Status.PENDING,
    EventType.STARTED: Status.PROCESSING,
    EventType.PROGRESSED: Status.PROCESSING,
    **OUTCOMES,
}
"""The value of ``data.status`` in each type of lifecycle event."""

KNOWN: dict[EventType, tuple[str, ...]] = {
    EventType.STARTED: ("started_at",),
    EventType.PROGRESSED: ("started_at", "row_count"),
    EventType.COMPLETED: (
        "row_count", "file_size", "sha256", "bucket", "key", "content_type", "file_name", "as_of",
        "started_at", "completed_at", "expires_at",
    ),
    EventType.FAILED: ("completed_at", "error"),
    EventType.CANCELLED: ("completed_at",),
    EventType.EXPIRED: ("completed_at", "expires_at"),
}  # fmt: skip
"""The fields that ``data`` of each type always has, in addition to those of all lifecycle events."""


class Plain(GenerateJsonSchema):
    """Generates schemas without titles of fields, which only repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def event_schema(kind: EventType) -> Schema:
    """Return the schema of a whole message of this type; ``$defs`` has all that it refers to."""
    envelope = _model_schema(Event, "validation")
    fields: Schema = envelope["properties"]
    _state_envelope(fields)
    data, definitions = _data_schema(kind)
    fields["type"] = {"type": "string", "const": kind.value}
    required = ["specversion", "id", "source", "type"]
    if kind is EventType.REQUESTED:
        fields["id"] = {"type": "string", "format": "uuid", "description": "The job's id, and the Kafka key"}
    elif kind is not EventType.TICK:
        fields["subject"] = {"type": "string", "format": "uuid", "description": "The job's id, the Kafka key"}
        required.append("subject")
    fields["data"] = data
    if kind is not EventType.CANCEL_REQUESTED:
        required.append("data")
    return {
        "$schema": DIALECT,
        "title": kind.value,
        "type": "object",
        "properties": fields,
        "required": required,
        **({"$defs": definitions} if definitions else {}),
    }


def _state_envelope(fields: Schema) -> None:
    """Replace the patterns of the envelope that other languages cannot read."""
    for name in ("subject", "traceparent"):
        fields[name] = {"type": "string"}
    fields["time"] = {"type": "string", "format": "date-time"}
    fields["datacontenttype"] = {"type": "string", "default": "application/json", "description": "Some JSON"}
    fields["traceparent"]["description"] = "W3C Trace Context; copied to all events of the job"


def _data_schema(kind: EventType) -> tuple[Schema, Schema]:
    match kind:
        case EventType.REQUESTED:
            return _split(_model_schema(ExportRequest, "validation"))
        case EventType.CANCEL_REQUESTED:
            return _split(_model_schema(CancelData, "validation"))
        case EventType.TICK:
            return _split(_model_schema(TickData, "validation"))
        case EventType.DOWNLOADED:
            return _split(_model_schema(DownloadData, "serialization"))
        case _:
            data, definitions = _split(_model_schema(LifecycleData, "serialization"))
            data["properties"] = {name: _not_null(field) for name, field in data["properties"].items()}
            data["properties"]["status"] = {"type": "string", "const": STATUS_OF[kind].value}
            data["required"] = ["job_id", "user_id", "export_type", "format", "attempt", "status"]
            data["required"] += KNOWN.get(kind, ())
            return data, definitions


def _model_schema(model: type[BaseModel], mode: JsonSchemaMode) -> Schema:
    return model.model_json_schema(mode=mode, schema_generator=Plain)


def _split(schema: Schema) -> tuple[Schema, Schema]:
    definitions = schema.pop("$defs", {})
    return schema, definitions


def _not_null(field: Schema) -> Schema:
    """Return the field's schema without null: events leave unknown fields out."""
    kept: list[Schema] = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
    if len(kept) != 1:
        return field
    (option,) = kept
    return option | {name: value for name, value in field.items() if name not in ("anyOf", "default")}
