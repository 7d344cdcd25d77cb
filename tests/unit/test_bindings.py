"""P16: both modes of the Kafka protocol binding of CloudEvents, as other SDKs write them."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from cloudevents.core.bindings.kafka import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import CloudEvent as OlderEvent
from cloudevents.v1.kafka import to_binary as to_binary_before
from cloudevents.v1.kafka import to_structured as to_structured_before
from hypothesis import given
from hypothesis import strategies as st

from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, EventType, decode
from tests.rows import each_row

DATA = {"user_id": "user-17", "export_type": "ledger", "format": "csv", "filters": {"kind": "Größe, 大小"}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AT = datetime(2026, 11, 24, 6, 0, 0, 123456, tzinfo=UTC)


def attributes(**changed: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/services/billing",
        "type": "export.requested",
        "datacontenttype": "application/json",
        "traceparent": TRACE,
        "partitionkey": "any",
        **changed,
    }


def pairs(headers: Any) -> list[tuple[str, bytes]]:
    """Return the headers in the form of Kafka's clients."""
    return [(name, value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()]


def headers(data_type: str | None = "application/json", **changed: Any) -> list[tuple[str, bytes]]:
    given = attributes(**changed)
    del given["datacontenttype"]
    found = [(f"ce_{name}", value.encode()) for name, value in given.items() if value is not None]
    return found + ([("content-type", data_type.encode())] if data_type else [])


@pytest.mark.parametrize("convert", [to_binary, to_structured])
def test_events_of_the_sdk_are_read(convert: Any) -> None:
    given = attributes()
    message = convert(CloudEvent({**given, "time": AT}, DATA), JSONFormat())
    event = decode(message.value, pairs(message.headers))
    assert (event.id, event.source, event.type) == (given["id"], given["source"], EventType.REQUESTED)
    assert (event.time, event.traceparent, event.data) == (AT, TRACE, DATA)


@pytest.mark.parametrize("convert", [to_binary_before, to_structured_before])
def test_events_of_the_previous_sdk_are_read(convert: Any) -> None:
    given = attributes()
    message = convert(OlderEvent({**given, "time": AT.isoformat()}, DATA))
    event = decode(message.value, pairs(message.headers))
    assert (event.id, event.time, event.traceparent, event.data) == (given["id"], AT, TRACE, DATA)


@pytest.mark.parametrize(
    ("time", "read"),
    [
        ("2026-11-24T06:00:00Z", datetime(2026, 11, 24, 6, tzinfo=UTC)),
        ("2026-11-24T06:00:00.123456789Z", AT),  # Java and Go write nanoseconds
        ("2026-11-24T07:00:00.123456+01:00", AT),
    ],
)
def test_times_of_other_languages_are_read(time: str, read: datetime) -> None:
    assert decode(json.dumps(DATA).encode(), headers(time=time)).time == read
    assert decode(json.dumps(attributes(time=time) | {"data": DATA}).encode()).time == read


@pytest.mark.parametrize(
    "media_type", ["application/cloudevents+json", "application/CloudEvents+JSON; charset=utf-8"]
)
def test_the_media_type_decides_before_the_headers(media_type: str) -> None:
    """The specification allows a structured message to repeat attributes in headers."""
    given = attributes()
    named = [("content-type", media_type.encode()), ("ce_specversion", b"1.0"), ("ce_id", b"other")]
    assert decode(json.dumps(given | {"data": DATA}).encode(), named).id == given["id"]


@pytest.mark.parametrize(
    "named", [[], [("content-type", b"application/json")], [("x", None)], [("x", b"\xff")]]
)
def test_a_structured_event_needs_no_media_type(named: list[tuple[str, bytes | None]]) -> None:
    assert decode(json.dumps(attributes() | {"data": DATA}).encode(), named).data == DATA


def test_a_cancellation_needs_no_data() -> None:
    job = uuid4()
    for value in (None, b"", b"null", b"{}"):
        event = decode(value, headers(None, type="export.cancel_requested", subject=str(job)))
        assert event.job_id == job


def test_a_trace_in_a_separate_header_is_followed() -> None:
    """OpenTelemetry's instrumentation of Kafka clients sends it. The event's own attribute comes first."""
    alone = [*headers(traceparent=None), ("traceparent", TRACE.encode())]
    assert decode(json.dumps(DATA).encode(), alone).traceparent == TRACE
    both = [*headers(), ("traceparent", TRACE.replace("b7", "c7").encode())]
    assert decode(json.dumps(DATA).encode(), both).traceparent == TRACE


@each_row(
    ("value", "named", "complaint"),
    [
        (b"[]", [("content-type", b"application/cloudevents-batch+json")], "is a batch of events"),
        (b"[]", [], "got list; publish each event as its own message"),
        (b"x", [("content-type", b"application/cloudevents+avro")], "allowed: application/cloudevents+json"),
        (
            json.dumps(attributes() | {"data_base64": "e30="}).encode(),
            [],
            "data_base64: binary data is not read",
        ),
        (b"x", headers("application/avro"), "datacontenttype: "),
        (b"x", headers(), "not JSON"),
        (b"[1]", headers(), "data: expected an object"),
        (None, headers(), "data.user_id: it is missing"),
        (b"{}", headers(id=None), "id: it is missing"),
        (b"{}", headers(source=None), "source: it is missing"),
        (b"{}", headers(specversion="0.3"), "specversion: "),
        (b"{}", headers(id="17"), "id must be the job's UUID"),
        (b"{}", headers(time="noon"), "time: "),
        (b"{}", headers(source="/a\0"), "NUL"),
        (json.dumps({**DATA, "user_id": "\0"}).encode(), headers(), "NUL"),
        (b"{}", [*headers(), ("ce_source", b"\xff")], "header ce_source: not UTF-8"),
        (b"{}", [*headers(), ("content-type", b"\xff")], "header content-type: not UTF-8"),
    ],
)
def test_an_unreadable_message_has_the_reason(
    value: bytes | None, named: list[tuple[str, bytes | None]], complaint: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(value, named)
    assert complaint in str(caught.value)


@given(
    st.none() | st.binary(max_size=50),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["ce_specversion", "ce_id", "ce_type", "ce_time", "content-type", "traceparent", "x"]
            ),
            st.none() | st.binary(max_size=20) | st.sampled_from([b"1.0", b"export.requested"]),
        ),
        max_size=8,
    ),
)
def test_any_headers_are_read_or_unreadable(
    value: bytes | None, named: list[tuple[str, bytes | None]]
) -> None:
    try:
        assert isinstance(decode(value, named), Event)
    except Unreadable as error:
        assert str(error)
