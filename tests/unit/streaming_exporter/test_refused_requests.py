"""A request that the service could not read, or that Kafka refuses, is no outage and no success."""

from typing import Any
from uuid import UUID

import pytest
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from streaming_exporter.errors import ExporterError, PublishError, Rejected, TooLarge, Unreadable
from streaming_exporter.events import ExportRequest, RequestIdentity
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.outbox.entries import MAX_EVENT_BYTES, request_entry
from streaming_exporter.publisher import MAX_BYTES, MAX_FAILURES, Publisher

JOB = UUID("4f1c0de0-0000-4000-8000-000000000001")
GOOD = ExportRequest(user_id="u", export_type="ledger", format="csv")


class Producer:
    """A producer that keeps what it sends, or fails. ``stopped`` counts calls that end it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent: list[bytes] = []
        self.stopped = 0

    async def send_and_wait(self, topic: str, value: bytes, **_: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(value)

    async def stop(self) -> None:
        self.stopped += 1


def publisher_with(producer: Producer) -> Publisher:
    publisher = Publisher(KafkaSettings())
    publisher._producer = producer
    publisher._visible = {"exports.requests"}
    return publisher


def changed(**fields: Any) -> ExportRequest:
    """Return a request that was changed after it was made, in fields that are objects."""
    request = ExportRequest(user_id="u", export_type="ledger", format="csv")
    for name, value in fields.items():
        getattr(request, name).update(value)
    return request


BAD: dict[str, tuple[RequestIdentity, type[ExporterError], str]] = {
    "NUL in a filter": (GOOD.model_copy(update={"filters": {"note": "a\0b"}}), Unreadable, "NUL"),
    "NUL in the user": (RequestIdentity(user_id="a\0b", export_type="l", format="csv"), Unreadable, "NUL"),
    "no Unicode": (changed(filters={"note": "\ud800"}), Unreadable, "Unicode"),
    "1 MB": (
        changed(filters={"id": {"in": ["x" * 900] * 1200}}),
        TooLarge,
        "the request has 1,08.* Shorten its filters",
    ),
    "NaN": (changed(filters={"amount": float("nan")}), Rejected, "^filters: amount is no finite"),
    "wrong claim": (changed(claims={"team": object()}), Rejected, "^claims"),
}


@pytest.mark.parametrize(("request_", "error", "words"), BAD.values(), ids=BAD.keys())
async def test_the_publisher_refuses_what_the_outbox_refuses(
    request_: RequestIdentity, error: type[ExporterError], words: str
) -> None:
    with pytest.raises(error, match=words):
        request_entry(request_, job_id=JOB, source="/test", traceparent=None)
    producer = Producer()
    with pytest.raises(error, match=words):
        await publisher_with(producer).request(request_, JOB)
    assert producer.sent == []


async def test_an_event_that_is_too_large_is_a_publish_error_too() -> None:
    request, *_ = BAD["1 MB"]
    for producer, refused in ((Producer(), request), (Producer(MessageSizeTooLargeError()), GOOD)):
        with pytest.raises(PublishError) as caught:
            await publisher_with(producer).request(refused, JOB)
        assert isinstance(caught.value, TooLarge)
        assert (caught.value.code, caught.value.job_id, caught.value.is_in_doubt) == ("too_large", JOB, False)
        assert producer.sent == []


async def test_the_publisher_sends_what_kafka_takes_by_default() -> None:
    request, producer = changed(filters={"id": {"in": ["x" * 900] * 1150}}), Producer()
    await publisher_with(producer).request(request, JOB)
    assert MAX_EVENT_BYTES < len(producer.sent[0]) < MAX_BYTES


async def test_the_publisher_refuses_a_cancellation_that_the_service_could_not_read() -> None:
    producer = Producer()
    publisher = publisher_with(producer)
    publisher._source = "a\0b"
    with pytest.raises(Unreadable, match="NUL"):
        await publisher.cancel(JOB)
    assert producer.sent == []


REFUSALS = {
    MessageSizeTooLargeError: r"its 2\d\d bytes are more than the brokers allow.*max\.message\.bytes",
    InvalidTopicError: "exports.requests is no name of a topic.*EXPORTER_KAFKA_TOPIC_PREFIX",
    TopicAuthorizationFailedError: "did not take the event .* give the principal the rights",
}


@pytest.mark.parametrize(
    ("error", "words"), REFUSALS.items(), ids=lambda value: getattr(value, "__name__", "")
)
async def test_an_event_that_kafka_refuses_is_no_failure_of_the_connection(
    error: type[Exception], words: str
) -> None:
    producer = Producer(error())
    publisher = publisher_with(producer)
    for _ in range(2 * MAX_FAILURES):
        with pytest.raises(PublishError, match=words) as caught:
            await publisher.request(GOOD, JOB)
        assert "check that it runs" not in str(caught.value)
        assert (caught.value.job_id, caught.value.is_in_doubt) == (JOB, False)
    assert publisher._producer is producer
    await publisher.close()
    assert producer.stopped == 1
