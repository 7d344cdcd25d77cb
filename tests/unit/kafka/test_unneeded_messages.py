"""Messages that need no handling are acknowledged when they are read, and no others are."""

from types import SimpleNamespace
from uuid import uuid4

import pytest
from faust.types import TP

from stream_app.jobs.states import OUTCOMES
from stream_app.kafka.unneeded_messages import separate
from stream_app.worker.lifecycle_handler import is_without_outcome
from streaming_exporter.events import (
    SOURCE,
    EventType,
    ExportRequest,
    LifecycleData,
    Topic,
    decode,
    lifecycle_event,
    request_event,
)

EVENTS, REQUESTS = TP("exports.events", 0), TP("exports.requests", 0)


def data(**known: object) -> LifecycleData:
    values = {"user_id": "u", "export_type": "ledger", "format": "csv", "status": "processing"}
    return LifecycleData.model_validate({"job_id": uuid4(), **values, **known})


@pytest.mark.parametrize(
    "kind", [EventType.ACCEPTED, EventType.STARTED, EventType.PROGRESSED, *sorted(OUTCOMES)]
)
def test_every_event_of_the_service_without_an_outcome_is_unneeded(kind: EventType) -> None:
    """The beginning of the encoded event decides, so the encoder must keep the order of its fields."""
    value = lifecycle_event(kind, data()).encode()
    assert is_without_outcome(value) is (kind not in OUTCOMES)


@pytest.mark.parametrize("kind", sorted(OUTCOMES))
def test_no_value_of_an_outcome_makes_it_unneeded(kind: EventType) -> None:
    start = lifecycle_event(EventType.STARTED, data()).encode().decode()
    for text in (start, '","type":"export.started",', f'{SOURCE}","type":"export.started","'):
        value = lifecycle_event(
            kind, data(user_id=text[:255], manifest={"filters": {"type": start}})
        ).encode()
        assert not is_without_outcome(value)
        assert decode(value).type is kind


def test_messages_of_others_and_in_other_encodings_are_decoded() -> None:
    value = lifecycle_event(EventType.STARTED, data()).encode()
    others = (
        None,
        b"",
        b" " + value,
        value.replace(b'"/exporter"', b'"/exporter/other"', 1),
        value.replace(b'{"specversion"', b'{"x":1,"specversion"', 1),
        value.replace(b"export.started", b"export.startled", 1),
        request_event(ExportRequest(user_id="u", export_type="t", format="csv"), source=SOURCE).encode(),
    )
    assert not any(map(is_without_outcome, others))
    assert not is_without_outcome(value, [("ce_specversion", b"1.0")])


def test_only_unneeded_messages_of_their_topic_are_taken_out_and_the_order_stays() -> None:
    started = lifecycle_event(EventType.STARTED, data()).encode()
    ended = lifecycle_event(EventType.COMPLETED, data(status="completed")).encode()

    def record(offset: int, value: bytes) -> SimpleNamespace:
        return SimpleNamespace(offset=offset, value=value, headers=())

    records = {
        EVENTS: [record(number, value) for number, value in enumerate((started, ended, started, ended))],
        TP("exports.events", 1): [record(7, started)],
        REQUESTS: [record(5, started)],
    }
    needed, unneeded = separate(records, {Topic.EVENTS: is_without_outcome})
    assert {tp: [one.offset for one in found] for tp, found in needed.items()} == {
        EVENTS: [1, 3],
        REQUESTS: [5],
    }
    assert [(one.tp, one.offset) for one in unneeded] == [
        (EVENTS, 0),
        (EVENTS, 2),
        (TP("exports.events", 1), 7),
    ]
