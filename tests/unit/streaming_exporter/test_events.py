"""The contract: written events can be read, and invalid events are refused."""

import json
import re
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_exporter.errors import ExporterError, Rejected, Unreadable
from streaming_exporter.event_json import CAN_BE_HUGE
from streaming_exporter.events import (
    TOPIC_OF,
    Event,
    EventType,
    ExportRequest,
    LifecycleData,
    Split,
    Topic,
    cancel_event,
    decode,
    download_event,
    lifecycle_event,
    request_event,
    tick_event,
)
from tests.rows import each_row

JOB = "4f1c2d3e-0000-4000-8000-000000000001"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DOCUMENTED = {
    "specversion": "1.0",
    "id": JOB,
    "source": "/services/billing",
    "type": "export.requested",
    "time": "2026-11-24T06:00:00Z",
    "datacontenttype": "application/json",
    "data": {
        "user_id": "user-17",
        "export_type": "ledger",
        "format": "csv",
        "filters": {"kind": "proof", "created_at": {"gte": "2026-01-01", "lt": "2026-02-01"}},
        "columns": ["id", "kind", "created_at"],
        "options": {"compression": "gzip"},
        "scope": "own",
        "priority": "normal",
        "recipients": ["ops@example.com"],
    },
}

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
requests = st.builds(
    ExportRequest,
    user_id=texts,
    export_type=texts,
    format=texts,
    filters=st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans()), max_size=3),
    columns=st.none() | st.lists(texts, min_size=1, max_size=5),
    split=st.none()
    | st.builds(Split, rows=st.integers(1, 10**15))
    | st.builds(Split, bytes=st.integers(2**20, 10**15)),
    consistency=st.sampled_from(["snapshot", "part"]),
    scope=st.sampled_from(["own", "all", "organisation"]),
    priority=st.sampled_from(["high", "normal", "low"]),
)


def message(**changes: object) -> bytes:
    return json.dumps({**DOCUMENTED, **changes}).encode()


def test_the_documented_request_is_read() -> None:
    event = decode(message())
    request = ExportRequest.parse(event.data)
    assert event.job_id == UUID(JOB)
    assert event.key == JOB.encode()
    assert event.topic is Topic.REQUESTS
    assert request.columns == ["id", "kind", "created_at"]
    assert request.options.compression == "gzip"
    assert request.recipients == ["ops@example.com"]


@given(requests)
def test_a_request_is_equal_after_encoding_and_decoding(request_: ExportRequest) -> None:
    event = request_event(request_, source="/test")
    read = decode(event.encode())
    assert read == event
    assert ExportRequest.parse(read.data) == request_


def test_every_type_has_a_topic_and_is_read_back() -> None:
    data = LifecycleData(job_id=uuid4(), user_id="u", export_type="e", format="csv", status="pending")
    at = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
    events = [
        request_event(ExportRequest(user_id="u", export_type="e", format="csv"), source="/t"),
        cancel_event(uuid4(), source="/t"),
        tick_event(at, source="/t"),
        *(lifecycle_event(kind, data, source="/t") for kind in EventType if TOPIC_OF[kind] is Topic.EVENTS),
        download_event(uuid4(), by="user-2", owner="user-1", source="/t"),
    ]
    assert {event.type for event in events} == set(EventType) == set(TOPIC_OF)
    assert [decode(event.encode()) for event in events] == events
    assert events[2].tick == at
    assert events[2].key == b"tick"


def test_the_same_content_has_the_same_id() -> None:
    data = LifecycleData(
        job_id=uuid4(), user_id="u", export_type="e", format="csv", status="failed", attempt=2
    )
    first = lifecycle_event(EventType.FAILED, data, source="/a")
    again = lifecycle_event(EventType.FAILED, data, source="/b")
    later = lifecycle_event(EventType.FAILED, data.model_copy(update={"attempt": 3}), source="/a")
    assert first.id == again.id
    assert first.id != later.id


def test_valid_cloudevents_are_read() -> None:
    for kind in ("application/json; charset=utf-8", "text/json", "application/vnd.acme+json", "TEXT/X+JSON"):
        assert decode(message(datacontenttype=kind))
        attributes = {"ce_specversion": "1.0", "ce_source": "/a", "ce_id": JOB, "ce_type": "export.requested"}
        headers = {"content-type": kind, **attributes}
        data = b"\xef\xbb\xbf" + json.dumps(DOCUMENTED["data"]).encode()
        assert decode(data, [(name, value.encode()) for name, value in headers.items()]).job_id == UUID(JOB)
    assert decode(b"\xef\xbb\xbf" + message())
    assert decode(message(datacontenttype=None, subject=None, time=None))
    cancel = {"type": "export.cancel_requested", "subject": JOB, "data": None}
    assert decode(message(**cancel)).job_id == UUID(JOB)


def test_unknown_fields_are_ignored() -> None:
    content = {**DOCUMENTED, "tenant": "x", "data": {**DOCUMENTED["data"], "colour": "red"}}  # type: ignore[dict-item]
    assert decode(json.dumps(content).encode()).data["user_id"] == "user-17"


@each_row(
    ("content", "complaint"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"id": NaN}', "not JSON"),
        (b'{"data": {"filters": {"id": [1e400]}}}', "a number that is too large"),
        (b'{"data": {"parameters": {"n": -1E+309}}}', "a number that is too large"),
        (b'{"data": {"parameters": {"n": ' + b"9" * 400 + b".0}}}", "a number that is too large"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "expected a JSON object, got list"),
        (message(type="export.imagined"), "type: expected export.requested"),
        (message(specversion="0.3"), "specversion"),
        (message(id="17"), "id must be the job's UUID, got '17'"),
        *((message(datacontenttype=kind), "datacontenttype") for kind in ("text/xml", "json", "a/json5")),
        (b"\xef\xbb\xbf", "not JSON"),
        (message(data=None), "data.user_id: it is missing"),
        (message(data={"export_type": "ledger", "format": "csv"}), "data.user_id: it is missing"),
        (
            message(data={"user_id": 7, "export_type": "ledger", "format": "csv"}),
            "data.user_id: expected",
        ),
        (message(data={"user_id": "", "export_type": "ledger", "format": "csv"}), "data.user_id"),
        (message(data={"user_id": "u\0", "export_type": "ledger", "format": "csv"}), "NUL"),
        (message(data={"user_id": "\ud800", "export_type": "l", "format": "csv"}), "not JSON"),
        (message(data="x"), "data"),
        (message(type="export.cancel_requested"), "subject must be the job's UUID, got None"),
        (message(type="schedule.tick", data={"at": "noon"}), "data.at"),
        (message(type="export.completed", subject=JOB, data={}), "data.user_id"),
        (json.dumps({key: value for key, value in DOCUMENTED.items() if key != "source"}).encode(), "source"),
    ],
)
def test_an_unreadable_message_has_the_reason(content: bytes | None, complaint: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(content)
    assert complaint in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable):
        decode(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(DOCUMENTED)), json_values)
def test_any_value_in_any_attribute_is_read_or_unreadable(attribute: str, value: object) -> None:
    try:
        event = decode(message(**{attribute: value}))
    except Unreadable as error:
        assert str(error)
    else:
        assert isinstance(event, Event)


@given(st.sampled_from(sorted(DOCUMENTED["data"])), json_values)
def test_any_value_in_any_data_field_is_accepted_or_refused_with_its_name(field: str, value: object) -> None:
    data = {**DOCUMENTED["data"], field: value}  # type: ignore[dict-item]
    try:
        request = ExportRequest.parse(decode(message(data=data)).data)
    except Rejected as error:
        assert error.field is not None
        assert error.field.split(".")[0] == field
    except ExporterError as error:
        assert isinstance(error, Unreadable)
    else:
        assert request.user_id


def _nested_tuples(levels: int) -> object:
    """Return what only Python can hold: Kafka carries 200 levels."""
    value: object = ()
    for _ in range(levels):
        value = (value,)
    return value


@each_row(
    ("change", "complaint"),
    [
        ({"split": {}}, "split: it must have exactly one of rows (at least 1) and bytes (at least 1048576)"),
        ({"split": {"rows": 1, "bytes": 2**20}}, "split: it must have exactly one of rows"),
        ({"split": {"row": 1}}, "split: it must have exactly one of rows"),
        ({"split": {"rows": 0}}, "split.rows: expected at least 1, got 0"),
        ({"split": {"rows": "5"}}, "split.rows: expected a whole number, got '5'"),
        ({"split": {"rows": 10**16}}, "split.rows: expected at most 1,000,000,000,000,000"),
        ({"split": {"bytes": 2**20 - 1}}, "split.bytes: expected at least 1,048,576"),
        ({"consistency": "export"}, "consistency: expected snapshot or part, got 'export'"),
        ({"split": 7}, "split: expected an object"),
        ({"filters": ["x"]}, 'filters: expected an object such as {"kind": "proof"}, got [\'x\']'),
        (
            {"filters": {"a": json.loads("[" * 20 + "]" * 20)}},
            "filters: it has too many levels of objects and lists; allowed: 20",
        ),
        (
            {"parameters": {"a": _nested_tuples(3_000)}},
            "parameters: it has too many levels of objects and lists",
        ),
        ({"columns": []}, "columns: name at least one column"),
        ({"scope": "every thing"}, "scope: expected a name of at most 100 letters"),
        (
            {"options": {"compression": "rar"}},
            "options.compression: expected none, gzip or zstd",
        ),
        ({"options": {"delimiter": "ab"}}, "options.delimiter"),
    ],
)
def test_a_refused_request_names_the_field(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(Rejected) as caught:
        ExportRequest.parse({**DOCUMENTED["data"], **change})  # type: ignore[dict-item]
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize("traceparent", [TRACE, "01" + TRACE[2:], "cc" + TRACE[2:] + "-what.comes-later"])
def test_a_trace_context_is_unchanged(traceparent: str) -> None:
    event = decode(json.dumps(DOCUMENTED | {"traceparent": traceparent}).encode())
    assert event.traceparent == traceparent
    assert decode(event.encode()).traceparent == traceparent


@each_row(
    "traceparent",
    [
        "é",
        "",
        7,
        {"trace": TRACE},
        TRACE + "\n",
        TRACE + "\r\nX-Other: 1",
        TRACE + "-more",
        TRACE.upper(),
        TRACE.replace("0af7", "०af7"),
        "ff" + TRACE[2:],
        "01" + TRACE[2:] + "more",
        "01" + TRACE[2:] + "-é",
        "01" + TRACE[2:] + "-" + "x" * 100_000,
        f"00-{'0' * 32}-b7ad6b7169203331-01",
    ],
)
def test_a_trace_context_that_is_not_well_formed_is_none(traceparent: object) -> None:
    event = decode(json.dumps(DOCUMENTED | {"traceparent": traceparent}).encode())
    assert event.traceparent is None
    assert event.identity.user_id == "user-17"


@each_row(
    "claims",
    [
        "acme-secret", 17171, True, ["acme-secret"], {"org": {"id": "acme-secret"}}, {"org": 17171},
        {"org": ["acme-secret", 17171]}, {"org": ["acme-secret", None]}, {"org": "acme-secret" * 100},
        {"org": ["acme-secret"] * 201}, {f"org{number}": "acme-secret" for number in range(51)},
    ],
)  # fmt: skip
def test_no_error_repeats_the_value_of_a_claim(claims: object) -> None:
    """Errors are in records of jobs, lifecycle events, mails and logs, where claims must not be."""
    data = {"user_id": "u", "export_type": "ledger", "format": "csv", "claims": claims}
    with pytest.raises(Rejected, match=r"^claims") as caught:
        ExportRequest.parse(data)
    assert re.search("acme|17171|True", str(caught.value)) is None


def test_the_time_of_a_search_for_huge_numbers_does_not_depend_on_the_digits() -> None:
    def seconds(message: bytes) -> float:
        began = time.process_time()
        assert not CAN_BE_HUGE.search(message)
        return time.process_time() - began

    digits, letters = (b"1" * 299 + b"a") * 1000, b"a" * 300_000
    assert min(seconds(digits) for _ in range(9)) < 4 * min(seconds(letters) for _ in range(9))
