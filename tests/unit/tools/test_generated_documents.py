"""Generated documents are up to date, valid, and agree with the events that the code builds."""

import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_exporter.events import (
    TOPIC_OF,
    EventType,
    ExportRequest,
    LifecycleData,
    Topic,
    cancel_event,
    decode,
    download_event,
    lifecycle_event,
    request_event,
    tick_event,
)
from tests.rows import each_row
from tools import yaml_text
from tools.asyncapi import DEAD_LETTER, FACTS, SUMMARIES, example
from tools.generate import documents
from tools.schemas import KNOWN, STATUS_OF, event_schema

ROOT = Path(__file__).parents[3]
OFFICIAL = Path(__file__).parents[1] / "data" / "asyncapi-3.0.0.schema.json.gz"
"""The official schema, unchanged: https://github.com/asyncapi/spec-json-schemas, Apache-2.0."""

DOCUMENT: dict[str, Any] = yaml_text.load((ROOT / "docs" / "asyncapi.yaml").read_text("utf-8"))
SCHEMAS = {
    kind: json.loads((ROOT / "docs" / "schemas" / f"{kind.value}.json").read_text("utf-8"))
    for kind in EventType
}
VALIDATORS = {
    kind: jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for kind, schema in SCHEMAS.items()
}
JOB = UUID("4f1c2d3e-0000-4000-8000-000000000001")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
times = st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1))


def faults(kind: EventType, message: bytes) -> list[str]:
    return [str(error) for error in VALIDATORS[kind].iter_errors(json.loads(message))]


def test_the_documents_are_up_to_date() -> None:
    stale = [path.name for path, content in documents().items() if path.read_text("utf-8") != content]
    assert not stale, "run `make docs`"


def test_there_are_no_schemas_of_removed_types() -> None:
    assert {path.stem for path in (ROOT / "docs" / "schemas").iterdir()} == {kind.value for kind in EventType}


def official() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(json.loads(gzip.decompress(OFFICIAL.read_bytes())))


def test_the_official_schema_accepts_the_asyncapi_document() -> None:
    validator = official()
    assert [str(error) for error in validator.iter_errors(DOCUMENT)] == []
    assert not validator.is_valid(DOCUMENT | {"operations": {"x": {"action": "publish"}}})


def test_references_exist() -> None:
    references = re.findall(r"\"\$ref\": \"([^\"]+)\"", json.dumps(DOCUMENT))
    assert references
    for reference in references:
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_topic_and_type_is_described_once() -> None:
    assert DOCUMENT["channels"].keys() == set(Topic)
    for topic in Topic:
        expected = {kind.value for kind in EventType if TOPIC_OF[kind] is topic} or {DEAD_LETTER}
        assert DOCUMENT["channels"][topic]["messages"].keys() == expected
    read = {name for name, value in DOCUMENT["operations"].items() if value["action"] == "receive"}
    assert read == {"admitRequests", "startSchedules"}
    assert SUMMARIES.keys() == set(EventType)


@each_row("kind", EventType)
def test_examples_are_valid_and_can_be_read(kind: EventType) -> None:
    (shown,) = DOCUMENT["components"]["messages"][kind]["examples"]
    message = json.dumps(shown["payload"]).encode()
    assert faults(kind, message) == []
    assert decode(message) == example(kind)


@each_row("kind", EventType)
def test_schemas_are_valid_and_refuse_other_types(kind: EventType) -> None:
    assert jsonschema_rs.meta.is_valid(event_schema(kind))
    other = example(EventType.TICK if kind is not EventType.TICK else EventType.REQUESTED)
    assert faults(kind, other.encode())


@given(
    st.builds(
        ExportRequest,
        user_id=texts,
        export_type=texts,
        format=texts,
        filters=st.dictionaries(texts, texts | st.integers() | st.booleans() | st.none(), max_size=3),
        columns=st.none() | st.lists(texts, min_size=1, max_size=5),
        scope=st.sampled_from(["own", "all"]),
        webhook=st.none() | texts,
    )
)
def test_requests_fit_their_schema(request_: ExportRequest) -> None:
    message = request_event(request_, source="/test").encode()
    assert faults(EventType.REQUESTED, message) == []


@given(times, texts)
def test_events_without_options_fit_their_schemas(at: datetime, who: str) -> None:
    assert faults(EventType.TICK, tick_event(at, source="/test").encode()) == []
    assert faults(EventType.CANCEL_REQUESTED, cancel_event(JOB, source="/test").encode()) == []
    downloaded = download_event(JOB, by=who, owner=who, source="/test")
    assert faults(EventType.DOWNLOADED, downloaded.encode()) == []


@given(st.sampled_from(list(STATUS_OF)), texts, times, st.integers(0, 99), st.none() | st.text(max_size=9))
def test_lifecycle_events_fit_their_schemas(
    kind: EventType, who: str, at: datetime, attempt: int, trace: str | None
) -> None:
    known = {name: FACTS[name] for name in KNOWN.get(kind, ())} | {
        "started_at": at,
        "manifest": {"rows": None},
    }
    data = LifecycleData(
        job_id=JOB,
        user_id=who,
        export_type="ledger",
        format="csv",
        attempt=attempt,
        status=STATUS_OF[kind],
        traceparent=trace,
        **known,
    )
    assert faults(kind, lifecycle_event(kind, data).encode()) == []


@pytest.mark.parametrize("kind", [kind for kind in STATUS_OF if KNOWN.get(kind)])
def test_fields_that_an_event_always_has_are_required(kind: EventType) -> None:
    for name in KNOWN[kind]:
        content = json.loads(example(kind).encode())
        del content["data"][name]
        assert any(name in fault for fault in faults(kind, json.dumps(content).encode()))
